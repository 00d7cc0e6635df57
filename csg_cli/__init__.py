"""The command line. Each command calls one function of a stage, imported inside it so that start-up stays fast.

options.py: options that several commands share. train.py: the commands of csg_train. export.py: those of csg_export.
deploy.py, serve.py: those of csg_serve.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from csg import __version__
from csg.errors import CsgError
from csg_cli import export, serve, train
from csg_cli.deploy import deploy

app = typer.Typer(
    help="From synthetic images to a served model for real photographs: train, export, deploy, serve, evaluate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(train.train_app, name="train")
app.add_typer(train.compare_app, name="compare")
app.command()(train.embed)
app.add_typer(export.export_app, name="export")
for command in (deploy, serve.serve, serve.models, serve.evaluate, serve.predict, serve.bench):
    app.command()(command)
app.add_typer(train.weights_app, name="weights")
app.add_typer(train.data_app, name="data")
app.command()(serve.demo)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"csg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line: one line and an exit code for what a user can cause, a traceback only with --debug."""
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
        typer.echo(f"defect: {type(error).__name__}: {error}; run again with --debug for the traceback", err=True)
        sys.exit(1)
