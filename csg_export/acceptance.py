"""From a network to a graph that was compared with it: the first of a precision's graphs that passes every check."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto

from csg.bundle import PLAN
from csg.console import log
from csg.golden import GoldenAnswers
from csg.provenance import ClassificationEvaluation, Engine, Parity, SegmentationEvaluation
from csg_export.external_weights import loadable
from csg_export.formats import export_format
from csg_export.golden import golden_answers
from csg_export.onnx_graph import strip, to_onnx, without_logits
from csg_export.options import ExportOptions
from csg_export.parity import GraphRefused, Stage, check_parity, compare
from csg_export.parity_images import ParityImages, hard_inputs
from csg_export.precisions import PRECISIONS, Conversion, Converted, ExportPrecision, export_precision
from csg_export.runners import RUNNERS, Runner, onnx_runner, predict_with, tensorrt_runner, torch_runner
from csg_export.sources import Source
from csg_export.tensorrt import build_engine

SEARCH_IMAGES = {"classification": 64, "segmentation": 8}
"""Number of real images that a conversion checks its intermediate graphs on."""


@dataclass(frozen=True)
class Exported:
    """What becomes a bundle."""

    converted: Converted
    """The graph with all its outputs."""
    shipped: ModelProto
    """The graph with the outputs of the bundle."""
    parity: Parity
    """How far it is from PyTorch."""
    evaluations: tuple[ClassificationEvaluation | SegmentationEvaluation, ...]
    """Scores on real images."""
    plan: dict[str, bytes | Path]
    """The engine's file, if there is one."""
    engine: Engine | None
    """What built it."""
    golden: GoldenAnswers
    """PyTorch's answers for a few images."""


@dataclass(frozen=True)
class _Check:
    """What every converted graph of an export is checked with."""

    source: Source
    options: ExportOptions
    precision: ExportPrecision
    reference: Runner
    """The trained network in PyTorch."""
    compared: list[ParityImages]
    """The images to compare on."""
    exact: list[Stage]
    """The stages before the conversion."""
    float32: ModelProto
    """The graph before the conversion."""


def convert_and_check(source: Source, options: ExportOptions, work: Path | None) -> Exported:
    """Convert a network, and compare what becomes of it with PyTorch.

    Args:
        source: the network, and the images to compare on.
        options: what to make of it.
        work: folder for weights that do not fit into a graph; None: they do.

    Raises:
        UsageError: there is no such precision in the format, or a library is missing.
        InputError: the format's library can't build the graph, or no image can be read.
        VerificationError: a stage is outside its tolerance, or the precision loses too much accuracy.
    """
    precision, reference, bare = export_precision(options), torch_runner(source.network), strip(source.network)
    if precision.max_score_loss is not None and source.measure and not source.evaluations:
        source = replace(source, evaluations=(source.measure(predict_with(reference)),))
    compared = _compared_images(source, precision)
    float32 = to_onnx(bare, source.spec, options.embedding, work)
    converted = precision.convert(
        Conversion(float32, source, options, _tolerance_check(source, reference, precision, compared))
    )
    exact = [
        _stage("stripped student", torch_runner(bare), PRECISIONS["fp32"]),
        _stage("onnx", onnx_runner(float32), PRECISIONS["fp32"]),
    ]
    check = _Check(source, options, precision, reference, compared, exact, float32)
    return _first_accepted(check, converted)


def _first_accepted(check: _Check, converted: Converted) -> Exported:
    """The first graph that loses little accuracy, of the converted one and its repaired ones; or the best accepted.

    Raises:
        VerificationError: every graph was refused.
    """
    accepted: list[Exported] = []
    refusal: GraphRefused | None = None
    for graph in itertools.chain([converted], converted.repaired or ()):
        try:
            exported = _checked(check, graph)
        except GraphRefused as error:
            if converted.repaired is None:
                raise
            refusal = error
            log(f"{error.message}: the next graph is repaired further")
            continue
        if converted.repaired is None or _loss(exported) <= check.precision.aimed_score_loss:
            return exported
        log(f"{100 * _loss(exported):.2f} points lost: the next graph is repaired further")
        accepted.append(exported)
    if not accepted:
        assert refusal is not None
        raise refusal
    return min(accepted, key=_loss)


