"""Everything the next training step depends on, as named tensors; the data's order depends on the step alone."""

from __future__ import annotations

import torch
from torch import Tensor

from csg_train.methods.base import Method


def pack(
    method: Method, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler, device: torch.device
) -> dict[str, Tensor]:
    """State of the method, momenta, scale of the gradients, random generators."""
    tensors = {f"method.{name}": value for name, value in method.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors[f"momentum.{index}"] = state["momentum_buffer"]
    tensors["rng.cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors["rng.cuda"] = torch.cuda.get_rng_state(device)
    tensors["scale"] = torch.tensor(scaler.get_scale(), dtype=torch.float64)
    return tensors


def unpack(
    tensors: dict[str, Tensor],
    method: Method,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    device: torch.device,
) -> None:
    """Put everything back as it was when `pack` was called."""
    method.load_state_dict({n.removeprefix("method."): t for n, t in tensors.items() if n.startswith("method.")})
    momenta = {int(n.split(".")[1]): t for n, t in tensors.items() if n.startswith("momentum.")}
    plain = optimiser.state_dict()
    plain["state"] = {index: {"momentum_buffer": tensor} for index, tensor in momenta.items()}
    optimiser.load_state_dict(plain)
    torch.set_rng_state(tensors["rng.cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["rng.cuda"], device)
    if scaler.is_enabled():
        scaler.load_state_dict(scaler.state_dict() | {"scale": float(tensors["scale"])})
