"""A card that does not describe its graph is refused wherever a bundle is written or read."""

import hashlib

import onnx
import pytest
from onnx import TensorProto, helper

from csg.bundle import read_bundle, write_bundle
from csg.card import parse_card
from csg.errors import InputError
from csg.graph import graph_facts
from tests.helpers.cli import csg, refused
from tests.helpers.tiny_bundle import tiny_card, write_colour_bundle, write_scene_bundle


def shape(value):
    return value.type.tensor_type.shape.dim


def seven_logits(model):
    shape(model.graph.output[0])[1].dim_value = 7


def any_number_of_logits(model):
    shape(model.graph.output[0])[1].dim_param = "K"


def fixed_batch(model):
    shape(model.graph.input[0])[0].dim_value = 1


def other_side(model):
    shape(model.graph.input[0])[1].dim_value = 33


def channels_first(model):
    for axis, side in enumerate((3, 32, 32), 1):
        shape(model.graph.input[0])[axis].dim_value = side


def float_pixels(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def half_logits(model):
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def three_axes(model):
    shape(model.graph.output[0]).add().dim_value = 1


def renamed(model):
    model.graph.output[0].name = "scores"


def second_input(model):
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.UINT8, ["N"]))


def older(model):
    model.opset_import[0].version = 17


DAMAGE = {
    seven_logits: r"its output logits is FP32 \(-1, 7\), the card says FP32 \(-1, 3\)",
    any_number_of_logits: r"its output logits is FP32 \(-1, -1\), the card says FP32 \(-1, 3\)",
    fixed_batch: r"its input image is UINT8 \(1, 32, 32, 3\), the card says UINT8 \(-1, 32, 32, 3\)",
    other_side: r"its input image is UINT8 \(-1, 33, 32, 3\)",
    channels_first: r"its input image is UINT8 \(-1, 3, 32, 32\)",
    float_pixels: "its input image is FP32",
    half_logits: "its output logits is FP16",
    three_axes: r"its output logits is FP32 \(-1, 3, 1\)",
    renamed: "it has no output logits",
    second_input: "it needs another input, mask",
    older: "it has opset 17, the card says 18",
}


def sign(folder):
    """Checksums that fit."""
    names = ("card.json", "model.onnx", "labels.txt", "golden.json")
    lines = (f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_graph_of_another_kind_is_neither_written_nor_read(tmp_path, damage):
    bundle = write_colour_bundle(tmp_path / "bundle")
    model = onnx.load(bundle.model)
    damage(model)
    says = rf"model\.onnx is no ONNX graph of its card: {DAMAGE[damage]}"
    with pytest.raises(InputError, match=says):
        write_bundle(tmp_path / "other", bundle.card, {"model.onnx": model.SerializeToString()})
    assert not (tmp_path / "other").exists()
    bundle.model.write_bytes(model.SerializeToString())
    sign(bundle.path)
    with pytest.raises(InputError, match=says):
        read_bundle(bundle.path)


@pytest.mark.parametrize("content", [b"", b"this is no graph", bytes(100), b"\x08\x0a"])
def test_a_file_that_is_no_onnx_is_refused_at_deploy_and_nothing_stays(tmp_path, content):
    bundle = write_colour_bundle(tmp_path / "bundle")
    bundle.model.write_bytes(content)
    sign(bundle.path)
    done = csg("deploy", bundle.path, "--repository", tmp_path / "repository")
    refused(done, 3, r"model\.onnx is no ONNX graph of its card: .*; export the run again")
    assert not (tmp_path / "repository").exists()


def test_classes_that_are_not_the_graphs_are_refused(tmp_path):
    """Nine classes in the card, of a graph with three logits: in the card alone, or in its output as well."""
    nine = tuple(f"class {number}" for number in range(9))
    card = tiny_card().model_copy(update={"classes": nine})
    with pytest.raises(InputError, match=r"9 classes do not fit a first output of shape \(-1, 3\)"):
        parse_card(card.to_json(), "card.json")
    wide = card.outputs[0].model_copy(update={"shape": (-1, 9)})
    card = card.model_copy(update={"outputs": (wide,)})
    parse_card(card.to_json(), "card.json")
    graph = write_colour_bundle(tmp_path / "bundle").model.read_bytes()
    with pytest.raises(InputError, match=r"its output logits is FP32 \(-1, 3\), the card says FP32 \(-1, 9\)"):
        write_bundle(tmp_path / "nine", card, {"model.onnx": graph})


def test_a_graph_of_free_size_does_not_fit_a_card_of_a_fixed_one_alone(tmp_path):
    """It takes that size, too; a fixed graph does not take any size."""
    free, fixed = write_scene_bundle(tmp_path / "free"), write_scene_bundle(tmp_path / "fixed", side=64)
    write_bundle(tmp_path / "narrowed", fixed.card, {"model.onnx": free.model.read_bytes()})
    with pytest.raises(InputError, match=r"its input image is UINT8 \(-1, 64, 64, 3\)"):
        write_bundle(tmp_path / "widened", free.card, {"model.onnx": fixed.model.read_bytes()})


def test_a_graph_says_what_it_is(tmp_path):
    facts = graph_facts(write_scene_bundle(tmp_path / "scenes", side=64).model)
    assert (facts.ir_version, facts.opset) == (10, 18)
    assert {name: str(one) for name, one in facts.inputs.items()} == {"image": "UINT8 (-1, 64, 64, 3)"}
    assert {name: str(one) for name, one in facts.outputs.items()} == {"label_map": "UINT8 (-1, 64, 64)"}
