"""`csg page`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from csg_cli.options import Json, examples

EXAMPLES = examples(
    "csg page bundles/digits --open", "csg page bundles/digits-fp32-1 bundles/digits-int8-1 --out public"
)


def page(
    bundles: Annotated[
        Optional[list[Path]],
        typer.Argument(help="Bundle folders, shown side by side.", show_default="the newest in bundles/"),
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(help="Folder to create.", show_default="<bundle>-page; with --open a temporary one"),
    ] = None,
    open_it: Annotated[
        bool, typer.Option("--open", help="Show the page in this machine's browser, until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a page that runs bundles in the browser: drop a photo, paste one, or use the camera.

    The folder needs no server of csg: any web server serves it. Images never leave the browser.
    """
    from csg_serve.page.command import PageOptions, page_command

    page_command(PageOptions(bundles or (), out, open_it), as_json)
