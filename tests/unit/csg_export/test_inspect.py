"""`csg export inspect` of bundles with damaged files, as they are and with checksums that fit."""

import hashlib
import os

import onnx
import pytest

from tests.helpers.cli import csg, refused
from tests.helpers.tiny_bundle import write_colour_bundle

FILES = ("card.json", "model.onnx", "labels.txt", "golden.json", "SHA256SUMS")
CONTENT = {"empty": b"", "random": os.urandom(500), "text": b"red\n", "zeros": bytes(100), "nested": b"[" * 3000}


def sums(folder, *names):
    lines = (f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.mark.parametrize("kind", [*CONTENT, "truncated"])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_named(tmp_path, file, kind):
    folder = write_colour_bundle(tmp_path / "bundle").path
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: len(whole) // 2] if kind == "truncated" else CONTENT[kind])
    refused(csg("export", "inspect", folder), 5, "SHA-?256")
    if file != "SHA256SUMS":
        sums(folder, *FILES[:-1])
        refused(csg("export", "inspect", folder, "--json"), 3, file)


def test_a_damaged_engine_is_named(tmp_path):
    folder = write_colour_bundle(tmp_path / "bundle").path
    (folder / "model.plan").write_bytes(b"plan")
    sums(folder, *FILES[:-1], "model.plan")
    (folder / "model.plan").write_bytes(b"")
    refused(csg("export", "inspect", folder), 5, r"model\.plan")


def test_a_graph_of_another_card_is_refused(tmp_path):
    folder = write_colour_bundle(tmp_path / "bundle").path
    model = onnx.load(folder / "model.onnx")
    model.graph.output[0].name = model.graph.node[-1].output[0] = "others"
    onnx.save(model, folder / "model.onnx")
    sums(folder, *FILES[:-1])
    refused(csg("export", "inspect", folder), 3, "no ONNX graph of its card: it has no output logits")


def test_weights_outside_the_bundle_are_refused(tmp_path):
    folder = write_colour_bundle(tmp_path / "bundle").path
    model = onnx.load(folder / "model.onnx")
    weight = next(one for one in model.graph.initializer if one.name == "weight")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../secret")
    onnx.save(model, folder / "model.onnx")
    (tmp_path / "secret").write_bytes(bytes(36))
    sums(folder, *FILES[:-1])
    refused(csg("export", "inspect", folder), 3, "no ONNX graph of its card")
