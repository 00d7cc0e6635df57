"""The building blocks of contrastive methods (docs/method.md sections 3 to 5): A-pool, heads, key queues, InfoNCE.

Nothing here knows a trainer, data or a backbone.

Shape letters: B batch, C channels, H W of the map, P its positions (H * W), G its patches, D projection (128),
K keys in the queue.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csg.errors import UsageError
from csg_train.distributed import gather, rank

Module = TypeVar("Module", bound=nn.Module)
Pooling = Literal["attached", "detached", "mean"]
APoolBy = Literal["relu", "norm", "softmax"]
PROJECTION = 128  # docs/method.md section 2


def positions(map_BCHW: Tensor, by: APoolBy = "relu") -> Tensor:
    """The vectors of a map, at least float32 (B, P, C); with `relu` after a ReLU, for stages that end without one."""
    rectified = map_BCHW.relu() if by == "relu" else map_BCHW
    return rectified.to(_wide(map_BCHW)).flatten(2).transpose(1, 2)


def patch_means(map_BCHW: Tensor, grid: int = 1) -> Tensor:
    """Weights of the mean over each of grid x grid patches of nearly equal size (docs/method.md section 5).

    Returns:
        At least float32 (G, P): 1 / size at the positions of the patch, 0 elsewhere; the patches row by row.

    Raises:
        UsageError: the map is smaller than the grid.
    """
    height, width = map_BCHW.shape[2:]
    if min(height, width) < grid:
        raise UsageError(
            f"a map of {height} x {width} cannot be divided into {grid} x {grid} patches",
            "use larger crops or a smaller grid",
        )
    row_H, column_W = (torch.arange(n, device=map_BCHW.device) * grid // n for n in (height, width))
    members_GP = F.one_hot((row_H[:, None] * grid + column_W).flatten(), grid * grid).T.to(_wide(map_BCHW))
    return members_GP / members_GP.sum(1, keepdim=True)


def _wide(map_BCHW: Tensor) -> torch.dtype:
    return torch.promote_types(map_BCHW.dtype, torch.float32)


def attention(positions_BPC: Tensor, means_GP: Tensor, by: APoolBy = "relu") -> Tensor:
    """Weights of A-pool in each patch (docs/method.md section 4), by one of three formulas.

    relu, of vectors without negative values: a_ij = <v_ij, v_mean> / sum over the positions of the patch. All steps are
    products of matrices, so that neither they nor their gradients need a copy of the map. The length of v_mean cancels
    out: v_mean is scaled to at most 1, which keeps the products in the range of float32.
    norm: a_ij = |v_ij| / sum over the positions of the patch. softmax: of <v_ij, v_mean> / sqrt(C).

    Returns:
        (B, G, P), non-negative; the sum over each patch is 1. A patch of zeros has uniform weights, without
        gradient.
    """
    tiny = torch.finfo(positions_BPC.dtype).tiny
    with torch.autocast(positions_BPC.device.type, enabled=False):
        if by == "norm":
            return _shares(torch.linalg.vector_norm(positions_BPC, dim=2)[:, None] * means_GP, means_GP)
        mean_BGC = means_GP @ positions_BPC
        if by == "softmax":
            scores_BGP = mean_BGC @ positions_BPC.mT / math.sqrt(positions_BPC.shape[2])
            return scores_BGP.masked_fill(means_GP == 0, float("-inf")).softmax(2)
        direction_BGC = mean_BGC / mean_BGC.detach().amax(2, keepdim=True).clamp_min(tiny)
        score_BGP = (direction_BGC @ positions_BPC.mT) * means_GP
    return _shares(score_BGP, means_GP)


def _shares(score_BGP: Tensor, means_GP: Tensor) -> Tensor:
    """Scores as shares of their sum in each patch; uniform where all are 0."""
    tiny, sum_BG1 = torch.finfo(score_BGP.dtype).tiny, score_BGP.sum(2, keepdim=True)
    return torch.where(sum_BG1 > 0, score_BGP / sum_BG1.clamp_min(tiny), means_GP)


def a_pool(positions_BPC: Tensor, weights_BGP: Tensor) -> Tensor:
    """Weighted sums over each patch, (B * G, C): the patches of an image one after the other."""
    with torch.autocast(positions_BPC.device.type, enabled=False):
        return (weights_BGP @ positions_BPC).flatten(0, 1)


def projection_head(channels: int, mlp: bool = True) -> nn.Sequential:
    """h of docs/method.md section 2: Linear(C, C), ReLU, Linear(C, 128); without `mlp` only the last layer."""
    hidden = [nn.Linear(channels, channels), nn.ReLU()] if mlp else []
    return nn.Sequential(*hidden, nn.Linear(channels, PROJECTION))


class Projection(nn.Module):
    """Maps of the chosen stages to unit vectors: pooling, a projection head for each stage, normalisation.

    Args:
        channels: channels of each chosen stage.
        pooling: by A-pool, with the gradient through its weights (attached) or not (detached), or by the mean over
            positions.
        mlp: heads with a hidden layer.
        grid: patches on each side of a map, each pooled on its own.
        by: formula of the weights of A-pool; with `relu`, maps are rectified before any pooling.
    """

    def __init__(self, channels: dict[str, int], pooling: Pooling, mlp: bool, grid: int = 1, by: APoolBy = "relu"):
        super().__init__()
        self.heads = nn.ModuleDict({stage: projection_head(width, mlp) for stage, width in channels.items()})
        self.pooling, self.grid, self.by = pooling, grid, by

    def forward(self, maps: dict[str, Tensor], attention_maps: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Unit vectors, float32 (B * grid * grid, D), of each stage.

        Args:
            maps: (B, C, H, W) of each stage.
            attention_maps: the maps that A-pool computes its weights from; by default `maps`.
        """
        vectors = {}
        for stage, head in self.heads.items():
            pooled = self._pool(maps[stage], attention_maps[stage] if attention_maps else None)
            vectors[stage] = F.normalize(head(pooled).float(), dim=1)
        return vectors

    def _pool(self, map_BCHW: Tensor, attended_BCHW: Tensor | None) -> Tensor:
        values_BPC, weights_GP = positions(map_BCHW, self.by), patch_means(map_BCHW, self.grid)
        if self.pooling == "mean":
            return a_pool(values_BPC, weights_GP.expand(len(values_BPC), -1, -1))
        attended_BPC = values_BPC if attended_BCHW is None else positions(attended_BCHW, self.by)
        if self.pooling == "detached":
            attended_BPC = attended_BPC.detach()
        return a_pool(values_BPC, attention(attended_BPC, weights_GP, self.by))


