"""The contrastive part of CSG (docs/method.md sections 3 to 5): A-pool, projection heads with EMA, key queue, InfoNCE.

No trainer, no data, no backbone. Shape letters: B batch, C channels, H W of the map,
D projection (128), K keys in the queue, G patches a side.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csg.errors import UsageError
from csg_train.distributed import gather, rank

Module = TypeVar("Module", bound=nn.Module)
PROJECTION = 128  # docs/method.md section 2


@dataclass(frozen=True)
class Patches:
    """A map cut into grid x grid patches, as equal as possible (docs/method.md section 5); one patch is the whole map.

    row, column: int64 (H,) and (W,), the patch each position belongs to, counted along its side.
    """

    grid: int
    row: Tensor
    column: Tensor

    @classmethod
    def of(cls, map_BCHW: Tensor, grid: int) -> Patches:
        """The patches of a map."""
        height, width = map_BCHW.shape[2:]
        if min(height, width) < grid:
            raise UsageError(
                f"a map of {height} x {width} has no {grid} x {grid} patches", "larger crops, or a smaller grid"
            )
        row, column = (torch.arange(n, device=map_BCHW.device) * grid // n for n in (height, width))
        return cls(grid, row, column)

    def sum(self, x_BHWC: Tensor) -> Tensor:
        """The sum over each patch, (B, G, G, C), in the dtype of x also under autocast."""
        rows_GH, columns_GW = (F.one_hot(place, self.grid).T.to(x_BHWC.dtype) for place in (self.row, self.column))
        with torch.autocast(x_BHWC.device.type, enabled=False):
            summed_BGWC = (rows_GH @ x_BHWC.flatten(2)).reshape(len(x_BHWC), self.grid, *x_BHWC.shape[2:])
            summed_BGGC: Tensor = columns_GW @ summed_BGWC
        return summed_BGGC

    def spread(self, x_BGGC: Tensor) -> Tensor:
        """Each patch's value at all its positions, (B, H, W, C)."""
        return x_BGGC[:, self.row][:, :, self.column]


def attention(map_BCHW: Tensor, grid: int = 1) -> Tensor:
    """A-pool's weights (docs/method.md section 4): float32 (B, H, W), non-negative; in each image, or in each of its
    grid x grid patches (section 5), their sum is 1.

    a_ij = <v_ij, v_mean> / sum over positions, mean and sum being those of the patch. The map is rectified first, for
    backbones whose stages end without a ReLU; an all-zero patch gets uniform weights. No gradient flows through the
    weights.
    """
    patches = Patches.of(map_BCHW, grid)
    v_BHWC = map_BCHW.detach().float().relu().permute(0, 2, 3, 1)
    positions_BGG1 = patches.sum(torch.ones_like(v_BHWC[..., :1]))
    mean_BGGC = patches.sum(v_BHWC) / positions_BGG1
    score_BHW1 = (v_BHWC * patches.spread(mean_BGGC)).sum(3, keepdim=True)
    sum_BHW1 = patches.spread(patches.sum(score_BHW1))
    weights_BHW1 = score_BHW1 / sum_BHW1.clamp_min(torch.finfo(torch.float32).tiny)
    return torch.where(sum_BHW1 > 0, weights_BHW1, patches.spread(1 / positions_BGG1)).squeeze(3)


def a_pool(map_BCHW: Tensor, weights_BHW: Tensor, grid: int = 1) -> Tensor:
    """Weighted sums over the positions of the rectified map, or of each of its patches: float32 (B * grid * grid, C)
    (docs/method.md sections 4 and 5), the patches of an image one after the other.
    """
    weighted_BHWC = map_BCHW.float().relu().permute(0, 2, 3, 1) * weights_BHW[..., None]
    return Patches.of(map_BCHW, grid).sum(weighted_BHWC).flatten(0, 2)


def uniform(map_BCHW: Tensor, grid: int = 1) -> Tensor:
    """Weights with which `a_pool` takes means over positions: float32 (B, H, W)."""
    patches = Patches.of(map_BCHW, grid)
    ones_BHW1 = torch.ones_like(map_BCHW[:, :1].detach().permute(0, 2, 3, 1), dtype=torch.float32)
    return patches.spread(1 / patches.sum(ones_BHW1)).squeeze(3)


def projection_head(channels: int, mlp: bool = True) -> nn.Sequential:
    """h of docs/method.md section 2: Linear(C, C), ReLU, Linear(C, 128); without `mlp` only the last layer."""
    hidden = [nn.Linear(channels, channels), nn.ReLU()] if mlp else []
    return nn.Sequential(*hidden, nn.Linear(channels, PROJECTION))


