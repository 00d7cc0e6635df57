"""The scripts that run inside Triton's Python backend. Each stands alone: csg can't be imported there."""

from __future__ import annotations

import py_compile
from importlib.resources import files
from pathlib import Path


def write_script(source: str, folder: Path) -> None:
    """Write one of the scripts as the `model.py` of a version's folder."""
    script = folder / "model.py"
    script.write_bytes(files(__name__).joinpath(source).read_bytes())
    # Python would add its cache beside the script at the first load, and the polling server load the model again
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(script), dfile=source, invalidation_mode=mode)
