"""docs/architecture.md names files and folders that exist, and every room."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text()
PATH = re.compile(r"`((?:csg|csg_\w+|docs|tests|benchmarks|examples)/[\w./-]*)`")


def test_every_path_exists():
    paths = set(PATH.findall(PAGE))
    assert len(paths) > 60
    assert {path for path in paths if not (ROOT / path).exists()} == set()


def test_every_room_is_named():
    rooms = {
        path.parent.name for package in ("csg_train", "csg_serve") for path in (ROOT / package).glob("*/__init__.py")
    }
    assert {room for room in rooms if f"| `{room}/` |" not in PAGE} == set()
