"""The tritonserver of this machine: on PATH, as in NVIDIA's container, or that of the nvidia-pytriton wheel."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from csg.card import ModelCard
from csg_serve.triton.environment import ServerEnvironment, clean_environment, server_environment


@dataclass(frozen=True)
class Triton:
    """A tritonserver."""

    executable: Path
    """The program."""

    backends: Path | None
    """Folder with its backends. None: where it looks by default."""

    environment: dict[str, str]
    """All its environment variables."""


def find_triton(openvino: bool = False) -> Triton:
    """Find tritonserver: on PATH, with the Python of this machine, or the wheel's, whose environment is created.

    Args:
        openvino: a model needs OpenVINO.

    Raises:
        InputError, ServerError, OSError: as `server_environment`.
    """
    if on_path := _on_path():
        backends = on_path.parent.parent / "backends"
        return Triton(on_path, backends if backends.is_dir() else None, dict(os.environ))
    found = server_environment(openvino)
    return Triton(found.triton / "bin/tritonserver", found.backends, _variables(found))


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


def _variables(server: ServerEnvironment) -> dict[str, str]:
    """Return the variables with the server's libraries; its stub runs the first `python3` on PATH."""
    variables = clean_environment()
    first = {
        "LD_LIBRARY_PATH": [server.packages / "nvidia_pytriton.libs", server.folder / "lib"],
        "PATH": [server.folder / "bin"],
    }
    for name, folders in first.items():
        variables[name] = os.pathsep.join([*map(str, folders), *filter(None, [variables.get(name)])])
    return variables
