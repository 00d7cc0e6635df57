"""What a training costs before its first step on large data sets: reading, the check of all files, the fingerprint.

    python -m benchmarks.training.startup                     # VisDA-17's 152,397 images and GTA5's 24,966 scenes
    python -m benchmarks.training.startup --share 0.1         # a tenth of them
    python -m benchmarks.training.startup --checkout ../old   # the csg in that folder, in turns with this one

Writes a list of small JPEG files in twelve classes and a folder of small PNG files with masks, each file with an inode
of its own. Then starts `csg train` on them, and ends it where the first step would begin: with an empty cache of csg,
so that every file is read, and with what that run has kept. The operating system has all files in its memory.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from csg.console import log, show_table

VISDA, GTA5 = 152_397, 24_966
CLASSES, DISTINCT, WARM_RUNS = 12, 24, 3
ROAD_IDS = (7, 8, 11, 23, 26)
UNTIL_FIRST_STEP = """
import sys
from csg_train.training.trainer import Trainer
Trainer.train = lambda trainer: sys.exit(0)
import csg_cli
csg_cli.main()
"""
SETTINGS = ("--set", "model.backbone=mobilenet_v2", "--set", "model.weights=none", "--method", "none")
SETTINGS += ("--precision", "fp32")


class Cost(NamedTuple):
    """What a process took."""

    cpu_s: float
    """Seconds of CPU, of the user and of the system."""
    wall_s: float
    """Seconds from its start to its end."""
    peak_mib: float
    """Largest resident memory."""


def write_visda(folder: Path, images: int) -> None:
    """Write JPEG files in folders of twelve classes, and the list of them."""
    files, lines = [_encoded(_crop(number), "JPEG") for number in range(DISTINCT)], []
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
    for number in range(images):
        name = f"class{number % CLASSES}/{number:06d}.jpg"
        (folder / name).write_bytes(files[number % DISTINCT])
        lines.append(f"{name} {number % CLASSES}\n")
    (folder / "image_list.txt").write_text("".join(lines))


def write_gta5(folder: Path, scenes: int) -> None:
    """Write PNG files as images/NUMBER.png with masks as labels/NUMBER.png."""
    random = np.random.default_rng(0)
    images = [_encoded(_crop(number), "PNG") for number in range(DISTINCT)]
    blocks = [Image.fromarray(random.choice(ROAD_IDS, (8, 8)).astype(np.uint8)) for _ in range(DISTINCT)]
    masks = [_encoded(block.resize((64, 64), Image.Resampling.NEAREST), "PNG") for block in blocks]
    for kind, files in (("images", images), ("labels", masks)):
        (folder / kind).mkdir(parents=True)
        for number in range(scenes):
            (folder / kind / f"{number:05d}.png").write_bytes(files[number % DISTINCT])


def _crop(number: int) -> Image.Image:
    photograph, left = Image.fromarray(load_sample_images().images[number % 2]), 16 * number
    return photograph.crop((left, 100, left + 64, 164))


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def cost(checkout: Path, cache: Path, options: Sequence[str]) -> Cost:
    """Start a training, and measure its process until the first step would begin.

    Raises:
        subprocess.CalledProcessError: it failed before.
    """
    environment = os.environ | {"PYTHONPATH": str(checkout), "CSG_CACHE": str(cache)}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        command, started = [sys.executable, "-c", UNTIL_FIRST_STEP, "train", *options, *SETTINGS], time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        output.seek(0)
        if status:
            raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), command, output.read().decode())
    return Cost(used.ru_utime + used.ru_stime, seconds, used.ru_maxrss / 1024)


def rows_of(name: str, checkouts: Sequence[Path], options: Sequence[str]) -> list[list[str]]:
    """The costs of each csg with an empty cache, and with a full one."""
    rows = []
    for checkout in checkouts:
        with tempfile.TemporaryDirectory() as cache:
            first = cost(checkout, Path(cache), options)
            warm = [cost(checkout, Path(cache), options) for _ in range(WARM_RUNS)]
        median = Cost(*(statistics.median(values) for values in zip(*warm, strict=True)))
        for kind, found in (("empty cache", first), (f"full cache, median of {WARM_RUNS}", median)):
            rows.append([f"{name}, {checkout.name}, {kind}", *(f"{value:.1f}" for value in found)])
            log(f"{rows[-1][0]}: {', '.join(rows[-1][1:])}")
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="share of the images that are written")
    parser.add_argument("--checkout", type=Path, action="append", default=[], help="another csg to measure")
    given = parser.parse_args()
    checkouts = [*(path.resolve() for path in given.checkout), Path(__file__).resolve().parents[2]]
    visda, gta5 = (round(given.share * count) for count in (VISDA, GTA5))
    with tempfile.TemporaryDirectory() as folder:
        write_visda(Path(folder, "visda"), visda)
        write_gta5(Path(folder, "gta5"), gta5)
        time.sleep(3)  # files that were just written are not kept in the cache
        few = ("cls", "--data", str(Path(folder, "few")))
        write_visda(Path(folder, "few"), DISTINCT)
        rows = rows_of(f"{DISTINCT} images", checkouts, (*few, "--set", "optim.batch=8"))
        rows += rows_of(f"{visda:,} images", checkouts, ("cls", "--data", str(Path(folder, "visda", "image_list.txt"))))
        scenes = ("seg", "--recipe", "gta5", "--data", str(Path(folder, "gta5")), "--set", "data.labels=cityscapes19")
        rows += rows_of(f"{gta5:,} scenes", checkouts, (*scenes, "--set", "model.head=deeplabv2"))
    show_table("from the start to the first step", ("", "CPU s", "wall s", "peak MiB"), rows)


if __name__ == "__main__":
    main()
