"""The settings of the methods, without torch: `csg config`, the completion in a shell and hints read them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from csg.files import absolute
from csg.records import Record
from csg_train.methods import METHODS, load_method

ImageCount = Annotated[int, Field(ge=1, json_schema_extra={"unit": "images"})]
StageName = Literal["layer1", "layer2", "layer3", "layer4"]


class MethodSettings(Record):
    """Settings of a method. Each method has a subclass; a field without a default must be set by the user."""

    segmentation_defaults: ClassVar[dict[str, Any]] = {}
    """Defaults in segmentation, where they differ from those of classification."""

    def paths(self) -> dict[str, Path]:
        """The settings that name a file or folder."""
        return {name: value for name, value in self if isinstance(value, Path)}


class NoneSettings(MethodSettings):
    """Settings of none."""

    augment: bool = False
    """Augment the training images, as the other methods do; by default they are resized and cropped alone, as
    published."""


class L2Settings(MethodSettings):
    """Settings of l2."""

    weight: Annotated[float, Field(ge=0)] = 0.1
    """mu, the weight of the distance; 0.1 pulls a weight about half-way back over a run of the pacs recipe."""
    fisher: bool = False
    """Weigh each parameter by its Fisher information (ewc)."""
    images: ImageCount = 256
    """Images that the Fisher information is measured on."""


class EwcSettings(L2Settings):
    """Settings of ewc: those of l2, with Fisher weights."""

    fisher: bool = True
    """Weigh each parameter by its Fisher information."""


class SiSettings(MethodSettings):
    """Settings of si."""

    weight: Annotated[float, Field(ge=0)] = 1000.0
    """c, the weight of the penalty; large, because the gain of an epoch is divided among millions of weights."""
    xi: Annotated[float, Field(gt=0)] = 0.1
    """Damping of the importance of weights that have hardly moved, 0.1 as published."""
    anchor: Literal["imagenet", "last"] = "imagenet"
    """The weights that the penalty pulls to: those of ImageNet, or those at the end of the last epoch."""


class FeatureL2Settings(MethodSettings):
    """Settings of feature-l2."""

    weight: Annotated[float, Field(ge=0)] = 5e-5
    """mu, the weight of the distance."""
    channels: Literal["sum", "mean"] = "sum"
    """How the squared differences of the channels make a distance; mean: as in csg 0.2, with a weight of 0.1."""


class MiroSettings(MethodSettings):
    """Settings of miro."""

    weight: Annotated[float, Field(ge=0)] = 0.1
    """lambda, the weight of the regularization; published are 1, 0.1, 0.01 and 0.001, chosen by data set."""
    mean: Literal["identity", "linear"] = "identity"
    """The mean of the teacher's map, given the student's: the student's map itself, as published, or a linear map of
    its channels that trains."""


class AsgSettings(MethodSettings):
    """Settings of asg."""

    segmentation_defaults: ClassVar[dict[str, Any]] = {"weight": 75.0}  # docs/method.md section 8

    augment: bool = False
    """Augment the training images, as the other methods do; by default they are resized and cropped alone, as
    published."""
    weight: Annotated[float, Field(ge=0)] = 0.1
    """lambda, the weight of the imitation: 0.1 in classification, 75 in segmentation."""
    pooled: bool = True
    """Imitate the prediction from the globally pooled layer4, as published; false: the one at each position."""
    cap: Annotated[float, Field(gt=0)] | None = None
    """Maximum of the weighted imitation in a step, reached by a smaller weight in that step; null: no maximum."""
    learned: bool = False
    """Let an online policy choose the learning rate of each stage while the student trains."""
    window: Annotated[int, Field(ge=1, json_schema_extra={"unit": "steps"})] = 20
    """Steps between two choices of the policy."""


class AsgL2oSettings(AsgSettings):
    """Settings of asg-l2o: those of asg, with learned rates; in segmentation `cap` is 9, as published."""

    segmentation_defaults: ClassVar[dict[str, Any]] = AsgSettings.segmentation_defaults | {"cap": 9.0}

    learned: bool = True
    """Let an online policy choose the learning rate of each stage while the student trains."""


class IbnSettings(NoneSettings):
    """Settings of ibn-a and ibn-b: those of none, with augmentation."""

    augment: bool = True
    """Augment the training images."""


class DrpcSettings(MethodSettings):
    """Settings of drpc."""

    styles: Path
    """Folder of style images, searched with its subfolders."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """mu, the weight of both consistencies."""
    within: Annotated[float, Field(ge=0)] = 1.0
    """nu, the weight of the consistency within an image, relative to the one across its versions; 0: without it."""
    versions: Annotated[int, Field(ge=1)] = 15
    """Restyled copies of each image, 15 as published; time and memory of a step grow with them."""
    band: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Half the side of the square of low frequencies that take the amplitude of the style, as a share of the side of
    the image."""
    max_styles: ImageCount = 256
    """Style images kept in memory."""

    @field_validator("styles")
    @classmethod
    def _absolute(cls, styles: Path) -> Path:
        """So that the run can be resumed from another folder."""
        return absolute(styles)


