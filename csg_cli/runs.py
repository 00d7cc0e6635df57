"""`csg runs`: what was trained, which run is best, and what may go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from csg_cli import completion
from csg_cli.default_command import DEFAULT, DefaultCommand, DefaultGroup
from csg_cli.options import Json, examples

Folders = Annotated[
    Optional[list[Path]],
    typer.Argument(metavar="FOLDER", help="Runs, or folders with runs below them.", show_default="runs"),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


runs_app = typer.Typer(cls=DefaultGroup, help="List runs, find the best one, compare two, remove some.")


@runs_app.command(DEFAULT, cls=DefaultCommand, epilog=examples("csg runs", "csg runs comparisons/ runs/ --json"))
def list_runs(folders: Folders = None, as_json: Json = False) -> None:
    """List runs, the newest first: how they ended, score, energy, method, data, age, size.

    The score is mean class accuracy or mIoU. Links to runs are listed, other links are not followed.
    Further commands: `csg runs best`, `compare A B`, `remove RUN`, `prune`.
    """
    from csg_train.runs.listing import list_command

    list_command(folders or [], as_json)


@runs_app.command("best", epilog=examples("csg runs best", "csg runs best comparisons/digits --metric accuracy"))
def best(
    folders: Folders = None,
    metric: Annotated[
        Optional[str],
        typer.Option(
            help="mean_class_accuracy or accuracy; miou or pixel_accuracy.", show_default="mean_class_accuracy, miou"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the best finished runs, among those that were measured on the same real images."""
    from csg_train.runs.best import best_command

    best_command(folders or [], metric, as_json)


@runs_app.command(
    "compare",
    epilog=examples(
        "csg runs compare runs/cls/digits-none-1 runs/cls/digits-csg-1",
        "csg runs compare runs/seg/before runs/seg/after --json",
    ),
)
def compare(
    a: Annotated[Path, typer.Argument(help="A finished run.", metavar="A", autocompletion=completion.runs)],
    b: Annotated[
        Path,
        typer.Argument(
            help="Another one, measured on the same real images.", metavar="B", autocompletion=completion.runs
        ),
    ],
    as_json: Json = False,
) -> None:
    """Test whether run B is better than run A by more than chance, from their predictions for the same real images."""
    from csg_train.runs.comparing import compare_command

    compare_command(a, b, as_json)


@runs_app.command(
    "remove", epilog=examples("csg runs remove runs/cls/digits-csg-1", "csg runs remove runs/cls/* --yes")
)
def remove(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN", autocompletion=completion.runs)],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Remove run folders, after asking. A running one, a link, and a folder with other files are refused."""
    from csg_train.runs.removing import remove_command

    remove_command(runs, yes, as_json)


@runs_app.command("prune", epilog=examples("csg runs prune", "csg runs prune comparisons/ --only diverged --yes"))
def prune(
    folders: Folders = None,
    only: Annotated[
        Optional[list[str]],
        typer.Option(help="stopped, diverged or checkpoints. Repeatable.", show_default="all three"),
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Remove stopped runs, diverged runs, and checkpoints that finished runs have left, after showing what it frees."""
    from csg_train.runs.removing import prune_command

    prune_command(folders or [], only or (), yes, as_json=as_json)
