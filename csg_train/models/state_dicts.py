"""State dicts from files: read without running code, and compared with what a network has."""

from __future__ import annotations

import io
import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

WRAPPER = "state_dict"
"""Key of the state dict in a training checkpoint, beside numbers such as the epoch."""
DATA_PARALLEL = "module."
"""What `nn.DataParallel` puts before every name."""


class _Skipped:
    """Stands for a NumPy number in a checkpoint, such as its best score; NumPy does not read it, and nobody uses it."""

    def __init__(self, *parts: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


_NUMPY_NUMBERS: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
    (_Skipped, name) for name in ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, .safetensors or what torch.save has written; no code in it is run.

    Of a training checkpoint, the tensors under `state_dict`. The prefix `module.` of `nn.DataParallel` is removed.

    Raises:
        Exception: of many kinds, if the file can't be read or contains anything else.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load

        value: object = load(path.read_bytes())
    else:
        value = _unpickled(path.read_bytes())
    if isinstance(value, Mapping) and isinstance(value.get(WRAPPER), Mapping):
        value = value[WRAPPER]
    if not isinstance(value, Mapping) or not all(isinstance(tensor, Tensor) for tensor in value.values()):
        raise ValueError("it holds something else than named tensors")
    state = {str(name): tensor for name, tensor in value.items()}
    if state and all(name.startswith(DATA_PARALLEL) for name in state):
        return {name.removeprefix(DATA_PARALLEL): tensor for name, tensor in state.items()}
    return state


def _unpickled(content: bytes) -> object:
    try:
        with torch.serialization.safe_globals(_NUMPY_NUMBERS), warnings.catch_warnings(action="ignore"):
            value: object = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its message advises to run the code in the file
        named = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
        if named:
            raise ValueError(f"it needs {named[1]} to be run, and no code of a file is run") from None
        raise ValueError("it is damaged, or holds more than tensors") from None
    return value


def check_fits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], optional: str = "") -> None:
    """Compare the names, shapes and kinds of numbers of a state dict with those of a network.

    Args:
        state: to check.
        expected: of the network; batch norms' counts of batches may be missing in `state`.
        optional: start of the names that may be missing too, all together.

    Raises:
        ValueError: in one line, how they differ.
    """
    spared = bool(optional) and not any(name.startswith(optional) for name in state)
    missing = [
        name
        for name in expected
        if name not in state and not name.endswith("num_batches_tracked") and not (spared and name.startswith(optional))
    ]
    if missing:
        raise ValueError(f"it lacks {_counted(missing)}")
    if other := [name for name in state if name not in expected]:
        raise ValueError(f"it holds {_counted(other)} that the network does not have")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)} in it, {tuple(expected[name].shape)} in the network")
        if tensor.is_floating_point() != expected[name].is_floating_point() or tensor.layout != torch.strided:
            raise ValueError(f"{name} is a {tensor.layout} tensor of {tensor.dtype} in it".replace("torch.", ""))


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a tensor of a state dict holds NaN or infinity."""
    for name, tensor in state.items():
        if tensor.numel() and not torch.stack(torch.aminmax(tensor)).isfinite().all():
            raise ValueError(f"{name} is not finite")


def _counted(names: Iterable[str]) -> str:
    first, *more = names
    return f"{first} and {len(more)} more" if more else first
