"""`csg predict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from csg.errors import InputError
from csg_cli import completion
from csg_cli.options import ConnectionOptions, Json, Model, Tile, examples, grouped

PREDICT_EXAMPLES = examples(
    "csg predict bundles/pacs-csg-1 photos/ --top 5 --format csv",
    "csg predict --server gpu-box:8001 a.jpg clip.mp4 --every 2",
)


@dataclass(frozen=True, kw_only=True)
class PredictionOptions:
    """How images are predicted, and what is written."""

    top: Annotated[
        Optional[int],
        typer.Option(help="Classifiers: how many classes to give, the most probable first.", show_default="1", min=1),
    ] = None
    form: Annotated[
        Literal["text", "csv", "jsonl"],
        typer.Option("--format", help="Rows on standard output: lines for people, CSV, or JSON Lines."),
    ] = "text"
    out: Annotated[
        Optional[Path], typer.Option(help="Segmenters: folder for masks and overlays.", show_default="predictions")
    ] = None
    tile: Tile = None
    every: Annotated[
        float, typer.Option(help="Videos: seconds between the frames that are taken; 0 takes every frame.", min=0.0)
    ] = 1.0
    on_unreadable: Annotated[
        Optional[Literal["fail", "skip"]],
        typer.Option(
            help="What to do with an image that can't be read: stop there, or skip it and count it.",
            show_default="skip it, and exit with code 3 at the end",
        ),
    ] = None


@grouped
def predict(
    *,
    connection: ConnectionOptions,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[BUNDLE] IMAGES",
            help="A bundle to run in this process, without a server; then images: files, folders, patterns in quotes, "
            "- (one image on standard input), http(s) addresses, video files.",
            show_default=False,
            autocompletion=completion.bundles,
        ),
    ],
    model: Model = None,
    predictions: PredictionOptions,
    as_json: Json = False,
) -> None:
    """Predict the classes of images, or their masks, with a served model or a bundle; rows come as they are answered.

    An image that can't be read does not end the rest.
    """
    from csg_serve.evaluate.predict import PredictOptions, predict_command

    source, images = connection.source(words)
    if not connection.server and images == words:
        _check_first(images)
    options = PredictOptions(
        images=tuple(images),
        source=source,
        model=model,
        tile=predictions.tile,
        out=predictions.out,
        top=predictions.top,
        form=predictions.form,
        every=predictions.every,
        on_unreadable=predictions.on_unreadable,
    )
    predict_command(options, as_json)


def _check_first(images: Sequence[str]) -> None:
    """Raise InputError if the first word looks like a bundle that is not there: the default server would be asked."""
    from csg_serve.client.image_sources import may_name_images

    if images and not may_name_images(images[0]):
        raise InputError(f"there is no bundle and no image {images[0]}", "check the path")
