"""The commands of csg_train: train, compare, embed, weights, data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from csg_cli import train_options as o

train_app = typer.Typer(help="Train on synthetic images.", no_args_is_help=True)
compare_app = typer.Typer(help="Compare systems on the same data and budget.", no_args_is_help=True)
weights_app = typer.Typer(help="Pretrained ImageNet weights.", no_args_is_help=True)
data_app = typer.Typer(help="The embedded synthetic sets.", no_args_is_help=True)


@train_app.command("cls")
def train_cls(
    recipe: o.RecipeName = None,
    data: o.Synthetic = None,
    real: o.Real = None,
    method: o.Method = None,
    backbone: o.Backbone = None,
    weights: o.Weights = None,
    epochs: o.Epochs = None,
    max_steps: o.MaxSteps = None,
    evaluate_every: o.EvaluateEvery = None,
    seed: o.Seed = None,
    precision: o.Precision = None,
    unreadable: o.UnreadableSetting = None,
    strength: o.Strength = None,
    styles: o.Styles = None,
    fisher: o.Fisher = False,
    learned_rates: o.LearnedRates = False,
    no_apool: o.NoApool = False,
    no_mlp: o.NoMlp = False,
    no_augment: Annotated[bool, typer.Option("--no-augment", help="No RandAugment.")] = False,
    stages: o.Stages = None,
    temperature: o.Temperature = None,
    queue: o.Queue = None,
    assign: o.Assign = None,
    out: Annotated[
        Optional[Path], typer.Option(help="Run folder.", show_default="runs/cls/<recipe>-<method>-<n>")
    ] = None,
    resume: o.Resume = False,
    as_json: o.Json = False,
) -> None:
    """Train a classifier; without arguments, on the embedded digits."""
    from csg_train.training.command import train_command

    changes = {
        **_run_changes(data, real, method, backbone, epochs, max_steps, evaluate_every, seed, precision, unreadable),
        **_own_changes(strength, styles, fisher, learned_rates, no_apool, no_mlp, stages, temperature, queue),
        "augment.operations": 0 if no_augment else None,
    }
    train_command("cls", recipe, changes, assign or [], weights, out, resume, as_json)


@train_app.command("seg")
def train_seg(
    recipe: o.RecipeName = None,
    data: o.SyntheticScenes = None,
    labels: o.Labels = None,
    real: o.Real = None,
    real_labels: o.RealLabels = None,
    method: o.Method = None,
    backbone: o.Backbone = None,
    head: o.Head = None,
    weights: o.Weights = None,
    epochs: o.Epochs = None,
    max_steps: o.MaxSteps = None,
    evaluate_every: o.EvaluateEvery = None,
    seed: o.Seed = None,
    precision: o.Precision = None,
    unreadable: o.UnreadableSetting = None,
    strength: o.Strength = None,
    styles: o.Styles = None,
    fisher: o.Fisher = False,
    learned_rates: o.LearnedRates = False,
    no_apool: o.NoApool = False,
    no_mlp: o.NoMlp = False,
    stages: o.Stages = None,
    temperature: o.Temperature = None,
    queue: o.Queue = None,
    grid: Annotated[Optional[int], typer.Option(help="csg: patches a side.")] = None,
    assign: o.Assign = None,
    out: Annotated[
        Optional[Path], typer.Option(help="Run folder.", show_default="runs/seg/<recipe>-<method>-<n>")
    ] = None,
    resume: o.Resume = False,
    as_json: o.Json = False,
) -> None:
    """Train a segmenter; without arguments, on the embedded digit scenes."""
    from csg_train.training.command import train_command

    changes = {
        **_run_changes(data, real, method, backbone, epochs, max_steps, evaluate_every, seed, precision, unreadable),
        **_own_changes(strength, styles, fisher, learned_rates, no_apool, no_mlp, stages, temperature, queue),
        "own.grid": grid,
        **_scene_changes(labels, real_labels, head),
    }
    train_command("seg", recipe, changes, assign or [], weights, out, resume, as_json)


def _run_changes(
    data: list[str] | None,
    real: list[str] | None,
    method: str | None,
    backbone: str | None,
    epochs: int | None,
    max_steps: int | None,
    evaluate_every: int | None,
    seed: int | None,
    precision: str | None,
    unreadable: str | None,
) -> dict[str, Any]:
    """Settings of any run, by dotted name."""
    return {
        "data.train": data,
        "data.real": real,
        "data.unreadable": unreadable,
        "method": method,
        "model.backbone": backbone,
        "optim.epochs": epochs,
        "optim.max_steps": max_steps,
        "evaluate_every": evaluate_every,
        "seed": seed,
        "precision": precision,
    }


def _own_changes(
    strength: float | None,
    styles: str | None,
    fisher: bool,
    learned_rates: bool,
    no_apool: bool,
    no_mlp: bool,
    stages: str | None,
    temperature: float | None,
    queue: int | None,
) -> dict[str, Any]:
    """Settings of the chosen method."""
    return {
        "own.weight": strength,
        "own.styles": styles,
        "own.fisher": fisher or None,
        "own.learned": learned_rates or None,
        "own.apool": False if no_apool else None,
        "own.mlp": False if no_mlp else None,
        "own.stages": stages.split(",") if stages else None,
        "own.temperature": temperature,
        "own.queue": queue,
    }


def _scene_changes(labels: str | None, real_labels: str | None, head: str | None) -> dict[str, Any]:
    """Settings of segmentation alone."""
    return {"data.labels": labels, "data.real_labels": real_labels, "model.head": head}


@compare_app.command("cls")
def compare_cls(
    recipe: o.RecipeName = None,
    data: o.Synthetic = None,
    real: o.Real = None,
    method: o.Methods = None,
    seeds: o.Seeds = 3,
    tune: o.Tune = True,
    styles: o.CompareStyles = None,
    backbone: o.Backbone = None,
    weights: o.Weights = None,
    epochs: o.Epochs = None,
    max_steps: o.MaxSteps = None,
    precision: o.Precision = None,
    assign: o.Assign = None,
    out: o.CompareOut = None,
    as_json: o.Json = False,
) -> None:
    """Train the systems on the same data, seeds and budget, and write table and figures; run again to go on."""
    from csg_train.compare.command import compare_command

    changes = _run_changes(data, real, None, backbone, epochs, max_steps, None, None, precision, None)
    changes |= {"methods.drpc.styles": styles}
    compare_command("cls", recipe, changes, assign or [], method, seeds, tune, weights, out, as_json)


@compare_app.command("seg")
def compare_seg(
    recipe: o.RecipeName = None,
    data: o.SyntheticScenes = None,
    labels: o.Labels = None,
    real: o.Real = None,
    real_labels: o.RealLabels = None,
    method: o.Methods = None,
    seeds: o.Seeds = 3,
    tune: o.Tune = True,
    styles: o.CompareStyles = None,
    backbone: o.Backbone = None,
    head: o.Head = None,
    weights: o.Weights = None,
    epochs: o.Epochs = None,
    max_steps: o.MaxSteps = None,
    precision: o.Precision = None,
    assign: o.Assign = None,
    out: o.CompareOut = None,
    as_json: o.Json = False,
) -> None:
    """The same for segmenters."""
    from csg_train.compare.command import compare_command

    changes = _run_changes(data, real, None, backbone, epochs, max_steps, None, None, precision, None)
    changes |= {"methods.drpc.styles": styles}
    changes |= _scene_changes(labels, real_labels, head)
    compare_command("seg", recipe, changes, assign or [], method, seeds, tune, weights, out, as_json)


def embed(
    run: Annotated[Optional[Path], typer.Argument(help="Run folder.", show_default="the newest in runs/")] = None,
    data: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Images, as the run's task takes them; may be given more than once.", show_default="the run's real set"
        ),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="File to write.", show_default="<run>.npz")] = None,
    as_json: o.Json = False,
) -> None:
    """Write the pooled embeddings of a run's student as .npz, and print their hyperspherical energy."""
    from csg_train.training.embed import embed_command

    embed_command(run, data, out, as_json)


@weights_app.command("pull")
def weights_pull(backbone: Annotated[str, typer.Argument(help="Backbone, for example mobilenet_v2.")]) -> None:
    """Fetch a backbone's ImageNet weights into torch's cache, checked by hash."""
    from csg_train.models.weights import pull

    typer.echo(pull(backbone))


@data_app.command("synth")
def data_synth(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    kind: Annotated[Literal["digits", "digit-scenes"], typer.Option(help="Which of the sets.")] = "digits",
    count: Annotated[int, typer.Option(min=10, help="Number of images.")] = 8000,
    seed: Annotated[int, typer.Option(min=0, help="Fixes every image.")] = 0,
) -> None:
    """Write an embedded synthetic set, to look at it."""
    from csg_train.data.command import synth_command

    synth_command(kind, out, count, seed)
