"""Encoders on the whole road: training, export in each precision, deployment, and evaluation through a real Triton.

    python -m benchmarks.training.encoder_road results [--at-once 2]         # all networks, both tasks: hours on a CPU
    python -m benchmarks.training.encoder_road results --network vit_tiny_patch16_224 --task seg
    python -m benchmarks.training.encoder_road docs/results/encoders --write docs/results/encoders.md

Each network is trained for a few steps from random weights on a few images: the figures show that a stage works, how
large its files are and how far the graph is from PyTorch, not how good a network is. Every finished cell is kept in
results/cells.json, and a later call makes those that are missing; a cell that failed is tried again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any

from benchmarks.common import FREE_PORTS
from csg.console import log, show_table
from csg.errors import one_line
from csg.files import atomic_write

NETWORKS = (
    *("vit_small_patch14_dinov2", "vit_small_patch16_dinov3", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"),
    *("convnext_tiny", "efficientnet_b0", "tf_efficientnet_lite0", "mobilenetv4_conv_small", "regnety_002", "resnet50"),
)
PRECISIONS = ("fp32", "fp16", "int8")
TASKS = {
    "cls": ("digits", ("data.resize=112", "data.size=112")),
    "seg": ("digit-scenes", ("model.head=pyramid", "data.crop=[112,112]")),
}
"""The recipe of each task, whose name is that of its images too, and what differs from it."""
IMAGES = {"train": 64, "real": 200}
"""How many images there are to train on, and to measure a run and its graph on, both drawn."""
STEPS = 8
SETTINGS = (f"optim.steps={STEPS}", "optim.batch=8", "data.workers=0", "precision=fp32")
COLUMNS = (
    "network",
    "task",
    "precision",
    "MB",
    "largest difference",
    "agreement",
    "served score",
    "export s",
    "road s",
)


def run_csg(*args: object, cwd: Path) -> dict[str, Any]:
    """The JSON object that a csg command prints.

    Raises:
        RuntimeError: the command failed; the message is its last line of words.
    """
    command = [sys.executable, "-m", "csg", *map(str, args), "--json"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise RuntimeError(one_line(" ".join(lines[-2:]), 200))
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def draw_images(folder: Path) -> None:
    """Draw the images of both tasks, those to train on and, with another seed, those to measure on."""
    for kind, _ in TASKS.values():
        for seed, (use, count) in enumerate(IMAGES.items()):
            if not (out := folder / f"{kind}-{use}").is_dir():
                words = ("data", "synth", str(out), "--kind", kind, "--count", str(count), "--seed", str(seed))
                subprocess.run([sys.executable, "-m", "csg", *words], check=True, capture_output=True)


def trained(folder: Path, network: str, task: str) -> Path:
    """The run of a network, trained here unless it is finished."""
    recipe, changes = TASKS[task]
    run = folder / "runs" / f"{network}-{task}"
    if not (run / "result.json").is_file():
        shutil.rmtree(run, ignore_errors=True)
        settings = [word for setting in (*SETTINGS, *changes) for word in ("--set", setting)]
        images = ("--data", folder / f"{recipe}-train", "--real-data", folder / f"{recipe}-real")
        names = ("--recipe", recipe, "--backbone", f"timm:{network}", "--weights", "none", "--method", "none")
        run_csg("train", task, *names, *images, *settings, "--out", run, cwd=folder)
    return run


def cell(folder: Path, network: str, task: str, precision: str) -> dict[str, Any]:
    """The figures of a network at a precision; `failed` says at which stage it stopped, and why."""
    started, stage = time.perf_counter(), "train"
    work = folder / "work" / network
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        run = trained(folder, network, task)
        stage, exporting = "export", time.perf_counter()
        bundle = run_csg("export", run, "--precision", precision, "--out", work / "bundle", cwd=work)
        export_s, stage = time.perf_counter() - exporting, "deploy"
        run_csg("deploy", work / "bundle", "--name", "network", cwd=work)
        stage = "serve"
        server = run_csg("serve", "--detach", *FREE_PORTS, cwd=work)
        try:
            stage = "evaluate"
            scores = run_csg("evaluate", "--server", server["grpc"], "--model", "network", cwd=work)
        finally:
            run_csg("serve", "--stop", cwd=work)
    except (RuntimeError, ValueError) as error:
        return {"failed": f"{stage}: {error}"}
    return {
        "mb": sum(file.stat().st_size for file in (work / "bundle").glob("model.onnx*")) / 1e6,
        "difference": bundle["parity"]["max_abs_diff"],
        "agreement": bundle["parity"]["agreement"],
        "score": scores["accuracy" if task == "cls" else "miou"],
        "export_s": export_s,
        "road_s": time.perf_counter() - started,
    }


def row(name: str, found: dict[str, Any]) -> list[str]:
    """A row of the table."""
    if "failed" in found:
        return [*name.split(), "failed", found["failed"], *[""] * (len(COLUMNS) - 5)]
    numbers = [f"{found['mb']:.1f}", f"{found['difference']:.1e}", f"{found['agreement']:.2%}", f"{found['score']:.1%}"]
    return [*name.split(), *numbers, f"{found['export_s']:.0f}", f"{found['road_s']:.0f}"]


def markdown(cells: dict[str, dict[str, Any]]) -> str:
    """The page with all cells."""
    failed = sum("failed" in found for found in cells.values())
    every = len(NETWORKS) * len(TASKS) * len(PRECISIONS)
    lines = [
        "# Encoders on the whole road",
        "",
        "    python -m benchmarks.training.encoder_road docs/results/encoders --write docs/results/encoders.md",
        "",
        f"{len(cells)} of {every} cells are made, {failed} of them failed. Each network has random weights and {STEPS} "
        f"steps of training on {IMAGES['train']} drawn images of 112 px, so scores say nothing about a network. The "
        "largest difference is that of a logit between the exported graph and PyTorch on "
        f"{IMAGES['real']} other drawn images; the score is measured through a Triton, on the embedded real images. "
        "Seconds are of one thread on a machine with other work; `road s` is all of a cell, with the training where it "
        "was due.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(row(name, found)) + " |" for name, found in sorted(cells.items(), key=place)),
    ]
    return "\n".join(lines) + "\n"


def place(named: tuple[str, dict[str, Any]]) -> tuple[int, ...]:
    """Where a cell is in the table."""
    network, task, precision = named[0].split()
    known = [*NETWORKS, network]
    return known.index(network), [*TASKS].index(task), PRECISIONS.index(precision)


class Cells:
    """The finished cells, kept in a file.

    Args:
        folder: of the file, of the runs and of the images.
    """

    def __init__(self, folder: Path):
        self.folder, self.file, self.writing = folder, folder / "cells.json", Lock()
        self.found: dict[str, dict[str, Any]] = json.loads(self.file.read_text()) if self.file.is_file() else {}

    def make(self, network: str, tasks: Sequence[str], precisions: Sequence[str]) -> None:
        """Make the cells of a network that are missing or failed."""
        for task, precision in product(tasks, precisions):
            name = f"{network} {task} {precision}"
            if "failed" in self.found.get(name, {"failed": ""}):
                made = cell(self.folder, network, task, precision)
                with self.writing:
                    self.found[name] = made
                    atomic_write(self.file, json.dumps(self.found, indent=1).encode())
                log(", ".join(row(name, made)))


def main() -> None:
    """Make what is missing, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where runs and figures are kept")
    parser.add_argument("--network", action="append", help="a name of timm's; by default ten networks")
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--precision", action="append", choices=PRECISIONS)
    parser.add_argument("--at-once", type=int, default=1, help="networks at the same time")
    parser.add_argument("--write", type=Path, help="write the table to this Markdown file too")
    given = parser.parse_args()
    cells = Cells(given.folder.resolve())
    cells.folder.mkdir(parents=True, exist_ok=True)
    draw_images(cells.folder)
    with ThreadPoolExecutor(given.at_once) as pool:
        tasks, precisions = given.task or [*TASKS], given.precision or PRECISIONS
        list(pool.map(lambda network: cells.make(network, tasks, precisions), given.network or NETWORKS))
    rows = [row(name, found) for name, found in sorted(cells.found.items(), key=place)]
    show_table("encoders on the whole road", COLUMNS, rows)
    if given.write:
        atomic_write(given.write, markdown(cells.found).encode())


if __name__ == "__main__":
    main()
