"""What each precision costs and gains: size, speed in ONNX Runtime, real accuracy, agreement; engines of TensorRT-RTX.

    python -m benchmarks.export.precisions [RUN ...]

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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import openvino

from csg.bundle import MODEL
from csg.card import Calibration, ComputeType, Format
from csg.console import log, show_table
from csg_export.command import size_of
from csg_export.export import ExportOptions, export
from csg_export.fp16 import to_fp16
from csg_export.int8 import to_int8
from csg_export.onnx_graph import INPUT, stripped, to_onnx
from csg_export.parity import onnx_predict
from csg_export.sources import Source, of_run, of_torchvision
from csg_export.tensorrt import EngineOptions, build_engine
from csg_train.training.run_folder import Run

PRECISIONS: tuple[ComputeType, ...] = ("fp32", "fp16", "int8")
ROUNDS, TURN_S, BATCHES = 5, 0.4, (1, 8)
THREADS = len(os.sched_getaffinity(0))
Work = Callable[[np.ndarray], object]


def onnx_runtime(model: Path) -> Work:
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {INPUT: images})


def in_openvino(model: Path, precision: ComputeType) -> Work:
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


@dataclass(frozen=True)
class Graph:
    """A graph to time, its size, and what was measured of it: real score and agreement; empty for random weights."""

    model: Path
    mib: float
    score: str = ""
    agreement: str = ""


def made(source: Source, precision: ComputeType, folder: Path, target: Format = "onnx") -> Graph:
    """The graph of a bundle; of random weights, which no promise can be held of, the graph alone."""
    if source.measure is None:
        return bare(source, precision, folder, target)
    options = ExportOptions(precision, target, logits=source.task == "segmentation")
    bundle = export(source, options, folder)
    score = source.measure(onnx_predict(bundle.model.read_bytes())).score
    return Graph(bundle.model, size_of(bundle) / 2**20, f"{100 * score:.2f}", f"{bundle.card.parity.agreement:.2%}")


def bare(source: Source, precision: ComputeType, folder: Path, target: Format) -> Graph:
    """What `export` makes, held against nothing."""
    graph = to_onnx(stripped(source.network), source.spec, embedding=False)
    if precision == "fp16":
        graph = to_fp16(graph, lambda _: True)[0]
    if precision == "int8":
        images = list(source.training.batches())
        how = Calibration(source=source.training.source, images=sum(map(len, images)), method="minmax", float_ends=True)
        graph = to_int8(graph, images, how, for_tensorrt=target != "onnx")
    folder.mkdir(parents=True)
    onnx.save(graph, folder / MODEL)
    return Graph(folder / MODEL, graph.ByteSize() / 2**20)


def measure(source: Source, folder: Path) -> tuple[list[list[str]], list[list[str]]]:
    """Rows of the two tables for one network."""
    graphs = {}
    for precision in PRECISIONS:
        log(f"{source.name}: {precision}")
        graphs[precision] = made(source, precision, folder / precision)
    works: dict[str, Work] = {precision: onnx_runtime(graph.model) for precision, graph in graphs.items()}
    exact = graphs["fp32"].model
    works |= {"OpenVINO fp32": in_openvino(exact, "f32"), "OpenVINO bf16": in_openvino(exact, "bf16")}
    works["OpenVINO int8"] = in_openvino(graphs["int8"].model, "f32")
    one = next(source.real.batches())[:1]
    speeds = [images_per_s(works, np.repeat(one, batch, 0)) for batch in BATCHES]
    rows = []
    for name in works:
        graph = graphs.get(name)  # type: ignore[call-overload]
        cells = [f"{graph.mib:.1f}", graph.score, graph.agreement] if graph else ["", "", ""]
        rate = [f"{speed[name]:.1f} ({speed[name] / speed['fp32']:.2f})" for speed in speeds]
        rows.append([source.name, name, *cells, *rate])
    return rows, [engine_row(source, precision, graph, folder) for precision, graph in graphs.items()]


def engine_row(source: Source, precision: ComputeType, graph: Graph, folder: Path) -> list[str]:
    """TensorRT-RTX's time and size for the graph of a precision; int8's is another than ONNX Runtime's."""
    if precision == "int8":
        graph = made(source, precision, folder / "int8-engine", "tensorrt-rtx")
    started = time.perf_counter()
    plan, engine = build_engine(graph.model.read_bytes(), "tensorrt-rtx", source.spec, EngineOptions())
    seconds = time.perf_counter() - started
    return [source.name, precision, graph.score, f"{seconds:.1f}", f"{len(plan) / 2**20:.1f}", ", ".join(engine.target)]


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
                log(", ".join(row))
    columns = ("network", "precision", "MiB", "real score %", "agreement")
    rates = (f"images/s, batch {batch} (to fp32)" for batch in BATCHES)
    show_table(f"ONNX Runtime, and OpenVINO, on {THREADS} threads", (*columns, *rates), rows)
    of_engine = ("network", "precision", "graph's real score %", "build s", "MiB", "for")
    show_table("TensorRT-RTX, built here, not run", of_engine, engines)


if __name__ == "__main__":
    main()
