"""`csg push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from csg_cli import completion
from csg_cli.options import Json, examples

EXAMPLES = examples("csg push bundles/digits --hub me/digits", "csg push bundles/digits --hub me/digits --private")


def push(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.", autocompletion=completion.bundles)],
    hub: Annotated[str, typer.Option("--hub", metavar="[ACCOUNT/]NAME", help="Repository on Hugging Face's Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Create the repository as a private one.")] = False,
    as_json: Json = False,
) -> None:
    """Verify a bundle and upload it to a repository on Hugging Face's Hub, in one commit.

    The token is the one that `hf auth login` keeps, or HF_TOKEN's.
    """
    from csg_export.push import push_command

    push_command(bundle, hub, private, as_json)
