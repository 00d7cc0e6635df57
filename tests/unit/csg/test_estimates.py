"""Scores from few labels: unbiased, exact with all labels, with intervals that hold the truth."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csg.estimates.candidates import ASSUMED, Candidates, fit_calibration
from csg.estimates.choice import FLOOR, Order, draw_order
from csg.estimates.estimate import LabelledSample
from csg.estimates.report import estimate_scores, labels_to_halve, task_chances
from csg.estimates.scores import accuracy, class_accuracy, class_iou, mean_of
from csg.estimates.spread import CELLS, DIRECT, chain_of_alike, spread_numbers

CLASSES = 3


def population(seed, count=60, size=None):
    """A model that is right where it is sure, more or less, and the true classes."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet([0.4] * CLASSES, count)
    true = np.array([random.choice(CLASSES, p=0.7 * one + 0.3 / CLASSES) for one in probabilities])
    return Candidates(np.ones(count) if size is None else size, probabilities, probabilities.argmax(1)), true


def confusion(candidates, true):
    matrix = np.zeros((CLASSES, CLASSES))
    np.add.at(matrix, (true, candidates.predicted), candidates.size)
    return matrix


def test_weights_over_all_samples_of_a_tiny_population_have_the_mean_one():
    chances, steps = np.array([0.4, 0.3, 0.15, 0.1, 0.05]), 400
    for item, others in itertools.product(range(5), np.random.default_rng(0).random((4, 5))):
        weights = []
        for own in (np.arange(steps) + 0.5) / steps:  # every number that this candidate may draw
            numbers = others.copy()
            numbers[item] = own
            order = Order(chances, numbers / chances)
            chosen = item in order.rows[:2]
            weights.append(1 / order.inclusion(2)[item] if chosen else 0.0)
        assert np.mean(weights) == pytest.approx(1, abs=max(weights) / steps)


def test_any_first_part_of_an_order_stays_when_the_budget_grows():
    order = draw_order(np.full(20, 0.05), seed=3, chain=np.arange(20))
    assert (np.diff([order.inclusion(count) for count in range(1, 21)], axis=0) >= 0).all()
    assert (order.inclusion(20) == 1).all()


