"""PyTorch to a clean ONNX graph: input `image`, outputs `logits`, `label_map` or `embedding`, batch norms folded."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from csg.bundle import MODEL, WEIGHTS
from csg.card import STRIDE, ClassificationInput, SegmentationInput
from csg_train.models.classifier import Classifier
from csg_train.models.fast_layers import fold_batch_norms

OPSET = 21
INPUT, LOGITS, LABEL_MAP, EMBEDDING = "image", "logits", "label_map", "embedding"
CARD_KEY = "csg_card"
"""Name of the model card in the graph's metadata."""
LAYERS = ("Conv", "Gemm", "MatMul")
"""Operators with weights."""
MAX_MESSAGE_BYTES = 2**31 - 2**20
"""protobuf's limit less room for the card. The weights of a larger graph are written to a file of their own."""


class _WithLabelMap(nn.Module):
    """A segmenter's logits and label map, uint8: the arg-max of the logits."""

    def __init__(self, student: nn.Module):
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits: Tensor = self.student(images)
        return logits, logits.argmax(1).to(torch.uint8)


class _WithEmbedding(nn.Module):
    """A classifier's logits and the embedding, float32 (B, C), that they are computed from."""

    def __init__(self, student: Classifier):
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.student.encoder(images)
        return self.student.classify(maps), self.student.embed(maps)


def strip(network: nn.Module) -> nn.Module:
    """Copy a network for inference: on the CPU, in eval mode, batch norms folded into the convolutions before them."""
    bare = copy.deepcopy(network).cpu().eval()
    fold_batch_norms(bare)
    return bare


def to_onnx(network: nn.Module, spec: ClassificationInput | SegmentationInput, embedding: bool = False) -> ModelProto:
    """Export a stripped network as a float32 graph, checked by onnx's checker.

    The graph takes uint8 (B, H, W, 3) for any B and normalises the pixels itself. A classifier returns float32 logits
    (B, classes). A segmenter returns float32 logits (B, classes, H, W) and the label map uint8 (B, H, W).

    Args:
        spec: the input; if it leaves height and width open, H and W are any multiples of 8.
        embedding: also return a classifier's embedding, float32 (B, C).
    """
    shape: dict[int, object] = {0: torch.export.Dim("batch", min=1)}
    outputs = [LOGITS]
    if embedding:
        assert isinstance(network, Classifier)
        network, outputs = _WithEmbedding(network), [LOGITS, EMBEDDING]
    if isinstance(spec, SegmentationInput):
        network, outputs = _WithLabelMap(network), [LOGITS, LABEL_MAP]
        if spec.height is None:
            shape |= {1: STRIDE * torch.export.Dim("rows", min=8), 2: STRIDE * torch.export.Dim("columns", min=8)}
    images = torch.zeros(2, spec.height or 16 * STRIDE, spec.width or 24 * STRIDE, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            input_names=[INPUT],
            output_names=outputs,
            dynamic_shapes=(shape,),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _drop_metadata(model)
    check_graph(model)
    return model


def _drop_metadata(model: ModelProto) -> None:
    """Remove the exporter's metadata: names and paths of the exporting machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def without_logits(model: ModelProto) -> ModelProto:
    """The same graph without the logits: for 1024 x 2048 pixels 2 MB an image instead of 159."""
    slim = ModelProto()
    slim.CopyFrom(model)
    del slim.graph.output[[output.name for output in slim.graph.output].index(LOGITS)]
    check_graph(slim)
    return slim


def check_graph(model: ModelProto) -> None:
    """Check a graph with onnx's checker, types and shapes inferred."""
    onnx.checker.check_model(model, full_check=True)


def bundle_files(model: ModelProto, card_json: str) -> dict[str, bytes]:
    """The files of the graph in a bundle, by name, the card in the graph's metadata.

    Weights are in a file of their own if the graph is larger than protobuf's limit of 2 GB.
    """
    onnx.helper.set_model_props(model, {CARD_KEY: card_json})
    if model.ByteSize() <= MAX_MESSAGE_BYTES:
        return {MODEL: bytes(model.SerializeToString(deterministic=True))}
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder, MODEL), save_as_external_data=True, location=WEIGHTS)
        return {name: Path(folder, name).read_bytes() for name in (MODEL, WEIGHTS)}
