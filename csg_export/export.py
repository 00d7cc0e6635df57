"""`csg export`: a finished run to a bundle."""

from __future__ import annotations

from pathlib import Path

from csg.bundle import Bundle, write_bundle
from csg.card import Evaluation, ModelCard, Normalisation, Output, Provenance
from csg.console import print_json, say
from csg.realset import LabelledImages, read_labelled
from csg_export.onnx_graph import OPSET, OUTPUT, to_onnx, with_card
from csg_export.precision import FP16_NOTE, FP32_NOTE, to_fp16
from csg_export.verify import measure_parity
from csg_train.models.backbones import normalisation
from csg_train.run import Run, free_name, newest_run
from csg_train.student import load_student
from csg_train.train import synthetic_sources

BUNDLES = Path("bundles")


def export_command(path: Path | None, fp16: bool, out: Path | None, as_json: bool) -> None:
    """Export the run at `path`, or the newest, and print what came of it."""
    run = Run(path or newest_run(Path("runs")))
    precision = "fp16" if fp16 else "fp32"
    say(f"export: run {run.path}" + ("" if path else " (newest)") + f", onnx, {precision}")
    bundle = export(run, fp16, out)
    parity, size = bundle.card.parity, bundle.model.stat().st_size
    say(
        f"parity with PyTorch on {parity.images} images ({parity.source}): top-1 agreement {parity.agreement:.2%}, "
        f"largest difference {parity.max_abs_diff:.2g} (tolerance {parity.tolerance:.2g})"
    )
    say(f"bundle {bundle.path}: {size / 2**20:.1f} MiB, {bundle.card.precision_note}")
    if as_json:
        print_json(
            {
                "bundle": str(bundle.path),
                "precision": precision,
                "format": "onnx",
                "bytes": size,
                "parity": {"agreement": parity.agreement, "max_abs_diff": parity.max_abs_diff},
            }
        )


def export(run: Run, fp16: bool, out: Path | None = None) -> Bundle:
    """Strip, export, verify and write the bundle.

    Raises:
        InputError: the run is not finished or broken, or `out` exists.
        PromiseError: the exported graph differs from PyTorch by more than the tolerance; nothing is written.
    """
    student, recipe = load_student(run), run.recipe()
    precision = "fp16" if fp16 else "fp32"
    spec = recipe.data.image_input()
    model = to_onnx(student, spec)
    if fp16:
        model = to_fp16(model)
    images = _parity_images(run)
    parity = measure_parity(student, model.SerializeToString(), images.paths, spec, precision, images.name)
    mean, std = normalisation(recipe.model.backbone)
    classes = tuple(run.environment()["classes"])
    card = ModelCard(
        name=f"{recipe.name}-{recipe.method}",
        task="classification",
        classes=classes,
        input=spec,
        normalisation=Normalisation(mean=mean, std=std),
        outputs=(Output(name=OUTPUT, shape=(-1, len(classes)), meaning="logits, one for each class"),),
        precision="fp16" if fp16 else "fp32",
        precision_note=FP16_NOTE if fp16 else FP32_NOTE,
        opset=OPSET,
        parity=parity,
        provenance=_provenance(run),
        evaluations=_evaluations(run),
    )
    path = out or free_name(BUNDLES, f"{run.path.resolve().name}-{precision}")
    return write_bundle(path, card, with_card(model, card.to_json()))


def _parity_images(run: Run) -> LabelledImages:
    """The real images the run was measured on; a run without any is compared on its training images."""
    data = run.recipe().data
    return read_labelled(data.real or synthetic_sources(run.recipe()))


def _provenance(run: Run) -> Provenance:
    recipe, record = run.recipe(), run.environment()
    return Provenance(
        run=run.path.resolve().name,
        recipe=recipe.name,
        recipe_digest=record["recipe_digest"],
        method=recipe.method,
        backbone=recipe.model.backbone,
        seed=recipe.seed,
        steps=run.result()["steps"],
        data_fingerprint=record["data_fingerprint"],
        commit=record["commit"],
        versions={"csg": record["csg"], "python": record["python"], **record["packages"]},
    )


def _evaluations(run: Run) -> tuple[Evaluation, ...]:
    real = run.result().get("real")
    return (Evaluation.model_validate(real),) if real else ()
