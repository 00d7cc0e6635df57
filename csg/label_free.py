"""A number that ranks models by their answers for images without labels: the nuclear norm of their probabilities.

Source: Deng et al. 2023, Confidence and Dispersity Speak: Characterising Prediction Matrix for Unsupervised Accuracy
Estimation (ICML; arXiv 2302.01094). A good model is sure of its answers, and spreads them over the classes; the nuclear
norm of the matrix of probabilities is large if both hold. It ranks models on the same images; it is no accuracy, and
says nothing where one class makes up most of the images.

Shape letters: N images or pixels, K classes.
"""

from __future__ import annotations

import math

import numpy as np


class PredictionMatrix:
    """The class probabilities P, (N, K), of a model for some images, of which only P^T P is kept.

    The singular values of P are the square roots of the eigenvalues of P^T P.

    Args:
        classes: K.

    Example:
        >>> sure, unsure = PredictionMatrix(2), PredictionMatrix(2)
        >>> sure.add(np.array([[1.0, 0.0], [0.0, 1.0]]))
        >>> unsure.add(np.array([[0.5, 0.5], [0.5, 0.5]]))
        >>> round(sure.nuclear_norm, 3), round(unsure.nuclear_norm, 3)
        (1.0, 0.5)
    """

    def __init__(self, classes: int):
        self.rows = 0
        self.gram = np.zeros((classes, classes))

    def add(self, probabilities: np.ndarray) -> None:
        """Add rows of the matrix, float (N, K), each with the sum 1."""
        p_NK = probabilities.astype(np.float64)
        self.rows += len(p_NK)
        self.gram += p_NK.T @ p_NK

    @property
    def nuclear_norm(self) -> float:
        """The sum of the singular values of P, divided by its maximum sqrt(min(N, K) N): above 0, at most 1."""
        eigenvalues = np.linalg.eigvalsh(self.gram).clip(min=0)
        most = math.sqrt(min(self.rows, len(self.gram)) * self.rows)
        return min(1.0, float(np.sqrt(eigenvalues).sum()) / most)
