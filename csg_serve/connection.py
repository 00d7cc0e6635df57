"""A connection to a Triton: which models it has, what it says of them, and one request, asked again while it is away.

Shape letters: N images, H W of the model's input.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import KeepAliveOptions
from tritonclient.grpc.aio import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from csg.card import ModelCard, SceneInput, parse_card
from csg.console import say
from csg.errors import ServerError, UsageError
from csg.files import plain_name
from csg_serve.config import CARD_PARAMETER

DEADLINE_S = 30
SCENE_DEADLINE_S = 300  # a large scene takes seconds on a CPU, and waits for those before it
AWAY_S = 60  # a request is asked again for so long while no server answers: it changes nothing there
LONGEST_PAUSE_S = 2.0
KEEP_ALIVE = KeepAliveOptions(keepalive_time_ms=30_000, keepalive_timeout_ms=10_000)


@dataclass(frozen=True)
class ServedModel:
    """A ready model of a server, its card, and the open connection."""

    server: str
    client: InferenceServerClient
    name: str
    version: int
    card: ModelCard


@asynccontextmanager
async def open_model(server: str, model: str | None) -> AsyncIterator[ServedModel]:
    """Connect to the gRPC endpoint HOST:PORT and find the named model, or the only csg model there.

    Raises:
        UsageError: the address or the name is malformed, or there are several csg models and none was named.
        ServerError: no server answers there, or it has no such model ready.
        InputError: the model's card is malformed.
    """
    if model is not None:
        plain_name(model, "model name")
    async with connected(server) as client:
        ready = await _ready_versions(client)
        names = [model] if model in ready else sorted(ready)
        cards = {name: text for name in names if (text := await _card_text(client, name, ready[name]))}
        name = _choose(server, model, sorted(ready), list(cards))
        yield ServedModel(server, client, name, ready[name], parse_card(cards[name], f"model {name} at {server}"))


@asynccontextmanager
async def connected(server: str) -> AsyncIterator[InferenceServerClient]:
    """A connection to the gRPC endpoint HOST:PORT.

    Raises:
        UsageError: the address is malformed.
        ServerError: no server answers there, or it can't say what it is asked.
    """
    address = re.fullmatch(r"(?:[^\s/:\[\]]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", server)
    if not address or not 0 < int(address[1]) < 65536:
        raise UsageError(
            f"{server!r} is no server address", "give HOST:PORT of its gRPC endpoint, for example localhost:8001"
        )
    todo = "start one with `csg serve`, or name its gRPC address with --server HOST:PORT"
    async with InferenceServerClient(server, keepalive_options=KEEP_ALIVE) as client:
        with _server_errors(f"no Triton answers at {server}", todo):
            yield client


async def infer(served: ServedModel, images: NDArray[np.uint8], row: tuple[int, ...]) -> NDArray[Any]:
    """One request: uint8 (N, H, W, 3) to the model's first output, (N, *row).

    While no server answers it is asked again, with growing pauses, for a minute.

    Raises:
        ServerError: it took too long, the server stayed away, or it does not answer as the card says.
    """
    output, pause, gone = served.card.outputs[0].name, 0.1, 0.0
    while True:
        try:
            result = await _ask(served, images, output)
            break
        except InferenceServerException as error:
            gone = gone or time.monotonic()
            if not _away(error) or time.monotonic() - gone > AWAY_S:
                raise _server_error(
                    f"the server at {served.server} did not answer", error, "see its log, and start again"
                ) from None
        if pause == 0.1:
            say(f"no answer from {served.server}; asking again for {AWAY_S} s")
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)
    answer: NDArray[Any] = result.as_numpy(output)
    if answer.shape != (len(images), *row):
        what = f"model {served.name} answered {len(images)} images with {output} of shape {answer.shape}"
        raise ServerError(what, "deploy its bundle again")
    return answer


async def _ask(served: ServedModel, images: NDArray[np.uint8], output: str) -> InferResult:
    spec = served.card.input
    tensor = InferInput(spec.name, list(images.shape), spec.dtype)
    tensor.set_data_from_numpy(images)
    return await served.client.infer(
        served.name,
        [tensor],
        model_version=str(served.version),
        outputs=[InferRequestedOutput(output)],
        client_timeout=SCENE_DEADLINE_S if isinstance(spec, SceneInput) else DEADLINE_S,
    )


def _away(error: InferenceServerException) -> bool:
    """Whether the server is not there, as against: there, without this model."""
    return error.status() == "StatusCode.UNAVAILABLE" and "unknown model" not in str(error.message())


async def repository_index(client: InferenceServerClient, headers: dict[str, str]) -> list[Any]:
    """Triton's index: name, version, state and reason of every version that it knows."""
    index = await client.get_model_repository_index(headers=headers, client_timeout=DEADLINE_S)
    return list(index.models)


async def statistics(client: InferenceServerClient) -> list[Any]:
    """Triton's statistics of every loaded version."""
    found = await client.get_inference_statistics(client_timeout=DEADLINE_S)
    return list(found.model_stats)


async def _ready_versions(client: InferenceServerClient) -> dict[str, int]:
    """The newest ready version of each model: by the statistics, since the index may ask for a secret."""
    return dict(sorted((one.name, int(one.version)) for one in await statistics(client)))


async def _card_text(client: InferenceServerClient, name: str, version: int) -> str:
    """The card in a model's configuration; empty for a model from elsewhere."""
    answer: Any = await client.get_model_config(name, str(version), client_timeout=DEADLINE_S)
    parameters = answer.config.parameters
    return str(parameters[CARD_PARAMETER].string_value) if CARD_PARAMETER in parameters else ""


def _choose(server: str, wanted: str | None, ready: list[str], ours: list[str]) -> str:
    """The model to use, of the ready ones and those among them that carry a card."""
    if wanted is not None and wanted not in ready:
        raise ServerError(
            f"the server at {server} has no model {wanted} ready", f"it has: {', '.join(ready) or 'none'}"
        )
    if not ours:
        what = "no csg model" if wanted is None else f"{wanted} without a model card"
        raise ServerError(f"the server at {server} has {what}", "put a model there with `csg deploy`")
    if len(ours) > 1:
        raise UsageError(f"the server at {server} has several csg models: {', '.join(ours)}", "name one with --model")
    return ours[0]


@contextmanager
def _server_errors(what: str, todo: str) -> Iterator[None]:
    try:
        yield
    except InferenceServerException as error:
        raise _server_error(what, error, todo) from None


def _server_error(what: str, error: InferenceServerException, todo: str) -> ServerError:
    detail = " ".join(str(error.message()).rpartition("last error: ")[2].split())
    return ServerError(f"{what}: {detail}", todo)
