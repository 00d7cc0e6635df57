"""`csg compare`: several methods on the same data and budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from csg_cli import completion
from csg_cli.options import Json, Labels, RecipeOptions, Tracker, examples, grouped

compare_app = typer.Typer(
    help="Compare methods on the same data and budget.",
    no_args_is_help=True,
    epilog=examples("csg compare cls --method none --method csg", "csg compare seg --method csg --seeds 1"),
)


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """What is compared, and where the results go."""

    method: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="NAME[:SETTING=VALUE]",
            help="A method, as `csg train` takes it. Repeatable.",
            show_default="all, and none:augment=true",
            autocompletion=completion.methods,
        ),
    ] = None
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method, with seeds 0, 1, ...")] = 3
    tune: Annotated[
        bool, typer.Option(help="Tune each method first: three short runs, judged on held-out synthetic images.")
    ] = True
    out: Annotated[
        Optional[Path],
        typer.Option(help="Folder; runs that it already holds are not repeated.", show_default="comparisons/<recipe>"),
    ] = None
    real_train: Annotated[
        Optional[str],
        typer.Option(
            metavar="FOLDER",
            help="Real images to train one more model on, shown in circle.png beside the methods; it is no row of the "
            "table, since it has seen real images. None of them may be among those of --real-data.",
        ),
    ] = None
    executor: Annotated[
        str,
        typer.Option(
            metavar="local|ray[:RESOURCE=VALUE]",
            help="Where the runs are trained: one after another here, or on a Ray cluster, with the cpus, gpus and "
            "memory (GiB) of each run after colons, as in ray:cpus=4:gpus=1.",
            autocompletion=completion.executors,
        ),
    ] = "local"
    tracker: Tracker = None
    as_json: Json = False


@compare_app.command(
    "cls",
    epilog=examples(
        "csg compare cls --no-tune --method csg --method csg:apool=false",
        "csg compare cls --recipe pacs --set methods.drpc.styles=paintings/",
    ),
)
@grouped
def compare_cls(recipe: RecipeOptions, comparison: ComparisonOptions) -> None:
    """Compare classifiers: train each method with each seed, write a table and figures; run again to continue."""
    _compare("cls", recipe, comparison, {})


@compare_app.command(
    "seg",
    epilog=examples(
        "csg compare seg --no-tune --seeds 1 --method none --method csg",
        "csg compare seg --recipe camvid --data camvid/train --real-data camvid/val",
    ),
)
@grouped
def compare_seg(*, recipe: RecipeOptions, labels: Labels = None, comparison: ComparisonOptions) -> None:
    """Compare segmenters: train each method with each seed, write a table and figures; run again to continue."""
    _compare("seg", recipe, comparison, {"data.labels": labels})


def _compare(task: str, recipe: RecipeOptions, comparison: ComparisonOptions, more: dict[str, Any]) -> None:
    from csg_train.compare.command import CompareRequest, compare_command

    request = CompareRequest(
        task=task,
        recipe=recipe.recipe,
        settings=recipe.settings(more),
        methods=tuple(comparison.method or ()),
        seeds=comparison.seeds,
        tune=comparison.tune,
        out=comparison.out,
        real_train=comparison.real_train,
        executor=comparison.executor,
        trackers=tuple(comparison.tracker or ()),
    )
    compare_command(request, comparison.as_json)
