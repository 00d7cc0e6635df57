"""Runs that take a fraction of a second: a few noisy images, random weights, no method."""

import contextlib
from unittest import mock

import numpy as np
from PIL import Image

from csg_train.recipe import load_recipe
from csg_train.training.command import train
from csg_train.training.run_folder import Run
from csg_train.training.signals import Stopped
from csg_train.training.trainer import Trainer

TINY = {
    "data.resize": 32,
    "data.size": 32,
    "data.workers": 0,
    "optim.batch": 4,
    "optim.steps": 6,
    "optim.lr_backbone": 1e-3,
    "optim.lr_heads": 1e-3,
    "model.weights": "none",
    "method": "none",
    "precision": "fp32",
}


def noisy_images(folder, count=6, classes=("cat", "dog"), seed=0):
    """Class folders with `count` images each, whose pixels depend on the seed."""
    made = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = made.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            pixels[..., number % 3] //= 2
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def tiny_recipe(data, real=None, **changes):
    """A recipe for `noisy_images`; takes changes by dotted name."""
    sources = {"data.train": [str(data)], "data.real": [str(real)] if real else []}
    return load_recipe("digits", TINY | sources | {k.replace("__", "."): v for k, v in changes.items()})


def settings(**changes):
    """The `--set` words of a run of `noisy_images`; takes changes by dotted name."""
    merged = TINY | {k.replace("__", "."): v for k, v in changes.items()}
    return [word for name, value in merged.items() for word in ("--set", f"{name}={value}")]


def stopped_run(path, recipe, step=3):
    """A run that was stopped after `step` steps."""
    one_step = Trainer._one_step

    def stop(self, batch):
        values = one_step(self, batch)
        self.stop.wanted = self.step == step
        return values

    with mock.patch.object(Trainer, "_one_step", stop), contextlib.suppress(Stopped):
        train(recipe, Run(path))
    assert not Run(path).finished
    return Run(path)
