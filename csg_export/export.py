"""The way from a network to a bundle: strip, convert, check parity, write."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from onnx import ModelProto
from pydantic import ValidationError

from csg.bundle import BUNDLES, PLAN, Bundle, write_bundle
from csg.card import ModelCard, Output
from csg.errors import InputError, UsageError, VerificationError
from csg.golden import GoldenAnswers
from csg.locks import check_new, new_folder
from csg.provenance import ClassificationEvaluation, Engine, Parity, SegmentationEvaluation
from csg_export.external_weights import is_large, loadable
from csg_export.formats import export_format
from csg_export.golden import golden_answers
from csg_export.onnx_graph import (
    EMBEDDING,
    LABEL_MAP,
    LOGITS,
    OPSET,
    bundle_files,
    oldest_runtime,
    strip,
    to_onnx,
    without_logits,
)
from csg_export.options import ExportOptions
from csg_export.parity import Stage, check_parity, compare
from csg_export.parity_images import ParityImages, hard_inputs
from csg_export.precisions import PRECISIONS, Conversion, Converted, ExportPrecision, export_precision
from csg_export.readme import ReadmeFacts, readme
from csg_export.runners import RUNNERS, Runner, onnx_runner, predict_with, tensorrt_runner, torch_runner
from csg_export.sources import Source
from csg_export.tensorrt import build_engine
from csg_train.models.classifier import Classifier

SEARCH_IMAGES = {"classification": 64, "segmentation": 8}
"""Number of real images that a conversion checks its intermediate graphs on."""


def export(source: Source, options: ExportOptions, out: Path | None = None) -> Bundle:
    """Export a network as a bundle.

    Args:
        source: the network, and the images to compare on.
        options: what to make of it.
        out: the bundle's folder; None: a new one in bundles/.

    Raises:
        UsageError: an option does not fit the task, the precision or the format, a library is missing, or `out` is not
            empty.
        InputError: the format's library can't build the graph, or the network or its images can't be used.
        VerificationError: a stage differs from PyTorch by more than its tolerance, or the precision loses too much
            accuracy on the real images. Nothing is written.
    """
    _check_outputs(source, options)
    _check_finite(source)
    if out:
        check_new(out)
    with _working_folder(source, out.parent if out else BUNDLES) as work:
        exported = _convert_and_check(source, options, work)
        card = _card(source, options, exported)
        suffix = options.precision if exported.engine is None else f"{options.precision}-{options.format}"
        files = exported.plan | bundle_files(exported.shipped, card.to_json(), work)
        with new_folder(out, BUNDLES, f"{source.stem}-{suffix}") as folder:
            return write_bundle(folder, card, files, exported.golden, readme=readme(card, _facts(source, options)))


@contextmanager
def _working_folder(source: Source, parent: Path) -> Iterator[Path | None]:
    """A folder, beside the bundle, for weights that do not fit into a graph; None if they do."""
    if not is_large(source.network):
        yield None
        return
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=parent) as folder:
        yield Path(folder)


@dataclass(frozen=True)
class _Exported:
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


def _convert_and_check(source: Source, options: ExportOptions, work: Path | None) -> _Exported:
    precision, reference, bare = export_precision(options), torch_runner(source.network), strip(source.network)
    compared = _compared_images(source, precision)
    float32 = to_onnx(bare, source.spec, options.embedding, work)
    exact = onnx_runner(float32)
    converted = precision.convert(
        Conversion(float32, source, options, _tolerance_check(source, reference, precision, compared))
    )
    unchanged = converted.model is float32 and precision.runtime == "onnxruntime"
    run = exact if unchanged else RUNNERS[precision.runtime](converted.model, precision.compute_type)
    stages = [
        _stage("stripped student", torch_runner(bare), PRECISIONS["fp32"]),
        _stage("onnx", exact, PRECISIONS["fp32"]),
    ]
    if not unchanged:
        stages += [_stage(name, onnx_runner(graph), precision) for name, graph in converted.intermediate.items()]
        stages.append(_stage(options.precision, run, precision))
    drop_logits = source.task == "segmentation" and not options.logits
    shipped, plan, engine = without_logits(converted.model) if drop_logits else converted.model, {}, None
    if export_format(options.format).package:
        plan[PLAN], engine = build_engine(loadable(shipped), options.format, source.spec, options.engine)
        if run_engine := tensorrt_runner(plan[PLAN], engine):
            stages.append(_stage(f"{options.format} engine", run_engine, precision))
    parity = check_parity(reference, stages, compared)
    tolerances = (precision.tolerance, precision.hard_tolerance)
    golden = golden_answers(reference, run, tolerances, source.real if options.golden_real else None, spec=source.spec)
    evaluations = source.evaluations + _evaluate(source, run, options.precision, precision.max_score_loss)
    return _Exported(converted, shipped, parity, evaluations, dict(plan), engine, golden)


def _compared_images(source: Source, precision: ExportPrecision) -> list[ParityImages]:
    """The images to compare on: real ones, or else training images if the precision needs them; and hard inputs."""
    hard = hard_inputs(source.spec)
    if source.real:
        return [source.real, hard]
    return [source.training(), hard] if precision.calibrated else [hard]


def _check_outputs(source: Source, options: ExportOptions) -> None:
    """Check that the network has the outputs that the options name.

    Raises:
        UsageError: it does not.
    """
    if options.logits and source.task != "segmentation":
        raise UsageError("--logits is for segmenters only", "leave it out: a classifier always returns its logits")
    if options.embedding and not isinstance(source.network, Classifier):
        raise UsageError("--embedding is for classifiers of a run only", "leave it out")


def _check_finite(source: Source) -> None:
    """Raise InputError if a weight of the network is not finite."""
    for name, tensor in source.network.state_dict().items():
        if tensor.numel() and not torch.stack(torch.aminmax(tensor)).isfinite().all():
            raise InputError(f"the weights of {source.stem} are not finite: {name}", "train again")


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
        VerificationError: it lost more than `max_loss`.
    """
    if source.measure is None or max_loss is None:
        return ()
    before = source.evaluations[0]
    after = source.measure(predict_with(run)).model_copy(update={"of": "graph"})
    if before.score - after.score > max_loss:
        raise VerificationError(
            f"{precision} loses {100 * (before.score - after.score):.1f} points on {after.dataset}: {before.score:.2%} "
            f"before, {after.score:.2%} after (at most {100 * max_loss:g} allowed)",
            "nothing was written; try another --calibration or --precision",
        )
    return (after,)


