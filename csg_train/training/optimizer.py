"""Precision, optimiser and learning-rate schedule of a training step (docs/method.md section 6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn

from csg_train.methods.base import Method
from csg_train.recipe import Optim

PrecisionName = Literal["bf16", "fp16", "fp32"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

BF16_FEATURES = {"amx_bf16", "avx512_bf16", "bf16", "sve_bf16"}
"""Names of the instructions for products of bf16 numbers, of Intel, AMD and ARM."""
CPU_INFO = Path("/proc/cpuinfo")
ADAM_BETA_2 = 0.999  # the default of Kingma & Ba 2015, and of torch
UNDECAYED = ("cls_token", "pos_embed", "dist_token", "reg_token", "register_tokens", "mask_token", "bias_table")
"""Ends of names of parameters with several dimensions that AdamW does not shrink, besides biases and norms: tokens and
position embeddings, as in the code of DeiT, BEiT and Swin."""


@dataclass(frozen=True)
class TrainingPrecision:
    """The precision of the forward pass; parameters and their updates are float32."""

    name: PrecisionName
    """As recipes call it."""
    dtype: torch.dtype
    """The type of autocast."""


def precision_for(wanted: str, device: torch.device) -> TrainingPrecision:
    """The precision for a setting of the recipe.

    Args:
        wanted: bf16, fp16, fp32 or auto. auto is bf16 if the device has instructions for it, otherwise fp16 on a GPU
            and fp32 on a CPU.
        device: the device to train on.
    """
    if wanted == "auto":
        if device.type == "cuda":
            wanted = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        else:
            wanted = "bf16" if _cpu_multiplies_bf16() else "fp32"
    return TrainingPrecision(cast(PrecisionName, wanted), _DTYPES[wanted])


def _cpu_multiplies_bf16() -> bool:
    """Whether the CPU has instructions for products of bf16 numbers.

    Nothing is timed: the answer, and with it the weights that a seed gives, must not depend on the load.
    """
    if hasattr(torch.cpu, "get_capabilities"):
        features = {name for name, has in torch.cpu.get_capabilities().items() if has is True}
    else:
        features = set(CPU_INFO.read_text(errors="replace").split()) if CPU_INFO.is_file() else set()
    return not features.isdisjoint(BF16_FEATURES)


@dataclass(frozen=True)
class _Parameter:
    """A parameter of the optimiser, and what decides about its group."""

    value: nn.Parameter
    """The parameter."""
    stage: str
    """The stage of the encoder that it belongs to, or `heads`."""
    scale: float
    """Factor of the stage's learning rate."""
    decays: bool
    """Whether it has weight decay."""

    @property
    def group(self) -> tuple[str, float, bool]:
        """Parameters with the same one are a group of the optimiser."""
        return self.stage, self.scale, self.decays


def make_optimiser(method: Method, optim: Optim, *, fused: bool = False) -> torch.optim.Optimizer:
    """The optimiser of a method's parameters that train.

    A group is a stage of the student's encoder, or `heads`: all new layers. With `layer_decay` a stage has a group for
    each of its blocks, with AdamW one more for what has no weight decay.

    Args:
        method: on its device.
        optim: settings of the optimiser.
        fused: update all weights in one kernel.

    Returns:
        SGD, or AdamW. Each group has the `name` of its stage, and a `scale`, the factor of its learning rate.
    """
    groups: dict[tuple[str, float, bool], list[nn.Parameter]] = {}
    for parameter in _parameters(method, optim):
        groups.setdefault(parameter.group, []).append(parameter.value)
    plain = [
        {"params": some, "name": stage, "scale": scale, "weight_decay": optim.weight_decay if decays else 0.0}
        for (stage, scale, decays), some in groups.items()
    ]
    if optim.optimizer == "adamw":
        return torch.optim.AdamW(plain, lr=optim.lr_heads, betas=(optim.momentum, ADAM_BETA_2), fused=fused or None)
    return torch.optim.SGD(plain, lr=optim.lr_heads, momentum=optim.momentum, fused=fused or None)


def _parameters(method: Method, optim: Optim) -> Iterator[_Parameter]:
    encoder = method.student.encoder
    blocks = encoder.blocks() if optim.layer_decay < 1 else []
    scales = {id(p): optim.layer_decay ** (len(blocks) - i) for i, block in enumerate(blocks) for p in block}
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    for stage, parameters in (encoder.groups() | {"heads": list(method.head_parameters())}).items():
        for p in parameters:
            decays = optim.optimizer == "sgd" or (p.ndim > 1 and not names.get(id(p), "").endswith(UNDECAYED))
            yield _Parameter(p, stage, scales.get(id(p), 1.0), decays)


def rate_factor(step: int, steps: int, optim: Optim) -> float:
    """Factor of the learning rates in a step: warm-up times polynomial decay (docs/method.md section 6).

    Args:
        step: counted from 0.
        steps: of the whole training, or of one of the two parts of LP-FT.
        optim: with `warm_up` and `power`.

    Example:
        >>> round(rate_factor(50, 100, Optim(warm_up=100)), 4)  # (0.01 + 0.99 / 4) * 0.5 ** 0.9
        0.138
    """
    warm_up = min(0.01 + 0.99 * (step / optim.warm_up) ** 2, 1.0) if optim.warm_up else 1.0
    return float(warm_up * (1 - step / steps) ** optim.power)


def set_learning_rates(optimiser: torch.optim.Optimizer, method: Method, optim: Optim, factor: float) -> None:
    """Set the rate of each group: the method's choice for its stage, times its own factor and that of the schedule."""
    for group in optimiser.param_groups:
        rate = method.learning_rate(group["name"], optim.lr_backbone, optim.lr_heads)
        group["lr"] = rate * group["scale"] * factor


def learning_rates(optimiser: torch.optim.Optimizer) -> dict[str, float]:
    """The learning rate of each stage, the highest of its groups."""
    rates: dict[str, float] = {}
    for group in optimiser.param_groups:
        rates[group["name"]] = max(rates.get(group["name"], 0.0), float(group["lr"]))
    return rates
