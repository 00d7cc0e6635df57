"""The way from a network to a bundle: strip, convert, check parity, write."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from onnx import ModelProto
from pydantic import ValidationError

from csg.bundle import BUNDLES, Bundle, write_bundle
from csg.card import ModelCard, Output
from csg.errors import InputError, UsageError
from csg.locks import check_new, new_folder
from csg_export.acceptance import Exported, convert_and_check
from csg_export.external_weights import is_large
from csg_export.onnx_graph import (
    EMBEDDING,
    LABEL_MAP,
    LOGITS,
    OPSET,
    bundle_files,
    oldest_runtime,
)
from csg_export.options import ExportOptions
from csg_export.precisions import PRECISIONS
from csg_export.readme import ReadmeFacts, readme
from csg_export.sources import Source
from csg_train.models.classifier import Classifier


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
        exported = convert_and_check(source, options, work)
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


def _facts(source: Source, options: ExportOptions) -> ReadmeFacts:
    return ReadmeFacts(
        trained_on=source.trained_on,
        training_data=source.training_data,
        intervals=source.intervals,
        licence=options.licence,
    )


def _card(source: Source, options: ExportOptions, exported: Exported) -> ModelCard:
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
