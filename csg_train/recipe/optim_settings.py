"""The settings of `optim`: the optimizer and its schedule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from csg.records import Record
from csg_train.recipe.setting_types import Count, ImageCount, Positive, Share, SomeSteps, Steps


class Optim(Record):
    """An optimizer with two learning rates and polynomial decay in every step (docs/method.md section 6)."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd, as published; or adamw (Loshchilov & Hutter 2019, "Decoupled weight decay regularization"), which
    transformers and ConvNeXts are trained with."""
    lr_backbone: Positive = 1e-5
    """Initial learning rate of the backbone; with `layer_decay`, of what follows its last block."""
    lr_heads: Positive = 1e-4
    """Initial learning rate of the head, of the method's own layers, and of low-rank matrices
    (`model.training=lora`)."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from each block of the backbone to the one before it, counted from the head: block i
    of n, from 0, has lr_backbone * layer_decay ** (n - i) (Clark et al. 2020, ELECTRA; Bao et al. 2022, BEiT)."""
    probe: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """With `model.training=lp-ft`: share of the steps in which the head trains alone. Both parts have a warm-up and a
    decay of their own."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD; of AdamW, beta 1. Its beta 2 is 0.999."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Weight decay. SGD adds it to every gradient; AdamW shrinks weights by it, but no biases, norms, tokens and
    position embeddings, as the code of DeiT and BEiT."""
    power: Positive = 0.9
    """Exponent of the decay: a rate is multiplied by (1 - step / steps) ** power."""
    warm_up: Steps = 100
    """Steps of warm-up: in step i, counted from 0, rates are also multiplied by min(0.01 + 0.99 (i / warm_up)^2, 1)
    (docs/method.md section 6)."""
    average: Share = 0.0
    """Share of the training, at its end, over whose steps the student's weights are averaged; 0: no averaging."""
    swad: Annotated[float, Field(ge=1)] | None = None
    """r of SWAD, published as 1.3: the student's weights are averaged from where the loss on held-out synthetic images
    stops falling to where it stays above r times its value there (docs/method.md section 11); null: no SWAD. Needs
    `data.holdout` and `evaluate_every`."""
    wise: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] | None = None
    """alpha of WiSE-FT, published as 0.5: the student is (1 - alpha) start + alpha end of the fine-tuning
    (docs/method.md section 11); auto: the smallest alpha within a standard error of the best on held-out synthetic
    images, which needs `data.holdout`; null: no WiSE-FT."""
    batch: ImageCount = 32
    """Images in a step, over all processes."""
    epochs: Annotated[int, Field(ge=1, json_schema_extra={"unit": "passes"})] = 30
    """Passes over the synthetic images, unless `steps` is set."""
    steps: SomeSteps | None = None
    """Length of the schedule in steps, whatever the number of images; null: `epochs` decides."""
    max_steps: SomeSteps | None = None
    """Maximum length of the schedule in steps; null: no maximum."""
    accumulate: Count = 1
    """Number of equal parts in which a batch is processed, to save memory."""
    clip: Positive | None = None
    """Maximum norm of the gradient; null: no clipping."""
