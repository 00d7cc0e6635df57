"""Graphs that do not fit into one protobuf message: their weights are in files, and are never in memory as a whole.

Such a graph is a ModelProto whose large constants name files of one temporary folder. The folder's name is in the
graph's metadata until the graph is written into a bundle. All other graphs hold their weights themselves.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import nn

from csg.bundle import MODEL, WEIGHTS

MAX_WEIGHT_BYTES = 2**31 - 2**26
"""protobuf's limit of 2 GiB for a message, less room for nodes and the card. Larger weights are kept in files."""
FOLDER_KEY = "csg_weights_folder"
CHUNK = 2**24
"""Numbers that are converted at a time."""


def is_large(network: nn.Module) -> bool:
    """Whether the weights of a network are too large for one protobuf message."""
    tensors = (*network.parameters(), *network.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) > MAX_WEIGHT_BYTES


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="csg-export-")


def temporary_folder(parent: Path | None = None) -> Path:
    """A new folder for the weights of a graph, in `parent` or in a temporary folder that ends with this process."""
    folder = (parent or Path(_temporary().name)) / uuid.uuid4().hex
    folder.mkdir()
    return folder


def weights_folder(model: ModelProto) -> Path | None:
    """The folder of a graph's weights; None if the graph holds them itself."""
    return next((Path(entry.value) for entry in model.metadata_props if entry.key == FOLDER_KEY), None)


def set_weights_folder(model: ModelProto, folder: Path) -> None:
    """Record where the weights of a graph are; the graph has no other metadata."""
    helper.set_model_props(model, {FOLDER_KEY: str(folder)})


def loadable(model: ModelProto) -> bytes | str:
    """What onnx and the runtimes load: the serialised graph, or the path of a file beside its weights."""
    folder = weights_folder(model)
    if folder is None:
        return bytes(model.SerializeToString())
    content = model.SerializeToString(deterministic=True)
    file = folder / f"{hashlib.sha256(content).hexdigest()}.onnx"
    if not file.is_file():
        file.write_bytes(content)
    return str(file)


def convert_constant(
    model: ModelProto, constant: TensorProto, name: str, convert: Callable[[np.ndarray], np.ndarray]
) -> TensorProto:
    """A constant with other values, under another name.

    Args:
        model: the graph of the constant.
        constant: one of its constants.
        name: of the new constant.
        convert: from values to values of the same shape, number by number.
    """
    folder = weights_folder(model)
    if folder is None or constant.data_location != TensorProto.EXTERNAL:
        return numpy_helper.from_array(convert(numpy_helper.to_array(constant)), name)
    values = _values(constant, folder)
    first = convert(values[:1])
    file = folder / hashlib.sha256(f"{constant.name} {name} {first.dtype}".encode()).hexdigest()
    if not file.is_file():
        with file.open("wb") as stream:
            for start in range(0, values.size, CHUNK):
                convert(values[start : start + CHUNK]).tofile(stream)
    converted = TensorProto(name=name, dims=constant.dims, data_type=helper.np_dtype_to_tensor_dtype(first.dtype))
    _refer_to(converted, file.name, 0, file.stat().st_size)
    return converted


def _values(constant: TensorProto, folder: Path) -> np.ndarray:
    """The values of a constant in a file, mapped into memory, in one dimension."""
    entries = {entry.key: entry.value for entry in constant.external_data}
    dtype = helper.tensor_dtype_to_np_dtype(constant.data_type)
    count, offset = int(entries["length"]) // dtype.itemsize, int(entries.get("offset", 0))
    return np.memmap(folder / entries["location"], dtype, "r", offset, (count,))


def _refer_to(constant: TensorProto, location: str, offset: int, length: int) -> None:
    constant.ClearField("raw_data")
    constant.ClearField("external_data")
    constant.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        constant.external_data.add(key=key, value=str(value))


def write_files(model: ModelProto, source: Path, folder: Path) -> dict[str, Path]:
    """Write a graph as model.onnx and model.onnx.data, one weight after the other; returns both by name.

    Args:
        model: the graph, without the folder's name in its metadata.
        source: the folder of its weights.
        folder: an empty folder.
    """
    written = ModelProto()
    written.CopyFrom(model)
    with (folder / WEIGHTS).open("wb") as stream:
        for constant in written.graph.initializer:
            if constant.data_location == TensorProto.EXTERNAL:
                values, offset = _values(constant, source), stream.tell()
                for start in range(0, values.size, CHUNK):
                    values[start : start + CHUNK].tofile(stream)
                _refer_to(constant, WEIGHTS, offset, stream.tell() - offset)
    (folder / MODEL).write_bytes(written.SerializeToString(deterministic=True))
    return {name: folder / name for name in (MODEL, WEIGHTS)}
