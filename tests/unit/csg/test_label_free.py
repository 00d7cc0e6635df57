"""The nuclear norm of a model's probabilities: the formula, its limits, and what it is for."""

import numpy as np
import pytest

from csg.label_free import PredictionMatrix

DRAW = np.random.default_rng(0)


def norm(probabilities, parts=1):
    matrix = PredictionMatrix(probabilities.shape[1])
    for part in np.array_split(probabilities, parts):
        matrix.add(part)
    return matrix.nuclear_norm


@pytest.mark.parametrize(("images", "classes"), [(1, 3), (2, 7), (50, 7), (400, 3), (30, 30)])
def test_it_is_the_nuclear_norm_over_its_maximum_however_the_images_come(images, classes):
    probabilities = DRAW.dirichlet(np.full(classes, 0.4), images)
    reference = np.linalg.norm(probabilities, "nuc") / np.sqrt(min(images, classes) * images)
    assert norm(probabilities) == pytest.approx(reference, rel=1e-6)
    assert norm(probabilities, parts=3) == pytest.approx(reference, rel=1e-6)


def test_it_is_1_for_sure_answers_spread_evenly_and_least_for_answers_without_content():
    evenly = np.eye(4)[np.arange(80) % 4]
    assert norm(evenly) == pytest.approx(1)
    assert norm(np.full((80, 4), 0.25)) == pytest.approx(0.25)
    assert norm(np.eye(4)[np.zeros(80, int)]) == pytest.approx(0.5), "sure, but of one class alone"


def test_it_ranks_models_by_how_much_they_know():
    true = np.arange(300) % 5

    def model(skill):
        logits = 4 * skill * np.eye(5)[true] + DRAW.normal(0, 1, (300, 5))
        return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    norms = [norm(model(skill)) for skill in (0, 0.25, 0.5, 1, 2)]
    assert norms == sorted(norms)
