"""PyTorch to a clean ONNX graph: input `image`, output `logits` or `label_map`, `embedding` if asked; norms folded."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from csg.bundle import MODEL, WEIGHTS
from csg.card import STRIDE, ClassificationInput, SegmentationInput
from csg_train.models.fast_layers import fold_batch_norms

OPSET = 21
INPUT, LOGITS, LABEL_MAP, EMBEDDING = "image", "logits", "label_map", "embedding"
CARD_KEY = "csg_card"
LARGEST_MESSAGE = (
    2**31 - 2**20
)  # protobuf's limit, and room for the card; beyond it the weights stand in their own file


class _WithLabelMap(nn.Module):
    """A segmenter's logits and their arg-max, uint8."""

    def __init__(self, student: nn.Module):
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits: Tensor = self.student(images)
        return logits, logits.argmax(1).to(torch.uint8)


class _WithEmbedding(nn.Module):
    """A classifier's logits and the embedding, float32 (B, C), that they are made from."""

    def __init__(self, student: Any):
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.student.encoder(images)
        return self.student.classify(maps), self.student.embed(maps)


def stripped(network: nn.Module) -> nn.Module:
    """A copy for inference alone: on the CPU, in eval mode, batch norms folded into the convolutions before them."""
    bare = copy.deepcopy(network).cpu().eval()
    fold_batch_norms(bare)
    return bare


def to_onnx(network: nn.Module, spec: ClassificationInput | SegmentationInput, embedding: bool = False) -> ModelProto:
    """The float32 graph of a stripped network, checked by onnx's checker: normalisation inside, the batch dynamic.

    Takes uint8 (B, H, W, 3). A classifier returns float32 logits (B, classes), and its embedding (B, C) if asked; a
    segmenter float32 logits (B, classes, H, W) and the label map uint8 (B, H, W), with H and W fixed or any multiples
    of 8, as its card says.
    """
    shape: dict[int, object] = {0: torch.export.Dim("batch", min=1)}
    outputs = [LOGITS]
    if embedding:
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
    _drop_notes(model)
    check(model)
    return model


def _drop_notes(model: ModelProto) -> None:
    """Remove the exporter's notes: names and paths of the machine that exported."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def without_logits(model: ModelProto) -> ModelProto:
    """The same graph, returning the label map alone: for 1024 x 2048 pixels 2 MB an image in place of 159."""
    slim = ModelProto()
    slim.CopyFrom(model)
    del slim.graph.output[[output.name for output in slim.graph.output].index(LOGITS)]
    check(slim)
    return slim


def check(model: ModelProto) -> None:
    """onnx's own check of the graph, types and shapes inferred."""
    onnx.checker.check_model(model, full_check=True)


def files_of(model: ModelProto, card_json: str) -> dict[str, bytes]:
    """The graph as a bundle's files, the card in its metadata; weights beyond protobuf's 2 GB in their own file."""
    onnx.helper.set_model_props(model, {CARD_KEY: card_json})
    if model.ByteSize() <= LARGEST_MESSAGE:
        return {MODEL: bytes(model.SerializeToString(deterministic=True))}
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder, MODEL), save_as_external_data=True, location=WEIGHTS)
        return {name: Path(folder, name).read_bytes() for name in (MODEL, WEIGHTS)}
