"""`csg config`: the settings of recipes and methods."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from csg.errors import UsageError
from csg_cli import completion
from csg_cli.default_command import DEFAULT, DefaultCommand, DefaultGroup
from csg_cli.options import Json, RecipeOptions, examples, grouped

config_app = typer.Typer(cls=DefaultGroup, help="List the settings of recipes and methods, or show those of one.")


@config_app.command(DEFAULT, cls=DefaultCommand, epilog=examples("csg config lr", "csg config --schema"))
def list_settings(
    word: Annotated[
        str,
        typer.Argument(
            help="Part of a name, such as optim or csg, or the word of another program, such as tau.",
            show_default="all settings",
            autocompletion=completion.config_words,
        ),
    ] = "",
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of recipes, by which editors check and complete.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List every setting of a recipe with its default, what values it takes, and a sentence.

    `csg config show` prints a recipe with all its settings, `csg config diff A B` where two runs or recipes differ.
    """
    from csg_train.recipe.list_command import list_command, schema_command

    if not schema:
        list_command(word, as_json)
    elif word:
        raise UsageError("--schema is of all settings", "leave out the word")
    else:
        schema_command()


@config_app.command(
    "show",
    epilog=examples("csg config show --recipe pacs --set optim.batch=16", "csg config show --method l2 --json"),
)
@grouped
def show(
    recipe: RecipeOptions,
    method: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME[:SETTING=VALUE]",
            help="Method, as `csg train` takes it.",
            show_default="the recipe's",
            autocompletion=completion.methods,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a recipe with all its settings, as YAML; comments name the defaults of those that differ."""
    from csg_train.methods.spec import parse_method
    from csg_train.training.config_command import show_command

    changes = parse_method(method).changes if method else {}
    show_command(recipe.recipe or "digits", recipe.settings(changes), as_json)


@config_app.command(
    "diff",
    epilog=examples("csg config diff runs/cls/digits-csg-1 digits", "csg config diff digits pacs --json"),
)
def diff(
    first: Annotated[str, typer.Argument(help="Run folder, or recipe.", autocompletion=completion.runs_and_recipes)],
    second: Annotated[str, typer.Argument(help="Run folder, or recipe.", autocompletion=completion.runs_and_recipes)],
    as_json: Json = False,
) -> None:
    """Print the settings in which two runs or recipes differ. Exit code 0, whether they differ or not."""
    from csg_train.training.config_command import diff_command

    diff_command(first, second, as_json)