def _loss(exported: Exported) -> float:
    """How much lower the graph's score is than the student's; 0 where there is none."""
    scores = [evaluation.score for evaluation in exported.evaluations]
    return _score_loss(scores[0], scores[-1]) if len(scores) > 1 else 0.0


def _score_loss(before: float, after: float) -> float:
    """How much lower a score is; rounded, since 1 - 0.99 is more than 0.01."""
    return round(before - after, 9)


def _checked(check: _Check, converted: Converted) -> Exported:
    """Compare a converted graph with PyTorch on all images.

    Raises:
        GraphRefused: it is too far from it.
        VerificationError: the network itself can't be exported.
    """
    source, options, precision, stages = check.source, check.options, check.precision, [*check.exact]
    unchanged = converted.model is check.float32 and precision.runtime == "onnxruntime"
    run = stages[-1].run if unchanged else RUNNERS[precision.runtime](converted.model, precision.compute_type)
    made = {} if unchanged else {name: onnx_runner(graph) for name, graph in converted.intermediate.items()}
    made |= {} if unchanged else {options.precision: run}
    drop_logits = source.task == "segmentation" and not options.logits
    shipped, plan, engine = without_logits(converted.model) if drop_logits else converted.model, {}, None
    if export_format(options.format).package:
        plan[PLAN], engine = build_engine(loadable(shipped), options.format, source.spec, options.engine)
        if run_engine := tensorrt_runner(plan[PLAN], engine):
            made[f"{options.format} engine"] = run_engine
    stages += [replace(_stage(name, runner, precision), converted=True) for name, runner in made.items()]
    parity = check_parity(check.reference, stages, check.compared)
    tolerances = (precision.tolerance, precision.hard_tolerance)
    real = source.real if options.golden_real else None
    golden = golden_answers(check.reference, run, tolerances, real, spec=source.spec)
    evaluations = source.evaluations + _evaluate(source, run, options.precision, precision.max_score_loss)
    return Exported(converted, shipped, parity, evaluations, dict(plan), engine, golden)


def _compared_images(source: Source, precision: ExportPrecision) -> list[ParityImages]:
    """The images to compare on: real ones, or else training images if the precision needs them; and hard inputs."""
    hard = hard_inputs(source.spec)
    if source.real:
        return [source.real, hard]
    return [source.training(), hard] if precision.calibrated else [hard]


def _stage(name: str, run: Runner, precision: ExportPrecision) -> Stage:
    return Stage(name, run, precision.tolerance, precision.hard_tolerance)


def _tolerance_check(
    source: Source, reference: Runner, precision: ExportPrecision, compared: Sequence[ParityImages]
) -> Callable[[ModelProto], bool]:
    """Whether a graph is within the tolerance on a sample of the images that the export is compared on."""
    samples = [images.sample(SEARCH_IMAGES[source.task]) for images in compared]

    def within_tolerance(model: ModelProto) -> bool:
        stage = _stage("candidate", onnx_runner(model), precision)
        return all(compare(reference, [stage], images)[stage.name].passed for images in samples)

    return within_tolerance


def _evaluate(
    source: Source, run: Runner, precision: str, max_loss: float | None
) -> tuple[ClassificationEvaluation | SegmentationEvaluation, ...]:
    """Measure the graph on all real images and compare its score with the student's.

    Raises:
        GraphRefused: it lost more than `max_loss`.
    """
    if source.measure is None or max_loss is None:
        return ()
    before = source.evaluations[0]
    after = source.measure(predict_with(run)).model_copy(update={"of": "graph"})
    if (loss := _score_loss(before.score, after.score)) > max_loss:
        raise GraphRefused(
            f"{precision} loses {100 * loss:.2f} points on {after.dataset}: {before.score:.2%} "
            f"before, {after.score:.2%} after (at most {100 * max_loss:g} allowed)",
            "nothing was written; try another --calibration or --precision",
        )
    return (after,)
