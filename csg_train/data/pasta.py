"""PASTA: amplitudes of an image's frequencies are disturbed, those of high frequencies most (Chattopadhyay et al. 2023;
docs/method.md section 11)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from csg_train.recipe import ClassificationAugment, SegmentationAugment


@dataclass(frozen=True)
class Pasta:
    """Multiplies the amplitude of each frequency of each channel by a random factor; phases stay.

    The factor at frequency (m, n), which is (0, 0) for the mean of the image, has a normal distribution with mean 1 and
    standard deviation (2 alpha sqrt((m^2 + n^2) / (H^2 + W^2)))^k + beta. What is drawn depends on torch's seed.

    Example:
        >>> Pasta(alpha=3.0, beta=0.25, k=2.0)(torch.zeros(32, 48, 3, dtype=torch.uint8)).shape
        torch.Size([32, 48, 3])
    """

    alpha: float
    """How much high frequencies are disturbed more than low ones."""
    beta: float
    """Disturbance of all frequencies."""
    k: float
    """Exponent of the frequency."""

    def __call__(self, image: Tensor) -> Tensor:
        """A disturbed copy of an image, uint8 (H, W, 3), rounded and limited to 0 to 255."""
        height, width = image.shape[:2]
        spectrum = torch.fft.fft2(image.float(), dim=(0, 1))
        factor = 1 + self.deviation(height, width)[..., None] * torch.randn(image.shape)
        changed: Tensor = torch.fft.ifft2(spectrum * factor, dim=(0, 1)).real
        return changed.round().clamp(0, 255).to(torch.uint8)

    def deviation(self, height: int, width: int) -> Tensor:
        """Standard deviation of the factor at each frequency, float32 (H, W), in the order of torch.fft."""
        m, n = (side * torch.fft.fftfreq(side) for side in (height, width))
        distance = ((m[:, None] ** 2 + n**2) / (height**2 + width**2)).sqrt()
        deviation: Tensor = (2 * self.alpha * distance) ** self.k + self.beta
        return deviation


def pasta_of(augment: ClassificationAugment | SegmentationAugment) -> Pasta | None:
    """PASTA with a recipe's settings; None if it is switched off."""
    return Pasta(augment.pasta_alpha, augment.pasta_beta, augment.pasta_k) if augment.pasta else None
