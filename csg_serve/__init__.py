"""From a bundle to a running Triton, and measurements through it."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # read when gRPC is imported; its errors come as exceptions too
