"""A connection over HTTP, for networks that gRPC does not pass, for example behind a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import tritonclient.http.aio
from google.protobuf import json_format
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from csg_serve.client.endpoints import Address, ConnectionSecret, Servers
from csg_serve.client.shared_memory import Region
from csg_serve.client.transport import DEADLINE_S, NOT_TRITON, ErrorKind, Inference, TransportError, transport_error
from csg_serve.triton.protocol import SECRET_HEADER

ANSWERS: dict[str, tuple[Any, str | None]] = {
    "get_model_repository_index": (service_pb2.RepositoryIndexResponse, "models"),
    "get_model_config": (service_pb2.ModelConfigResponse, "config"),
    "get_model_metadata": (service_pb2.ModelMetadataResponse, None),
    "get_inference_statistics": (service_pb2.ModelStatisticsResponse, None),
    "get_system_shared_memory_status": (service_pb2.SystemSharedMemoryStatusResponse, "regions"),
}
"""Message that gRPC answers with, and its field that the HTTP answer consists of; None for the whole message."""
ERROR_KINDS: dict[str, ErrorKind] = {"502": "away", "503": "away", "504": "away", "404": "missing"}
"""Kind of the error for a status code; "refused" for any other."""


class HttpTransport:
    """HTTP. Answers are parsed into the messages that gRPC answers with.

    Raises:
        UsageError, InputError: as `csg_serve.client.endpoints.Servers.ssl_context`.
    """

    def __init__(self, address: Address, servers: Servers):
        context = servers.ssl_context if address.tls else None
        self._client = tritonclient.http.aio.InferenceServerClient(
            address.authority, conn_timeout=None, ssl=address.tls, ssl_context=context
        )
        self.secret = ConnectionSecret(address, servers)

    async def call(self, method: str, *arguments: Any, deadline_s: float = DEADLINE_S) -> Any:
        with _answers_of_triton():
            call = getattr(self._client, method)(*arguments, headers=self.secret.header(SECRET_HEADER))
            found = await self._within(deadline_s, call)
            if method not in ANSWERS:
                return found
            if method == "get_system_shared_memory_status":
                found = {one["name"]: one for one in found}
            message, field = ANSWERS[method]
            if field is None and not found.keys() & message.DESCRIPTOR.fields_by_name.keys():
                raise ValueError
            return json_format.ParseDict({field: found} if field else found, message(), ignore_unknown_fields=True)

    async def infer(self, inference: Inference, version: int, region: Region | None = None) -> NDArray[Any]:
        tensor, output = inference.tensors(tritonclient.http, region)
        call = self._client.infer(
            inference.model,
            [tensor],
            model_version=str(version),
            outputs=[output],
            headers=self.secret.header(SECRET_HEADER),
        )
        with _answers_of_triton():
            return inference.answer(await self._within(inference.deadline_s, call), region)

    async def close(self) -> None:
        await self._client.close()

    async def _within(self, deadline_s: float, call: Any) -> Any:
        try:
            async with asyncio.timeout(deadline_s):
                return await call
        except InferenceServerException as error:
            raise _http_error(error) from None
        except TimeoutError:
            raise TransportError("late", f"no answer within {deadline_s:g} s") from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            raise TransportError("away", str(error)) from None
        except aiohttp.ClientError:
            raise TransportError("refused", "the answer is not HTTP") from None


@contextmanager
def _answers_of_triton() -> Iterator[None]:
    """Whatever the client can't parse comes from another server: a web page, another API, a port of another kind."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, json_format.Error):
        raise TransportError("refused", NOT_TRITON) from None


def _http_error(error: InferenceServerException) -> TransportError:
    message, status = str(error.message()), str(error.status())
    if "while decoding the response" in message or "empty response" in message:  # no JSON: not from Triton
        message = f"HTTP status {status}, and no message of Triton's"
    return transport_error(message, ERROR_KINDS.get(status, "refused"))
