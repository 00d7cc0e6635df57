"""README.md of a bundle: names are shown as they are, Hugging Face reads it, and its program runs."""

import contextlib
import io
import re

import numpy as np
import onnxruntime
import pytest
import yaml
from markdown_it import MarkdownIt
from PIL import Image

from csg.images import load, load_segmentation
from csg.npz import npz_bytes
from csg.provenance import ClassificationEvaluation, PretrainedWeights
from csg_export.intervals import student_intervals
from csg_export.readme import ReadmeFacts, readme
from csg_train.training.run_folder import Run
from tests.helpers.cli import csg, refused
from tests.helpers.tiny_bundle import tiny_card, write_colour_bundle, write_scene_bundle

HOSTILE = (
    *("---", "a|b", "`x`", "``", "<script>alert(1)</script>", "# head", "[x](javascript:1)", "![i](http://x)"),
    *("**b**", "_u_", "~~s~~", "\\", "\\|", "&lt;", "a: b", "'\"", "{{ x }}", "%s", "$x$", "| - |", "- [ ] x", "ü 猫"),
)
EVALUATION = ClassificationEvaluation(dataset="photos | <b>", images=200, accuracy=0.75, mean_class_accuracy=0.7)


def hostile_card():
    output = tiny_card().outputs[0].model_copy(update={"shape": (-1, len(HOSTILE))})
    provenance = tiny_card().provenance.model_copy(update={"run": "<i>|`", "backbone": "# resnet|18"})
    weights = PretrainedWeights(name="a|b<u>.pth", note="a file of the user's")
    changes = {"classes": HOSTILE, "outputs": (output,), "evaluations": (EVALUATION,), "provenance": provenance}
    return tiny_card().model_copy(update={**changes, "weights": weights})


def test_names_of_users_are_shown_as_they_are():
    text = readme(hostile_card(), ReadmeFacts("Trained on <b>|--- `x`", ("--- x\n---", "<b>")))
    _, matter, body = text.split("---\n", 2)
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    inline = [child for token in tokens for child in token.children or ()]
    assert {token.type for token in (*tokens, *inline)}.isdisjoint({"html_block", "html_inline", "image", "link_open"})
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h1", *["h2"] * 8]
    cells = [
        "".join(child.content for child in tokens[index + 1].children)
        for index, token in enumerate(tokens)
        if token.type == "td_open"
    ]
    assert [cells[cells.index("0") + 2 * index + 1] for index in range(len(HOSTILE))] == list(HOSTILE)
    assert yaml.safe_load(matter)["model-index"][0]["results"][0]["dataset"]["name"].startswith("photos | <b> (")


def test_hugging_face_reads_the_metadata():
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    facts = ReadmeFacts("Trained on digits", ("my digits",), {"mean_class_accuracy": (0.6, 0.8)}, "apache-2.0")
    data = hub.ModelCard(readme(hostile_card(), facts)).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "onnx", "image-classification")
    assert (data.datasets, data.metrics, data.model_name) == (["my-digits"], ["accuracy"], "colour")
    results = {one.metric_type: one for one in data.eval_results}
    assert results["accuracy"].metric_args == {"interval_95": [0.685659, 0.804918]}
    assert results["balanced_accuracy"].metric_args == {"interval_95": [0.6, 0.8]}
    assert results["balanced_accuracy"].metric_value == 0.7


def test_what_is_not_known_is_said():
    text = readme(tiny_card(), ReadmeFacts("Trained on digits"))
    assert "license: unknown" in text
    assert "model-index" not in text
    assert "not measured: what it is worth on photographs is not known" in text
    assert "its owner has stated none" in text
    assert "not known, nor is their licence" in text


def run_snippet(folder, image, monkeypatch):
    """What the program in README.md prints, run in the bundle's folder."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.S)
    image.save(folder / "photo.jpg", quality=95)
    monkeypatch.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "README.md", "exec"), {})
    return dict(reversed(line.split(" ", 1)) for line in out.getvalue().splitlines())


def photo(width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height))


def answer(bundle, pixels):
    session = onnxruntime.InferenceSession(bundle.model)
    return session.run(None, {bundle.card.input.name: pixels[None]})[0][0]


def test_the_program_of_a_classifier_answers_as_csg(tmp_path, monkeypatch):
    bundle = write_colour_bundle(tmp_path / "bundle")
    (bundle.path / "README.md").write_text(readme(bundle.card, ReadmeFacts("Trained on digits")), "utf-8")
    found = run_snippet(bundle.path, photo(90, 61), monkeypatch)
    logits = answer(bundle, load(bundle.path / "photo.jpg", bundle.card.input))
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert found == {name: f"{share:.4f}" for name, share in zip(bundle.card.classes, shares, strict=True)}


@pytest.mark.parametrize("side", [None, 64])
def test_the_program_of_a_segmenter_answers_as_csg(tmp_path, monkeypatch, side):
    bundle = write_scene_bundle(tmp_path / "bundle", side=side)
    (bundle.path / "README.md").write_text(readme(bundle.card, ReadmeFacts("Trained on scenes")), "utf-8")
    found = run_snippet(bundle.path, photo(90, 61), monkeypatch)
    padded = load_segmentation(bundle.path / "photo.jpg", bundle.card.input)
    values, counts = np.unique(padded.restore(answer(bundle, padded.pixels)), return_counts=True)
    assert found == {bundle.card.classes[v]: f"{c / counts.sum():.4f}" for v, c in zip(values, counts, strict=True)}


def test_a_licence_that_the_hub_can_not_know_is_refused(tmp_path):
    for name in ("My Licence", "Apache-2.0", "a\nb", "-x", "'"):
        refused(csg("export", tmp_path, f"--license={name}"), 2, "is no name of Hugging Face's")


def test_intervals_come_from_the_predictions_that_a_run_kept(tmp_path):
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 90)
    student = np.where(random.random(90) < 0.8, labels, 0)
    (tmp_path / "predictions.npz").write_bytes(npz_bytes({"labels": labels, "student": student}))
    low, high = student_intervals(Run(tmp_path))["mean_class_accuracy"]
    assert 0 < low < np.mean([(student == labels)[labels == k].mean() for k in range(3)]) < high < 1
    matrices = random.integers(0, 50, (20, 3, 4)) + 200 * np.eye(3, 4, dtype=int)
    (tmp_path / "predictions.npz").write_bytes(npz_bytes({"student": matrices}))
    low, high = student_intervals(Run(tmp_path))["miou"]
    assert 0 < low < high < 1
    for content in (b"", b"PK", npz_bytes({"labels": labels})):
        (tmp_path / "predictions.npz").write_bytes(content)
        assert student_intervals(Run(tmp_path)) == {}
    (tmp_path / "predictions.npz").unlink()
    assert student_intervals(Run(tmp_path)) == {}
