"""`csg page`: bundles as a page that runs in a browser."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from csg.bundle import BUNDLES, newest_bundle, read_bundle
from csg.console import log, print_json
from csg_serve.page.show import show_page
from csg_serve.page.write import write_page


@dataclass(frozen=True)
class PageOptions:
    """What the page shows, and where it goes."""

    bundles: Sequence[Path]
    """Bundle folders; none: the newest in bundles/."""
    out: Path | None = None
    """Folder to create; None: beside the first bundle, or a temporary one if the page is only opened."""
    open: bool = False
    """Whether to show it in this machine's browser."""


def page_command(options: PageOptions, as_json: bool = False) -> None:
    """Write the page, and show it if asked.

    Raises:
        UsageError: a browser can't run a bundle, or one is named twice.
        InputError, VerificationError: a bundle can't be used, the folder exists, or ONNX Runtime's files can't be had.
    """
    paths = list(options.bundles) or [newest_bundle(BUNDLES)]
    bundles = [read_bundle(path) for path in paths]
    if options.open and options.out is None:
        with tempfile.TemporaryDirectory(prefix="csg-page-") as folder:
            show_page(write_page(bundles, Path(folder) / "page"))
        return
    out = write_page(bundles, options.out or page_beside(paths[0]))
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    if as_json:
        print_json({"page": str(out), "bundles": [str(path) for path in paths], "bytes": size})
    log(f"page {out}: {size / 2**20:.1f} MiB; any web server can serve it, `csg page BUNDLE --open` shows one here")
    if options.open:
        show_page(out)


def page_beside(bundle: Path) -> Path:
    """The folder of a bundle's page: beside the bundle, which holds nothing but its own files."""
    return bundle.with_name(f"{bundle.resolve().name}-page")
