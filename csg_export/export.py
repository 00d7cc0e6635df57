"""`csg export`: a finished run to a bundle."""

from __future__ import annotations

from pathlib import Path

from csg.bundle import Bundle, write_bundle
from csg.card import (
    STRIDE,
    Evaluation,
    ImageInput,
    ModelCard,
    Normalisation,
    Output,
    Provenance,
    SceneEvaluation,
    SceneInput,
)
from csg.console import print_json, say
from csg.errors import UsageError
from csg.files import free_name
from csg_export.onnx_graph import LABEL_MAP, LOGITS, OPSET, to_onnx, with_card, without_logits
from csg_export.precision import FP16_NOTE, FP32_NOTE, to_fp16
from csg_export.verify import measure_parity
from csg_train.models.backbones import normalisation
from csg_train.run import Run, newest_run
from csg_train.student import load_student
from csg_train.tasks import TASKS, Images

BUNDLES = Path("bundles")


def export_command(
    path: Path | None, fp16: bool, size: str | None, logits: bool, out: Path | None, as_json: bool
) -> None:
    """Export the run at `path`, or the newest, and print what came of it."""
    run = Run(path or newest_run(Path("runs")))
    precision = "fp16" if fp16 else "fp32"
    say(f"export: run {run.path}" + ("" if path else " (newest)") + f", onnx, {precision}")
    bundle = export(run, fp16, out, parse_size(size), logits)
    parity, file_size = bundle.card.parity, bundle.model.stat().st_size
    say(
        f"parity with PyTorch on {parity.images} images ({parity.source}): agreement {parity.agreement:.2%}, "
        f"largest difference {parity.max_abs_diff:.2g} (tolerance {parity.tolerance:.2g})"
    )
    say(f"bundle {bundle.path}: {file_size / 2**20:.1f} MiB, {bundle.card.precision_note}")
    if as_json:
        print_json(
            {
                "bundle": str(bundle.path),
                "precision": precision,
                "format": "onnx",
                "bytes": file_size,
                "parity": {"agreement": parity.agreement, "max_abs_diff": parity.max_abs_diff},
            }
        )


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Height and width from `HxW`.

    Raises:
        UsageError: it is not of that form, or no multiples of 8.
    """
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    sides = [int(side) for side in (height, width) if side.isdecimal()]
    if len(sides) != 2 or not all(sides) or any(side % STRIDE for side in sides):
        raise UsageError(f"--size {text} is no size", f"give HxW, both multiples of {STRIDE}, for example 512x1024")
    return sides[0], sides[1]


def export(
    run: Run, fp16: bool, out: Path | None = None, size: tuple[int, int] | None = None, logits: bool = False
) -> Bundle:
    """Strip, export, verify and write the bundle.

    Args:
        size: a segmenter's fixed height and width; None: any multiples of 8.
        logits: whether a segmenter returns its logits beside the label map.

    Raises:
        UsageError: `size` or `logits` for a classifier.
        InputError: the run is not finished or broken, or `out` exists.
        PromiseError: the exported graph differs from PyTorch by more than the tolerance; nothing is written.
    """
    student, recipe = load_student(run), run.recipe()
    precision = "fp16" if fp16 else "fp32"
    spec = _input(recipe.data.image_input(), size, logits)
    model = to_onnx(student, spec)
    if fp16:
        model = to_fp16(model)
    images = _parity_images(run)
    parity = measure_parity(student, model.SerializeToString(), images.paths, spec, precision, images.name)
    if isinstance(spec, SceneInput) and not logits:
        model = without_logits(model)
    mean, std = normalisation(recipe.model.backbone)
    taught = run.taught()
    card = ModelCard(
        name=f"{recipe.name}-{recipe.method}",
        task="classification" if recipe.task == "cls" else "segmentation",
        classes=taught.names,
        label_set=taught.label_set,
        colours=taught.colours,
        input=spec,
        normalisation=Normalisation(mean=mean, std=std),
        outputs=_outputs(spec, len(taught), logits),
        precision="fp16" if fp16 else "fp32",
        precision_note=FP16_NOTE if fp16 else FP32_NOTE,
        opset=OPSET,
        parity=parity,
        provenance=_provenance(run),
        evaluations=_evaluations(run),
    )
    path = out or free_name(BUNDLES, f"{run.path.resolve().name}-{precision}")
    return write_bundle(path, card, with_card(model, card.to_json()))


def _input(spec: ImageInput | SceneInput, size: tuple[int, int] | None, logits: bool) -> ImageInput | SceneInput:
    if isinstance(spec, ImageInput):
        if size or logits:
            raise UsageError("--size and --logits are for segmenters", "leave them out")
        return spec
    return SceneInput(**spec.model_dump() | {"height": size[0], "width": size[1]}) if size else spec


def _outputs(spec: ImageInput | SceneInput, classes: int, logits: bool) -> tuple[Output, ...]:
    if isinstance(spec, ImageInput):
        return (Output(name=LOGITS, shape=(-1, classes), meaning="logits, one for each class"),)
    sides = (spec.height or -1, spec.width or -1)
    label_map = Output(name=LABEL_MAP, dtype="UINT8", shape=(-1, *sides), meaning="index of the class of each pixel")
    of_pixels = Output(name=LOGITS, shape=(-1, classes, *sides), meaning="logits, one for each class and pixel")
    return (label_map, of_pixels) if logits else (label_map,)


def _parity_images(run: Run) -> Images:
    """The real images the run was measured on; a run without any is compared on its training images."""
    recipe = run.recipe()
    task, real = TASKS[recipe.task], recipe.data.real
    images: Images = task.read_real(recipe, run.taught(), real, True) if real else task.read_synthetic(recipe)
    return images


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


def _evaluations(run: Run) -> tuple[Evaluation | SceneEvaluation, ...]:
    real, kind = run.result().get("real"), Evaluation if run.recipe().task == "cls" else SceneEvaluation
    return (kind.model_validate(real),) if real else ()
