"""A run of one step whose images were moved away."""

import numpy as np
import pytest
from PIL import Image

from tests.helpers.cli import csg

TRAIN = ("--backbone", "mobilenet_v2", "--method", "none", "--json")
SETTINGS = {
    "model.weights": "none",
    "data.size": 32,
    "data.resize": 32,
    "data.workers": 0,
    "optim.batch": 4,
    "optim.max_steps": 1,
}


def write_images(folder, seed, count=4):
    random = np.random.default_rng(seed)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


@pytest.fixture(scope="session")
def moved(once):
    """A run `run`, its images `data` and `real` moved away, and `other`, which are not its images."""

    def make(home):
        home.mkdir()
        for seed, name in enumerate(("data", "real", "other")):
            write_images(home / name, seed)
        settings = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
        images = ("--data", home / "data", "--real-data", home / "real")
        done = csg("train", "cls", *TRAIN, *settings, *images, "--out", home / "run")
        assert done.returncode == 0, done.stderr
        for name in ("data", "real"):
            (home / name).rename(home / f"moved-{name}")

    return once("moved-images", make)
