"""What a classifier's run reaches on its real images with mirror images, by the mean of softmaxes and of sigmoids.

python -m benchmarks.training.mirrored_rules RUN
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from csg.card import ClassificationInput
from csg.console import show_table
from csg.metrics import classification_scores
from csg_train.data.evaluation_batches import image_batches
from csg_train.training.run_data import real_images
from csg_train.training.run_folder import Run
from csg_train.training.student import load_student


@torch.inference_mode()
def main() -> None:
    """Print a row for each rule; `agreement` is the share of images with the class of the softmaxes."""
    run = Run(Path(sys.argv[1]))
    student, images, spec = load_student(run), real_images(run), run.recipe().data.image_input()
    assert images
    assert isinstance(spec, ClassificationInput)
    batches = [torch.from_numpy(batch) for _, batch in image_batches(images.paths, spec, None)]
    plain = torch.cat([student(batch) for batch in batches])
    of_mirror_images = torch.cat([student(batch.flip(2)) for batch in batches])
    rules = {
        "plain": plain,
        "mean of softmaxes": plain.softmax(1) + of_mirror_images.softmax(1),
        "mean of sigmoids": plain.sigmoid() + of_mirror_images.sigmoid(),
    }
    predicted = {name: scores.argmax(1).numpy() for name, scores in rules.items()}
    rows = []
    for name, found in predicted.items():
        score = classification_scores(np.asarray(images.labels), found, len(run.class_spec())).mean_class_accuracy
        agreement = (found == predicted["mean of softmaxes"]).mean()
        rows.append((name, f"{score:.2%}", f"{agreement:.2%}"))
    show_table(f"{run.path.name} on {images.name}", ("class of", "mean class accuracy", "agreement"), rows)


if __name__ == "__main__":
    main()