def momentum_copy(module: Module) -> Module:
    """A copy that is not trained by gradients: h~ of h, or MoCo's key encoder."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def ema_update(average: nn.Module, source: nn.Module, momentum: float) -> None:
    """h~ <- m h~ + (1 - m) h, in place (docs/method.md section 2); buffers, the batch norm statistics, are copied."""
    for mean, current in zip(average.parameters(), source.parameters(), strict=True):
        mean.lerp_(current, 1 - momentum)
    for copied, buffer in zip(average.buffers(), source.buffers(), strict=True):
        copied.copy_(buffer)


class KeyQueue(nn.Module):
    """First-in first-out queue of keys: the negatives of one stage (docs/method.md section 3).

    It starts with random unit vectors.
    """

    keys: Tensor
    """float32 (K, D)."""
    next: Tensor
    """int64 (): index of the key that is replaced next."""

    def __init__(self, size: int, dim: int = PROJECTION):
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, keys_BD: Tensor) -> None:
        """Replace the oldest keys; if more than K are new, the last K stay."""
        size = len(self.keys)
        dropped = max(0, len(keys_BD) - size)
        slots = (self.next + torch.arange(dropped, len(keys_BD), device=self.keys.device)) % size
        self.keys[slots] = keys_BD[dropped:].float()
        self.next.add_(len(keys_BD)).remainder_(size)


class StageQueues(nn.Module):
    """A key queue for each stage. The keys of a step, from all its parts and all processes, enter it together."""

    def __init__(self, stages: Iterable[str], size: int):
        super().__init__()
        self.queues = nn.ModuleDict({stage: KeyQueue(size) for stage in stages})
        self.pending: dict[str, list[Tensor]] = {stage: [] for stage in self.queues}

    def contrast(
        self, anchors: dict[str, Tensor], positives: dict[str, Tensor], temperature: float
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """InfoNCE of each stage, and the share of positives ranked first; the positives are kept for `enqueue`."""
        losses, ranked = {}, {}
        for stage, anchor_BD in anchors.items():
            negatives_KD = cast(KeyQueue, self.queues[stage]).keys
            losses[stage], ranked[stage] = info_nce(anchor_BD, positives[stage], negatives_KD, temperature)
            self.pending[stage].append(positives[stage].detach())
        return losses, ranked

    def enqueue(self) -> None:
        """Let the keys of the step into the queues; called once after each optimiser step."""
        for stage, keys in self.pending.items():
            cast(KeyQueue, self.queues[stage]).enqueue(gather(torch.cat(keys)))
            keys.clear()


def info_nce(anchor_BD: Tensor, positive_BD: Tensor, queue_KD: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE with a queue of negatives (docs/method.md section 3; paper equation 2).

    All vectors are unit vectors. With thousands of anchors and keys their logits are most of the work, so no pass over
    them is spent on joining, dividing or sorting them.

    Returns:
        The mean loss, and the share of anchors whose positive key is at least as similar as every negative.
    """
    scaled_BD = anchor_BD / temperature
    positive_B = (scaled_BD * positive_BD).sum(1)
    negatives_BK = scaled_BD @ queue_KD.T
    loss = (torch.logaddexp(positive_B, negatives_BK.logsumexp(1)) - positive_B).mean()
    return loss, (positive_B >= negatives_BK.detach().amax(1)).float().mean()


def nt_xent(first_BD: Tensor, second_BD: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """SimCLR's loss (Chen et al. 2020, equation 1): two views are each other's positives, the batch the negatives.

    With several processes, the batches of all of them are one.

    Returns:
        The mean loss over the 2B anchors of this process, and the share of anchors whose positive is more similar
        than every negative.
    """
    all_ND = torch.cat([gather(first_BD), gather(second_BD)])
    size, start = len(all_ND) // 2, rank() * len(first_BD)
    own = torch.arange(start, start + len(first_BD), device=first_BD.device)
    anchors, positives = torch.cat([own, own + size]), torch.cat([own + size, own])
    logits = all_ND[anchors] @ all_ND.T / temperature
    logits = logits.scatter(1, anchors[:, None], float("-inf"))  # an anchor is not its own negative
    return F.cross_entropy(logits, positives), (logits.argmax(1) == positives).float().mean()
