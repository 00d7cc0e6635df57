"""Everything that the next training step depends on, as named tensors; the order of the data depends on the step."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from csg.console import log
from csg_train.methods.base import Method
from csg_train.training.kept_weights import KeptWeights

OPTIMISER = {"momentum": "momentum_buffer", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq", "updates": "step"}
"""What torch's optimisers keep of a parameter, by its name in a checkpoint."""


@dataclass(frozen=True)
class TrainingState:
    """The objects whose state changes from step to step."""

    method: Method
    """The method, with its student."""
    optimiser: torch.optim.Optimizer
    """SGD with its momenta, or AdamW with its two means and its count of steps."""
    scaler: torch.amp.GradScaler
    """The gradient scaler; disabled unless the precision is fp16."""
    device: torch.device
    """The device, with its random generator."""
    weights: KeptWeights | None = None
    """What is kept of the student's weights for the choice of the student; None if nothing is."""

    def pack(self) -> dict[str, Tensor]:
        """The state of method and optimiser, kept weights, gradient scale and random generators."""
        tensors = {f"method.{name}": value for name, value in self.method.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"{name}.{index}": state[key] for name, key in OPTIMISER.items() if key in state}
        if self.weights:
            tensors |= self.weights.pack()
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        tensors["scale"] = torch.tensor(self.scaler.get_scale(), dtype=torch.float64)
        return tensors

    def unpack(self, tensors: dict[str, Tensor]) -> None:
        """Restore the state that `pack` returned."""
        prefix = "method."
        self.method.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
        if self.weights:
            self.weights.unpack(tensors)
        plain = self.optimiser.state_dict()
        plain["state"] = _optimiser_state(tensors)
        self.optimiser.load_state_dict(plain)
        torch.set_rng_state(tensors["rng.cpu"])
        if ("rng.cuda" in tensors) != (self.device.type == "cuda"):
            before = "a GPU" if "rng.cuda" in tensors else "a CPU"
            log(f"warning: the run was trained on {before} before: its weights will not be those of one device")
        elif self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(self.scaler.state_dict() | {"scale": float(tensors["scale"])})


def _optimiser_state(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """What an optimiser keeps of its parameters, by their number; of one that has not trained yet, nothing."""
    found: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        kind, _, index = name.partition(".")
        if kind in OPTIMISER:
            found[int(index)][OPTIMISER[kind]] = tensor
    return dict(found)