class ContrastiveSettings(MethodSettings):
    """Defaults of docs/method.md section 3, and the switches of the paper's ablation."""

    segmentation_defaults: ClassVar[dict[str, Any]] = {"weight": 75.0, "grid": 8}  # docs/method.md sections 3 and 5

    weight: Annotated[float, Field(ge=0)] = 0.1
    """lambda, the weight of the contrastive loss: 0.1 in classification, 75 in segmentation."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """tau, the temperature of the contrastive loss; 0.07 in paper and published code."""
    stages: Annotated[tuple[StageName, ...], Field(min_length=1)] = ("layer3", "layer4")
    """G, the stages whose maps are contrasted; layer3 and layer4 are best in the paper's ablation."""
    apool: bool = True
    """Pool maps by attention (docs/method.md section 4); otherwise by their mean."""
    apool_by: Literal["relu", "norm", "softmax"] | None = None
    """Weights of A-pool: relu: similarity to the mean, of rectified maps, as published; norm: length of the vector at
    each position; softmax: of similarities (docs/method.md section 4). The last two keep negative values. null: norm
    for the families vit, swin and convnext, whose maps are half negative, relu for others."""
    attention: Literal["attached", "detached"] = "attached"
    """Let the gradient flow through the weights of A-pool, as in the published recipes, or not (docs/method.md
    section 6). The weights of a key never have a gradient, except in simclr, which trains both views."""
    mlp: bool = True
    """Projection heads with a hidden layer; otherwise one linear layer."""
    grid: Annotated[int, Field(ge=1)] = 1
    """Patches on each side of a map, each with its own anchor: 1 in classification, 8 in segmentation
    (docs/method.md section 5)."""


class QueueSettings(ContrastiveSettings):
    """Settings of methods with a queue of keys."""

    queue: Annotated[int, Field(ge=1, json_schema_extra={"unit": "keys"})] = 65536
    """K, the number of keys in the queue of each stage: 65536 in the paper, fewer for small data."""
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.999
    """m, the momentum of the moving averages that compute the keys (docs/method.md section 2)."""


class CsgSettings(QueueSettings):
    """Settings of csg."""

    train_heads: bool = True
    """Train the projection heads; otherwise they keep their initial weights, as in the published segmentation code
    (docs/method.md section 7)."""


SETTINGS: dict[str, type[MethodSettings]] = {
    "none": NoneSettings,
    "l2": L2Settings,
    "ewc": EwcSettings,
    "si": SiSettings,
    "feature-l2": FeatureL2Settings,
    "asg": AsgSettings,
    "asg-l2o": AsgL2oSettings,
    "ibn-a": IbnSettings,
    "ibn-b": IbnSettings,
    "drpc": DrpcSettings,
    "simclr": ContrastiveSettings,
    "moco-v2": QueueSettings,
    "csg": CsgSettings,
    "miro": MiroSettings,
}
"""The settings of csg's own methods."""


def settings_class(name: str) -> type[MethodSettings]:
    """The class of a method's settings; a method of another package is imported for it.

    Raises:
        UsageError: as `csg_train.methods.load_method`.
    """
    return SETTINGS[name] if name in SETTINGS and name in METHODS else load_method(name).Settings
