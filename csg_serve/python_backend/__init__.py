"""Scripts that run inside Triton's Python backend. They stand alone: csg can't be imported there."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

TENSOR_MODEL = {name: name for name in ("model.py", "golden.py", "scheduling.py", "sessions.py", "widening.py")}
"""Scripts of a model that takes tensors: file name in a version's folder, and source here."""

ENCODED_MODEL = {"model.py": "encoded.py"}
"""Scripts of a model that takes image files."""


def write_scripts(scripts: dict[str, str], folder: Path) -> None:
    """Write scripts into a version's folder, and an empty file where Python would put their bytecode.

    Whatever Python the server has, it would write bytecode at the first import, and a polling server would load the
    changed model again. Python inside Triton does not look at PYTHONDONTWRITEBYTECODE.
    """
    for name, source in scripts.items():
        (folder / name).write_bytes(files(__name__).joinpath(source).read_bytes())
    (folder / "__pycache__").touch()
