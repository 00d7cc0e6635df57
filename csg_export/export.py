"""A network to a bundle: strip, export, reduce precision, hold every stage against PyTorch, write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from onnx import ModelProto

from csg.bundle import PLAN, Bundle, write_bundle
from csg.card import (
    Calibration,
    CalibrationMethod,
    ClassificationEvaluation,
    ComputeType,
    Format,
    ModelCard,
    Output,
    Parity,
    SegmentationEvaluation,
)
from csg.errors import UsageError, VerificationError
from csg.files import next_free_path
from csg_export.fp16 import to_fp16
from csg_export.int8 import to_int8
from csg_export.onnx_graph import EMBEDDING, LABEL_MAP, LOGITS, OPSET, files_of, stripped, to_onnx, without_logits
from csg_export.parity import Runnable, Runner, of_graph, of_network, of_openvino, onnx_predict, tally, verify
from csg_export.parity_images import hard_inputs
from csg_export.sources import Source
from csg_export.tensorrt import EngineOptions, build_engine, of_engine

BUNDLES = Path("bundles")
MOST_LOST = 0.01  # of accuracy, or mIoU, by int8 on the real images
SEARCH_IMAGES, SEARCH_SCENES = 64, 8
FP32_NOTE = "weights and arithmetic fp32"
BF16_NOTE = "weights fp32; OpenVINO computes in bf16 where the CPU has it, in fp32 elsewhere"


@dataclass(frozen=True)
class ExportOptions:
    """What to make of a network.

    logits: a segmenter's, beside the label map. embedding: a classifier's, beside the logits. tolerance: largest
    difference of a logit from PyTorch's, as a share of the largest logit, in place of the precision's own. calibration,
    float_ends: of int8; by default what costs least, which is not the same in its two dialects (docs/export.md).
    """

    precision: ComputeType = "fp32"
    format: Format = "onnx"
    logits: bool = False
    embedding: bool = False
    tolerance: float | None = None
    calibration: CalibrationMethod | None = None
    float_ends: bool = True
    engine: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True)
class _Reduced:
    """A graph of the wanted precision, what the card says of it, and the stages on the way to it."""

    model: ModelProto
    note: str
    stages: tuple[Runnable, ...] = ()
    calibration: Calibration | None = None


def export(source: Source, options: ExportOptions, out: Path | None = None) -> Bundle:
    """Make a bundle.

    Raises:
        UsageError: an option does not fit the task or the format, or the library of the format is missing.
        InputError: `out` exists, or the library of the format can't build the graph.
        VerificationError: a stage differs from PyTorch by more than the tolerance, or int8 costs too much on real
            images; nothing is written.
    """
    scenes = source.task == "segmentation"
    if (options.logits and not scenes) or (options.embedding and scenes):
        raise UsageError("--logits is for segmenters, --embedding for classifiers", "leave it out")
    if options.precision == "bf16" and options.format != "onnx":
        raise UsageError("--precision bf16 is for CPUs", f"take --precision fp16 for --format {options.format}")
    reference, bare = of_network(source.network), stripped(source.network)
    exact = to_onnx(bare, source.spec, options.embedding)
    made = _reduced(exact, source, options, reference)
    shipped = without_logits(made.model) if scenes and not options.logits else made.model
    stages = [Runnable("stripped student", of_network(bare), "fp32"), Runnable("onnx", of_onnx(exact), "fp32")]
    stages += made.stages
    models, engine = {}, None
    if options.format != "onnx":
        models[PLAN], engine = build_engine(shipped.SerializeToString(), options.format, source.spec, options.engine)
        if run := of_engine(models[PLAN], engine):
            stages.append(Runnable(f"{options.format} engine", run, options.precision))
    parity = verify(reference, stages, (source.real, hard_inputs(source.spec)), options.tolerance)
    cost = _measured(source, made.model) if options.precision == "int8" else ()
    card = _card(source, options, made, parity).model_copy(
        update={"engine": engine, "evaluations": source.evaluations + cost}
    )
    kind = options.precision if engine is None else f"{options.precision}-{options.format}"
    models |= files_of(shipped, card.to_json())
    return write_bundle(out or next_free_path(BUNDLES, f"{source.stem}-{kind}"), card, models)


def of_onnx(model: ModelProto) -> Runner:
    """A graph in ONNX Runtime."""
    return of_graph(model.SerializeToString())


def _reduced(exact: ModelProto, source: Source, options: ExportOptions, reference: Runner) -> _Reduced:
    """The float32 graph in the wanted precision."""
    if options.precision == "fp16":
        model, rounded, note = to_fp16(exact, _search(source, reference, options.tolerance))
        stages = (
            Runnable("fp16, every value rounded", of_onnx(rounded), "fp16"),
            Runnable("fp16", of_onnx(model), "fp16"),
        )
        return _Reduced(model, note, stages)
    if options.precision == "bf16":
        run = of_openvino(exact.SerializeToString(), "bf16")
        return _Reduced(exact, BF16_NOTE, (Runnable("bf16, OpenVINO", run, "bf16"),))
    if options.precision == "int8":
        batches = list(source.training.batches())
        how = Calibration(
            source=source.training.source,
            images=sum(map(len, batches)),
            method=options.calibration or _default_calibration(source, options.format),
            float_ends=options.float_ends,
        )
        model = to_int8(exact, batches, how, for_tensorrt=options.format != "onnx")
        ends = ", the first and the last layer fp32" if how.float_ends else ""
        note = f"weights int8 by channel, activations 8 bits{ends}; {how.method} ranges of {how.images} training images"
        return _Reduced(model, note, (Runnable("int8", of_onnx(model), "int8"),), how)
    return _Reduced(exact, FP32_NOTE)


def _default_calibration(source: Source, target: Format) -> CalibrationMethod:
    """What cost least on digits, PACS and digit scenes (docs/export.md)."""
    if source.task == "classification":
        return "entropy" if target == "onnx" else "minmax"
    return "percentile" if target == "onnx" else "entropy"


def _search(source: Source, reference: Runner, tolerance: float | None) -> Callable[[ModelProto], bool]:
    """Whether an fp16 graph holds, on fewer real images than the final comparison, and on the hard ones."""
    few = source.real.few(SEARCH_SCENES if source.task == "segmentation" else SEARCH_IMAGES)
    hard = hard_inputs(source.spec)

    def holds(model: ModelProto) -> bool:
        stage = Runnable("fp16", of_onnx(model), "fp16")
        return all(tally(reference, [stage], inputs, tolerance)[stage.name].kept for inputs in (few, hard))

    return holds


def _measured(source: Source, model: ModelProto) -> tuple[ClassificationEvaluation | SegmentationEvaluation, ...]:
    """The graph on the real images, held against the student's own measurement.

    Raises:
        VerificationError: it lost more than a point.
    """
    if source.measure is None:
        return ()
    before = source.evaluations[0]
    after = source.measure(onnx_predict(model.SerializeToString())).model_copy(update={"of": "graph"})
    if before.score - after.score > MOST_LOST:
        raise VerificationError(
            f"int8 costs {100 * (before.score - after.score):.1f} points on {after.dataset}: {before.score:.2%} "
            f"before, {after.score:.2%} after (at most {MOST_LOST:.0%} promised)",
            "nothing was written; try another --calibration",
        )
    return (after,)


def _card(source: Source, options: ExportOptions, made: _Reduced, parity: Parity) -> ModelCard:
    return ModelCard(
        name=source.name,
        task=source.task,
        classes=source.classes.names,
        label_set=source.classes.label_set,
        colours=source.classes.colours,
        input=source.spec,
        normalisation=source.normalisation,
        outputs=_outputs(source, options, made.model),
        precision=options.precision,
        precision_note=made.note,
        runtime="openvino" if options.precision == "bf16" else "onnxruntime",
        compute_type=options.precision,
        format=options.format,
        calibration=made.calibration,
        opset=OPSET,
        parity=parity,
        provenance=source.provenance,
    )


def _outputs(source: Source, options: ExportOptions, model: ModelProto) -> tuple[Output, ...]:
    classes = len(source.classes)
    if source.task == "classification":
        logits = Output(name=LOGITS, shape=(-1, classes), meaning="logits, one for each class")
        if not options.embedding:
            return (logits,)
        width = next(o for o in model.graph.output if o.name == EMBEDDING).type.tensor_type.shape.dim[1].dim_value
        return logits, Output(name=EMBEDDING, shape=(-1, width), meaning="pooled features before the head")
    sides = (source.spec.height or -1, source.spec.width or -1)
    label_map = Output(name=LABEL_MAP, dtype="UINT8", shape=(-1, *sides), meaning="index of the class of each pixel")
    of_pixels = Output(name=LOGITS, shape=(-1, classes, *sides), meaning="logits, one for each class and pixel")
    return (label_map, of_pixels) if options.logits else (label_map,)
