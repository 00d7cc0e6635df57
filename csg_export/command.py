"""`csg export` and `csg export inspect`: what a person asks for and sees."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from csg.bundle import Bundle, read_bundle
from csg.card import STRIDE, ModelCard
from csg.console import log, print_json, show_key_values, show_table, stdout
from csg.errors import UsageError
from csg_export.export import ExportOptions, export
from csg_export.fp16 import BLOCK_STARTS
from csg_export.sources import of_run, of_torchvision
from csg_export.tensorrt import library
from csg_train.training.run_folder import Run, newest_run

RUNS = Path("runs")


def export_command(
    run: Path | None,
    torchvision: str | None,
    weights: str | None,
    size: str | None,
    options: ExportOptions,
    out: Path | None,
    as_json: bool,
) -> None:
    """Export a run, the newest by default, or a classifier of torchvision, and print what came of it."""
    if run and torchvision:
        raise UsageError("a run and --torchvision name two networks", "give one of them")
    if options.format != "onnx":
        library(options.format)
    opened = None if torchvision else Run(run or newest_run(RUNS))
    what = f"torchvision's {torchvision}" if opened is None else f"run {opened.path}{'' if run else ' (newest)'}"
    log(f"export: {what}, {options.format}, {options.precision}")
    sides = parse_size(size)
    source = of_run(opened, sides) if opened else of_torchvision(str(torchvision), weights)
    bundle = export(source, options, out)
    card, total = bundle.card, size_of(bundle)
    if as_json:
        parity = {"agreement": card.parity.agreement, "max_abs_diff": card.parity.max_abs_diff}
        kind = {"precision": card.precision, "format": card.format}
        print_json({"bundle": str(bundle.path), **kind, "bytes": total, "parity": parity})
    else:
        show_parity(card)
        show_evaluations(card)
    log(f"bundle {bundle.path}: {total / 2**20:.1f} MiB, {card.precision_note}")


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Height and width from `HxW`.

    Raises:
        UsageError: it is not of that form, or no multiples of 8.
    """
    if text is None:
        return None
    sides = _numbers(text.lower(), "x")
    if len(sides) != 2 or not all(sides) or any(side % STRIDE for side in sides):
        raise UsageError(f"--size {text} is no size", f"give HxW, both multiples of {STRIDE}, for example 512x1024")
    return sides[0], sides[1]


def parse_batch(text: str) -> tuple[int, int, int]:
    """Least, best and largest batch from `1:8:32`.

    Raises:
        UsageError: it is not of that form.
    """
    sizes = _numbers(text, ":")
    if len(sizes) != 3 or not 0 < sizes[0] <= sizes[1] <= sizes[2]:
        raise UsageError(f"--batch {text} is no range of batches", "give LEAST:BEST:LARGEST, for example 1:8:32")
    return sizes[0], sizes[1], sizes[2]


def _numbers(text: str, between: str) -> list[int]:
    return [int(part) if part.isdecimal() else 0 for part in text.split(between)]


def size_of(bundle: Bundle) -> int:
    """Bytes of what a server loads: the engine, or the graph and its weights."""
    return sum(file.stat().st_size for file in ([bundle.plan] if bundle.plan else bundle.graph))


def show_parity(card: ModelCard) -> None:
    """The table of the stages."""
    columns = ("stage", "images", "agree", "largest", "mean", "KL")
    show_table(
        f"difference from PyTorch's logits on {card.parity.source}; tolerance of the graph {card.parity.tolerance:.2g}",
        columns,
        (
            (
                stage.stage,
                f"{stage.images}" + ("" if stage.source == card.parity.source else " hard"),
                f"{stage.agreement:.2%}",
                f"{stage.max_abs_diff:.2g}",
                f"{stage.mean_abs_diff:.2g}",
                f"{stage.kl:.2g}",
            )
            for stage in card.parity.stages
        ),
    )


def show_evaluations(card: ModelCard) -> None:
    """What the student, and the graph where it was measured, reach on real images."""
    for one in card.evaluations:
        stdout.print(f"{one.of}: {one.headline} on {one.images} images of {one.dataset}", markup=False)


@dataclass(frozen=True)
class Contents:
    """What a graph is made of: its layers by the type of their weights, its nodes by kind, and how many numbers of each
    type its constants hold.
    """

    inputs: dict[str, str]
    outputs: dict[str, str]
    layers: dict[str, int]
    nodes: dict[str, int]
    numbers: dict[str, int]


def contents(model: ModelProto) -> Contents:
    """Count what a graph is made of."""
    kinds, numbers, layers = {}, Counter[str](), Counter[str]()
    for weight in model.graph.initializer:
        kinds[weight.name] = TensorProto.DataType.Name(weight.data_type).lower()
        numbers[kinds[weight.name]] += math.prod(weight.dims)
    for node in model.graph.node:
        if node.op_type in ("DequantizeLinear", "Cast") and node.input[0] in kinds:
            kinds[node.output[0]] = kinds[node.input[0]]
        if node.op_type in BLOCK_STARTS and node.input[1] in kinds:
            layers[kinds[node.input[1]]] += 1
    return Contents(
        inputs={value.name: _described(value) for value in model.graph.input},
        outputs={value.name: _described(value) for value in model.graph.output},
        nodes=dict(Counter(node.op_type for node in model.graph.node).most_common()),
        layers=dict(layers),
        numbers=dict(numbers),
    )


def _described(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    sides = ", ".join(dim.dim_param or str(dim.dim_value) for dim in kind.shape.dim)
    return f"{TensorProto.DataType.Name(kind.elem_type).lower()} ({sides})"


def inspect_command(path: Path, as_json: bool) -> None:
    """Check a bundle and say what is in it."""
    bundle = read_bundle(path)
    card, inside = bundle.card, contents(onnx.load(bundle.model))
    files = {file.name: file.stat().st_size for file in (*bundle.graph, *filter(None, [bundle.plan]))}
    if as_json:
        print_json({"files": files, "graph": inside.__dict__, "card": json.loads(card.to_json())})
        return
    log(f"{path}: every file matches its SHA-256")
    facts = {
        "name": f"{card.name}, {card.task}, {len(card.classes)} classes",
        "format": f"{card.format}, opset {card.opset}",
        "precision": f"{card.precision}: {card.precision_note}",
        "files": ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in files.items()),
        **{f"input {name}": kind for name, kind in inside.inputs.items()},
        **{f"output {name}": kind for name, kind in inside.outputs.items()},
        "nodes": ", ".join(f"{count} {kind}" for kind, count in inside.nodes.items()),
        "layers": ", ".join(f"{count} with {kind} weights" for kind, count in inside.layers.items()),
        "numbers": ", ".join(f"{count:,} {kind}" for kind, count in inside.numbers.items()),
        "from": f"run {card.provenance.run}, {card.provenance.method}, {card.provenance.backbone}, "
        f"seed {card.provenance.seed}, {card.provenance.steps} steps, data {card.provenance.data_fingerprint[:12]}",
        "versions": ", ".join(f"{name} {version}" for name, version in card.provenance.versions.items()),
    }
    if card.engine:
        shapes = " to ".join("x".join(map(str, shape)) for shape in card.engine.profile)
        facts["engine"] = f"{card.engine.library} {card.engine.version} for {', '.join(card.engine.target)}; {shapes}"
    show_key_values(f"bundle {path}", facts)
    show_parity(card)
    show_evaluations(card)
