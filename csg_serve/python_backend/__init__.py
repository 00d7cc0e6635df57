"""Scripts that run inside Triton's Python backend. They stand alone: csg can't be imported there."""

from __future__ import annotations

import py_compile
from importlib.resources import files
from pathlib import Path

TENSOR_MODEL = {name: name for name in ("model.py", "golden.py", "scheduling.py", "sessions.py")}
"""Scripts of a model that takes tensors: file name in a version's folder, and source here."""

ENCODED_MODEL = {"model.py": "encoded.py"}
"""Scripts of a model that takes image files."""


def write_scripts(scripts: dict[str, str], folder: Path) -> None:
    """Write scripts and their bytecode into a version's folder.

    Python would write the bytecode at the first import, and a polling server would load the changed model again.
    """
    for name, source in scripts.items():
        script = folder / name
        script.write_bytes(files(__name__).joinpath(source).read_bytes())
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(script), dfile=source, invalidation_mode=mode)
