"""One connection to one Triton server, over gRPC or HTTP, with the same calls and the same protobuf answers.

tritonclient's two asynchronous clients have methods of the same names; they differ in headers, deadlines, errors and
the form of answers. Shape letters: N images, H W height and width of the model's input.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

import grpc
import numpy as np
import tritonclient.grpc
from numpy.typing import NDArray
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from csg.errors import one_line
from csg_serve.client.endpoints import Address, Servers
from csg_serve.client.shared_memory import Region
from csg_serve.triton.protocol import GRPC_SECRET_HEADER, SECRET_HEADER

DEADLINE_S = 30
"""Default deadline of a call, in seconds."""
MIN_MESSAGE_LIMIT = 2**22
"""gRPC's default limit of a message, in bytes."""
MESSAGE_OVERHEAD = 2**16
"""Bytes of a message besides its tensor, at most."""
CHANNEL_OPTIONS = {
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.http2.max_pings_without_data": 2,  # Triton closes connections with more
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.min_reconnect_backoff_ms": 5_000,  # timeout of one attempt to connect
    "grpc.max_reconnect_backoff_ms": 2_000,
}
HTTP_FIELDS = {
    "get_model_repository_index": "models",
    "get_model_config": "config",
    "get_system_shared_memory_status": "regions",
}
"""Field of the gRPC answer that the HTTP answer consists of."""
MODEL_GONE = ("unknown model",)
PROCESS_GONE = ("Stub process", "Failed to retrieve the response")
"""Messages while a model's process is dead, until the watchdog has restarted it."""

ErrorKind = Literal["away", "late", "missing", "restricted", "no region", "refused"]


class TransportError(Exception):
    """A call failed.

    Attributes:
        kind: "away": the server is gone or overloaded, or the model's process died, and a later call may succeed;
            "late": the deadline passed; "missing": there is no such model or version; "restricted": the call
            requires a secret; "no region": the server does not know the shared memory; "refused": anything else.
        detail: the server's message, on one line.
    """

    def __init__(self, kind: ErrorKind, detail: str):
        self.kind = kind
        self.detail = one_line(detail.rpartition("last error: ")[2].rpartition("OPENSSL_internal:")[2])
        super().__init__(self.detail)


@dataclass(frozen=True)
class Inference:
    """A request for one output of a model."""

    model: str
    """Name of the model."""
    input: str
    """Name of its input."""
    tensor: NDArray[np.uint8]
    """Pixels, (N, H, W, 3)."""
    output: str
    """Name of the output."""
    dtype: str
    """Triton's data type of the output, for example FP32."""
    row: tuple[int, ...]
    """Expected shape of the output for one image."""
    deadline_s: float
    """Deadline in seconds."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Expected shape of the answer."""
        return (len(self.tensor), *self.row)

    @property
    def answer_bytes(self) -> int:
        """Expected size of the answer."""
        return math.prod(self.shape) * np.dtype(triton_to_np_dtype(self.dtype)).itemsize

    def tensors(self, module: ModuleType, region: Region | None) -> tuple[Any, Any]:
        """Input and output for a client of tritonclient, inline or in shared memory."""
        tensor = module.InferInput(self.input, list(self.tensor.shape), "UINT8")
        output = module.InferRequestedOutput(self.output)
        if region is None:
            tensor.set_data_from_numpy(self.tensor)
        else:
            region.write(self.tensor)
            tensor.set_shared_memory(region.name, self.tensor.nbytes)
            output.set_shared_memory(region.name, self.answer_bytes, offset=self.tensor.nbytes)
        return tensor, output

    def answer(self, result: Any, region: Region | None) -> NDArray[Any]:
        """The output of a result, in the shape that the server gave it."""
        if region is None:
            return np.asarray(result.as_numpy(self.output))
        found = result.get_output(self.output)
        shape = tuple(map(int, found["shape"] if isinstance(found, dict) else found.shape))
        if shape != self.shape:  # an array of that shape, for the error message
            return np.broadcast_to(np.uint8(0), shape)
        return region.read(shape, triton_to_np_dtype(self.dtype), self.tensor.nbytes)


class Transport(Protocol):
    """A connection to one server. Every call may raise TransportError."""

    async def call(self, method: str, answer: Any, *arguments: Any, deadline_s: float = DEADLINE_S) -> Any:
        """Call a method that both clients of tritonclient have.

        Args:
            method: name of the method.
            answer: protobuf class of the answer, None if there is none.
            arguments: positional arguments of the method.
            deadline_s: deadline in seconds.
        """

    async def infer(self, inference: Inference, version: int, region: Region | None = None) -> NDArray[Any]:
        """Send one request, through shared memory if a region is given.

        Returns:
            the output, in the shape that the server gave it.
        """

    async def close(self) -> None:
        """Close the connection."""


def connect(address: Address, servers: Servers) -> Transport:
    """A connection, which is opened by the first call.

    Raises:
        UsageError, InputError: as `csg_serve.client.endpoints.Servers.ssl_context`.
    """
    return HttpTransport(address, servers) if address.http else GrpcTransport(address, servers)


