"""Precision, optimiser and learning-rate schedule of a training step (docs/method.md section 6)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch

from csg_train.methods.base import Method
from csg_train.recipe import Optim

PrecisionName = Literal["bf16", "fp16", "fp32"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

BF16_FEATURES = {"amx_bf16", "avx512_bf16", "bf16", "sve_bf16"}
"""Names of the instructions for products of bf16 numbers, of Intel, AMD and ARM."""
CPU_INFO = Path("/proc/cpuinfo")


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


def make_optimiser(method: Method, optim: Optim, *, fused: bool = False) -> torch.optim.SGD:
    """SGD with a named group for each stage of the student's encoder, and one, `heads`, for all new layers.

    Args:
        method: on the device.
        optim: settings of the optimiser.
        fused: update all weights in one kernel.
    """
    named = method.student.encoder.groups() | {"heads": list(method.head_parameters())}
    groups = [{"params": parameters, "name": name} for name, parameters in named.items() if parameters]
    decay, momentum = optim.weight_decay, optim.momentum
    return torch.optim.SGD(groups, lr=optim.lr_heads, momentum=momentum, weight_decay=decay, fused=fused or None)


def rate_factor(step: int, steps: int, optim: Optim) -> float:
    """Factor of the learning rates in a step: warm-up times polynomial decay (docs/method.md section 6).

    Args:
        step: counted from 0.
        steps: of the whole training.
        optim: with `warm_up` and `power`.

    Example:
        >>> round(rate_factor(50, 100, Optim(warm_up=100)), 4)  # (0.01 + 0.99 / 4) * 0.5 ** 0.9
        0.138
    """
    warm_up = min(0.01 + 0.99 * (step / optim.warm_up) ** 2, 1.0) if optim.warm_up else 1.0
    return float(warm_up * (1 - step / steps) ** optim.power)


def set_learning_rates(optimiser: torch.optim.Optimizer, method: Method, optim: Optim, factor: float) -> None:
    """Set the rate of each group: the method's choice times the factor of the schedule."""
    for group in optimiser.param_groups:
        group["lr"] = method.learning_rate(group["name"], optim.lr_backbone, optim.lr_heads) * factor
