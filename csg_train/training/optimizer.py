"""Arithmetic, optimiser and schedule of a training step (docs/method.md section 6)."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import torch

from csg_train.methods.base import Method
from csg_train.recipe import Optim


@dataclass(frozen=True)
class Precision:
    """The arithmetic of the forward pass; parameters and their updates are float32."""

    name: str
    dtype: torch.dtype


def precision_for(wanted: str, device: torch.device) -> Precision:
    """`auto` is bf16 where the device is faster in it, else fp16 on a GPU and fp32 on a CPU."""
    if wanted == "auto":
        if device.type == "cuda":
            wanted = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        else:
            wanted = "bf16" if _cpu_gains_by_bf16() else "fp32"
    return Precision(wanted, {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[wanted])


@functools.cache
def _cpu_gains_by_bf16() -> bool:
    """Whether a matrix product is at least 1.2 times as fast in bf16; not all CPUs with its instructions gain."""
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(1024, 1024, dtype=dtype)
        times = []
        for _ in range(5):
            started = time.perf_counter()
            torch.mm(matrix, matrix)
            times.append(time.perf_counter() - started)
        best[dtype] = min(times)
    return best[torch.float32] > 1.2 * best[torch.bfloat16]


def make_optimiser(method: Method, optim: Optim) -> torch.optim.SGD:
    """SGD with a named group for each stage of the student's encoder, and one, `heads`, for all that is new."""
    named = method.student.encoder.groups() | {"heads": list(method.head_parameters())}
    groups = [{"params": parameters, "name": name} for name, parameters in named.items() if parameters]
    return torch.optim.SGD(groups, lr=optim.lr_heads, momentum=optim.momentum, weight_decay=optim.weight_decay)


def poly(step: int, steps: int, power: float) -> float:
    """Factor of the learning rate at `step` of `steps`: (1 - step / steps) ** power (docs/method.md section 6)."""
    return float((1 - step / steps) ** power)


def set_learning_rates(optimiser: torch.optim.Optimizer, method: Method, optim: Optim, factor: float) -> None:
    """Each group's rate, as the method wants it, times the schedule's factor."""
    for group in optimiser.param_groups:
        group["lr"] = method.learning_rate(group["name"], optim.lr_backbone, optim.lr_heads) * factor
