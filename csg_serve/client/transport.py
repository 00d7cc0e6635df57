"""What a connection to a Triton server offers, over gRPC or HTTP: the same calls and the same protobuf answers.

Shape letters: N images, H W height and width of the model's input.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from csg.errors import one_line
from csg_serve.client.endpoints import ConnectionSecret
from csg_serve.client.shared_memory import Region

DEADLINE_S = 30
"""Default deadline of a call, in seconds."""
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
            the output, in the shape that the server gave it.
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
