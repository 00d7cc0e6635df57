"""From a bundle to a running Triton, and measurements through it."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # read as gRPC is imported: what it would tell beside comes as an error
