"""Training in several processes (`torchrun`); all functions work in a single process too."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from csg.console import stderr
from csg.errors import CsgError, InputError
from csg.machine_errors import machine_error

Value = TypeVar("Value")
PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: the first one may read, check and measure many images alone."""
PEER_GONE = "Connection closed by peer|Connection reset by peer|Broken pipe|remote process exited|connection was closed"
"""What gloo and NCCL say if a process of the group has ended."""


@contextmanager
def process_group() -> Iterator[None]:
    """Join the group that the environment of torchrun describes: NCCL on GPUs, gloo on CPUs.

    Only the first process prints.

    Raises:
        InputError: another process of the group has ended.
    """
    if "WORLD_SIZE" not in os.environ or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
        dist.barrier()  # a process that ends at once would leave others without a group
        stderr.quiet = rank() > 0
        yield
    except RuntimeError as error:
        if not re.search(PEER_GONE, str(error)):
            raise
        with said_once():
            raise InputError(
                "another process of this training has ended", "see its error, and continue with --resume"
            ) from None
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for the other processes."""
    if world_size() > 1:
        dist.barrier()


@contextmanager
def said_once() -> Iterator[None]:
    """A block that fails in all processes, if it fails: the first one raises the error, the others end quietly."""
    try:
        yield
    except CsgError as error:
        if rank():
            sys.exit(error.exit_code)
        raise


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the block in the first process, then in the others, which end quietly if it fails in the first."""
    if rank() or world_size() == 1:
        broadcast_object(_nothing)
        yield
        return
    try:
        yield
    except Exception as error:
        with suppress(type(error)):
            broadcast_object(_fail, error)
        raise
    broadcast_object(_nothing)


def broadcast_object(make: Callable[..., Value], *arguments: object) -> Value:
    """What `make` gives in the first process, in all of them.

    Raises:
        Exception: `make` raised it. The other processes end with the same exit code, and print nothing.
    """
    if world_size() == 1:
        return make(*arguments)
    made, failure = None, None
    if rank() == 0:
        try:
            made = make(*arguments)
        except Exception as error:
            failure = error
    shared = [made, _exit_code(failure) if failure else None]
    dist.broadcast_object_list(shared)
    if failure:
        raise failure
    if isinstance(shared[1], int):
        sys.exit(shared[1])
    return cast(Value, shared[0])


def _exit_code(error: Exception) -> int:
    known = machine_error(error)
    return known.exit_code if known else 1


def _nothing() -> None:
    pass


def _fail(error: Exception) -> None:
    raise error


def gather(tensor: Tensor) -> Tensor:
    """The rows of all processes, in their order, gradients included: (N, ...) to (world * N, ...)."""
    return torch.cat(all_gather(tensor.contiguous())) if world_size() > 1 else tensor  # type: ignore[no-untyped-call]


@torch.no_grad()
def mean_over_processes(tensor: Tensor) -> Tensor:
    """Mean of a tensor over all processes."""
    return gather(tensor.detach()[None]).mean(0) if world_size() > 1 else tensor


def sum_over_processes(number: int) -> int:
    """Sum of a number over all processes."""
    if world_size() == 1:
        return number
    total = torch.tensor(number, device=_device())
    dist.all_reduce(total)
    return int(total)


def any_rank(*flags: bool) -> tuple[bool, ...]:
    """Each flag, true everywhere if it is true in any process."""
    if world_size() == 1:
        return flags
    raised = torch.tensor(flags, dtype=torch.int32, device=_device())
    dist.all_reduce(raised, dist.ReduceOp.MAX)
    return tuple(bool(flag) for flag in raised)


def _device() -> str:
    """Where the group's tensors are."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
