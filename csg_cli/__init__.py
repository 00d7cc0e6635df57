"""The command line. Each command calls one function of a stage, imported inside it, so that `csg --help` is fast.

options.py      options that several commands share
completion.py   what a shell completes
train.py, compare.py, export.py, deploy.py, serve.py, evaluate.py, demo.py   the commands
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from csg import __version__
from csg.errors import CsgError, UsageError
from csg_cli import compare, demo, deploy, evaluate, export, serve, train
from csg_cli.options import examples

PIPELINE = ("train", "compare", "embed", "export", "deploy", "serve", "evaluate", "predict", "bench")
ORDER = (*PIPELINE, "models", "weights", "data", "demo")
EXTRAS = {
    **dict.fromkeys(("train", "compare", "embed", "weights", "data"), "train"),
    **dict.fromkeys(("deploy", "evaluate", "predict", "models"), "serve"),
    **{"export": "export", "serve": "server", "bench": "bench"},
}
"""The extra of pyproject.toml that brings the packages of a command."""


class _InOrder(TyperGroup):
    """Lists the commands in the order in which they are used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    cls=_InOrder,
    help="From synthetic images to a served model for real photographs: train, export, deploy, serve, evaluate.",
    epilog=examples("csg demo", "csg train cls --help"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(train.train_app, name="train")
app.add_typer(compare.compare_app, name="compare")
app.add_typer(export.export_app, name="export")
app.add_typer(train.weights_app, name="weights")
app.add_typer(train.data_app, name="data")
app.command(epilog=train.EMBED_EXAMPLES)(train.embed)
app.command(epilog=deploy.EXAMPLES)(deploy.deploy)
app.command(epilog=serve.SERVE_EXAMPLES)(serve.serve)
app.command(epilog=serve.MODELS_EXAMPLES)(serve.models)
app.command(epilog=evaluate.EVALUATE_EXAMPLES)(evaluate.evaluate)
app.command(epilog=evaluate.PREDICT_EXAMPLES)(evaluate.predict)
app.command(epilog=evaluate.BENCH_EXAMPLES)(evaluate.bench)
app.command(epilog=demo.EXAMPLES)(demo.demo)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"csg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere in the command.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; an error of the user is one line and an exit code, a traceback needs --debug."""
    args = sys.argv[1:]
    debug = "--debug" in args
    try:
        app([arg for arg in args if arg != "--debug"], prog_name="csg")
    except CsgError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, ModuleNotFoundError) and (missing := _missing_extra(error, args)):
            typer.echo(f"error: {missing}", err=True)
            sys.exit(missing.exit_code)
        typer.echo(
            f"internal error: {type(error).__name__}: {error}; run again with --debug for the traceback", err=True
        )
        sys.exit(1)


def _missing_extra(error: ModuleNotFoundError, args: list[str]) -> CsgError | None:
    """What to tell a user who installed csg without the packages of a command; None if the module is one of csg's."""
    command = next((arg for arg in args if arg in EXTRAS), None)
    if command is None or not error.name or error.name.partition(".")[0].startswith("csg"):
        return None
    return UsageError(f"csg {command} needs the module {error.name}", f"pip install 'csg[{EXTRAS[command]}]'")