@pytest.mark.parametrize("count", [1, 2, 8, 11])
def test_shared_out_numbers_are_uniform_each_and_differ_in_every_block_of_neighbours(count):
    numbers = np.array([spread_numbers(count, np.random.default_rng(seed)) for seed in range(2000)])
    assert ((numbers >= 0) & (numbers < 1)).all()
    for share in (0.1, 0.5, 0.8):
        assert np.mean(numbers < share, 0) == pytest.approx(np.full(count, share), abs=0.045)
    if count == 8:
        parts = np.sort(numbers * 8 // 1, 1)
        assert (parts == np.arange(8)).all()


def nearest_first(features, rows):
    """The slow obvious way: from each row the nearest one that is left."""
    chain, left = rows[:1], list(rows[1:])
    while left:
        chain.append(min(left, key=lambda row: np.sum((features[row] - features[chain[-1]]) ** 2)))
        left.remove(chain[-1])
    return chain


def test_a_chain_goes_to_the_nearest_of_the_class_and_to_every_candidate_once():
    candidates, _ = population(6)
    place = np.random.default_rng(1).random((60, 2))
    candidates = Candidates(candidates.size, candidates.probabilities, candidates.predicted, True, place)
    chain, features = chain_of_alike(candidates), np.concatenate([np.sqrt(candidates.calibrated()), place], 1)
    assert sorted(chain) == list(range(60))
    for own in (chain[candidates.predicted[chain] == one] for one in range(CLASSES)):
        assert own.tolist() == nearest_first(features, own.tolist()[:1] + sorted(own.tolist()[1:]))


def test_many_candidates_are_chained_by_cells_also_if_all_are_the_same():
    count = DIRECT + CELLS
    random = np.random.default_rng(0).dirichlet([1, 1], count)
    for probabilities in (random, np.tile([0.6, 0.4], (count, 1))):
        candidates = Candidates(np.ones(count), probabilities, np.zeros(count, np.int64))
        chain = chain_of_alike(candidates)
        assert sorted(chain) == list(range(count))
    near = np.abs(np.diff(random[chain_of_alike(Candidates(np.ones(count), random, np.zeros(count, np.int64))), 0]))
    assert np.median(near) < 0.005


def test_a_sample_of_alike_candidates_is_unbiased_and_more_exact_than_an_independent_one():
    random = np.random.default_rng(0)
    chance, value = random.random(200) + 0.1, np.sort(random.random(200))
    chance, errors = chance / chance.sum(), {}
    for name, chain in (("spread", np.arange(200)), ("independent", None)):
        errors[name] = []
        for seed in range(500):
            order = draw_order(chance, seed, chain)
            rows = order.rows[:20]
            errors[name].append(np.sum(value[rows] / order.inclusion(20)[rows]) - value.sum())
    error = np.std(errors["spread"])
    assert abs(np.mean(errors["spread"])) < 4 * error / np.sqrt(500)
    assert error < 0.7 * np.std(errors["independent"])


@pytest.mark.parametrize("score", [accuracy, mean_of(class_accuracy, np.arange(3)), mean_of(class_iou, np.arange(3))])
def test_gradients_are_those_of_the_scores(score):
    matrix, step = np.array([[5.0, 1, 2], [2, 7, 1], [0.5, 1, 4]]), 1e-6
    value, gradient, _ = score(matrix)
    for cell in np.ndindex(3, 3):
        more = matrix.copy()
        more[cell] += step
        assert (score(more)[0] - value) / step == pytest.approx(gradient[cell], abs=1e-5)
    assert np.sum(gradient * matrix) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("score", [accuracy, mean_of(class_accuracy, np.arange(3)), mean_of(class_iou, np.arange(3))])
def test_curvatures_say_how_far_a_score_of_random_matrices_is_from_that_of_their_mean(score):
    random, shares = np.random.default_rng(0), np.array([[0.8, 0.1, 0.3], [0.1, 0.8, 0.3], [0.1, 0.1, 0.4]])
    drawn = np.stack([random.multinomial(60, one, 2000) for one in shares.T], 2).astype(float)
    value, gradient, curvature = score(60 * shares)
    bias = np.mean([score(one)[0] - value - np.sum(gradient * (one - 60 * shares)) for one in drawn])
    assert bias == pytest.approx(np.sum(curvature * 60 * shares * (1 - shares)) / 2, rel=0.2, abs=1e-12)


def test_a_mean_of_ratios_from_few_labels_has_no_bias():
    candidates, true = population(2, 300)
    score, chances = mean_of(class_accuracy, np.arange(3)), task_chances(candidates, "classification")
    chain, found = chain_of_alike(candidates), []
    for seed in range(300):
        order = draw_order(chances, seed, chain)
        rows = order.rows[:20]
        if len(np.unique(true[rows])) == 3:
            found.append(LabelledSample(candidates, order.inclusion(20), rows, true[rows]).estimate(score).value)
    assert np.mean(found) == pytest.approx(score(confusion(candidates, true))[0], abs=0.01)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_labels_for_all_give_the_score_itself_without_an_interval(task):
    candidates, true = population(0)
    sample = LabelledSample(candidates, np.ones(60), np.arange(60), true)
    found, matrix = estimate_scores(sample, task), confusion(candidates, true)
    one = class_accuracy if task == "classification" else class_iou
    for estimate, score in ((found.overall, accuracy), (found.mean, mean_of(one, np.arange(3)))):
        assert estimate.value == pytest.approx(score(matrix)[0])
        assert estimate.half_width == pytest.approx(0, abs=1e-9)


def test_estimates_have_no_bias_and_their_intervals_hold_the_truth():
    candidates, true = population(1, 300)
    truth = accuracy(confusion(candidates, true))[0]
    chances, chain, found = task_chances(candidates, "classification"), chain_of_alike(candidates), []
    for seed in range(200):
        order = draw_order(chances, seed, chain)
        rows = order.rows[:60]
        found.append(LabelledSample(candidates, order.inclusion(60), rows, true[rows]).estimate(accuracy))
    assert np.mean([one.value for one in found]) == pytest.approx(truth, abs=0.015)
    assert np.mean([one.low <= truth <= one.high for one in found]) > 0.92


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**20), count=st.integers(10, 40), answer=st.integers(-1, 2), sure=st.booleans())
def test_estimates_are_finite_and_inside_their_intervals(seed, count, answer, sure):
    candidates, true = population(seed, 50, np.random.default_rng(seed).random(50) + 0.01)
    if sure:
        candidates = Candidates(candidates.size, np.eye(CLASSES)[candidates.predicted], candidates.predicted, True)
    order = draw_order(task_chances(candidates, "segmentation"), seed)
    rows = order.rows[:count]
    given_labels = true[rows].copy()
    given_labels[: count - 1] = answer if answer >= 0 else given_labels[: count - 1]
    found = estimate_scores(LabelledSample(candidates, order.inclusion(count), rows, given_labels), "segmentation")
    for one in (found.overall, found.mean, *found.per_class.values()):
        assert 0 <= one.low <= one.value <= one.high <= 1


def test_no_candidate_has_less_than_its_share_of_the_floor():
    candidates, _ = population(2)
    chances = task_chances(candidates, "classification")
    assert chances.sum() == pytest.approx(1)
    assert chances.min() >= FLOOR / 60 - 1e-12


def test_a_class_without_labels_widens_the_interval_of_the_mean():
    candidates, true = population(3)
    rows = np.flatnonzero(true != 2)[:30]
    found = estimate_scores(LabelledSample(candidates, np.full(60, 0.5), rows, true[rows]), "classification")
    assert found.unseen == (2,)
    assert found.mean.high - found.mean.low > 1 / 3


def test_labels_that_contradict_a_sure_model_change_its_calibration():
    candidates, _ = population(4, 200)
    random = np.random.default_rng(0).integers(0, CLASSES, 200)
    fitted = fit_calibration(candidates, np.arange(200), random, np.ones(200))
    assert fitted.mixture > ASSUMED.mixture or fitted.temperature > ASSUMED.temperature


def test_labels_of_a_predicted_class_correct_the_probabilities_there_alone():
    candidates, _ = population(5, 200)
    true = np.where(candidates.predicted == 1, 2, candidates.predicted)
    found = LabelledSample(candidates, np.full(200, 0.25), np.arange(50), true[:50]).probabilities
    assert found[candidates.predicted == 1, 2].mean() > 0.8
    assert found[candidates.predicted == 0, 0].mean() > 0.8


def test_no_label_corrects_its_own_candidate():
    candidates, true = population(8, 200)
    found = []
    for answer in (0, 1):
        true[0] = answer
        found.append(LabelledSample(candidates, np.full(200, 0.25), np.arange(50), true[:50]))
    assert found[0].calibration == found[1].calibration
    changed = (found[0].probabilities != found[1].probabilities).any(1)
    assert changed[candidates.predicted == candidates.predicted[0]].any()
    assert not changed[0]


def test_four_times_the_labels_halve_the_interval_of_endless_images():
    assert labels_to_halve(50, None) == 150
    assert labels_to_halve(50, 50) == 0
