"""The tritonserver of this machine: on PATH, as in NVIDIA's container, or in the nvidia-pytriton wheel."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from csg.card import ModelCard
from csg.errors import ServerError
from csg.locks import cached_folder

WHEEL = "nvidia-pytriton"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Triton:
    """A tritonserver."""

    executable: Path
    """The program."""

    backends: Path | None
    """Folder with its backends. None: where it looks by default."""

    environment: dict[str, str]
    """Environment variables that it needs."""


def find_triton() -> Triton:
    """Find tritonserver.

    Raises:
        ServerError: there is none, or the wheel has no Python backend for this version of Python.
    """
    on_path, package = _on_path(), _wheel()
    if on_path:
        backends = on_path.parent.parent / "backends"
        return Triton(on_path, backends if backends.is_dir() else None, dict(os.environ))
    if package:
        return Triton(package / "tritonserver/bin/tritonserver", _assemble(package), _environment(package))
    raise ServerError(
        "no tritonserver is on PATH", "install one with `pip install 'csg[server]'`, or use NVIDIA's container"
    )


def best_backend(card: ModelCard) -> Literal["python", "onnxruntime", "tensorrt"]:
    """Return the best backend for a bundle on this machine.

    A tritonserver on PATH computes a bundle with a TensorRT plan in its tensorrt backend, other bundles in its
    onnxruntime backend. Without these backends, and for bundles that need OpenVINO, it is the Python backend.
    """
    found = None if card.runtime != "onnxruntime" else _on_path()
    planned = card.engine is not None and card.engine.library == "tensorrt"
    if found and planned and _has(found, "tensorrt"):
        return "tensorrt"
    return "onnxruntime" if found and _has(found, "onnxruntime") else "python"


def has_python_backend() -> bool:
    """Return whether the tritonserver of this machine has the Python backend; the wheel's always has."""
    found = _on_path()
    return found is None or _has(found, "python")


def _has(tritonserver: Path, backend: str) -> bool:
    return (tritonserver.parent.parent / "backends" / backend).is_dir()


def _on_path() -> Path | None:
    found = shutil.which("tritonserver")
    return Path(found).resolve() if found else None


def _wheel() -> Path | None:
    spec = importlib.util.find_spec("pytriton")
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def _assemble(package: Path) -> Path:
    """Return a folder with the wheel's backends and the stub for this Python, where Triton expects it."""

    def fill(folder: Path) -> None:
        stub = package / "tritonserver/python_backend_stubs" / PYTHON / "triton_python_backend_stub"
        if not stub.is_file():
            raise ServerError(
                f"{WHEEL} has no Python backend for Python {PYTHON}",
                "use another version of Python, or NVIDIA's container",
            )
        shutil.copytree(package / "tritonserver/backends", folder, dirs_exist_ok=True)
        shutil.copy(stub, folder / "python")

    return cached_folder(f"triton-backends-{importlib.metadata.version(WHEEL)}-python{PYTHON}", fill)


def _environment(package: Path) -> dict[str, str]:
    """Return an environment with the wheel's and this Python's libraries; the stub uses the first `python3` on PATH."""
    libraries, own = [package.parent / "nvidia_pytriton.libs"], Path(sys.base_prefix, "lib")
    if (own / f"libpython{PYTHON}.so.1.0").is_file():
        libraries.append(own)
    elif not ctypes.util.find_library(f"python{PYTHON}"):
        raise ServerError(
            f"Triton's Python backend needs libpython{PYTHON}.so", f"install it (Debian: libpython{PYTHON})"
        )
    return os.environ | {
        "LD_LIBRARY_PATH": _prepend(libraries, "LD_LIBRARY_PATH"),
        "PATH": _prepend([Path(sys.prefix, "bin")], "PATH"),
    }


def _prepend(folders: list[Path], variable: str) -> str:
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get(variable)])])
