"""The recipe: every setting of a run, typed, checked before anything starts, saved with the run.

Recipes live in `recipes/*.yaml`; a file of one's own, options of the command line and `--set a.b=c` change them.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from csg.card import STRIDE, ClassificationInput, Name, SegmentationInput
from csg.errors import InputError, UsageError, one_line
from csg_train.methods import load_method
from csg_train.methods.spec import method_settings
from csg_train.models.backbones import check_backbone

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=8, le=2048)]
CropSide = Annotated[int, Field(ge=STRIDE, le=4096, multiple_of=STRIDE)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Source(_Part):
    """Where images come from.

    train: sources, as csg.datasets reads them, or the task's embedded synthetic set, of which `count` images are
    drawn. real: the set to measure on, or null. holdout: share of the
    synthetic images that is kept from
    training and measured on instead of the real ones. workers: loader processes, null = by the number of cores.
    """

    train: Annotated[tuple[str, ...], Field(min_length=1)]
    real: tuple[str, ...] = ()
    count: Count = 8000
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    workers: Annotated[int, Field(ge=0)] | None = None
    unreadable: Literal["fail", "skip"] = "fail"


class Data(_Source):
    """Classification images. resize: shorter side in pixels; size: side of the square crop."""

    resize: Side = 224
    size: Side = 224

    @model_validator(mode="after")
    def _crop_fits(self) -> Data:
        if self.size > self.resize:
            raise ValueError(f"size {self.size} is larger than resize {self.resize}")
        return self

    def image_input(self) -> ClassificationInput:
        """The test view as the card states it."""
        return ClassificationInput(height=self.size, width=self.size, resize_shorter_side=self.resize)


class SegmentationData(_Source):
    """Scenes with masks. labels, real_labels: label sets of sources without one of their own (csg.datasets); null: the
    real ones are as the synthetic ones. resize: shorter side in pixels before anything else, null = as it is; crop:
    height and width of the training crop, multiples of 8.
    """

    labels: str | None = None
    real_labels: str | None = None
    resize: Side | None = None
    crop: tuple[CropSide, CropSide] = (512, 512)

    def image_input(self) -> SegmentationInput:
        """The test view, the whole image, as the card states it."""
        return SegmentationInput(resize_shorter_side=self.resize)


class Augment(_Part):
    """RandAugment: `operations` drawn for each view, at `magnitude` of 10 (docs/method.md section 6: n = 1, m = 6)."""

    operations: Annotated[int, Field(ge=0)] = 1
    magnitude: Annotated[int, Field(ge=0, le=10)] = 6


class SegmentationAugment(_Part):
    """A scale drawn from `scales`, a mirror image half of the time if `flip`, and for the k-view the same crop
    with brightness, contrast, saturation and hue jittered by up to `jitter` (docs/method.md section 7).
    """

    scales: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.75, 1.0, 1.25)
    flip: bool = True
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.4


class Model(_Part):
    """freeze_batch_norm: keep the backbone's batch norm on its ImageNet statistics (docs/method.md section 2).
    freeze_affine: keep its scale and shift too.
    """

    backbone: str = "resnet101"
    freeze_batch_norm: bool = True
    freeze_affine: bool = False

    @model_validator(mode="after")
    def _known(self) -> Model:
        check_backbone(self.backbone)
        return self


class SegmentationModel(Model):
    """head: aspp, DeepLabv3's, as in the published code, or deeplabv2, the classic one (docs/method.md section 7)."""

    freeze_affine: bool = True
    head: Literal["aspp", "deeplabv2"] = "aspp"


class Optim(_Part):
    """SGD with two learning rates and polynomial decay per step (docs/method.md section 6).

    accumulate: parts that a batch is worked through in, for small memories. clip: largest norm of the gradient.
    """

    lr_backbone: Positive = 1e-5
    lr_heads: Positive = 1e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    power: Positive = 0.9
    batch: Count = 32
    epochs: Count = 30
    max_steps: Count | None = None
    accumulate: Count = 1
    clip: Positive | None = None


