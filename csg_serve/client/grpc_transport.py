"""A connection over gRPC."""

from __future__ import annotations

import os
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from weakref import WeakSet

import grpc
import tritonclient.grpc
from numpy.typing import NDArray
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.grpc.service_pb2 import ModelInferResponse
from tritonclient.utils import InferenceServerException

from csg.errors import UsageError
from csg_serve.client.address import Address
from csg_serve.client.endpoints import ConnectionSecret, Servers
from csg_serve.client.proxies import proxy_option
from csg_serve.client.shared_memory import Region
from csg_serve.client.transport import (
    ANSWER_OVERHEAD,
    CALL_BYTES,
    DEADLINE_S,
    NOT_TRITON,
    AnsweredOutput,
    ErrorKind,
    Inference,
    InferenceAnswer,
    TransportError,
    transport_error,
)
from csg_serve.triton.protocol import GRPC_SECRET_HEADER

CHANNEL_OPTIONS = {
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.http2.max_pings_without_data": 2,  # Triton closes connections with more
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.min_reconnect_backoff_ms": 5_000,  # timeout of one attempt to connect
    "grpc.max_reconnect_backoff_ms": 2_000,
    "grpc.use_local_subchannel_pool": 1,  # a new client gets no connection of an earlier one, which may be broken
}
ERROR_KINDS: dict[str, ErrorKind] = {
    "UNAVAILABLE": "away",
    "CANCELLED": "away",  # by a server that shuts down
    "DEADLINE_EXCEEDED": "late",
    "NOT_FOUND": "missing",
}
"""Kind of the error for a status code; "refused" for any other."""
_PROCESSES = set[int]()
"""This process, once it has used gRPC, and those of which it is a fork."""
_CLIENTS = WeakSet[InferenceServerClient]()
_INHERITED: list[InferenceServerClient] = []
"""In a fork, the clients of its parent, also those that were waiting to be collected: gRPC would wait for ever, at the
end of the last one, for a thread that a fork does not have."""
os.register_at_fork(after_in_child=lambda: _INHERITED.extend(_CLIENTS))


class GrpcTransport:
    """gRPC. The limit of a message follows the tensors: there is one channel for each power of two in use.

    Raises:
        UsageError, InputError: as `csg_serve.client.endpoints.Servers.ssl_context`.
    """

    def __init__(self, address: Address, servers: Servers):
        self._address, self._credentials = address, grpc_credentials(servers) if address.tls else None
        self.secret = ConnectionSecret(address, servers)
        self._clients: dict[int, InferenceServerClient] = {}
        self._open = AsyncExitStack()

    async def call(self, method: str, *arguments: Any, deadline_s: float = DEADLINE_S) -> Any:
        try:
            headers = self.secret.header(GRPC_SECRET_HEADER)
            answer = await getattr(self._client(0), method)(*arguments, headers=headers, client_timeout=deadline_s)
        except InferenceServerException as error:
            raise _grpc_error(error) from None
        return _parsed(answer) if method.startswith("get_") else answer

    async def infer(self, inference: Inference, version: int, region: Region | None = None) -> NDArray[Any]:
        tensor, output = _tensors(inference, region)
        client = self._client(0 if region else max(inference.answer_bytes, inference.tensor.nbytes))
        try:
            result = await client.infer(
                inference.model,
                [tensor],
                model_version=str(version),
                outputs=[output],
                headers=self.secret.header(GRPC_SECRET_HEADER),
                client_timeout=inference.deadline_s,
            )
        except InferenceServerException as error:
            raise _grpc_error(error) from None
        return inference.check(inference_answer(_parsed(result.get_response())), version, region)

    def _client(self, message_bytes: int) -> InferenceServerClient:
        limit = max(CALL_BYTES, 2 ** (message_bytes + ANSWER_OVERHEAD).bit_length())
        if limit not in self._clients:
            limits = {"grpc.max_send_message_length": limit, "grpc.max_receive_message_length": limit}
            options = list((CHANNEL_OPTIONS | limits | proxy_option(self._address)).items())
            _check_not_forked()
            client = InferenceServerClient(self._address.target, creds=self._credentials, channel_args=options)
            _CLIENTS.add(client)
            self._open.push_async_callback(client.close)
            self._clients[limit] = client
        return self._clients[limit]

    async def close(self) -> None:
        await self._open.aclose()


def _check_not_forked() -> None:
    """Raise UsageError in a fork of a process that has used gRPC, where gRPC would hang or end the process."""
    _PROCESSES.add(os.getpid())
    if len(_PROCESSES) > 1:
        raise UsageError(
            "gRPC can't be used in a fork of a process that has used it",
            "start processes by 'spawn', use the first client after the fork, or give an http:// address",
        )


def _tensors(inference: Inference, region: Region | None) -> tuple[Any, Any]:
    """Input and output, inline or in shared memory."""
    tensor = tritonclient.grpc.InferInput(inference.input, list(inference.tensor.shape), inference.datatype)
    output = tritonclient.grpc.InferRequestedOutput(inference.output)
    if region is None:
        tensor.set_data_from_numpy(inference.tensor)
    else:
        inference.write(region)
        tensor.set_shared_memory(region.name, inference.tensor.nbytes)
        output.set_shared_memory(region.name, inference.answer_bytes, offset=inference.tensor.nbytes)
    return tensor, output


def inference_answer(answer: ModelInferResponse) -> InferenceAnswer:
    """What a message says, not checked yet."""
    outputs = [AnsweredOutput(one.name, one.datatype, tuple(one.shape)) for one in answer.outputs]
    content = answer.raw_output_contents[0] if len(answer.raw_output_contents) == 1 else b""
    return InferenceAnswer(answer.model_name, answer.model_version, outputs, content)


def _parsed(answer: Any) -> Any:
    """A message; gRPC gives None for bytes that it can't parse."""
    if answer is None:
        raise TransportError("refused", NOT_TRITON)
    return answer


def _grpc_error(error: InferenceServerException) -> TransportError:
    code = str(error.status()).removeprefix("StatusCode.")
    return transport_error(str(error.message()), ERROR_KINDS.get(code, "refused"))


def grpc_credentials(servers: Servers) -> grpc.ChannelCredentials:
    """The TLS credentials of gRPC, checked first: gRPC reports a damaged file only when a request fails."""
    _ = servers.ssl_context  # raises
    trusted = servers.tls_ca or ssl.get_default_verify_paths().cafile
    files = (trusted and Path(trusted), servers.tls_key, servers.tls_cert)
    return grpc.ssl_channel_credentials(*(file.read_bytes() if file else None for file in files))
