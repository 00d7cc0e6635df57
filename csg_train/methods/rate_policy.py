"""An online policy for layer-wise learning rates, after the L2O policy of ASG (Chen et al. 2020).

It learns the rates of one run while it sets them, from the losses of that run alone. The published policy is another
one: meta-trained by REINFORCE over many trainings, then loaded and kept fixed; csg has no such policy yet.

For each stage of the encoder it chooses one of {0, 0.1 ... 1.0} times the learning rate of the heads (docs/method.md
section 8), keeps it for a window of steps, and is then rewarded with the decrease of the log loss over that window
(REINFORCE with a moving average as baseline). All stages share one GRU cell; each has its own state. The inputs of a
stage: log task loss, log imitation loss, decrease of the log loss, the last rate, and the relative change of its
weights since ImageNet. The choices and REINFORCE are as published; inputs, window and reward are ours. The published
policy also sets the rate of the head. It sees the two losses, the progress of the training, mean and deviation of the
head's weights and the last rates. Its windows grow during the training, from 10 steps (20 in segmentation).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from csg_train.models.backbones import Encoder

CHOICES = 11  # 0, 0.1 ... 1.0
INPUTS, STATE = 5, 32
LEARNING_RATE, BASELINE_MOMENTUM = 0.1, 0.9


class RatePolicy(nn.Module):
    """The online policy and its memory between steps; its buffers are the whole state.

    Args:
        encoder: the encoder whose stages get a learning rate.
        window: steps between two choices.
    """

    def __init__(self, encoder: Encoder, window: int):
        super().__init__()
        self.window = window
        self.names = list(encoder.groups())
        self.cell, self.logits = nn.GRUCell(INPUTS, STATE), nn.Linear(STATE, CHOICES)
        nn.init.zeros_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)
        self.requires_grad_(False)  # trained here, not by the trainer's optimiser
        groups = len(self.names)
        self.register_buffer("inputs", torch.zeros(groups, INPUTS))
        self.register_buffer("state", torch.zeros(groups, STATE))
        self.register_buffer("actions", torch.ones(groups, dtype=torch.int64))  # 0.1, the hand-set rate
        # steps of this window, their summed losses (total, task, imitation), mean log loss of the last window,
        # baseline, number of windows
        self.register_buffer("memory", torch.zeros(7, dtype=torch.float64))
        self.start = [[p.detach().clone() for p in group] for group in encoder.groups().values()]

    def rates(self) -> dict[str, Tensor]:
        """Share of the heads' learning rate for each stage, 0 to 1."""
        return dict(zip(self.names, self.get_buffer("actions") / (CHOICES - 1), strict=True))

    def observe(self, task: float, imitation: float, encoder: Encoder) -> None:
        """Record the losses of a step; at the end of a window the policy learns and chooses again."""
        memory = self.get_buffer("memory")
        memory[:4] += memory.new_tensor([1, task + imitation, task, imitation])
        if memory[0] < self.window:
            return
        total, *parts = (math.log(max(float(value / memory[0]), 1e-8)) for value in memory[1:4])
        fall = float(memory[4]) - total if memory[6] else 0.0
        if memory[6] > 1:  # in the first window the policy had not chosen yet
            self._learn(fall - float(memory[5]))
            memory[5] = BASELINE_MOMENTUM * memory[5] + (1 - BASELINE_MOMENTUM) * fall
        memory[:4], memory[4] = 0, total
        memory[6] += 1
        self._choose([*parts, fall], encoder)

    def log_probability(self) -> Tensor:
        """Sum over the stages of the log probability of the chosen actions, given inputs and state."""
        logits = self.logits(self.cell(self.get_buffer("inputs"), self.get_buffer("state")))
        return torch.log_softmax(logits, 1).gather(1, self.get_buffer("actions")[:, None]).sum()

    def _learn(self, advantage: float) -> None:
        """One step of REINFORCE: gradient ascent along advantage * grad log pi(actions)."""
        parameters = list(self.parameters())
        with torch.enable_grad():
            self.requires_grad_(True)
            gradients = torch.autograd.grad(self.log_probability(), parameters)
            self.requires_grad_(False)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.add_(gradient, alpha=LEARNING_RATE * advantage)

    @torch.no_grad()
    def _choose(self, common: list[float], encoder: Encoder) -> None:
        inputs, state, actions = (self.get_buffer(name) for name in ("inputs", "state", "actions"))
        if self.get_buffer("memory")[6] > 1:
            state.copy_(self.cell(inputs, state))
        for row, (old, new) in enumerate(zip(self.start, encoder.groups().values(), strict=True)):
            moved = math.sqrt(sum(float((n - o.to(n.device)).square().sum()) for o, n in zip(old, new, strict=True)))
            size = math.sqrt(sum(float(o.square().sum()) for o in old))
            inputs[row] = inputs.new_tensor([*common, float(actions[row]) / (CHOICES - 1), moved / size])
        probabilities = torch.softmax(self.logits(self.cell(inputs, state)), 1)
        actions.copy_(torch.multinomial(probabilities, 1)[:, 0])