class Projection(nn.Module):
    """Maps of the chosen stages to unit vectors: pooling, the stage's projection head, normalisation.

    Args:
        channels: width of each chosen stage. a_pool: pool by attention; otherwise the mean over positions.
        grid: each map is pooled in grid x grid patches.
    """

    def __init__(self, channels: dict[str, int], a_pool: bool, mlp: bool, grid: int = 1):
        super().__init__()
        self.heads = nn.ModuleDict({stage: projection_head(width, mlp) for stage, width in channels.items()})
        self.a_pool, self.grid = a_pool, grid

    def forward(self, maps: dict[str, Tensor], attending: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Unit vectors float32 (B * grid * grid, D) of each stage; the weights come from the maps `attending`."""
        vectors = {}
        for stage, head in self.heads.items():
            weigh = attention if self.a_pool else uniform
            weights_BHW = weigh((attending or maps)[stage], self.grid)
            vectors[stage] = F.normalize(head(a_pool(maps[stage], weights_BHW, self.grid)).float(), dim=1)
        return vectors


def momentum_copy(module: Module) -> Module:
    """A copy that no gradient trains: h~ of h, or MoCo's key encoder."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def ema_update(average: nn.Module, source: nn.Module, momentum: float) -> None:
    """h~ <- m h~ + (1 - m) h, in place (docs/method.md section 2); buffers, batch norm's statistics, are copied."""
    for kept, new in zip(average.parameters(), source.parameters(), strict=True):
        kept.lerp_(new, 1 - momentum)
    for held, current in zip(average.buffers(), source.buffers(), strict=True):
        held.copy_(current)


class KeyQueue(nn.Module):
    """First-in first-out queue of key vectors: the negatives of one stage (docs/method.md section 3).

    Starts as random unit vectors. State: `keys` float32 (K, D) and `next`, the slot that is replaced next.
    """

    keys: Tensor
    next: Tensor

    def __init__(self, size: int, dim: int = PROJECTION):
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, keys_BD: Tensor) -> None:
        """Replace the oldest keys; of more than K new ones the last K stay."""
        size = len(self.keys)
        dropped = max(0, len(keys_BD) - size)
        slots = (self.next + torch.arange(dropped, len(keys_BD), device=self.keys.device)) % size
        self.keys[slots] = keys_BD[dropped:].float()
        self.next.add_(len(keys_BD)).remainder_(size)


class StageQueues(nn.Module):
    """A key queue for each stage; the keys of a step, from all its parts and all processes, enter it together."""

    def __init__(self, stages: Iterable[str], size: int):
        super().__init__()
        self.queues = nn.ModuleDict({stage: KeyQueue(size) for stage in stages})
        self.fresh: dict[str, list[Tensor]] = {stage: [] for stage in self.queues}

    def contrast(
        self, anchors: dict[str, Tensor], positives: dict[str, Tensor], temperature: float
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """InfoNCE of each stage and the share of positives ranked first; the positives wait to enter the queue."""
        losses, ranked = {}, {}
        for stage, anchor_BD in anchors.items():
            negatives_KD = cast(KeyQueue, self.queues[stage]).keys
            losses[stage], ranked[stage] = info_nce(anchor_BD, positives[stage], negatives_KD, temperature)
            self.fresh[stage].append(positives[stage].detach())
        return losses, ranked

    def enqueue(self) -> None:
        """Let the waiting keys in; once after each optimiser step."""
        for stage, keys in self.fresh.items():
            cast(KeyQueue, self.queues[stage]).enqueue(gather(torch.cat(keys)))
            keys.clear()


def info_nce(anchor_BD: Tensor, positive_BD: Tensor, queue_KD: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE with a queue of negatives (docs/method.md section 3; paper equation 2).

    All vectors are unit vectors. Returns the mean loss, and the share of anchors whose positive key is more
    similar than every negative.
    """
    positive_B1 = (anchor_BD * positive_BD).sum(1, keepdim=True)
    logits_B1K = torch.cat([positive_B1, anchor_BD @ queue_KD.T], 1) / temperature
    target_B = torch.zeros(len(logits_B1K), dtype=torch.int64, device=logits_B1K.device)
    ranked_first = (logits_B1K.argmax(1) == 0).float().mean()
    return F.cross_entropy(logits_B1K, target_B), ranked_first


def nt_xent(first_BD: Tensor, second_BD: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """SimCLR's loss (Chen et al. 2020, equation 1): two views are each other's positives, the batch the negatives.

    With several processes the batch is that of all. Returns the mean loss over the 2B anchors of this process,
    and the share of anchors whose positive is more similar than every negative.
    """
    all_ND = torch.cat([gather(first_BD), gather(second_BD)])
    size, start = len(all_ND) // 2, rank() * len(first_BD)
    own = torch.arange(start, start + len(first_BD), device=first_BD.device)
    anchors, positives = torch.cat([own, own + size]), torch.cat([own + size, own])
    logits = all_ND[anchors] @ all_ND.T / temperature
    logits = logits.scatter(1, anchors[:, None], float("-inf"))  # an anchor is no negative of itself
    return F.cross_entropy(logits, positives), (logits.argmax(1) == positives).float().mean()
