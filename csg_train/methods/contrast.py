"""The building blocks of contrastive methods (docs/method.md sections 3 to 5): A-pool, heads, key queues, InfoNCE.

Nothing here knows a trainer, data or a backbone.

Shape letters: B batch, C channels, H W of the map, D projection (128), K keys in the queue, G patches on each side.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csg.errors import UsageError
from csg_train.distributed import gather, rank

Module = TypeVar("Module", bound=nn.Module)
Pooling = Literal["attached", "detached", "mean"]
PROJECTION = 128  # docs/method.md section 2


@dataclass(frozen=True)
class Patches:
    """A map divided into grid x grid patches of nearly equal size (docs/method.md section 5)."""

    grid: int
    """Patches on each side; 1: the whole map is one patch."""
    row: Tensor
    """int64 (H,): the row of patches that each row of the map belongs to."""
    column: Tensor
    """int64 (W,): the column of patches that each column of the map belongs to."""

    @classmethod
    def of(cls, map_BCHW: Tensor, grid: int) -> Patches:
        """The patches of a map.

        Raises:
            UsageError: the map is smaller than the grid.
        """
        height, width = map_BCHW.shape[2:]
        if min(height, width) < grid:
            raise UsageError(
                f"a map of {height} x {width} cannot be divided into {grid} x {grid} patches",
                "use larger crops or a smaller grid",
            )
        row, column = (torch.arange(n, device=map_BCHW.device) * grid // n for n in (height, width))
        return cls(grid, row, column)

    def sum(self, x_BHWC: Tensor) -> Tensor:
        """The sum over each patch, (B, G, G, C), in the dtype of x also under autocast."""
        rows_GH, columns_GW = (F.one_hot(index, self.grid).T.to(x_BHWC.dtype) for index in (self.row, self.column))
        with torch.autocast(x_BHWC.device.type, enabled=False):
            summed_BGWC = (rows_GH @ x_BHWC.flatten(2)).reshape(len(x_BHWC), self.grid, *x_BHWC.shape[2:])
            summed_BGGC: Tensor = columns_GW @ summed_BGWC
        return summed_BGGC

    def expand(self, x_BGGC: Tensor) -> Tensor:
        """The value of each patch at all its positions, (B, H, W, C)."""
        return x_BGGC[:, self.row][:, :, self.column]


def attention(map_BCHW: Tensor, grid: int = 1) -> Tensor:
    """Weights of A-pool (docs/method.md section 4).

    a_ij = <v_ij, v_mean> / sum over positions; mean and sum are those of the patch (section 5). The map goes through a
    ReLU first, for backbones whose stages end without one. An all-zero patch gets uniform weights, without gradient.

    Returns:
        float32 (B, H, W), non-negative; the sum over each of the grid x grid patches is 1.
    """
    patches = Patches.of(map_BCHW, grid)
    v_BHWC = map_BCHW.float().relu().permute(0, 2, 3, 1)
    positions_BGG1 = patches.sum(torch.ones_like(v_BHWC[..., :1]))
    mean_BGGC = patches.sum(v_BHWC) / positions_BGG1
    score_BHW1 = (v_BHWC * patches.expand(mean_BGGC)).sum(3, keepdim=True)
    sum_BHW1 = patches.expand(patches.sum(score_BHW1))
    weights_BHW1 = score_BHW1 / sum_BHW1.clamp_min(torch.finfo(torch.float32).tiny)
    return torch.where(sum_BHW1 > 0, weights_BHW1, patches.expand(1 / positions_BGG1)).squeeze(3)


def a_pool(map_BCHW: Tensor, weights_BHW: Tensor, grid: int = 1) -> Tensor:
    """Weighted sums over each patch of a map, after a ReLU (docs/method.md sections 4 and 5).

    Returns:
        float32 (B * grid * grid, C), the patches of an image one after the other.
    """
    weighted_BHWC = map_BCHW.float().relu().permute(0, 2, 3, 1) * weights_BHW[..., None]
    return Patches.of(map_BCHW, grid).sum(weighted_BHWC).flatten(0, 2)


def uniform(map_BCHW: Tensor, grid: int = 1) -> Tensor:
    """Weights that turn `a_pool` into the mean over each patch: float32 (B, H, W)."""
    patches = Patches.of(map_BCHW, grid)
    ones_BHW1 = torch.ones_like(map_BCHW[:, :1].detach().permute(0, 2, 3, 1), dtype=torch.float32)
    return patches.expand(1 / patches.sum(ones_BHW1)).squeeze(3)


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
    """

    def __init__(self, channels: dict[str, int], pooling: Pooling, mlp: bool, grid: int = 1):
        super().__init__()
        self.heads = nn.ModuleDict({stage: projection_head(width, mlp) for stage, width in channels.items()})
        self.pooling, self.grid = pooling, grid

    def forward(self, maps: dict[str, Tensor], attention_maps: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Unit vectors, float32 (B * grid * grid, D), of each stage.

        Args:
            maps: (B, C, H, W) of each stage.
            attention_maps: the maps that A-pool computes its weights from; by default `maps`.
        """
        vectors = {}
        for stage, head in self.heads.items():
            weigh = uniform if self.pooling == "mean" else attention
            attended_BCHW = (attention_maps or maps)[stage]
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.pooling == "attached"):
                weights_BHW = weigh(attended_BCHW, self.grid)
            vectors[stage] = F.normalize(head(a_pool(maps[stage], weights_BHW, self.grid)).float(), dim=1)
        return vectors


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

    All vectors are unit vectors.

    Returns:
        The mean loss, and the share of anchors whose positive key is more similar than every negative.
    """
    positive_B1 = (anchor_BD * positive_BD).sum(1, keepdim=True)
    logits_B1K = torch.cat([positive_B1, anchor_BD @ queue_KD.T], 1) / temperature
    target_B = torch.zeros(len(logits_B1K), dtype=torch.int64, device=logits_B1K.device)
    ranked_first = (logits_B1K.argmax(1) == 0).float().mean()
    return F.cross_entropy(logits_B1K, target_B), ranked_first


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