class Recipe(_Part):
    """One run, completely; of either task (below)."""

    name: Name
    task: Literal["cls", "seg"]
    data: Data | SegmentationData
    augment: Augment | SegmentationAugment
    model: Model
    optim: Optim = Optim()
    method: str = "csg"
    methods: dict[str, dict[str, Any]] = {}
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    evaluate_every: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _methods_known(self) -> Recipe:
        complete = {
            name: method_settings(name, self.task, self.methods.get(name, {})).model_dump(mode="json")
            for name in sorted({self.method, *self.methods})
        }
        object.__setattr__(self, "methods", complete)
        variant, backbone = load_method(self.method).backbone_variant, self.model.backbone
        if not backbone.endswith(variant):
            object.__setattr__(
                self, "model", self.model.model_copy(update={"backbone": check_backbone(backbone + variant)})
            )
        return self

    def to_yaml(self) -> str:
        """The resolved recipe as YAML text."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def digest(self) -> str:
        """SHA-256 over every setting."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class ClassificationRecipe(Recipe):
    """A classifier's run."""

    task: Literal["cls"]
    data: Data
    augment: Augment = Augment()
    model: Model = Model()


class SegmentationRecipe(Recipe):
    """A segmenter's run."""

    task: Literal["seg"]
    data: SegmentationData
    augment: SegmentationAugment = SegmentationAugment()
    model: SegmentationModel = SegmentationModel()

    @model_validator(mode="after")
    def _dilated(self) -> SegmentationRecipe:
        if self.model.backbone.startswith("timm:"):
            raise ValueError("timm backbones can't be dilated; take one of torchvision's for segmentation")
        return self


_RECIPES: TypeAdapter[Recipe] = TypeAdapter(
    Annotated[ClassificationRecipe | SegmentationRecipe, Field(discriminator="task")]
)


def recipe_names() -> list[str]:
    """The recipes that come with csg."""
    files = resources.files("csg_train.recipe").iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def load_recipe(source: str, changes: Mapping[str, Any], assignments: list[str]) -> Recipe:
    """A recipe by name or file, changed by dotted settings.

    Args:
        changes: dotted name -> value, from the command line's options; `own.x` is setting x of the method.
        assignments: `a.b=c` texts of `--set`; the value is read as YAML.

    Raises:
        UsageError: an unknown recipe or setting, or a value that can't be.
        InputError: the file is missing or no recipe.
    """
    tree = _read(source)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment!r} is not of the form a.b=c", "for example --set optim.batch=32")
        try:
            put(tree, key.strip(), yaml.safe_load(value))
        except yaml.YAMLError:
            raise UsageError(f"--set {assignment!r}: the value is no YAML", "quote it") from None
    for key, value in changes.items():
        if not key.startswith("own."):
            put(tree, key, value)
    for key, value in changes.items():
        if key.startswith("own."):
            put(tree, f"methods.{tree.get('method', 'csg')}.{key.removeprefix('own.')}", value)
    return parse_recipe(tree, source)


def parse_recipe(tree: Any, where: str) -> Recipe:
    """Check a tree of settings.

    Raises:
        UsageError: names the first setting that can't be.
    """
    try:
        return _RECIPES.validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("cls", "seg"))
        message = first["msg"].removeprefix("Value error, ")
        hint = _closest(place) if first["type"] == "extra_forbidden" else "mend the recipe, the option or --set"
        raise UsageError(f"recipe {where}: {place}: {message}".replace(": :", ":"), hint) from None


def _read(source: str) -> dict[str, Any]:
    if source in recipe_names():
        text = (resources.files("csg_train.recipe") / f"{source}.yaml").read_text()
    else:
        path = Path(source)
        if not path.is_file():
            raise UsageError(
                f"there is no recipe {source!r}", f"take one of {', '.join(recipe_names())}, or a YAML file"
            )
        text = path.read_text(errors="replace")
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"recipe {source} is no YAML: {one_line(error)}", "mend the file") from None
    if not isinstance(tree, dict):
        raise InputError(f"recipe {source} holds no settings", "start from one of csg's own")
    return tree


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set the setting with the dotted name `key` in a tree of settings."""
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise UsageError(
                f"--set {key}: {parent} is no group of settings", "see the run's recipe.yaml for the names"
            )
    tree[last] = value


def _closest(place: str) -> str:
    parts: tuple[tuple[str, type[BaseModel]], ...] = (
        *(("data", part) for part in (Data, SegmentationData)),
        *(("augment", part) for part in (Augment, SegmentationAugment)),
        ("model", SegmentationModel),
        ("optim", Optim),
    )
    known = [f"{group}.{name}" for group, part in parts for name in part.model_fields] + [*Recipe.model_fields]
    close = difflib.get_close_matches(place, known, n=1)
    return f"did you mean {close[0]}?" if close else "see the run's recipe.yaml for the names"
