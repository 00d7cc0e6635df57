"""Small networks whose answers to noise are close calls, and noise with labels to measure them on."""

import numpy as np
import torch

from csg_export.options import ExportOptions
from tests.helpers.evaluations import LABELS
from tests.helpers.mask_files import save_image
from tests.helpers.small_networks import dense
from tests.helpers.small_source import SIDE, classifier, segmenter
from tests.helpers.tiny_student import tiny

COLOURS = ("red", "green", "blue")
NOISE = np.random.default_rng(0).integers(0, 256, (60, SIDE, SIDE, 3), np.uint8)


def students():
    """Networks whose answers differ between an image and its mirror image, and how they are exported, by name."""
    student, _ = tiny()
    student.eval().requires_grad_(False)
    student.head.weight.mul_(30)
    student.head.bias -= student(torch.from_numpy(NOISE)).mean(0)  # no class is far ahead
    return {
        "cls": (classifier(student, COLOURS), ExportOptions()),
        "seg": (segmenter(network=dense(True)), ExportOptions(logits=True)),
    }


def write_noise(folder, task):
    """Sixty images in class folders, or eight scenes, whose sides are no multiples of 8, with masks."""
    if task == "classification":
        for number, pixels in enumerate(NOISE):
            save_image(folder / COLOURS[number % 3] / f"{number}.png", pixels)
        return
    random = np.random.default_rng(1)
    for number in range(8):
        save_image(folder / "images" / f"{number}.png", random.integers(0, 256, (76, 101, 3), np.uint8))
        save_image(folder / "labels" / f"{number}.png", random.integers(0, 3, (76, 101), np.uint8))
    (folder / "labels.yaml").write_text(LABELS)
