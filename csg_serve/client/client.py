"""A served model for synchronous programs and notebooks.

    from csg_serve import Client

    for answer in Client("localhost:8001").predict("photos/"):
        print(answer.name, answer.label)

What it answers is in `csg_serve.client.answers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from csg_serve.client.async_client import AsyncClient
from csg_serve.client.synchronous import SynchronousModel


class Client(SynchronousModel):
    """A served model, for scripts, notebooks and threads. The first call opens a connection, which is kept.

    It works where an event loop is running too, as in a notebook; there it blocks the loop while it waits, which
    `csg_serve.client.async_client.AsyncClient` does not. Any number of threads may use a client. While no server
    answers, a call waits up to a minute.

    Args:
        server: address of the server, or of several servers of the same model: HOST:PORT (gRPC), grpcs://HOST:PORT,
            http://HOST:PORT or https://HOST/PATH.
        model: name of the model; None for the only csg model on the server.
        tls_ca: PEM file of the certificates to trust; None for the system's.
        tls_cert: PEM file of the client's certificate, for servers that require one.
        tls_key: PEM file of its key.
        secret: secret of the server's control API; predictions don't need it.

    Example:
        >>> client = Client("localhost:8001")
        >>> client.card().classes
        ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
        >>> client.predict("seven.png").label
        '7'
        >>> [answer.label for answer in client.predict(["seven.png", "three.png"])]
        ['7', '3']
    """

    def __init__(
        self,
        server: str | Sequence[str],
        model: str | None = None,
        *,
        tls_ca: str | Path | None = None,
        tls_cert: str | Path | None = None,
        tls_key: str | Path | None = None,
        secret: str | None = None,
    ):
        super().__init__(
            partial(AsyncClient, server, model, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, secret=secret)
        )
