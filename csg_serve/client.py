"""Asynchronous gRPC client: learns from the server alone which model it has, and streams images through it.

Shape letters: N images, H W of the model's input, K classes.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc.aio import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from csg.card import ImageInput, ModelCard, SceneInput, parse_card
from csg.errors import InputError, ServerError, UsageError
from csg.files import plain_name
from csg.images import decode, load, prepare_scene
from csg.tiles import prepare_tiles
from csg_serve.config import CARD_PARAMETER, max_batch_size

REQUEST_IMAGES = 8
IN_FLIGHT = 4
DEADLINE_S = 30
SCENE_DEADLINE_S = 300  # a large scene takes seconds on a CPU, and waits for those before it

Answer = NDArray[Any] | InputError


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
    async with InferenceServerClient(server) as client:
        with _server_errors(f"no Triton answers at {server}", todo):
            yield client


async def stream(served: ServedModel, paths: Sequence[Path], tile: int | None = None) -> AsyncGenerator[Answer, None]:
    """What the model says of each image in order, or the error of one that can't be read.

    A classifier says float32 logits (K,), a segmenter the label map, uint8, in the image's own size. A few requests are
    under way at a time, and nothing else is held: memory does not grow with the images.

    Args:
        tile: send a segmenter's images in overlapping tiles of this side; a multiple of 8.

    Raises:
        UsageError: the model can't take such tiles.
        ServerError: the server went away, took too long, or does not answer as the card says.
    """
    check_tile(served.card, tile)
    scenes = isinstance(served.card.input, SceneInput)
    step, ask = (1, _segment) if scenes else (REQUEST_IMAGES, _classify)
    pending: deque[asyncio.Task[list[Answer]]] = deque()
    try:
        for start in range(0, len(paths), step):
            if len(pending) == IN_FLIGHT:
                for answer in await pending.popleft():
                    yield answer
            pending.append(asyncio.create_task(ask(served, paths[start : start + step], tile)))
        while pending:
            for answer in await pending.popleft():
                yield answer
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def check_tile(card: ModelCard, tile: int | None) -> None:
    """Raise UsageError where a model can't take square tiles of this side."""
    spec = card.input
    if tile is None:
        return
    if not isinstance(spec, SceneInput):
        raise UsageError(f"model {card.name} is no segmenter", "leave --tile out")
    if tile % 8 or (spec.height is not None and (spec.height, spec.width) != (tile, tile)):
        wants = "multiples of 8" if spec.height is None else f"images of {spec.height} x {spec.width}"
        raise UsageError(f"model {card.name} takes {wants}", f"--tile {tile} does not fit")


async def _classify(served: ServedModel, paths: Sequence[Path], _: int | None) -> list[Answer]:
    """Logits of a few images, from one request."""
    spec = served.card.input
    assert isinstance(spec, ImageInput)
    prepared = await asyncio.to_thread(lambda: [_or_error(load, path, spec) for path in paths])
    images = [image for image in prepared if not isinstance(image, InputError)]
    rows: Iterator[NDArray[Any]] = iter(())
    if images:
        rows = iter(await _infer(served, np.stack(images), (len(served.card.classes),)))
    return [image if isinstance(image, InputError) else next(rows) for image in prepared]


async def _segment(served: ServedModel, paths: Sequence[Path], tile: int | None) -> list[Answer]:
    """The label map of one image, from one request, or from a few with its tiles."""
    (path,), spec = paths, served.card.input
    assert isinstance(spec, SceneInput)
    image = await asyncio.to_thread(_or_error, decode, path)
    if isinstance(image, InputError):
        return [image]
    if tile is None:
        scene = await asyncio.to_thread(prepare_scene, image, spec)
        maps = await _infer(served, scene.pixels[None], scene.pixels.shape[:2])
        return [await asyncio.to_thread(scene.restore, maps[0])]
    tiles = await asyncio.to_thread(prepare_tiles, image, spec, tile)
    found: list[NDArray[Any]] = []
    step = max_batch_size(served.card)
    for start in range(0, len(tiles.parts), step):
        found.extend(await _infer(served, np.stack(tiles.parts[start : start + step]), (tile, tile)))
    return [await asyncio.to_thread(tiles.restore, found)]


async def _infer(served: ServedModel, images: NDArray[np.uint8], row: tuple[int, ...]) -> NDArray[Any]:
    """One request: uint8 (N, H, W, 3) to the model's first output, (N, *row)."""
    spec, output = served.card.input, served.card.outputs[0].name
    tensor = InferInput(spec.name, list(images.shape), spec.dtype)
    tensor.set_data_from_numpy(images)
    with _server_errors(f"the server at {served.server} did not answer", "see its log, and start again"):
        result = await served.client.infer(
            served.name,
            [tensor],
            model_version=str(served.version),
            outputs=[InferRequestedOutput(output)],
            client_timeout=SCENE_DEADLINE_S if isinstance(spec, SceneInput) else DEADLINE_S,
        )
    answer: NDArray[Any] = result.as_numpy(output)
    if answer.shape != (len(images), *row):
        what = f"model {served.name} answered {len(images)} images with {output} of shape {answer.shape}"
        raise ServerError(what, "deploy its bundle again")
    return answer


def _or_error(read: Any, path: Path, *arguments: Any) -> Any:
    """What `read` makes of a file, or the error of one that can't be read."""
    try:
        return read(path, *arguments)
    except InputError as error:
        return error


async def repository_index(client: InferenceServerClient) -> list[Any]:
    """Triton's index: name, version, state and reason of every version that it knows."""
    index = await client.get_model_repository_index(client_timeout=DEADLINE_S)
    return list(index.models)


async def statistics(client: InferenceServerClient) -> list[Any]:
    """Triton's statistics of every loaded version."""
    found = await client.get_inference_statistics(client_timeout=DEADLINE_S)
    return list(found.model_stats)


async def _ready_versions(client: InferenceServerClient) -> dict[str, int]:
    """The newest ready version of each model."""
    index = await repository_index(client)
    ready = [(entry.name, int(entry.version)) for entry in index if entry.state == "READY"]
    return dict(sorted(ready))


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
        detail = " ".join(str(error.message()).rpartition("last error: ")[2].split())
        raise ServerError(f"{what}: {detail}", todo) from None
