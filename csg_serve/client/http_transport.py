"""A connection over HTTP, for networks that gRPC does not pass, for example behind a proxy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from google.protobuf import json_format
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from yarl import URL

from csg.parsing import parse_json
from csg_serve.client.address import Address
from csg_serve.client.endpoints import ConnectionSecret, Servers
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
from csg_serve.triton.protocol import SECRET_HEADER


@dataclass(frozen=True)
class Endpoint:
    """Where a method of Triton is over HTTP, and the message that gRPC answers with."""

    verb: str
    """GET or POST."""
    path: str
    """Path below v2/, with a place for each of the first arguments."""
    body: tuple[str, ...] = ()
    """Names of the other arguments in the body."""
    answer: Any = None
    """Type of the message; None if the method returns nothing."""
    field: str | None = None
    """Field of the message that the answer consists of; None for the whole message."""


ENDPOINTS = {
    "get_model_repository_index": Endpoint(
        "POST", "repository/index", answer=service_pb2.RepositoryIndexResponse, field="models"
    ),
    "get_model_config": Endpoint(
        "GET", "models/{}/versions/{}/config", answer=service_pb2.ModelConfigResponse, field="config"
    ),
    "get_model_metadata": Endpoint("GET", "models/{}", answer=service_pb2.ModelMetadataResponse),
    "get_inference_statistics": Endpoint("GET", "models/stats", answer=service_pb2.ModelStatisticsResponse),
    "load_model": Endpoint("POST", "repository/models/{}/load"),
    "unload_model": Endpoint("POST", "repository/models/{}/unload"),
    "get_system_shared_memory_status": Endpoint(
        "GET", "systemsharedmemory/status", answer=service_pb2.SystemSharedMemoryStatusResponse, field="regions"
    ),
    "register_system_shared_memory": Endpoint(
        "POST", "systemsharedmemory/region/{}/register", body=("key", "byte_size")
    ),
    "unregister_system_shared_memory": Endpoint("POST", "systemsharedmemory/region/{}/unregister"),
}
ERROR_KINDS: dict[int, ErrorKind] = {404: "missing", **dict.fromkeys((429, 502, 503, 504), "away")}
"""Kind of the error for a status code; "refused" for any other."""
JSON_LENGTH = "Inference-Header-Content-Length"
"""Header of a body that begins with JSON: the length of that part."""


class HttpTransport:
    """HTTP. Answers are parsed into the messages that gRPC answers with.

    No redirect is followed, no cookie kept and no proxy used: what is sent goes to the address alone.

    Raises:
        UsageError, InputError: as `csg_serve.client.endpoints.Servers.ssl_context`.
    """

    def __init__(self, address: Address, servers: Servers):
        connector = aiohttp.TCPConnector(ssl=servers.ssl_context if address.tls else True)
        self.secret = ConnectionSecret(address, servers)
        self._url = f"{address.url}/v2/"
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def call(self, method: str, *arguments: Any, deadline_s: float = DEADLINE_S) -> Any:
        endpoint = ENDPOINTS[method]
        places = endpoint.path.count("{}")
        path, rest = endpoint.path.format(*arguments[:places]), arguments[places:]
        body = json.dumps(dict(zip(endpoint.body, rest, strict=True))).encode() if endpoint.body else b""
        with _answers_of_triton(), _errors_of_http(deadline_s):
            async with asyncio.timeout(deadline_s):
                _, content = await self._fetch(endpoint.verb, path, body, limit=CALL_BYTES)
            return _message(endpoint, content) if endpoint.answer else None

    async def infer(self, inference: Inference, version: int, region: Region | None = None) -> NDArray[Any]:
        path = f"models/{inference.model}/versions/{version}/infer"
        header, pixels = _request(inference, region)
        headers = {JSON_LENGTH: str(len(header))} if pixels else {}
        limit = ANSWER_OVERHEAD + (0 if region else inference.answer_bytes)
        with _answers_of_triton(), _errors_of_http(inference.deadline_s):
            async with asyncio.timeout(inference.deadline_s):
                found, content = await self._fetch("POST", path, header + pixels, headers=headers, limit=limit)
            answer = _inference_answer(content, found.get(JSON_LENGTH))
        return inference.check(answer, version, region)

    async def close(self) -> None:
        await self._session.close()

    async def _fetch(
        self, verb: str, path: str, body: bytes, *, headers: Mapping[str, str] = MappingProxyType({}), limit: int
    ) -> tuple[Mapping[str, str], bytearray]:
        """Headers and body of the answer to a request."""
        url, headers = URL(self._url + path, encoded=True), {**headers, **self.secret.header(SECRET_HEADER)}
        async with self._session.request(verb, url, data=body, headers=headers, allow_redirects=False) as response:
            if 300 <= response.status < 400:
                raise TransportError("redirect", f"it redirects to {_target(response.headers.get('Location', ''))}")
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > limit:
                    break
            if response.status != 200:
                raise _http_error(response.status, content)
            if len(content) > limit:
                raise TransportError("refused", f"the answer is larger than {limit} bytes")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise TransportError("refused", "the answer is compressed, which was not asked for")
            return response.headers, content


def _request(inference: Inference, region: Region | None) -> tuple[bytes, bytes]:
    """The two parts of a request's body: JSON, and the tensor unless it is in shared memory."""
    size, content = inference.tensor.nbytes, b""
    if region is None:
        content = inference.content
        there: dict[str, object] = {"binary_data_size": len(content)}
        back: dict[str, object] = {"binary_data": True}
    else:
        inference.write(region)
        there = {"shared_memory_region": region.name, "shared_memory_byte_size": size}
        back = {
            "shared_memory_region": region.name,
            "shared_memory_byte_size": inference.answer_bytes,
            "shared_memory_offset": size,
        }
    shape = list(inference.tensor.shape)
    tensor = {"name": inference.input, "shape": shape, "datatype": inference.datatype, "parameters": there}
    output = {"name": inference.output, "parameters": back}
    return json.dumps({"inputs": [tensor], "outputs": [output]}).encode(), content


