"""Secrets of the control API that `csg serve` made up: the user's own clients on this machine find them."""

from __future__ import annotations

import os
import secrets
from typing import Literal

import psutil

from csg_serve.triton.protocol import SECRET_HEADER

GENERATED = "generated-"
"""Start of a secret that `csg serve` made up. One that the user chose is not looked for: clients are to name it."""


def generate_secret() -> str:
    """Return a new secret that only this user's programs on this machine need to know."""
    return GENERATED + secrets.token_urlsafe(24)


def find_local_secret(protocol: Literal["http", "grpc"], port: int) -> str | None:
    """Return the generated secret of this user's tritonserver at a port of this machine; None if there is none.

    It is read from the command line of the running process: Triton takes it nowhere else, and unlike a file it is never
    older than the server.
    """
    listens, secret = f"--{protocol}-port={port}", f":{SECRET_HEADER}={GENERATED}"
    for process in psutil.process_iter():
        try:
            words = process.cmdline() if process.uids().real == os.getuid() else []
        except psutil.Error:  # ended, or a zombie
            continue
        if listens in words:
            for word in words:
                if word.startswith(f"--{protocol}-restricted-") and secret in word:
                    return GENERATED + word.rpartition(secret)[2]
    return None
