"""The contrastive part of CSG (method.md sections 3 and 4): A-pool, projection heads with EMA, key queue, InfoNCE.

Pure and small: no trainer, no data, no backbone. Shape letters: B batch, C channels, H W of the map,
D projection (128), K keys in the queue.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PROJECTION = 128  # method.md section 2


def attention(map_BCHW: Tensor) -> Tensor:
    """A-pool's weights (method.md section 4): float32 (B, H, W), non-negative, each image's sum is 1.

    a_ij = <v_ij, v_mean> / sum over positions. The map is rectified first, for backbones whose stages end
    without a ReLU; an all-zero map gets uniform weights. No gradient flows through the weights.
    """
    v_BCHW = map_BCHW.detach().float().relu()
    score_BHW = torch.einsum("bchw,bc->bhw", v_BCHW, v_BCHW.mean((2, 3)))
    sum_B11 = score_BHW.sum((1, 2), keepdim=True)
    uniform = 1 / score_BHW[0].numel()
    return torch.where(sum_B11 > 0, score_BHW / sum_B11.clamp_min(torch.finfo(torch.float32).tiny), uniform)


def a_pool(map_BCHW: Tensor, weights_BHW: Tensor) -> Tensor:
    """Weighted sum over positions of the rectified map: float32 (B, C) (method.md section 4)."""
    return torch.einsum("bchw,bhw->bc", map_BCHW.float().relu(), weights_BHW)


def projection_head(channels: int) -> nn.Sequential:
    """h of method.md section 2: Linear(C, C), ReLU, Linear(C, 128), no batch norm."""
    return nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, PROJECTION))


def momentum_copy(heads: nn.Module) -> nn.Module:
    """h~: a copy that no gradient trains."""
    return copy.deepcopy(heads).requires_grad_(False)


@torch.no_grad()
def ema_update(average: nn.Module, source: nn.Module, momentum: float) -> None:
    """h~ <- m h~ + (1 - m) h, in place (method.md section 2)."""
    for kept, new in zip(average.parameters(), source.parameters(), strict=True):
        kept.lerp_(new, 1 - momentum)


class KeyQueue(nn.Module):
    """First-in first-out queue of key vectors: the negatives of one stage (method.md section 3).

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


def info_nce(anchor_BD: Tensor, positive_BD: Tensor, queue_KD: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE with a queue of negatives (method.md section 3; paper equation 2).

    All vectors are unit vectors. Returns the mean loss, and the share of anchors whose positive key is more
    similar than every negative.
    """
    positive_B1 = (anchor_BD * positive_BD).sum(1, keepdim=True)
    logits_B1K = torch.cat([positive_B1, anchor_BD @ queue_KD.T], 1) / temperature
    target_B = torch.zeros(len(logits_B1K), dtype=torch.int64, device=logits_B1K.device)
    ranked_first = (logits_B1K.argmax(1) == 0).float().mean()
    return F.cross_entropy(logits_B1K, target_B), ranked_first
