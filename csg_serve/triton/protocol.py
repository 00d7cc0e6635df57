"""What csg and Triton agree on: header names, timeouts of the control API, and how Triton words an error."""

from __future__ import annotations

import re

from csg.errors import one_line

SECRET_HEADER = "csg-secret"
"""HTTP header that carries the secret of the control API."""

GRPC_SECRET_HEADER = f"triton-grpc-protocol-{SECRET_HEADER}"
"""The same header over gRPC, with the prefix that Triton expects."""

POLL_S = 1
"""Seconds between two looks of a polling server at its repository."""

LOAD_TIMEOUT_S = 600
"""Seconds that loading a model may take. Building TensorRT engines takes minutes."""

CONTROL_TIMEOUT_S = 5
"""Seconds that any other call of the control API may take."""


def triton_message(text: str) -> str:
    """Return an error message of Triton on one line, without the Python traceback that may follow it.

    In the log its line breaks are escaped.
    """
    return one_line(re.split(r"(?:\n|\\n){2}At:", text)[0])
