"""A folder that any web server serves: a page that runs bundles in the browser.

index.html, page.css, icon.svg, js/   the page; the same for all bundles
onnxruntime-web-VERSION/              what runs the models
models/DIGEST/                        the graph and the golden answers of a bundle
page.json                             the bundles: titles, cards, files
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from csg import __version__
from csg.bundle import GOLDEN, MODEL, WEIGHTS, Bundle
from csg.errors import UsageError, printable
from csg.files import atomic_directory, check_utf8, sha256
from csg_serve.evaluate.card_tables import card_tables
from csg_serve.page.runtime import FILES, FOLDER, runtime_folder

STATIC = Path(__file__).parent / "static"
PAGE_VERSION = 1
"""Version of the format of page.json."""
MAX_GRAPH = 2**30
"""Maximum size of a graph in bytes: a browser holds it and its weights in the 4 GiB of WebAssembly."""


def write_page(bundles: Sequence[Bundle], out: Path) -> Path:
    """Write the page atomically.

    Args:
        bundles: the bundles that it shows, in this order.
        out: the folder to create.

    Returns:
        `out`.

    Raises:
        UsageError: a browser can't run a bundle, or two are the same.
        InputError: `out` exists and is not empty; ONNX Runtime's files can't be downloaded.
    """
    check_utf8(out)
    for bundle in bundles:
        _check_runs_in_browser(bundle)
    folders = [f"models/{sha256(bundle.model)[:16]}" for bundle in bundles]
    if len(set(folders)) < len(folders):
        twice = next(bundle for bundle, folder in zip(bundles, folders, strict=True) if folders.count(folder) > 1)
        raise UsageError(f"the page would show the graph of {twice.path} twice", "name each bundle once")
    runtime = runtime_folder()
    with atomic_directory(out) as page:
        shutil.copytree(STATIC, page, dirs_exist_ok=True)
        (page / FOLDER).mkdir()
        for name in FILES:
            shutil.copyfile(runtime / name, page / FOLDER / name)
        for bundle, folder in zip(bundles, folders, strict=True):
            _copy(bundle, page / folder)
        entries = [_entry(*one) for one in zip(bundles, _titles(bundles), folders, strict=True)]
        content = {"version": PAGE_VERSION, "csg": __version__, "models": entries}
        (page / "page.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    return out


def _check_runs_in_browser(bundle: Bundle) -> None:
    card, hint = bundle.card, "export the run again with --precision fp32, fp16 or int8"
    if card.runtime != "onnxruntime":
        raise UsageError(f"a browser can't run {bundle.path}: {card.precision} needs OpenVINO", hint)
    if (bundle.path / WEIGHTS).is_file() or bundle.model.stat().st_size > MAX_GRAPH:
        size = sum(file.stat().st_size for file in bundle.graph_files) / 2**30
        raise UsageError(
            f"a browser can't run {bundle.path}: its graph has {size:.1f} GiB, the maximum is {MAX_GRAPH >> 30}",
            "train a smaller backbone, or serve it with `csg deploy`",
        )


def _titles(bundles: Sequence[Bundle]) -> list[str]:
    """What each bundle is called: its model's name; where two have the same, the folder's name with a number."""
    names = [bundle.card.name for bundle in bundles]
    if len(set(names)) == len(names):
        return names
    folders = [printable(bundle.path.resolve().name) for bundle in bundles]
    if len(set(folders)) == len(folders):
        return folders
    return [f"{folder} ({number})" for number, folder in enumerate(folders, 1)]


def _copy(bundle: Bundle, folder: Path) -> None:
    """Copy what a browser needs of a bundle."""
    folder.mkdir(parents=True)
    shutil.copyfile(bundle.model, folder / MODEL)
    if bundle.golden:
        (folder / GOLDEN).write_text(bundle.golden.to_json())


def _entry(bundle: Bundle, title: str, folder: str) -> dict[str, object]:
    """A bundle in page.json."""
    return {
        "title": title,
        "folder": folder,
        "bytes": bundle.model.stat().st_size,
        "golden": len(bundle.golden.answers) if bundle.golden else 0,
        "card": json.loads(bundle.card.to_json()),
        "tables": dataclasses.asdict(card_tables(bundle.card)),
    }
