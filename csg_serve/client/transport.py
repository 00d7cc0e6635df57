"""What a connection to a Triton server offers, over gRPC or HTTP: the same calls and the same protobuf answers.

Shape letters: N images, H W height and width of the model's input.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor, triton_to_np_dtype

from csg.errors import one_line
from csg_serve.client.endpoints import ConnectionSecret
from csg_serve.client.shared_memory import Region

DEADLINE_S = 30
"""Default deadline of a call, in seconds."""
CALL_BYTES = 2**22
"""Largest answer to a call, in bytes, gRPC's default: a configuration with its card, the list of all models."""
ANSWER_OVERHEAD = 2**16
"""Bytes of a request or of its answer besides the tensor, at most."""
MAX_MODELS = 10_000
"""Model versions that a server may list."""
MODEL_GONE = ("unknown model",)
PROCESS_GONE = ("Stub process", "Failed to retrieve the response")
"""Messages while a model's process is dead, until the watchdog has restarted it."""

ErrorKind = Literal["away", "late", "missing", "restricted", "no region", "redirect", "wrong", "refused"]


class TransportError(Exception):
    """A call failed.

    Attributes:
        kind: "away": the server is gone or overloaded, or the model's process died, and a later call may succeed;
            "late": the deadline passed; "missing": there is no such model or version; "restricted": the call
            requires a secret; "no region": the server does not know the shared memory; "redirect": the answer points
            elsewhere; "wrong": the answer is not what the model card says; "refused": anything else.
        detail: the server's message, on one line.
    """

    def __init__(self, kind: ErrorKind, detail: str):
        self.kind = kind
        self.detail = one_line(detail.rpartition("last error: ")[2].rpartition("OPENSSL_internal:")[2])
        super().__init__(self.detail)


@dataclass(frozen=True)
class AnsweredOutput:
    """What a server says of an output."""

    name: str
    """Name of the output."""
    dtype: str
    """Triton's data type."""
    shape: tuple[int, ...]
    """Shape."""


@dataclass(frozen=True)
class InferenceAnswer:
    """An answer as it came, not checked yet."""

    model: str
    """Name of the model."""
    version: str
    """Version of the model."""
    outputs: Sequence[AnsweredOutput]
    """The outputs."""
    content: bytes | memoryview
    """Bytes of the outputs; nothing if they are in shared memory."""


@dataclass(frozen=True)
class Inference:
    """A request for one output of a model."""

    model: str
    """Name of the model."""
    input: str
    """Name of its input."""
    tensor: NDArray[Any]
    """Pixels, uint8 (N, H, W, 3), or image files, object (N, 1), which can't be sent through shared memory."""
    output: str
    """Name of the output."""
    dtype: str
    """Triton's data type of the output, for example FP32."""
    row: tuple[int, ...]
    """Expected shape of the output for one image."""
    classes: int
    """Number of classes: the values of a label map are below it."""
    deadline_s: float
    """Deadline in seconds."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Expected shape of the answer."""
        return (len(self.tensor), *self.row)

    @property
    def answer_bytes(self) -> int:
        """Expected size of the answer."""
        item_bytes: int = np.dtype(triton_to_np_dtype(self.dtype)).itemsize
        return math.prod(self.shape) * item_bytes

    @property
    def datatype(self) -> str:
        """Triton's data type of the input."""
        return str(np_to_triton_dtype(self.tensor.dtype))

    @property
    def content(self) -> bytes:
        """Bytes of the input."""
        if self.datatype == "BYTES":
            return bytes(serialize_byte_tensor(self.tensor).item())
        return self.tensor.tobytes()

    def write(self, region: Region) -> None:
        """Put the tensor into shared memory; an answer that is not written there is noticed."""
        region.write(self.tensor)
        region.blank(self.tensor.nbytes, self.answer_bytes)

    def check(self, answer: InferenceAnswer, version: int, region: Region | None) -> NDArray[Any]:
        """The values of an answer, if it is one to this request.

        Args:
            answer: what the server said.
            version: the version of the model that was asked.
            region: the shared memory that holds the values; None if the answer does.

        Raises:
            TransportError: of kind "wrong": the model, the output, its type or shape is another one, values are
                missing or too many, logits are not finite, or a class is not one of the model's.
        """
        if (answer.model, answer.version) != (self.model, str(version)):
            raise _wrong(f"the answer is of {answer.model} version {answer.version}, not {self.model} {version}")
        expected = AnsweredOutput(self.output, self.dtype, self.shape)
        if len(answer.outputs) != 1 or answer.outputs[0] != expected:
            found = ", ".join(f"{one.name} {one.dtype} {one.shape}" for one in answer.outputs[:3]) or "nothing"
            what = f"{self.model} answered {len(self.tensor)} images with {found}"
            raise _wrong(f"{what}, not {self.output} {self.dtype} {self.shape}")
        if len(answer.content) != (0 if region else self.answer_bytes):
            raise _wrong(f"{self.model} answered with {len(answer.content)} bytes, not {self.answer_bytes}")
        kind = triton_to_np_dtype(self.dtype)
        if region:
            values = region.read(self.shape, kind, self.tensor.nbytes)
        else:
            values = np.frombuffer(answer.content, kind).reshape(self.shape)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise _wrong(f"the {self.output} of {self.model} are not finite")
        if values.dtype.kind == "u" and values.max() >= self.classes:
            raise _wrong(f"{self.model} answered with class {values.max()}, and has {self.classes}")
        return values


def _wrong(detail: str) -> TransportError:
    return TransportError("wrong", detail)


class Transport(Protocol):
    """A connection to one server. Every call may raise TransportError.

    Attributes:
        secret: what its calls carry.
    """

    secret: ConnectionSecret

    async def call(self, method: str, *arguments: Any, deadline_s: float = DEADLINE_S) -> Any:
        """Call a method that both clients of tritonclient have.

        Args:
            method: name of the method.
            arguments: positional arguments of the method.
            deadline_s: deadline in seconds.

        Returns:
            the protobuf message that gRPC answers with, also over HTTP; None if the method returns nothing.
        """

    async def infer(self, inference: Inference, version: int, region: Region | None = None) -> NDArray[Any]:
        """Send one request, through shared memory if a region is given.

        Returns:
            the output, as `Inference.check` lets it pass.
        """

    async def close(self) -> None:
        """Close the connection."""


NOT_TRITON = "it answers, but not as a Triton does"
"""Detail of a "refused" for an answer that is no message of Triton's."""


def version_number(text: str) -> int:
    """The version of a model, which Triton gives as text; TransportError if it is none."""
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise TransportError("refused", NOT_TRITON)
    return int(text)


def check_count(listed: Sequence[object]) -> None:
    """TransportError if a server lists more models than a server has."""
    if len(listed) > MAX_MODELS:
        raise TransportError("refused", f"it lists {len(listed)} models, and csg reads {MAX_MODELS}")


def transport_error(message: str, kind: ErrorKind) -> TransportError:
    """The error for a message of Triton and the kind that its status code says.

    Some errors share a status code and differ only in the message.
    """
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
