"""Predictions from an image and its mirror image together: what is sent, and how both answers become one.

Shape letters: N images; H, W pixels; K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def mirror_images(pixels_NHW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mirror images, left and right exchanged, of prepared images, uint8 (N, H, W, 3), any padding included."""
    return np.ascontiguousarray(pixels_NHW3[:, :, ::-1])


def classes_of_both(logits: NDArray[Any], of_mirror_images: NDArray[Any]) -> NDArray[np.int64]:
    """The classes with the highest mean probability (softmax) of images and mirror images.

    Args:
        logits: of the images, float (N, K), or (N, K, H, W).
        of_mirror_images: of their mirror images, in the same shape; pixels are mirrored back here.

    Returns:
        class indices, (N,) or (N, H, W).

    Example:
        >>> classes_of_both(np.array([[2.0, 0.0, 0.0]]), np.array([[0.0, 9.0, 0.0]]))
        array([1])
    """
    back = of_mirror_images if logits.ndim == 2 else of_mirror_images[..., ::-1]
    total = _softmax(logits)
    total += _softmax(back)
    return np.asarray(total.argmax(1))


def _softmax(logits: NDArray[Any]) -> NDArray[Any]:
    shares: NDArray[Any] = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return shares
