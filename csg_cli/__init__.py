"""The command line. Each command calls one function of a stage, imported inside it, so that `csg --help` is fast.

options.py      options that several commands share
completion.py   what a shell completes; bash_words.py: what bash needs for it
default_command.py   groups with a command that needs no name
train.py, compare.py, config.py, export.py, deploy.py, serve.py, evaluate.py, predict.py,
bench.py, page.py, demo.py   the commands
"""

from __future__ import annotations

import io
import os
import sys
import threading
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from csg import __version__
from csg.errors import CsgError, UsageError, one_line, printable
from csg.extras import install_command
from csg.machine_errors import machine_error
from csg_cli import (
    bench,
    compare,
    config,
    demo,
    deploy,
    doctor,
    evaluate,
    export,
    page,
    predict,
    push,
    runs,
    serve,
    train,
)
from csg_cli.completion import VARIABLE, answer_shell
from csg_cli.options import examples

PIPELINE = (
    *("train", "compare", "runs", "embed", "export", "push"),
    *("deploy", "serve", "evaluate", "predict", "page", "bench"),
)
ORDER = (*PIPELINE, "models", "config", "weights", "data", "doctor", "demo")
EXTRAS = {
    **dict.fromkeys(("train", "compare", "runs", "embed", "config", "weights", "data"), "train"),
    **dict.fromkeys(("deploy", "serve", "evaluate", "predict", "page", "models"), "serve"),
    **{"export": "export", "bench": "bench", "push": "hub"},
}
"""The extra of pyproject.toml that brings the packages of a command."""
CLOSED_PIPE = 141
"""Exit code of a command whose output nobody reads any more: 128 + SIGPIPE."""


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
app.add_typer(runs.runs_app, name="runs")
app.add_typer(export.export_app, name="export")
app.add_typer(config.config_app, name="config")
app.add_typer(train.weights_app, name="weights")
app.add_typer(train.data_app, name="data")
app.command(epilog=train.EMBED_EXAMPLES)(train.embed)
app.command(epilog=push.EXAMPLES)(push.push)
app.command(epilog=deploy.EXAMPLES)(deploy.deploy)
app.command(epilog=serve.SERVE_EXAMPLES)(serve.serve)
app.command(epilog=serve.MODELS_EXAMPLES)(serve.models)
app.command(epilog=evaluate.EVALUATE_EXAMPLES)(evaluate.evaluate)
app.command(epilog=predict.PREDICT_EXAMPLES)(predict.predict)
app.command(epilog=page.EXAMPLES)(page.page)
app.command(epilog=bench.BENCH_EXAMPLES)(bench.bench)
app.command(epilog=doctor.EXAMPLES)(doctor.doctor)
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
    _use_utf8()
    args = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever a name or a terminal's encoding holds
    if "--debug" not in args:
        threading.excepthook = _thread_failed
    try:
        _check_arguments(args)
        try:
            if os.environ.get(VARIABLE, "").startswith("complete_"):
                answer_shell(lambda: app(prog_name="csg"))
            app([arg for arg in args if arg != "--debug"], prog_name="csg")
        finally:
            sys.stdout.flush()
    except SystemExit as end:
        if end.code == 1:  # typer's and rich's answer to a closed pipe
            _end_quietly()
        raise
    except BrokenPipeError:
        _end_quietly()
    except KeyboardInterrupt:
        _say("stopped")
        sys.exit(130)
    except Exception as error:
        if "--debug" in args:
            raise
        sys.exit(_report(error, args))


def _use_utf8() -> None:
    """Start again in Python's UTF-8 mode if the locale is another: names would be read as other characters."""
    if sys.getfilesystemencoding() != "utf-8":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _check_arguments(args: list[str]) -> None:
    """Raise UsageError for an empty argument, which would be taken for the current folder."""
    for number, arg in enumerate(args):
        if not arg or (arg.startswith("--") and arg.find("=") == len(arg) - 1):
            where = f" after {args[number - 1]}" if number and not arg else f" in {arg}" if arg else ""
            raise UsageError(f"an argument is empty{where}", "give it a value; a variable of the shell may be unset")


def _report(error: Exception, args: list[str]) -> int:
    """Say in one line what went wrong; returns the exit code."""
    if known := known_error(error, args):
        _say(f"error: {known}")
        return known.exit_code
    text = printable(one_line(error))
    _say(f"internal error: {type(error).__name__}: {text}; run again with --debug for the traceback")
    return 1


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """Print nothing about an error of the machine in a thread, such as TensorBoard's: the main thread raises it too."""
    if failed.exc_value is None or machine_error(failed.exc_value) is None:
        threading.__excepthook__(failed)


def _say(line: str) -> None:
    with suppress(OSError):  # standard error may be a closed pipe or a full disk too
        typer.echo(line, err=True)


def _end_quietly() -> None:
    """End as a process does whose output nobody reads any more, as in `csg models | head -1`."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(CLOSED_PIPE)


def known_error(error: Exception, args: list[str]) -> CsgError | None:
    """The error as the user or the machine caused it; None if it is one of csg's own.

    Args:
        error: what a command raised.
        args: its words.
    """
    missing = error.__cause__ or error  # tritonclient names the module only in the cause of its error
    if (known := machine_error(error)) or not isinstance(missing, ModuleNotFoundError):
        return known
    return _missing_extra(missing, args)


def _missing_extra(error: ModuleNotFoundError, args: list[str]) -> CsgError | None:
    """What to tell a user who installed csg without the packages of a command; None if the module is one of csg's."""
    command = next((arg for arg in args if arg in EXTRAS), None)
    if command is None or not error.name or error.name.partition(".")[0].startswith("csg"):
        return None
    return UsageError(f"csg {command} needs the module {error.name}", install_command(EXTRAS[command]))