class GrpcTransport:
    """gRPC. The limit of a message follows the tensors: there is one channel for each power of two in use."""

    def __init__(self, address: Address, servers: Servers):
        self._address, self._credentials = address, grpc_credentials(servers) if address.tls else None
        self._headers = secret_header(servers, GRPC_SECRET_HEADER)
        self._clients: dict[int, InferenceServerClient] = {}
        self._open = AsyncExitStack()

    async def call(self, method: str, answer: Any, *arguments: Any, deadline_s: float = DEADLINE_S) -> Any:
        try:
            return await getattr(self._client(0), method)(*arguments, headers=self._headers, client_timeout=deadline_s)
        except InferenceServerException as error:
            raise _grpc_error(error) from None

    async def infer(self, inference: Inference, version: int, region: Region | None = None) -> NDArray[Any]:
        tensor, output = inference.tensors(tritonclient.grpc, region)
        client = self._client(0 if region else max(inference.answer_bytes, inference.tensor.nbytes))
        try:
            result = await client.infer(
                inference.model,
                [tensor],
                model_version=str(version),
                outputs=[output],
                headers=self._headers,
                client_timeout=inference.deadline_s,
            )
        except InferenceServerException as error:
            raise _grpc_error(error) from None
        return inference.answer(result, region)

    def _client(self, message_bytes: int) -> InferenceServerClient:
        limit = max(MIN_MESSAGE_LIMIT, 2 ** (message_bytes + MESSAGE_OVERHEAD).bit_length())
        if limit not in self._clients:
            limits = {"grpc.max_send_message_length": limit, "grpc.max_receive_message_length": limit}
            options = list((CHANNEL_OPTIONS | limits).items())
            client = InferenceServerClient(self._address.authority, creds=self._credentials, channel_args=options)
            self._open.push_async_callback(client.close)
            self._clients[limit] = client
        return self._clients[limit]

    async def close(self) -> None:
        await self._open.aclose()


class HttpTransport:
    """HTTP, for networks that gRPC does not pass, for example behind a proxy."""

    def __init__(self, address: Address, servers: Servers):
        import tritonclient.http.aio  # imports gevent, which is slow

        self._module = tritonclient.http
        context = servers.ssl_context if address.tls else None
        self._client = tritonclient.http.aio.InferenceServerClient(
            address.authority, conn_timeout=None, ssl=address.tls, ssl_context=context
        )
        self._headers = secret_header(servers, SECRET_HEADER)

    async def call(self, method: str, answer: Any, *arguments: Any, deadline_s: float = DEADLINE_S) -> Any:
        from google.protobuf import json_format

        found = await self._within(deadline_s, getattr(self._client, method)(*arguments, headers=dict(self._headers)))
        if not isinstance(found, dict | list):
            return found
        if method == "get_system_shared_memory_status":
            found = {one["name"]: one for one in found}
        message: Any = {HTTP_FIELDS[method]: found} if method in HTTP_FIELDS else found
        return json_format.ParseDict(message, answer(), ignore_unknown_fields=True)

    async def infer(self, inference: Inference, version: int, region: Region | None = None) -> NDArray[Any]:
        tensor, output = inference.tensors(self._module, region)
        call = self._client.infer(
            inference.model,
            [tensor],
            model_version=str(version),
            outputs=[output],
            headers=dict(self._headers),
        )
        return inference.answer(await self._within(inference.deadline_s, call), region)

    async def close(self) -> None:
        await self._client.close()

    async def _within(self, deadline_s: float, call: Any) -> Any:
        import aiohttp

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


def _grpc_error(error: InferenceServerException) -> TransportError:
    code = str(error.status()).removeprefix("StatusCode.")
    kinds: dict[str, ErrorKind] = {
        "UNAVAILABLE": "away",
        "CANCELLED": "away",  # by a server that shuts down
        "DEADLINE_EXCEEDED": "late",
        "NOT_FOUND": "missing",
    }
    return _error(str(error.message()), kinds.get(code, "refused"))


def _http_error(error: InferenceServerException) -> TransportError:
    kinds: dict[str, ErrorKind] = {"502": "away", "503": "away", "504": "away", "404": "missing"}
    return _error(str(error.message()), kinds.get(str(error.status()), "refused"))


def _error(message: str, kind: ErrorKind) -> TransportError:
    """The error of a message; some of Triton's errors share a code and differ only in the message."""
    if "is restricted, expecting header" in message:
        kind = "restricted"
    elif "Unable to find shared memory region" in message:
        kind = "no region"
    elif "no available versions" in message:
        kind = "away"  # the message of a server that shuts down, too
    elif any(part in message for part in PROCESS_GONE):
        kind = "away"
    elif any(part in message for part in MODEL_GONE):
        kind = "missing"
    return TransportError(kind, message)


def grpc_credentials(servers: Servers) -> grpc.ChannelCredentials:
    """The TLS credentials of gRPC, checked first: gRPC reports a damaged file only when a request fails."""
    _ = servers.ssl_context  # raises
    trusted = servers.tls_ca or ssl.get_default_verify_paths().cafile
    files = (trusted and Path(trusted), servers.tls_key, servers.tls_cert)
    return grpc.ssl_channel_credentials(*(file.read_bytes() if file else None for file in files))


def secret_header(servers: Servers, name: str) -> dict[str, str]:
    """The header that carries the secret, empty without one."""
    return {name: servers.secret} if servers.secret else {}
