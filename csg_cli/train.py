"""The commands of csg_train, without compare: train, embed, weights, data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from csg_cli import completion
from csg_cli.options import Json, Labels, RecipeOptions, Tracker, examples, grouped
from csg_train.methods import METHODS

EMBED_EXAMPLES = examples("csg embed", "csg embed runs/cls/digits-csg-1 --out digits.npz")

train_app = typer.Typer(
    help="Train a model on synthetic images.",
    no_args_is_help=True,
    epilog=examples("csg train cls", "csg train seg --recipe camvid --data camvid/train --real-data camvid/val"),
)
weights_app = typer.Typer(
    help="Pretrained ImageNet weights.",
    no_args_is_help=True,
    epilog=examples("csg weights pull mobilenet_v2", "csg weights pull resnet50"),
)
data_app = typer.Typer(
    help="Check data before a training; write the embedded synthetic datasets.",
    no_args_is_help=True,
    epilog=examples("csg data check pacs/cartoon --real-data pacs/photo", "csg data synth digits/"),
)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Which run to start or to resume, and with which method."""

    method: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME[:SETTING=VALUE]",
            help=f"One of {', '.join(METHODS)}; settings follow after colons, as in csg:temperature=0.2.",
            show_default="the recipe's",
            autocompletion=completion.methods,
        ),
    ] = None
    seed: Annotated[Optional[int], typer.Option(help="Seed of all random numbers.", show_default="the recipe's")] = None
    out: Annotated[
        Optional[Path], typer.Option(help="Run folder.", show_default="runs/<task>/<recipe>-<method>-<n>")
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the newest unfinished run, or the one at --out; --data and --real-data say where its images "
            "have moved.",
        ),
    ] = False
    evaluate_every: Annotated[
        Optional[int],
        typer.Option(
            metavar="STEPS", min=0, help="Measure the student every so many steps.", show_default="the recipe's"
        ),
    ] = None
    profile: Annotated[
        int,
        typer.Option(
            metavar="STEPS",
            min=0,
            max=100,
            help="Profile so many steps: a table and a trace of torch.profiler in the run folder.",
            show_default="none",
        ),
    ] = 0
    tracker: Tracker = None
    as_json: Json = False


@train_app.command(
    "cls",
    epilog=examples(
        "csg train cls --method csg:temperature=0.2 --seed 1",
        "csg train cls --recipe pacs --data pacs/cartoon --real-data pacs/photo",
    ),
)
@grouped
def train_cls(recipe: RecipeOptions, run: RunOptions) -> None:
    """Train a classifier; without options, on the embedded digits."""
    _train("cls", recipe, run, {})


@train_app.command(
    "seg",
    epilog=examples(
        "csg train seg --method none --set optim.epochs=1",
        "csg train seg --recipe camvid --data photos/ --real-data val/",
    ),
)
@grouped
def train_seg(*, recipe: RecipeOptions, labels: Labels = None, run: RunOptions) -> None:
    """Train a segmenter; without options, on the embedded digit scenes."""
    _train("seg", recipe, run, {"data.labels": labels})


def _train(task: str, recipe: RecipeOptions, run: RunOptions, more: dict[str, Any]) -> None:
    from csg_train.methods.spec import parse_method
    from csg_train.training.command import TrainRequest, train_command

    method = parse_method(run.method).changes if run.method else {}
    settings = recipe.settings({"seed": run.seed, "evaluate_every": run.evaluate_every} | more | method)
    request = TrainRequest(
        task=task,
        recipe=recipe.recipe,
        settings=settings,
        out=run.out,
        resume=run.resume,
        trackers=tuple(run.tracker or ()),
        profile=run.profile,
    )
    train_command(request, run.as_json)


def embed(
    run: Annotated[
        Optional[Path],
        typer.Argument(
            help="Run folder.",
            show_default="the newest in runs/",
            autocompletion=completion.runs,
        ),
    ] = None,
    data: Annotated[
        Optional[list[str]],
        typer.Option(help="Images, as `csg train` takes them. Repeatable.", show_default="the run's real images"),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="File to write.", show_default="<run>.npz")] = None,
    mirrored: Annotated[
        bool, typer.Option("--mirrored", help="Also show the scores of each image and its mirror image together.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the pooled embeddings of a trained model as .npz, and print their hyperspherical energy and its scores."""
    from csg_train.training.embed import embed_command

    embed_command(run, data, out, mirrored=mirrored, as_json=as_json)


@weights_app.command("pull", epilog=examples("csg weights pull mobilenet_v2", "csg weights pull timm:convnext_tiny"))
def weights_pull(
    backbone: Annotated[str, typer.Argument(help="Name of the backbone.", autocompletion=completion.backbones)],
) -> None:
    """Download a backbone's pretrained weights into torch's cache, timm's into its own, and check their hash."""
    from csg_train.models.weights import pull_command

    pull_command(backbone)


@data_app.command(
    "synth", epilog=examples("csg data synth digits/", "csg data synth scenes/ --kind digit-scenes --count 100")
)
def data_synth(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    kind: Annotated[Literal["digits", "digit-scenes"], typer.Option(help="Which of the datasets.")] = "digits",
    count: Annotated[int, typer.Option(min=10, help="Number of images.")] = 8000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
) -> None:
    """Write an embedded synthetic dataset to a folder."""
    from csg_train.data.command import synth_command

    synth_command(kind, out, count, seed)


@data_app.command(
    "check",
    epilog=examples(
        "csg data check pacs/cartoon --real-data pacs/photo",
        "csg data check gta5 --labels cityscapes19 --out gta5.png",
    ),
)
def data_check(
    sources: Annotated[list[str], typer.Argument(help="Training images, as `csg train --data` takes them.")],
    real_data: Annotated[
        Optional[list[str]], typer.Option(help="Real images to measure on. Repeat it to join several.")
    ] = None,
    labels: Labels = None,
    out: Annotated[Path, typer.Option(help="Picture of samples to write (PNG).")] = Path("data-check.png"),
    as_json: Json = False,
) -> None:
    """Decode all images and masks, and print what they are: counts, sizes, label values, damaged files, duplicates.

    Exit code 3: a training would refuse the data.
    """
    from csg_train.data.check_command import CheckRequest, check_command

    request = CheckRequest(sources=tuple(sources), real=tuple(real_data or ()), labels=labels, out=out)
    check_command(request, as_json)
