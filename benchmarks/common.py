"""What the serving benchmarks share: bundles of torchvision networks, a served repository, its processes."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from sklearn.datasets import load_sample_images
from tritonclient.grpc.service_pb2 import ModelInferRequest

from csg.datasets.listing import list_images
from csg.images import decode

signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops the server of a benchmark that is ended
FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


def csg(*args: object, cwd: Path) -> str:
    """Run a csg command and return its standard output.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    command = [sys.executable, "-m", "csg", *map(str, args)]
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def export_torchvision(name: str, folder: Path, *options: str) -> Path:
    """Export a torchvision classifier with random weights, for speed only, unless its bundle exists already."""
    bundle = folder.resolve() / "bundles" / "".join([name, *options]).replace("--", "-")
    if not bundle.is_dir():
        csg("export", "--torchvision", name, "--weights", "none", *options, "--out", bundle, cwd=folder)
    return bundle


def photographs(count: int) -> list[bytes]:
    """JPEG files of 500 x 375 pixels: crops of two photographs, in four qualities."""
    files = []
    for number in range(count):
        photograph = Image.fromarray(load_sample_images().images[number % 2])
        left, top = 9 * number % 140, 3 * number % 52
        buffer = io.BytesIO()
        photograph.crop((left, top, left + 500, top + 375)).save(buffer, "JPEG", quality=(75, 85, 92, 95)[number % 4])
        files.append(buffer.getvalue())
    return files


def phone_photographs(count: int, folder: Path | None = None) -> list[bytes]:
    """JPEG files of 4032 x 3024 pixels in quality 90, as a phone takes them: enlarged images with noise.

    Args:
        count: number of files.
        folder: folder of images to enlarge, searched with its subfolders; None: scikit-learn's two photographs.
    """
    random, files = np.random.default_rng(0), []
    sources = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    if folder:
        paths = list_images(folder).images
        sources = [decode(path) for path in paths[:: max(1, len(paths) // count)]][:count]
    for number in range(count):
        enlarged = sources[number % len(sources)].resize((4032, 3024), Image.Resampling.BICUBIC)
        noisy = np.asarray(enlarged) + random.normal(0, 6, (3024, 4032, 1))
        buffer = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def file_request(model: str, file: bytes, output: str, classification: bool = False) -> bytes:
    """A serialised gRPC request with one image file as the input `encoded`.

    Args:
        classification: ask for the class only.
    """
    request = ModelInferRequest(model_name=model)
    request.inputs.add(name="encoded", datatype="BYTES", shape=[1, 1])
    asked = request.outputs.add(name=output)
    if classification:
        asked.parameters["classification"].int64_param = 1
    request.raw_input_contents.append(len(file).to_bytes(4, "little") + file)
    return bytes(request.SerializeToString())


@contextmanager
def serving(
    folder: Path, *bundles: Path, deploy: Sequence[str] = (), serve: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Serve bundles as models of their names, in the Python backend.

    Args:
        folder: holds the model repository.
        bundles: what to serve.
        deploy: more options of `csg deploy`.
        serve: more options of `csg serve`.

    Yields:
        `pid`, and the addresses `http`, `grpc` and `metrics`.
    """
    for bundle in bundles:
        csg("deploy", bundle, "--backend", "python", "--name", bundle.name, *deploy, cwd=folder)
    state: dict[str, Any] = json.loads(csg("serve", "--detach", "--json", *FREE_PORTS, *serve, cwd=folder))
    try:
        yield state
    finally:
        csg("serve", "--stop", cwd=folder)


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """CPU seconds used by a process and all its descendants."""
    total = 0.0
    for process in family(pid):
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:2])
    return total