def _inference_answer(content: bytearray, json_length: str | None) -> InferenceAnswer:
    """An answer's JSON, and what follows it."""
    length = len(content) if json_length is None else int(json_length)
    if not 0 <= length <= len(content):
        raise ValueError
    found = parse_json(bytes(content[:length]))
    outputs = [AnsweredOutput(one["name"], one["datatype"], tuple(one["shape"])) for one in found["outputs"]]
    return InferenceAnswer(found["model_name"], found["model_version"], outputs, memoryview(content)[length:])


def _message(endpoint: Endpoint, content: bytearray) -> Any:
    """The message for an answer."""
    found = parse_json(bytes(content))
    if endpoint.field == "regions":
        found = {one["name"]: one for one in found}
    if endpoint.field is None and not found.keys() & endpoint.answer.DESCRIPTOR.fields_by_name.keys():
        raise ValueError
    tree = {endpoint.field: found} if endpoint.field else found
    return json_format.ParseDict(tree, endpoint.answer(), ignore_unknown_fields=True)


@contextmanager
def _answers_of_triton() -> Iterator[None]:
    """Whatever the client can't parse comes from another server: a web page, another API, a port of another kind."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, json_format.Error):
        raise TransportError("refused", NOT_TRITON) from None


@contextmanager
def _errors_of_http(deadline_s: float) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise TransportError("late", f"no answer within {deadline_s:g} s") from None
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
        raise TransportError("away", str(error)) from None
    except aiohttp.ClientError:
        raise TransportError("refused", "the answer is not HTTP") from None


def _http_error(status: int, content: bytearray) -> TransportError:
    """The error for a status code and the message that Triton puts into a JSON object."""
    try:
        message = parse_json(bytes(content))["error"]
    except (ValueError, TypeError, LookupError):
        message = None
    if not isinstance(message, str):
        message = f"HTTP status {status}, and no message of Triton's"
    return transport_error(message, ERROR_KINDS.get(status, "refused"))


def _target(location: str) -> str:
    """Where a redirect points, without what may be secret in it: user, password and query."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return "another address"
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl() or "another address"
