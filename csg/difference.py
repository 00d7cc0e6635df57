"""How an answer differs from PyTorch's.

`csg deploy` copies this file beside the scripts of the Python backend, where csg can't be imported: it stands alone.
"""

from __future__ import annotations

import numpy as np


def difference(name: str, answer: np.ndarray, expected: np.ndarray, tolerance: float) -> str | None:
    """How an answer differs from PyTorch's by more than the tolerance, in words; None if it does not.

    Args:
        name: what the image shows.
        answer: logits (K,) of K classes, or a label map (H, W).
        expected: PyTorch's logits, float32, or label map, uint8.
        tolerance: of logits the maximum absolute difference; of label maps the maximum share of pixels of another
            class.

    Example:
        >>> difference("noise", np.zeros(2), np.array([1, 2], np.float32), 0.5)
        "a logit of noise differs from PyTorch's by 2 (at most 0.5 allowed)"
    """
    if answer.shape != expected.shape:
        return f"the answer to {name} has shape {answer.shape}, PyTorch's has {expected.shape}"
    if expected.dtype == np.uint8:
        share = float((answer != expected).mean())
        what = f"{share:.2%} of the pixels of {name} have another class than in PyTorch"
        return what + f" (at most {tolerance:.2%} allowed)" if share > tolerance else None
    largest = float(np.abs(answer.astype(np.float64) - expected).max())
    if largest <= tolerance:  # False for NaN
        return None
    return f"a logit of {name} differs from PyTorch's by {largest:.4g} (at most {tolerance:.4g} allowed)"
