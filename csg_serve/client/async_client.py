"""A served model for asynchronous programs.

    from csg_serve import AsyncClient

    async with AsyncClient("localhost:8001") as client:
        answer = await client.predict("a.jpg")

What it answers is in `csg_serve.client.answers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from csg_serve.client.connection import open_model
from csg_serve.client.endpoints import Servers, as_servers
from csg_serve.client.kept_model import KeptModel


class AsyncClient(KeptModel):
    """A served model, for asynchronous programs. The first call opens a connection, which is kept.

    Any number of tasks may use a client, all in one event loop. While no server answers, a call waits up to a minute.

    Args:
        server, model, tls_ca, tls_cert, tls_key, secret: as for `csg_serve.client.client.Client`.

    Example:
        >>> async with AsyncClient("localhost:8001") as client:
        ...     answer = await client.predict("seven.png")
        ...     async for answer in client.predict_iter("photos/*.jpg"):
        ...         print(answer.name, answer.label, answer.probability)
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
        ca, cert, key = (Path(file) if file else None for file in (tls_ca, tls_cert, tls_key))
        servers = Servers(as_servers(server).texts, tls_ca=ca, tls_cert=cert, tls_key=key, secret=secret)
        super().__init__(partial(open_model, servers, model))
