"""`csg export inspect`: what a bundle contains."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from csg.bundle import Bundle, read_bundle
from csg.card import ModelCard
from csg.console import log, print_json, show_key_values, show_line, show_table
from csg.errors import InputError, one_line
from csg.provenance import ParityStage
from csg_export.layers import LAYERS


def inspect_command(path: Path, as_json: bool) -> None:
    """Check a bundle against its SHA-256 sums and print what it contains.

    Raises:
        InputError: this is not a complete bundle, or its graph is no ONNX.
        VerificationError: a file was changed after the export.
    """
    bundle = read_bundle(path)
    contents = graph_contents(read_graph(bundle))
    files = {file.name: file.stat().st_size for file in (*bundle.graph_files, *filter(None, [bundle.plan]))}
    if as_json:
        print_json({"files": files, "graph": asdict(contents), "card": json.loads(bundle.card.to_json())})
        return
    log(f"{path}: every file matches its SHA-256")
    show_key_values(f"bundle {path}", _facts(bundle.card, contents, files) | {"golden answers": _golden(bundle)})
    show_parity(bundle.card)
    show_evaluations(bundle.card)


def read_graph(bundle: Bundle) -> ModelProto:
    """The ONNX graph of a bundle, without weights that are in a file of their own.

    Raises:
        InputError: the file is not a valid ONNX graph.
    """
    try:
        onnx.checker.check_model(str(bundle.model))
        model: ModelProto = onnx.load(bundle.model, load_external_data=False)
    except Exception as error:  # protobuf and onnx's checker fail on other files in many ways
        raise InputError(
            f"{bundle.model} is no ONNX graph of its card: {one_line(error)}", "export the run again"
        ) from None
    return model


@dataclass(frozen=True)
class GraphContents:
    """What an ONNX graph consists of."""

    inputs: dict[str, str]
    """Type and shape of each input, by name."""
    outputs: dict[str, str]
    """Type and shape of each output, by name."""
    layers: dict[str, int]
    """Number of layers, by the type of their weights."""
    nodes: dict[str, int]
    """Number of nodes, by operator."""
    numbers: dict[str, int]
    """How many numbers the constants hold, by type."""


def graph_contents(model: ModelProto) -> GraphContents:
    """Count the layers, nodes and constants of a graph."""
    types, numbers, layers = {}, Counter[str](), Counter[str]()
    for constant in model.graph.initializer:
        types[constant.name] = TensorProto.DataType.Name(constant.data_type).lower()
        numbers[types[constant.name]] += math.prod(constant.dims)
    for node in model.graph.node:
        if node.op_type in ("DequantizeLinear", "Cast") and node.input and node.input[0] in types:
            types[node.output[0]] = types[node.input[0]]
        if node.op_type in LAYERS and len(node.input) > 1 and node.input[1] in types:
            layers[types[node.input[1]]] += 1
    return GraphContents(
        inputs={value.name: _type_and_shape(value) for value in model.graph.input},
        outputs={value.name: _type_and_shape(value) for value in model.graph.output},
        nodes=dict(Counter(node.op_type for node in model.graph.node).most_common()),
        layers=dict(layers),
        numbers=dict(numbers),
    )


def _type_and_shape(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    sides = ", ".join(dim.dim_param or str(dim.dim_value) for dim in tensor.shape.dim)
    return f"{TensorProto.DataType.Name(tensor.elem_type).lower()} ({sides})"


def _facts(card: ModelCard, contents: GraphContents, files: dict[str, int]) -> dict[str, str]:
    """The rows of the table, by name."""
    origin = card.provenance
    facts = {
        "name": f"{card.name}, {card.task}, {len(card.classes)} classes",
        "format": f"{card.format}, opset {card.opset}",
        "precision": f"{card.precision}: {card.precision_note}",
        "runtime": f"{card.runtime}{f' {card.oldest_runtime} or later' if card.oldest_runtime else ''}, "
        f"{card.compute_type}",
        "files": ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in files.items()),
        **{f"input {name}": described for name, described in contents.inputs.items()},
        **{f"output {name}": described for name, described in contents.outputs.items()},
        "nodes": ", ".join(f"{count} {operator}" for operator, count in contents.nodes.items()),
        "layers": ", ".join(f"{count} with {dtype} weights" for dtype, count in contents.layers.items()),
        "numbers": ", ".join(f"{count:,} {dtype}" for dtype, count in contents.numbers.items()),
        "origin": f"run {origin.run}, {origin.method}, {origin.backbone}, seed {origin.seed}, {origin.steps} steps, "
        f"data {origin.data_fingerprint[:12]}",
        "pretrained weights": card.weights.headline if card.weights else "not recorded, so their licence is not known",
        "versions": ", ".join(f"{name} {version}" for name, version in origin.versions.items()),
    }
    if card.engine:
        shapes = " to ".join("x".join(map(str, shape)) for shape in card.engine.profile)
        facts["engine"] = f"{card.engine.library} {card.engine.version} for {', '.join(card.engine.target)}; {shapes}"
    return facts


def _golden(bundle: Bundle) -> str:
    if bundle.golden is None:
        return "none: of an older csg; its answers can't be verified"
    return f"{len(bundle.golden.answers)}: {', '.join(answer.name for answer in bundle.golden.answers)}"


def model_bytes(bundle: Bundle) -> int:
    """Size of what a server loads: the engine, or the graph and its weights."""
    return sum(file.stat().st_size for file in ([bundle.plan] if bundle.plan else bundle.graph_files))


def show_parity(card: ModelCard) -> None:
    """Print the stages of the export and how far they are from PyTorch."""

    def row(stage: ParityStage) -> tuple[str, ...]:
        kind = "" if stage.source == card.parity.source else " hard"
        figures = (f"{value:.2g}" for value in (stage.max_abs_diff, stage.mean_abs_diff, stage.kl))
        return stage.stage, f"{stage.images}{kind}", f"{stage.agreement:.2%}", *figures

    tolerance = "any finite value" if card.parity.tolerance is None else f"{card.parity.tolerance:.2g}"
    show_table(
        f"difference from PyTorch's logits on {card.parity.source}; tolerance of the graph {tolerance}",
        ("stage", "images", "agree", "largest", "mean", "KL"),
        map(row, card.parity.stages),
    )


def show_evaluations(card: ModelCard) -> None:
    """Print the scores of the student, and of the graph if it was measured, on real images."""
    for evaluation in card.evaluations:
        show_line(f"{evaluation.of}: {evaluation.headline} on {evaluation.images} images of {evaluation.dataset}")
