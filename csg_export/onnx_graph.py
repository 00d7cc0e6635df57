"""PyTorch to a clean ONNX graph: input `image`, outputs `logits`, `label_map` or `embedding`, batch norms folded."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from pathlib import Path

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from csg.bundle import MODEL
from csg.card import STRIDE, ClassificationInput, SegmentationInput
from csg_export.external_weights import (
    is_large,
    loadable,
    set_weights_folder,
    temporary_folder,
    weights_folder,
    write_files,
)
from csg_train.models.classifier import Classifier
from csg_train.models.fast_layers import fold_batch_norms
from csg_train.models.segmenter import Segmenter

OPSET = 21
INPUT, LOGITS, LABEL_MAP, EMBEDDING = "image", "logits", "label_map", "embedding"
CARD_KEY = "csg_card"
"""Name of the model card in the graph's metadata."""

OLDEST_RUNTIMES = {(20, 9): "1.17", (21, 10): "1.18", (22, 10): "1.21"}
"""First ONNX Runtime by opset and IR version (ONNX 1.15, 1.16, 1.17); a test runs the oldest."""


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators that a graph is written in; 0 if it says none."""
    return max((entry.version for entry in model.opset_import if not entry.domain), default=0)


def oldest_runtime(model: ModelProto) -> str | None:
    """The oldest ONNX Runtime that runs a graph; None if that is not known."""
    opset = opset_of(model)
    fitting = [name for (newest, ir), name in OLDEST_RUNTIMES.items() if opset <= newest and model.ir_version <= ir]
    return fitting[0] if fitting else None


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
    """Copy a network for inference: on the CPU, in eval mode, batch norms folded into the convolutions before them.

    The copy shares the weights that are not folded with the network, since both are only read.
    """
    shared: dict[int, object] = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in network.parameters()
    }
    bare = copy.deepcopy(network, shared).cpu().eval()
    fold_batch_norms(bare)
    return bare


def to_onnx(
    network: nn.Module,
    spec: ClassificationInput | SegmentationInput,
    embedding: bool = False,
    folder: Path | None = None,
) -> ModelProto:
    """Export a stripped network as a float32 graph, checked by onnx's checker.

    The graph takes uint8 (B, H, W, 3) for any B and normalises the pixels itself. A classifier returns float32 logits
    (B, classes). A segmenter returns float32 logits (B, classes, H, W) and the label map uint8 (B, H, W).

    Args:
        spec: the input; if it leaves height and width open, H and W are any multiples of 8.
        embedding: also return a classifier's embedding, float32 (B, C).
        folder: for weights that do not fit into the graph (`csg_export.external_weights`); None: a temporary one.
    """
    height, width = network.encoder.example_size if isinstance(network, Segmenter) else (16 * STRIDE, 24 * STRIDE)
    shape: dict[int, object] = {0: torch.export.Dim("batch", min=1)}
    outputs = [LOGITS]
    if embedding:
        assert isinstance(network, Classifier)
        network, outputs = _WithEmbedding(network), [LOGITS, EMBEDDING]
    if isinstance(spec, SegmentationInput):
        network, outputs = _WithLabelMap(network), [LOGITS, LABEL_MAP]
        if spec.height is None:
            shape |= {1: STRIDE * torch.export.Dim("rows", min=8), 2: STRIDE * torch.export.Dim("columns", min=8)}
    images = torch.zeros(2, spec.height or height, spec.width or width, 3, dtype=torch.uint8)
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
            external_data=is_large(network),
            verbose=False,
        )
    assert program is not None
    if not is_large(network):
        model: ModelProto = program.model_proto
        _drop_metadata(model)
    else:
        place = temporary_folder(folder)
        program.save(place / MODEL, external_data=True)  # one weight after the other
        model = onnx.load(place / MODEL, load_external_data=False)
        _drop_metadata(model)
        set_weights_folder(model, place)
    check_graph(model)
    return model


def _drop_metadata(model: ModelProto) -> None:
    """Remove the exporter's metadata: names and paths of the exporting machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def copied(model: ModelProto) -> ModelProto:
    """A copy of a graph, to change."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def without_logits(model: ModelProto) -> ModelProto:
    """The same graph without the logits: for 1024 x 2048 pixels 2 MB an image instead of 159."""
    slim = copied(model)
    del slim.graph.output[[output.name for output in slim.graph.output].index(LOGITS)]
    check_graph(slim)
    return slim


def check_graph(model: ModelProto) -> None:
    """Check a graph with onnx's checker, types and shapes inferred."""
    onnx.checker.check_model(loadable(model), full_check=True)


def bundle_files(model: ModelProto, card_json: str, folder: Path | None = None) -> dict[str, bytes | Path]:
    """The files of the graph in a bundle, by name, the card in the graph's metadata.

    Args:
        model: the graph.
        card_json: the card.
        folder: where files are written that the bundle is to take over; None: a temporary one.

    Returns:
        model.onnx as bytes; of a graph beyond protobuf's limit of 2 GB, the files model.onnx and model.onnx.data.
    """
    source = weights_folder(model)
    onnx.helper.set_model_props(model, {CARD_KEY: card_json})
    if source is None:
        return {MODEL: bytes(model.SerializeToString(deterministic=True))}
    return dict(write_files(model, source, temporary_folder(folder)))
