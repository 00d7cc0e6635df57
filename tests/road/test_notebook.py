"""The notebook runs in a real kernel, and what it shows is right."""

import json
from pathlib import Path

import nbformat
import numpy as np
import onnxruntime
import pytest
from nbclient import NotebookClient

from csg.bundle import read_bundle
from csg.datasets.classification import read_classification_dataset
from csg.images import load
from tests.conftest import ROOT

NOTEBOOK = ROOT / "examples" / "digits.ipynb"
SETTINGS, FEWER = (f'{{"optim.steps": {steps}, "data.count": {count}}}' for steps, count in ((40, 3000), (8, 600)))
TOLD = """
import json
from pathlib import Path

Path("told.json").write_text(json.dumps({
    "bundle": str(bundle.path.resolve()),
    "accuracy": result.accuracy,
    "answers": [answer.label for answer in answers],
    "served": [answer.label for answer in [*served, one]],
    "top": model.predict(pixels).top(3)[0],
    "probability": answers[0].probability,
}))
"""


def classes_of(bundle, paths):
    """The class of each image by ONNX Runtime alone."""
    session = onnxruntime.InferenceSession(bundle.model)
    images = np.stack([load(path, bundle.card.input) for path in paths])
    return [bundle.card.classes[index] for index in session.run(["logits"], {"image": images})[0].argmax(1)]


def test_the_notebook_is_kept_without_outputs():
    cells = [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    assert cells
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.server
@pytest.mark.slow
def test_the_notebook_runs_and_its_answers_are_right(weights, tmp_path):
    notebook = nbformat.read(NOTEBOOK, 4)
    for cell in notebook.cells:
        cell.source = cell.source.replace(f"settings={SETTINGS}", f"settings={FEWER}")
    notebook.cells.append(nbformat.v4.new_code_cell(TOLD))
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()

    told = json.loads((tmp_path / "told.json").read_text())
    digits, bundle = read_classification_dataset(["digits"]), read_bundle(Path(told["bundle"]))
    expected = classes_of(bundle, digits.paths)
    assert told["answers"] == expected[:10]
    assert told["served"] == [*expected[:10], expected[0]]
    assert told["top"] == [expected[0], pytest.approx(told["probability"])]
    right = [digits.classes[label] == found for label, found in zip(digits.labels, expected, strict=True)]
    assert told["accuracy"] == pytest.approx(np.mean(right))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    (picture,) = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert "data:image/png;base64," in picture
    said = "".join(output.text for output in outputs if output.get("name") == "stderr")
    assert "step 8/8" in said
    assert "\x1b" not in said, "a notebook is no terminal"
