"""The way from a network to a bundle: strip, convert, check parity, write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onnx import ModelProto

from csg.bundle import PLAN, Bundle, write_bundle
from csg.card import ModelCard, Output
from csg.errors import UsageError, VerificationError
from csg.files import check_new, new_folder
from csg.provenance import ClassificationEvaluation, Parity, SegmentationEvaluation
from csg_export.formats import export_format
from csg_export.onnx_graph import EMBEDDING, LABEL_MAP, LOGITS, OPSET, bundle_files, strip, to_onnx, without_logits
from csg_export.options import ExportOptions
from csg_export.parity import Stage, check_parity, compare
from csg_export.parity_images import hard_inputs
from csg_export.precisions import PRECISIONS, Conversion, Converted, ExportPrecision, export_precision
from csg_export.runners import RUNNERS, Runner, onnx_runner, predict_with, tensorrt_runner, torch_runner
from csg_export.sources import Source
from csg_export.tensorrt import build_engine
from csg_train.models.classifier import Classifier

BUNDLES = Path("bundles")
SEARCH_IMAGES = {"classification": 64, "segmentation": 8}
"""Number of real images that a conversion checks its intermediate graphs on."""


def export(source: Source, options: ExportOptions, out: Path | None = None) -> Bundle:
    """Export a network as a bundle.

    Args:
        out: the bundle's folder; None: a new one in bundles/.

    Raises:
        UsageError: an option does not fit the task, the precision or the format, a library is missing, or `out` is not
            empty.
        InputError: the format's library can't build the graph.
        VerificationError: a stage differs from PyTorch by more than its tolerance, or the precision loses too much
            accuracy on the real images. Nothing is written.
    """
    _check_outputs(source, options)
    if out:
        check_new(out)
    precision, reference, bare = export_precision(options), torch_runner(source.network), strip(source.network)
    float32 = to_onnx(bare, source.spec, options.embedding)
    within_tolerance = _tolerance_check(source, reference, precision)
    converted = precision.convert(Conversion(float32, source, options, within_tolerance))
    run = RUNNERS[precision.runtime](converted.model, precision.compute_type)
    stages = [
        _stage("stripped student", torch_runner(bare), PRECISIONS["fp32"]),
        _stage("onnx", onnx_runner(float32), PRECISIONS["fp32"]),
    ]
    if converted.model is not float32 or precision.runtime != "onnxruntime":
        stages += [_stage(name, onnx_runner(graph), precision) for name, graph in converted.intermediate.items()]
        stages.append(_stage(options.precision, run, precision))
    drop_logits = source.task == "segmentation" and not options.logits
    shipped = without_logits(converted.model) if drop_logits else converted.model
    files, engine = {}, None
    if export_format(options.format).package:
        files[PLAN], engine = build_engine(shipped.SerializeToString(), options.format, source.spec, options.engine)
        if run_engine := tensorrt_runner(files[PLAN], engine):
            stages.append(_stage(f"{options.format} engine", run_engine, precision))
    parity = check_parity(reference, stages, source.real, hard_inputs(source.spec))
    evaluations = source.evaluations + _evaluate(source, run, options.precision, precision.max_score_loss)
    card = _card(source, options, converted, parity).model_copy(update={"engine": engine, "evaluations": evaluations})
    suffix = options.precision if engine is None else f"{options.precision}-{options.format}"
    files |= bundle_files(shipped, card.to_json())
    with new_folder(out, BUNDLES, f"{source.stem}-{suffix}") as folder:
        return write_bundle(folder, card, files)


def _check_outputs(source: Source, options: ExportOptions) -> None:
    """Check that the network has the outputs that the options name.

    Raises:
        UsageError: it does not.
    """
    if options.logits and source.task != "segmentation":
        raise UsageError("--logits is for segmenters only", "leave it out: a classifier always returns its logits")
    if options.embedding and not isinstance(source.network, Classifier):
        raise UsageError("--embedding is for classifiers of a run only", "leave it out")


def _stage(name: str, run: Runner, precision: ExportPrecision) -> Stage:
    return Stage(name, run, precision.tolerance, precision.hard_tolerance)


def _tolerance_check(source: Source, reference: Runner, precision: ExportPrecision) -> Callable[[ModelProto], bool]:
    """Whether a graph is within the tolerance on a sample of the real images and on the hard inputs."""
    sample, hard = source.real.sample(SEARCH_IMAGES[source.task]), hard_inputs(source.spec)

    def within_tolerance(model: ModelProto) -> bool:
        stage = _stage("candidate", onnx_runner(model), precision)
        return all(compare(reference, [stage], images)[stage.name].passed for images in (sample, hard))

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


def _card(source: Source, options: ExportOptions, converted: Converted, parity: Parity) -> ModelCard:
    precision = PRECISIONS[options.precision]
    return ModelCard(
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
    logits = Output(name=LOGITS, shape=(-1, classes, *sides), meaning="logits, one for each class and pixel")
    return (label_map, logits) if options.logits else (label_map,)
