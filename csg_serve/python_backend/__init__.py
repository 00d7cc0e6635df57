"""Scripts that run inside Triton's Python backend. They stand alone: csg can't be imported there."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

TENSOR_MODEL = {name: name for name in ("model.py", "golden.py", "scheduling.py", "sessions.py", "widening.py")}
"""Scripts of a model that takes tensors: file name in a version's folder, and source here."""

ENCODED_MODEL = {"model.py": "encoded.py"}
"""Scripts of a model that takes image files."""


def write_scripts(scripts: dict[str, str], folder: Path) -> None:
    """Write scripts into a version's folder."""
    for name, source in scripts.items():
        (folder / name).write_bytes(files(__name__).joinpath(source).read_bytes())
