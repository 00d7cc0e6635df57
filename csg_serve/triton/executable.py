"""The tritonserver of this machine: one on PATH (NVIDIA's container), else the one in the nvidia-pytriton wheel."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from csg.card import ModelCard
from csg.errors import ServerError
from csg.files import atomic_directory, cache_dir

WHEEL = "nvidia-pytriton"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Triton:
    """A tritonserver, the folder with its backends (None: where it looks by itself), and its environment."""

    executable: Path
    backends: Path | None
    environment: dict[str, str]


def find_triton() -> Triton:
    """Find tritonserver.

    Raises:
        ServerError: there is none, or the wheel's has no Python backend for this Python.
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


def best_backend(card: ModelCard) -> str:
    """The backend to deploy for: of those that the tritonserver on PATH has, tensorrt for a bundle with its plan, or
    onnxruntime; python otherwise, and for a runtime that Triton has no backend for.
    """
    found = None if card.runtime != "onnxruntime" else _on_path()
    planned = card.engine is not None and card.engine.library == "tensorrt"
    for backend in ("tensorrt", "onnxruntime") if planned else ("onnxruntime",):
        if found and _has(found, backend):
            return backend
    return "python"


def has_python_backend() -> bool:
    """Whether the tritonserver on PATH has the Python backend, which the wheel's always has."""
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
    """The wheel's backends, with the Python backend's stub for this Python put where Triton looks for it."""
    folder = cache_dir() / f"triton-backends-{importlib.metadata.version(WHEEL)}-python{PYTHON}"
    if not folder.is_dir():
        stub = package / "tritonserver/python_backend_stubs" / PYTHON / "triton_python_backend_stub"
        if not stub.is_file():
            raise ServerError(
                f"{WHEEL} has no Python backend for Python {PYTHON}", "use another Python, or NVIDIA's container"
            )
        with atomic_directory(folder) as fresh:
            shutil.copytree(package / "tritonserver/backends", fresh, dirs_exist_ok=True)
            shutil.copy(stub, fresh / "python")
    return folder


def _environment(package: Path) -> dict[str, str]:
    """The wheel's libraries and this Python's; the stub takes the `python3` first on PATH for its environment."""
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
