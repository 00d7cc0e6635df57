"""Real bundles without training: small ONNX graphs with a correct model card, written by `csg.bundle`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from csg.bundle import MODEL, Bundle, write_bundle
from csg.card import ClassificationInput, ModelCard, Normalisation, Output, SegmentationInput
from csg.golden import GoldenAnswer, GoldenAnswers, golden_pixels
from csg.overlays import png_bytes
from csg.provenance import Parity, Provenance

COLOURS = ("red", "green", "blue")
OPSET = 18

PROVENANCE = Provenance(
    run="none",
    recipe="none",
    recipe_digest="0" * 64,
    method="none",
    backbone="none",
    seed=0,
    steps=0,
    data_fingerprint="0" * 64,
    commit=None,
    versions={"onnx": onnx.__version__},
)
"""Of a network that no run has trained."""


def write_colour_bundle(path: Path, name: str = "colour", side: int = 32) -> Bundle:
    """A classifier whose logits are the mean of each RGB channel: solid colours are classified without error."""
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weight"], ["logits"]),
    ]
    constants = {"axes": np.array([1, 2]), "weight": np.eye(3, dtype=np.float32)}
    return _write(path, _card(name, COLOURS, side), nodes, constants)


def write_wrong_bundle(path: Path) -> Bundle:
    """A colour bundle that takes red for blue: its golden answers are those of a graph with other weights."""
    right = write_colour_bundle(path)
    model = onnx.load(right.model)
    weight = next(constant for constant in model.graph.initializer if constant.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(np.eye(3, dtype=np.float32)[::-1].copy(), "weight"))
    shutil.rmtree(path)
    return write_bundle(path, right.card, {MODEL: model.SerializeToString()}, right.golden)


def write_worse_bundle(path: Path) -> Bundle:
    """The wrong bundle with golden answers of its own: a model that is verified, and makes mistakes."""
    wrong = write_wrong_bundle(path)
    model = wrong.model.read_bytes()
    shutil.rmtree(path)
    return write_bundle(path, wrong.card, {MODEL: model}, graph_golden(wrong.card, model))


def write_unloadable_bundle(path: Path, like: Bundle) -> Bundle:
    """The bundle `like` with an operator that no runtime knows."""
    model = onnx.load(like.model)
    model.graph.node[-1].op_type = "NoSuchOperator"
    return write_bundle(path, like.card, {MODEL: model.SerializeToString()})


def write_echo_bundle(path: Path, name: str = "echo", side: int = 4) -> Bundle:
    """A 'classifier' whose logits are the pixels that reach it, one class for each value."""
    classes = [f"value-{number}" for number in range(side * side * 3)]
    nodes = [helper.make_node("Reshape", ["pixels", "flat"], ["logits"])]
    return _write(path, _card(name, classes, side), nodes, {"flat": np.array([-1, len(classes)])})


def write_scene_bundle(path: Path, name: str = "scenes", side: int | None = None) -> Bundle:
    """A segmenter that takes each pixel for the class of its strongest channel: red, green or blue."""
    nodes = [
        helper.make_node("ArgMax", ["pixels"], ["strongest"], axis=3, keepdims=0),
        helper.make_node("Cast", ["strongest"], ["label_map"], to=TensorProto.UINT8),
    ]
    colours = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    card = _card(name, COLOURS, 8).model_copy(
        update={
            "task": "segmentation",
            "label_set": "rgb",
            "colours": colours,
            "input": SegmentationInput(height=side, width=side),
            "outputs": (
                Output(name="label_map", dtype="UINT8", shape=(-1, side or -1, side or -1), meaning="classes"),
            ),
        }
    )
    return _write(path, ModelCard.model_validate(card.model_dump()), nodes, {})


def tiny_card(name: str = "colour") -> ModelCard:
    """The card of a colour bundle."""
    return _card(name, COLOURS, 32)


def _card(name: str, classes: Sequence[str], side: int) -> ModelCard:
    return ModelCard(
        name=name,
        task="classification",
        classes=tuple(classes),
        input=ClassificationInput(height=side, width=side, resize_shorter_side=side + side // 8),
        normalisation=Normalisation(mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255)),
        outputs=(Output(name="logits", shape=(-1, len(classes)), meaning="one score for each class"),),
        precision="fp32",
        precision_note="written by hand",
        runtime="onnxruntime",
        compute_type="fp32",
        opset=OPSET,
        parity=Parity(images=0, source="none", agreement=1, max_abs_diff=0, tolerance=0),
        provenance=PROVENANCE,
    )


def _output_info(output: Output) -> onnx.ValueInfoProto:
    names = ["N", "H", "W"]
    shape = [side if side > 0 else names[axis] for axis, side in enumerate(output.shape)]
    kind = TensorProto.UINT8 if output.dtype == "UINT8" else TensorProto.FLOAT
    return helper.make_tensor_value_info(output.name, kind, shape)


def _write(path: Path, card: ModelCard, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> Bundle:
    spec = card.input
    graph = helper.make_graph(
        [helper.make_node("Cast", [spec.name], ["pixels"], to=TensorProto.FLOAT), *nodes],
        card.name,
        [helper.make_tensor_value_info(spec.name, TensorProto.UINT8, ["N", spec.height or "H", spec.width or "W", 3])],
        [_output_info(card.outputs[0])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return write_bundle(path, card, {MODEL: model.SerializeToString()}, graph_golden(card, model.SerializeToString()))


def graph_golden(card: ModelCard, model: bytes) -> GoldenAnswers:
    """What the graph answers for two small images, in place of PyTorch's answers."""
    session = onnxruntime.InferenceSession(model)
    random, answers = np.random.default_rng(0), []
    for index in range(2):
        image = png_bytes(Image.fromarray(random.integers(0, 256, (24, 40, 3), np.uint8)))
        blank = GoldenAnswer(name=f"noise {index}", image=image, logits=(0.0,), tolerance=1e-3)
        (found,) = session.run(None, {card.input.name: golden_pixels(blank, card)[0][None]})
        if card.task == "classification":
            answer = {"logits": tuple(map(float, found[0]))}
        else:
            answer = {"logits": (), "label_map": png_bytes(Image.fromarray(found[0]))}
        answers.append(blank.model_copy(update=answer))
    return GoldenAnswers(answers=tuple(answers))
