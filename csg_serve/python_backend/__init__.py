"""Scripts that run inside Triton's Python backend. They stand alone: csg can't be imported there."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

HERE = files(__name__)

TENSOR_MODEL = {name: HERE / name for name in ("model.py", "golden.py", "scheduling.py", "sessions.py", "widening.py")}
TENSOR_MODEL["difference.py"] = files("csg") / "difference.py"
"""Scripts of a model that takes tensors: file name in a version's folder, and source."""

ENCODED_MODEL = {"model.py": HERE / "encoded.py"}
"""Scripts of a model that takes image files."""


def write_scripts(scripts: Mapping[str, Traversable], folder: Path) -> None:
    """Write scripts into a version's folder, and an empty file where Python would put their bytecode.

    Whatever Python the server has, it would write bytecode at the first import, and a polling server would load the
    changed model again. Python inside Triton does not look at PYTHONDONTWRITEBYTECODE.
    """
    for name, source in scripts.items():
        (folder / name).write_bytes(source.read_bytes())
    (folder / "__pycache__").touch()
