"""What a comparison says of the choice between its systems: the oracle gap, and which differences are real."""

import pytest

from csg_train.compare.choice import choice_lines, pair_lines
from csg_train.compare.results import Difference, MethodResult, RunFigures, Trial


def system(label, real, norm=None, held_out=None, trials=()):
    """A system with a run for each score on the real images."""
    runs = tuple(
        RunFigures(
            seed=seed,
            scores={"mean_class_accuracy": score, "accuracy": score},
            energy=None,
            seconds_per_step=0.1,
            peak_memory_mib=1,
            steps=1,
            images=10,
            precision="fp32",
            device="cpu",
            threads=1,
            commit=None,
            nuclear_norm=norm,
            held_out=held_out,
        )
        for seed, score in enumerate(real)
    )
    trials = tuple(Trial(changes={}, held_out=score, images=10) for score in trials)
    return MethodResult(label=label, method="none", settings={}, paths={}, trials=trials, chosen={}, runs=runs)


def said(*systems):
    return " ".join(choice_lines(systems, "mean_class_accuracy", "mean class accuracy"))


def test_the_gap_is_the_best_on_the_real_images_less_the_one_that_is_chosen():
    text = said(
        system("none", (0.7, 0.8), norm=0.6, held_out=0.99),
        system("l2", (0.80, 0.82), norm=0.8, held_out=0.9),
        system("csg", (0.84, 0.86), norm=0.7, held_out=0.8),
    )
    assert "csg is best on the real images (85.0), which only their labels show" in text
    assert "none, chosen on held-out synthetic images, is 10.0 points behind" in text
    assert "l2, chosen by the highest nuclear norm, without labels, is 4.0 points behind" in text
    assert "it is no accuracy" in text


def test_tuning_runs_tell_what_is_best_on_synthetic_images_where_the_runs_hold_none_out():
    assert "csg, chosen on held-out" in said(
        system("none", (0.7,), trials=(0.8, 0.85)), system("csg", (0.6,), trials=(0.9,))
    )


def test_without_figures_nothing_is_chosen_and_older_runs_are_named():
    assert said(system("none", (0.7,)), system("csg", (0.8,))) == ""
    assert said(system("none", (0.7,), norm=0.5)) == ""
    text = said(system("none", (0.7,), norm=0.5), system("csg", (0.8,)))
    assert "Runs of an older csg have no nuclear norm." in text
    assert "behind" not in text


def pair(label, reference, mean, half, seeds=3):
    ends = {"low": mean - half, "high": mean + half}
    return Difference(label=label, reference=reference, mean=mean, **ends, deviation=0.01, seeds=seeds, images=50)


def test_every_two_systems_are_ahead_behind_or_not_settled():
    pairs = [pair("l2", "none", 0.05, 0.01), pair("csg", "none", 0.06, 0.02), pair("csg", "l2", 0.01, 0.02)]
    lines = pair_lines(["none", "l2", "csg"], pairs)
    assert "- none: behind l2, csg" in lines
    assert "- l2: ahead of none; not settled against csg" in lines
    assert "- csg: ahead of none; not settled against l2" in lines
    assert "one in twenty" in lines[0]


@pytest.mark.parametrize("pairs", [[], [pair("csg", "none", 0.1, 0.01)]])
def test_two_systems_need_no_list(pairs):
    assert pair_lines(["none", "csg"], pairs) == []
