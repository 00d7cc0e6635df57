"""PyTorch student to a clean ONNX graph: input `image`, output `logits`, dynamic batch, batch norm folded."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings

import onnx
import torch
from onnx import ModelProto

from csg.card import ImageInput
from csg_train.models.classifier import Classifier
from csg_train.models.layers import fuse

OPSET = 21
INPUT, OUTPUT = "image", "logits"
CARD_KEY = "csg_card"


def to_onnx(student: Classifier, spec: ImageInput) -> ModelProto:
    """The float32 graph of the student, checked by onnx's checker.

    Takes uint8 (B, H, W, 3) and returns float32 logits (B, classes). Normalisation is inside.
    """
    images = torch.zeros(2, spec.height, spec.width, 3, dtype=torch.uint8)
    student = copy.deepcopy(student).cpu().eval()
    fuse(student)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            student,
            (images,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
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


def check(model: ModelProto) -> None:
    """onnx's own check of the graph, types and shapes inferred."""
    onnx.checker.check_model(model, full_check=True)


def with_card(model: ModelProto, card_json: str) -> bytes:
    """The graph's bytes, the card in its metadata."""
    onnx.helper.set_model_props(model, {CARD_KEY: card_json})
    return bytes(model.SerializeToString(deterministic=True))
