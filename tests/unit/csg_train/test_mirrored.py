"""The measurement from image and mirror image together, beside that of the image alone."""

import json

import numpy as np
import torch

from csg.datasets.classification import read_classification_dataset
from csg.datasets.segmentation import read_segmentation_dataset
from csg.images import load, load_segmentation
from csg_train.recipe import load_recipe
from csg_train.tasks import TASKS, predicting
from csg_train.training.command import train
from csg_train.training.run_folder import Run
from tests.helpers.cli import csg
from tests.helpers.mask_files import save_image
from tests.helpers.small_networks import dense
from tests.helpers.small_runs import noisy_images, tiny_recipe
from tests.helpers.tiny_student import tiny

CPU = torch.device("cpu")
LABELS = """name: rgb
classes:
  - {name: red, ids: [0], colour: [255, 0, 0]}
  - {name: green, ids: [1], colour: [0, 255, 0]}
  - {name: blue, ids: [2], colour: [0, 0, 255]}
"""


def softmax(logits):
    """Over the first axis."""
    shares = np.exp(logits.astype(np.float64) - logits.max(0))
    return shares / shares.sum(0)


def logits_of(student, pixels):
    with torch.inference_mode():
        return student(torch.from_numpy(pixels.copy())[None])[0].numpy()


def measured(task, student, images, recipe, mirrored):
    with predicting(student, mirrored) as predict:
        return TASKS[task].measure(predict, images.class_spec, images, recipe, CPU)


def test_a_classifier_with_and_without_mirror_images(tmp_path):
    recipe, (student, _) = load_recipe("digits", {"data.size": 32}), tiny()
    images = read_classification_dataset([noisy_images(tmp_path / "data", 20, ("a", "b", "c"))])
    with torch.no_grad():  # so that the classes are near, and noise decides
        student.head.weight.mul_(20)
        pixels = [load(path, recipe.data.image_input()) for path in images.paths]
        student.head.bias -= torch.from_numpy(np.mean([logits_of(student, one) for one in pixels], 0))
    plain, both = (measured("cls", student, images, recipe, mirrored) for mirrored in (False, True))
    assert plain.mirrored is None
    assert both.evaluation == plain.evaluation
    np.testing.assert_array_equal(both.embeddings, plain.embeddings)
    expected = [
        (softmax(logits_of(student, one)) + softmax(logits_of(student, one[:, ::-1]))).argmax() for one in pixels
    ]
    assert any(expected != plain.predicted), "the mirror image changes a class"
    assert both.mirrored.accuracy == np.mean(expected == images.labels)
    assert both.mirrored.images == len(images)


def test_a_run_is_measured_with_mirror_images_at_its_end(weights, tmp_path):
    """Only there, and only on real images; `csg embed --mirrored` measures the same."""
    data, real = noisy_images(tmp_path / "data"), noisy_images(tmp_path / "real", seed=1)
    run = Run(tmp_path / "run")
    result = train(tiny_recipe(data, real, optim__steps=2, evaluate_every=1, data__holdout=0.25), run)
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if "real/accuracy" in line] == [1, 2]
    (mirrored,) = [line for line in lines if "mirrored/accuracy" in line]
    assert (mirrored["step"], mirrored["mirrored/accuracy"]) == (2, result.mirrored.accuracy)
    assert result.mirrored.images == result.real.images == 12
    found = json.loads(csg("embed", "run", "--mirrored", "--json").stdout)
    assert found["evaluation"] == result.real.model_dump(mode="json")
    assert found["mirrored"] == result.mirrored.model_dump(mode="json")
    assert found["energy"]["E_1"] == result.energy.E_1
    assert json.loads(csg("embed", "run", "--json").stdout)["mirrored"] is None


def test_a_segmenter_with_and_without_mirror_images(tmp_path):
    """Sides that are no multiples of 8: the padding is mirrored too, and removed afterwards."""
    recipe, random, student = load_recipe("camvid", {"data.resize": None}), np.random.default_rng(0), dense(True)
    (tmp_path / "labels.yaml").write_text(LABELS)
    for index in range(3):
        save_image(tmp_path / "images" / f"{index}.png", random.integers(0, 256, (20, 37, 3), np.uint8))
        save_image(tmp_path / "labels" / f"{index}.png", random.integers(0, 3, (20, 37), np.uint8))
    images = read_segmentation_dataset([tmp_path])
    plain, both = (measured("seg", student, images, recipe, mirrored) for mirrored in (False, True))
    assert plain.mirrored is None
    assert both.evaluation == plain.evaluation
    correct, changed = 0, 0
    for index, path in enumerate(images.paths):
        pixels = load_segmentation(path, recipe.data.image_input()).pixels
        one, other = (softmax(logits_of(student, image)) for image in (pixels, pixels[:, ::-1]))
        classes = (one + other[:, :, ::-1]).argmax(0)[:20, :37]
        correct += (classes == images.load(index)[1]).sum()
        changed += (classes != one.argmax(0)[:20, :37]).sum()
    assert changed > 100
    assert both.mirrored.pixel_accuracy == correct / (3 * 20 * 37)
