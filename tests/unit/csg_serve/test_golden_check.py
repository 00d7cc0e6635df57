"""The script of the Python backend refuses a graph, a library or a file that gives other answers than PyTorch's."""

import importlib
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from google.protobuf.json_format import MessageToJson

from csg_serve.python_backend.golden import GOLDEN_ARRAYS, check_answers, read_golden
from tests.helpers.repositories import served_config
from tests.helpers.served import deploy
from tests.helpers.tiny_bundle import write_colour_bundle, write_scene_bundle, write_wrong_bundle


class Tensor:
    """Triton's tensor; `as_numpy` can be changed to what a numpy of another ABI gives."""

    received = staticmethod(np.copy)

    def __init__(self, name, array):
        self.array = array

    def to_dlpack(self):
        return self.array

    @classmethod
    def from_dlpack(cls, name, array):
        return cls(name, array)

    def as_numpy(self):
        return self.received(self.array)


@pytest.fixture
def script(monkeypatch):
    """The module model.py, on one core, as the stub of the Python backend imports it."""
    triton = ModuleType("triton_python_backend_utils")
    triton.Tensor = Tensor
    triton.Logger = SimpleNamespace(log_info=lambda line: None)
    monkeypatch.setitem(sys.modules, triton.__name__, triton)
    monkeypatch.setenv("CSG_THREADS", "2")
    yield importlib.import_module("csg_serve.python_backend.model")
    del sys.modules["csg_serve.python_backend.model"]


@pytest.fixture
def repository(tmp_path):
    return tmp_path / "repository"


def load(script, repository, name="colour"):
    """Load version 1 as Triton does."""
    config = served_config(repository, name)
    model = script.TritonPythonModel()
    model.initialize({
        "model_config": MessageToJson(config, preserving_proto_field_name=True),
        "model_repository": str(repository / name), "model_version": "1", "model_instance_name": f"{name}_0",
        "model_instance_kind": "CPU", "model_instance_device_id": "0",
    })  # fmt: skip
    return model


def test_a_graph_that_answers_as_pytorch_did_is_loaded(script, repository, tmp_path):
    deploy(write_colour_bundle(tmp_path / "colour").path, repository, "--no-encoded")
    deploy(write_scene_bundle(tmp_path / "scenes").path, repository, "--no-encoded")
    load(script, repository)
    load(script, repository, "scenes")


def test_a_graph_of_other_weights_is_refused(script, repository, tmp_path):
    deploy(write_wrong_bundle(tmp_path / "wrong").path, repository, "--no-encoded")
    says = r"^answers wrongly: a logit of noise 0 differs from PyTorch's by [\d.]+ \(at most 0.001 allowed\)$"
    with pytest.raises(RuntimeError, match=says):
        load(script, repository)


def test_a_version_of_an_older_csg_is_loaded(script, repository, tmp_path):
    deploy(write_wrong_bundle(tmp_path / "wrong").path, repository, "--no-encoded")
    (repository / "colour" / "1" / GOLDEN_ARRAYS).unlink()
    load(script, repository)


def test_a_numpy_that_does_not_fit_the_server_is_noticed(script, repository, tmp_path, monkeypatch):
    deploy(write_colour_bundle(tmp_path / "colour").path, repository, "--no-encoded")
    monkeypatch.setattr(Tensor, "received", staticmethod(np.zeros_like))
    with pytest.raises(RuntimeError, match="answers wrongly"):
        load(script, repository)


