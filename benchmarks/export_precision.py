"""What each precision costs and gains: size, speed in ONNX Runtime, real accuracy, agreement; engines of TensorRT-RTX.

    python benchmarks/export_precision.py [RUN ...]

For the given run folders, whose real images are measured on, and for torchvision's ResNet-50 and -101 with random
weights, whose answers mean nothing: for speed alone. bf16 is computed by OpenVINO; its fp32 stands beside it. Speeds
are the best of several rounds in which all precisions take turns, so that ratios within a row of rounds hold.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import openvino

from csg.bundle import Bundle
from csg.card import Precision
from csg.console import say, show_table
from csg.errors import PromiseError
from csg_export.command import size_of
from csg_export.engine import EngineOptions, build_engine
from csg_export.export import ExportOptions, export
from csg_export.onnx_graph import INPUT
from csg_export.sources import Source, of_run, of_torchvision
from csg_export.verify import GraphStudent
from csg_train.run import Run

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
ROUNDS, TURN_S, BATCHES = 5, 0.4, (1, 8)
THREADS = len(os.sched_getaffinity(0))
Work = Callable[[np.ndarray], object]


def onnx_runtime(model: Path) -> Work:
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {INPUT: images})


def in_openvino(model: Path, precision: str) -> Work:
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": THREADS}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    return lambda images: compiled({INPUT: images})


def images_per_s(works: dict[str, Work], images: np.ndarray) -> dict[str, float]:
    """Images a second of each, the best run of rounds in which they take turns.

    A turn is a while long, and its first run does not count: threads of the one before still spin.
    """
    best = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for name, work in works.items():
            work(images)
            began = time.perf_counter()
            while (started := time.perf_counter()) < began + TURN_S:
                work(images)
                best[name] = min(best[name], time.perf_counter() - started)
    return {name: len(images) / seconds for name, seconds in best.items()}


def measure(source: Source, folder: Path) -> tuple[list[list[str]], list[list[str]]]:
    """Rows of the two tables for one network."""
    scenes, random = source.task == "segmentation", source.measure is None
    bundles = {}
    for precision in PRECISIONS:
        say(f"{source.name}: {precision}")
        options = ExportOptions(precision, logits=scenes, tolerance=1.0 if random else None)
        bundles[precision] = export(source, options, folder / precision)
    works = {precision: onnx_runtime(bundle.model) for precision, bundle in bundles.items()}
    exact = bundles["fp32"].model
    works |= {"OpenVINO fp32": in_openvino(exact, "f32"), "OpenVINO bf16": in_openvino(exact, "bf16")}
    works["OpenVINO int8"] = in_openvino(bundles["int8"].model, "f32")
    one = next(source.real.batches())[:1]
    speeds = [images_per_s(works, np.repeat(one, batch, 0)) for batch in BATCHES]
    rows = []
    for name in works:
        bundle = bundles.get(name)  # type: ignore[call-overload]
        cells = ["", "", ""]
        if bundle:
            score = "" if random else f"{100 * source.measure(GraphStudent(bundle.model.read_bytes())).score:.2f}"
            cells = [f"{size_of(bundle) / 2**20:.1f}", score, "" if random else f"{bundle.card.parity.agreement:.2%}"]
        rate = [f"{speed[name]:.1f} ({speed[name] / speed['fp32']:.2f})" for speed in speeds]
        rows.append([source.name, name, *cells, *rate])
    return rows, [engine_row(source, precision, bundle, folder) for precision, bundle in bundles.items()]


def engine_row(source: Source, precision: Precision, bundle: Bundle, folder: Path) -> list[str]:
    """TensorRT-RTX's time and size for the graph of a precision; int8's is another than ONNX Runtime's."""
    of_engine = EngineOptions()
    if precision == "int8":
        tolerance = None if source.measure else 1.0
        options = ExportOptions(precision, "tensorrt-rtx", tolerance=tolerance, engine=of_engine)
        try:
            bundle = export(source, options, folder / "int8-engine")
        except PromiseError as error:
            return [source.name, precision, str(error), "", "", ""]
    started = time.perf_counter()
    plan, engine = build_engine(bundle.model.read_bytes(), "tensorrt-rtx", source.spec, of_engine)
    seconds = time.perf_counter() - started
    score = f"{100 * bundle.card.evaluations[-1].score:.2f}" if source.measure else ""
    return [source.name, precision, score, f"{seconds:.1f}", f"{len(plan) / 2**20:.1f}", ", ".join(engine.target)]


def main() -> None:
    sources = [of_run(Run(Path(run)), None) for run in sys.argv[1:]]
    sources += [of_torchvision(name, "none") for name in ("resnet50", "resnet101")]
    rows: list[list[str]] = []
    engines: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, source in enumerate(sources):
            of_graphs, of_engines = measure(source, Path(folder, str(number)))
            rows += of_graphs
            engines += of_engines
            for row in (*of_graphs, *of_engines):
                say(", ".join(row))
    columns = ("network", "precision", "MiB", "real score %", "agreement")
    rates = (f"images/s, batch {batch} (to fp32)" for batch in BATCHES)
    show_table(f"ONNX Runtime, and OpenVINO, on {THREADS} threads", (*columns, *rates), rows)
    of_engine = ("network", "precision", "graph's real score %", "build s", "MiB", "for")
    show_table("TensorRT-RTX, built here, not run", of_engine, engines)


if __name__ == "__main__":
    main()
