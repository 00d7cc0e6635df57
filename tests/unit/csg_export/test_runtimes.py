"""Graphs of each precision in the oldest ONNX Runtime that the card names, and in the newest, both from PyPI."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

from csg_export.export import export
from csg_export.options import ExportOptions
from csg_serve.python_backend.widening import widen
from tests.helpers.small_source import SIDE, classifier, segmenter

pytestmark = pytest.mark.slow

OLDEST, REFUSING = "1.18", "1.17"
RUN = """
import json, pathlib, sys, numpy, onnxruntime
folder, found = pathlib.Path(sys.argv[1]), {"version": onnxruntime.__version__}
images = numpy.load(folder / "images.npy")
for file in folder.glob("*.onnx"):
    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        found[file.stem] = session.run(None, {"image": images})[0].tolist()
    except Exception as error:
        found[file.stem] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """A folder of graphs, and of the images for them."""
    folder = tmp_path_factory.mktemp("graphs")
    sources = {"fp32": classifier, "fp16": classifier, "int8": classifier, "scenes-fp32": segmenter}
    for name, source in sources.items():
        bundle = export(source(), ExportOptions(name.rpartition("-")[2]), folder / f"bundle-{name}")
        assert bundle.card.oldest_runtime == OLDEST
        (folder / f"{name}.onnx").write_bytes(bundle.model.read_bytes())
    (folder / "widened.onnx").write_bytes(widen(folder / "fp16.onnx").model)
    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    np.save(folder / "images.npy", images)
    return folder


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A Python with pip, of the version that runs the tests, and nothing else."""
    folder = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder / "bin" / "python"


def answers(python, folder, wanted, graphs):
    """What a version from PyPI answers for each graph, by name: the first output, or why there is none."""
    numpy = "numpy<2" if wanted.startswith("==") else "numpy"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--no-compile"]
    done = subprocess.run([*pip, "--target", folder, f"onnxruntime{wanted}", numpy], capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip failed"
        pytest.skip(
            f"onnxruntime{wanted} can't be had for Python {sys.version_info[0]}.{sys.version_info[1]}: {reason}"
        )
    command = [python, "-c", RUN, graphs]
    ran = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(folder)}, check=True)
    return json.loads(ran.stdout)


@pytest.mark.parametrize("wanted", [f"=={OLDEST}.*", ">=1.23"], ids=["oldest", "newest"])
def test_every_precision_has_the_same_answers(python, graphs, tmp_path, wanted):
    found = answers(python, tmp_path, wanted, graphs)
    del found["version"]
    images = np.load(graphs / "images.npy")
    assert sorted(found) == ["fp16", "fp32", "int8", "scenes-fp32", "widened"]
    for name, answer in found.items():
        session = onnxruntime.InferenceSession(graphs / f"{name}.onnx", providers=["CPUExecutionProvider"])
        expected = session.run(None, {"image": images})[0]
        got = np.array(answer)
        assert got.shape == expected.shape, answer
        if expected.dtype == np.uint8:
            assert (got == expected).mean() > 0.999
        else:
            allowed = {"fp32": 1e-4, "widened": 1e-4, "fp16": 5e-3, "int8": 0.05}[name]
            np.testing.assert_allclose(got, expected, rtol=0, atol=allowed * np.abs(expected).max(), err_msg=name)


def test_the_version_before_the_oldest_refuses(python, graphs, tmp_path):
    found = answers(python, tmp_path, f"=={REFUSING}.*", graphs)
    assert found.pop("version").startswith(REFUSING)
    assert all("IR version" in reason for reason in found.values()), found
