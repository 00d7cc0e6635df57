"""Whether decoding large images delays training: PNGs of GTA5's size, loaded in the training process or a second one.

    python -m benchmarks.training.segmentation_loading

Writes images of 1052 x 1914 pixels with masks, times decoding, cropping and jittering one of them, then trains on them
without and with a loader process, in turns. Training uses all cores except one, which is left to the loader process. If
loading is off the critical path, a step is shorter by the time that loading its batch takes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from csg.console import show_table
from csg.datasets.segmentation import read_segmentation_dataset
from csg_train.data.crops import Crops
from csg_train.recipe import SegmentationRecipe, load_recipe

HEIGHT, WIDTH = 1052, 1914
SCENES, STEPS, BATCH, ROUNDS = 12, 12, 2, 3
CHANGES = {"data.crop": [256, 256], "optim.batch": BATCH, "optim.epochs": 99, "optim.max_steps": STEPS}


def write_scenes(folder: Path) -> None:
    """Write photographs of GTA5's size with some noise, so that they compress like frames of a game."""
    random = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(SCENES):
        photograph = Image.fromarray(load_sample_images().images[number % 2]).resize((WIDTH, HEIGHT))
        pixels = np.asarray(photograph) + random.normal(0, 4, (HEIGHT, WIDTH, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{number}.png")
        blocks = random.integers(7, 9, (16, 16), dtype=np.uint8)  # road and sidewalk
        Image.fromarray(blocks).resize((WIDTH, HEIGHT), 0).save(folder / "labels" / f"{number}.png")


def loading_ms(folder: Path) -> float:
    """Milliseconds to load the two views of a crop of one image in this process."""
    recipe = load_recipe("gta5", {"data.train": [str(folder)], **CHANGES})
    assert isinstance(recipe, SegmentationRecipe)
    crops = Crops(read_segmentation_dataset([folder], "cityscapes19"), recipe.data, recipe.augment, views=2, seed=0)
    times = []
    for index in range(SCENES):
        started = time.perf_counter()
        crops[0, index]
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def step_ms(folder: Path, method: str, workers: int) -> float:
    """Milliseconds per step of a short training, loading included."""
    command = [sys.executable, "-m", "csg", "train", "seg", "--json", "--recipe", "gta5", "--method", method]
    settings = {**CHANGES, "data.train": [str(folder)], "data.real": [], "data.workers": workers}
    settings["model.backbone"] = "mobilenet_v2"
    command += [word for name, value in settings.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    with tempfile.TemporaryDirectory() as out:
        threads = os.environ | {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) - 1))}
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        done = subprocess.run(command, cwd=out, check=True, env=threads, stdout=pipe, stderr=nowhere)
        run = Path(out, json.loads(done.stdout)["run"])
        return 1000 * float(json.loads((run / "result.json").read_text())["seconds_per_step"])


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        scenes = Path(folder, "gta5")
        write_scenes(scenes)
        alone, rows = loading_ms(scenes), []
        for method in ("none", "csg"):
            times = {workers: [] for workers in (0, 1)}
            for _ in range(ROUNDS):
                for workers, found in times.items():
                    found.append(step_ms(scenes, method, workers))
            own, beside = (statistics.median(found) for found in times.values())
            rows.append((method, f"{BATCH * alone:.0f}", f"{own:.0f}", f"{beside:.0f}", f"{own / beside:.2f}"))
    columns = ("method", "loading a batch", "step, loading itself", "step, one loader process", "ratio")
    show_table(f"{HEIGHT} x {WIDTH} PNGs, {BATCH} a batch, milliseconds", columns, rows)


if __name__ == "__main__":
    main()
