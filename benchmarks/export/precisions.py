"""Size, speed, accuracy on real images and agreement of each precision; engines of TensorRT-RTX.

    python -m benchmarks.export.precisions [RUN ...]

Measured are the given runs, on their real images, and for speed only torchvision's ResNet-50 and ResNet-101 with random
weights. OpenVINO computes bf16, and fp32 and int8 for comparison. Speeds are the best of several rounds in which all
precisions take turns, so that ratios within one call are comparable.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import openvino

from csg.bundle import MODEL
from csg.card import ComputeType
from csg.console import log, show_table
from csg.provenance import Format
from csg_export.export import export
from csg_export.inspect import model_bytes
from csg_export.onnx_graph import INPUT, strip, to_onnx
from csg_export.options import ExportOptions
from csg_export.precisions import PRECISIONS, Conversion
from csg_export.runners import OPENVINO_TYPES, onnx_runner, predict_with
from csg_export.sources import Source, from_run
from csg_export.tensorrt import EngineOptions, build_engine
from csg_export.torchvision_source import from_torchvision
from csg_train.training.run_folder import Run

MEASURED = ("fp32", "fp16", "int8")
ROUNDS, TURN_S, BATCHES = 5, 0.4, (1, 8)
THREADS = len(os.sched_getaffinity(0))
Work = Callable[[np.ndarray], object]


def in_onnxruntime(model: Path) -> Work:
    """The graph in ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {INPUT: images})


def in_openvino(model: Path, compute_type: ComputeType) -> Work:
    """The graph in OpenVINO."""
    settings = {"INFERENCE_PRECISION_HINT": OPENVINO_TYPES[compute_type], "INFERENCE_NUM_THREADS": THREADS}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    return lambda images: compiled({INPUT: images})


def images_per_s(works: dict[str, Work], images: np.ndarray) -> dict[str, float]:
    """Images per second of each: the best run of several rounds in which they take turns.

    The first run of a turn does not count: threads of the previous one still spin.
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
    """A graph to time."""

    model: Path
    """The ONNX file."""
    mib: float
    """Its size."""
    score: str = ""
    """Score on the real images in percent; empty for random weights."""
    agreement: str = ""
    """Agreement with PyTorch; empty for random weights."""


def export_graph(source: Source, precision: str, folder: Path, target: Format = "onnx") -> Graph:
    """Export a graph; random weights have no accuracy to check, so that their graph is only converted."""
    options = ExportOptions(precision, target, logits=source.task == "segmentation")
    if source.measure is None:
        return convert_unchecked(source, options, folder)
    bundle = export(source, options, folder)
    score = source.measure(predict_with(onnx_runner(onnx.load(bundle.model)))).score
    return Graph(bundle.model, model_bytes(bundle) / 2**20, f"{100 * score:.2f}", f"{bundle.card.parity.agreement:.2%}")


def convert_unchecked(source: Source, options: ExportOptions, folder: Path) -> Graph:
    """Convert a graph without comparing it with PyTorch; int8 with min-max ranges, which are the fastest to measure."""
    exact = to_onnx(strip(source.network), source.spec)
    conversion = Conversion(exact, source, replace(options, calibration="minmax"), lambda _: True)
    graph = PRECISIONS[options.precision].convert(conversion).model
    folder.mkdir(parents=True)
    onnx.save(graph, folder / MODEL)
    return Graph(folder / MODEL, graph.ByteSize() / 2**20)


def measure(source: Source, folder: Path) -> tuple[list[list[str]], list[list[str]]]:
    """Rows of the two tables for one network."""
    graphs = {}
    for precision in MEASURED:
        log(f"{source.name}: {precision}")
        graphs[precision] = export_graph(source, precision, folder / precision)
    works: dict[str, Work] = {precision: in_onnxruntime(graph.model) for precision, graph in graphs.items()}
    exact = graphs["fp32"].model
    works |= {"OpenVINO fp32": in_openvino(exact, "fp32"), "OpenVINO bf16": in_openvino(exact, "bf16")}
    works["OpenVINO int8"] = in_openvino(graphs["int8"].model, "int8")
    one = next(source.real.batches())[:1]
    speeds = [images_per_s(works, np.repeat(one, batch, 0)) for batch in BATCHES]
    rows = []
    for name in works:
        graph = graphs.get(name)
        cells = [f"{graph.mib:.1f}", graph.score, graph.agreement] if graph else ["", "", ""]
        rate = [f"{speed[name]:.1f} ({speed[name] / speed['fp32']:.2f})" for speed in speeds]
        rows.append([source.name, name, *cells, *rate])
    return rows, [engine_row(source, precision, graph, folder) for precision, graph in graphs.items()]


def engine_row(source: Source, precision: str, graph: Graph, folder: Path) -> list[str]:
    """Build time and size of TensorRT-RTX's engine for a graph; int8 has another graph than for ONNX Runtime."""
    if precision == "int8":
        graph = export_graph(source, precision, folder / "int8-engine", "tensorrt-rtx")
    started = time.perf_counter()
    plan, engine = build_engine(graph.model.read_bytes(), "tensorrt-rtx", source.spec, EngineOptions())
    seconds = time.perf_counter() - started
    return [source.name, precision, graph.score, f"{seconds:.1f}", f"{len(plan) / 2**20:.1f}", ", ".join(engine.target)]


def main() -> None:
    sources = [from_run(Run(Path(run))) for run in sys.argv[1:]]
    sources += [from_torchvision(name, "none") for name in ("resnet50", "resnet101")]
    rows: list[list[str]] = []
    engines: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, source in enumerate(sources):
            graph_rows, engine_rows = measure(source, Path(folder, str(number)))
            rows += graph_rows
            engines += engine_rows
            for row in (*graph_rows, *engine_rows):
                log(", ".join(row))
    columns = ("network", "precision", "MiB", "real score %", "agreement")
    rates = (f"images/s, batch {batch} (to fp32)" for batch in BATCHES)
    show_table(f"ONNX Runtime, and OpenVINO, on {THREADS} threads", (*columns, *rates), rows)
    engine_columns = ("network", "precision", "graph's real score %", "build s", "MiB", "for")
    show_table("TensorRT-RTX, built here, not run", engine_columns, engines)


if __name__ == "__main__":
    main()
