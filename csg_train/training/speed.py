"""What the settings of `speed` do to a network and a device before the first step (docs/performance-notes.md)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from csg.console import log
from csg.errors import InputError, UsageError, one_line
from csg_train.distributed import world_size
from csg_train.methods.base import Method
from csg_train.models.gradient_checkpointing import use_gradient_checkpointing
from csg_train.models.sync_batch_norm import synchronise_batch_norms
from csg_train.recipe import Speed

GPU_ONLY = ("tf32", "deterministic", "cudnn_benchmark", "copy_ahead")
"""Settings without effect on a CPU."""


def set_device(speed: Speed, device: torch.device) -> None:
    """Choose the algorithms of a GPU; on a CPU, say which settings have no effect there."""
    if device.type != "cuda":
        defaults = Speed()
        idle = [name for name in GPU_ONLY if getattr(speed, name) != getattr(defaults, name)]
        if idle:
            log(f"without effect on a CPU: {', '.join(f'speed.{name}' for name in idle)}")
        return
    torch.use_deterministic_algorithms(speed.deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = speed.cudnn_benchmark
    torch.backends.cudnn.allow_tf32 = speed.tf32 != "none"
    torch.backends.cuda.matmul.allow_tf32 = speed.tf32 == "all"


def set_network(method: Method, speed: Speed, device: torch.device) -> None:
    """Change how the networks of a method are computed, in place; their state dicts stay the same.

    Args:
        method: on the device.
        speed: the settings.
        device: that it trains on.

    Raises:
        UsageError: batch norms can't be synchronised on CPUs.
        InputError: torch.compile does not work on this machine.
    """
    if speed.sync_batch_norm:
        _synchronise(method, device)
    if speed.gradient_checkpointing:
        use_gradient_checkpointing(method.student.encoder)
    if speed.compile:
        _require_compiler(device)
        method.student.encoder.compile()
        method.student.head.compile()


@contextmanager
def without_compiling(speed: Speed) -> Iterator[None]:
    """A block in which compiled networks run as they are: measurements come in other shapes than training."""
    if speed.compile:
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


def _synchronise(method: Method, device: torch.device) -> None:
    if world_size() == 1:
        log("without effect in a single process: speed.sync_batch_norm")
        return
    if device.type != "cuda":
        raise UsageError(
            "speed.sync_batch_norm needs GPUs: torch has no synchronised batch norm for CPUs",
            "leave it out, or freeze the batch norms (--set model.freeze_batch_norm=true)",
        )
    if not synchronise_batch_norms(method):
        log("without effect, since no batch norm trains: speed.sync_batch_norm")


def _require_compiler(device: torch.device) -> None:
    """Raise InputError unless torch.compile works here: what is missing (a compiler, Triton) shows in a tiny case."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device))
    except Exception as error:
        raise InputError(
            f"speed.compile: torch.compile does not work on this machine: {one_line(error, 200)}",
            "install a C++ compiler (g++; on a GPU also Triton, which comes with torch), or leave out speed.compile",
        ) from None