def test_each_session_is_checked(script, repository, tmp_path, monkeypatch):
    """Here only the one that computes on both cores answers wrongly."""
    deploy(write_colour_bundle(tmp_path / "colour").path, repository, "--no-encoded", "--instances", 2)
    right = script.session_opener

    def opener(*args):
        open_session, on_cpu = right(*args)

        def lying(options):
            run = open_session(options)
            return run if options.threads == 1 else lambda images: [-answers for answers in run(images)]

        return lying, on_cpu

    monkeypatch.setattr(script, "session_opener", opener)
    with pytest.raises(RuntimeError, match="answers wrongly"):
        load(script, repository)
    monkeypatch.setenv("CSG_TUNING", "side-by-side")
    load(script, repository)


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The file beside a version of the model colour: two images."""
    root = tmp_path_factory.mktemp("golden")
    deploy(write_colour_bundle(root / "colour").path, root / "repository", "--no-encoded")
    return root / "repository" / "colour" / "1" / GOLDEN_ARRAYS


def mean_colours(images):
    return images.mean((1, 2), dtype=np.float32)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda images: mean_colours(images) * np.nan, "differs from PyTorch's by nan"),
        (lambda images: mean_colours(images) + 0.01, r"differs from PyTorch's by 0\.01"),
        (lambda images: mean_colours(images)[:, :2], r"shape \(2,\), PyTorch's has \(3,\)"),
        (lambda images: mean_colours(images)[:1], "2 images have 1 answers"),
        (lambda images: mean_colours(images)[::-1], "a logit of noise 0"),
        (lambda images: np.concatenate([mean_colours(images[:1]), mean_colours(images[1:]) + 1]), "noise 1"),
        (lambda images: images[..., 0], "has shape"),
    ],
    ids=["NaN", "a little", "too few classes", "too few answers", "exchanged", "the second", "no logits"],
)
def test_what_differs_is_said(golden, wrong, says):
    found = read_golden(golden)
    check_answers(lambda images: [mean_colours(images)], found, 8)
    with pytest.raises(RuntimeError, match=f"answers wrongly: .*{says}"):
        check_answers(lambda images: [wrong(images)], found, 8)


def test_a_label_map_may_differ_in_a_share_of_its_pixels(tmp_path):
    deploy(write_scene_bundle(tmp_path / "scenes").path, tmp_path / "repository", "--no-encoded")
    found = read_golden(tmp_path / "repository" / "scenes" / "1" / GOLDEN_ARRAYS)
    check_answers(lambda images: [images.argmax(3).astype(np.uint8)], found, 1)
    with pytest.raises(RuntimeError, match=r"answers wrongly: [\d.]+% of the pixels of noise 0 .*at most 0\.10%"):
        check_answers(lambda images: [images.argmin(3).astype(np.uint8)], found, 1)


def test_batches_are_no_larger_than_the_models(golden):
    sizes = []
    check_answers(lambda images: sizes.append(len(images)) or [mean_colours(images)], read_golden(golden), 1)
    assert sizes == [1, 1]


def damaged(golden, **changes):
    """The arrays of the file, some changed; None leaves one out."""
    with np.load(golden) as arrays:
        return {name: array for name, array in (dict(arrays) | changes).items() if array is not None}


@pytest.mark.parametrize(
    "change",
    [
        {"expected_1": None},
        {"pixels_0": np.zeros((32, 32, 3), np.uint8)},
        {"pixels_0": np.zeros((1, 32, 32, 3), np.float32)},
        {"pixels_1": np.array([{}], object)},
        {"tolerance_0": np.array("much")},
        {"expected_0": np.float32(1)},
    ],
    ids=["one is missing", "no batch", "no bytes", "pickled", "no tolerance", "no logits"],
)
def test_a_file_of_other_arrays_is_refused(golden, tmp_path, change):
    np.savez(tmp_path / GOLDEN_ARRAYS, **damaged(golden, **change))
    with pytest.raises(RuntimeError, match=rf"^{GOLDEN_ARRAYS} can't be read: .*; deploy the bundle again$"):
        read_golden(tmp_path / GOLDEN_ARRAYS)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"], ids=["empty", "text", "a zip's beginning"])
def test_a_damaged_file_is_refused(tmp_path, content, golden):
    (tmp_path / GOLDEN_ARRAYS).write_bytes(content)
    with pytest.raises(RuntimeError, match=rf"^{GOLDEN_ARRAYS} can't be read: "):
        read_golden(tmp_path / GOLDEN_ARRAYS)
    (tmp_path / GOLDEN_ARRAYS).write_bytes(golden.read_bytes()[:-100])
    with pytest.raises(RuntimeError, match=rf"^{GOLDEN_ARRAYS} can't be read: "):
        read_golden(tmp_path / GOLDEN_ARRAYS)