def _facts(source: Source, options: ExportOptions) -> ReadmeFacts:
    return ReadmeFacts(
        trained_on=source.trained_on,
        training_data=source.training_data,
        intervals=source.intervals,
        licence=options.licence,
    )


def _card(source: Source, options: ExportOptions, exported: _Exported) -> ModelCard:
    """The model card.

    Raises:
        InputError: a name, a class or a score of the run does not fit into a card.
    """
    precision, converted = PRECISIONS[options.precision], exported.converted
    try:
        card = ModelCard(
            name=source.name,
            task=source.task,
            classes=source.classes.names,
            label_set=source.classes.label_set,
            colours=source.classes.colours,
            input=source.spec,
            normalisation=source.normalisation,
            outputs=_outputs(source, options, converted.model),
            precision=options.precision,
            precision_note=precision.note + converted.detail,
            runtime=precision.runtime,
            compute_type=precision.compute_type,
            format=options.format,
            calibration=converted.calibration,
            engine=exported.engine,
            opset=OPSET,
            oldest_runtime=oldest_runtime(exported.shipped) if precision.runtime == "onnxruntime" else None,
            parity=exported.parity,
            provenance=source.provenance,
            weights=source.weights,
            evaluations=exported.evaluations,
        )
        return ModelCard.model_validate_json(card.to_json())  # scores of a run are not checked again otherwise
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{source.stem} can't be described by a model card: {field}: {first['msg']}", "train it again"
        ) from None


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
    logits = Output(name=LOGITS, shape=(-1, classes, *sides), meaning="logits, one for each class and pixel")
    return (label_map, logits) if options.logits else (label_map,)
