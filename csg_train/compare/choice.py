"""What a choice between the systems of a comparison costs: the oracle gap, and which differences are real."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from csg.errors import printable
from csg_train.compare.results import NUCLEAR_NORM, Difference, MethodResult

Value = Callable[[MethodResult], float | None]
NORM_NOTE = (
    "Nuclear norm: of the probabilities for the real images, 0 to 1, without their labels (Deng et al. 2023). It ranks "
    "systems on the same images; it is no accuracy."
)
PAIRS_NOTE = (
    "Which differences are real, by 95 % intervals over seeds and images that are not corrected for the number of "
    "pairs: of pairs that are equally good, one in twenty looks settled."
)


def choice_lines(methods: Sequence[MethodResult], score: str, name: str) -> list[str]:
    """The oracle gap of each rule that chooses a system without labels of real images; nothing for a single system.

    Args:
        methods: of the comparison.
        score: field of the main score.
        name: its name, in words.
    """
    best = _highest(methods, lambda method: method.mean(score))
    if best is None or len(methods) == 1:
        return []
    found = [("on held-out synthetic images", _highest(methods, synthetic_score))]
    found.append(("by the highest nuclear norm, without labels", _highest(methods, lambda m: m.mean(NUCLEAR_NORM))))
    norms = [method.mean(NUCLEAR_NORM) for method in methods]
    lines = [NORM_NOTE] if any(norm is not None for norm in norms) else []
    if lines and None in norms:
        lines.append("Runs of an older csg have no nuclear norm.")
    highest = best.mean(score) or 0.0
    gaps = [
        f"{printable(chosen.label)}, chosen {how}, is {100 * (highest - (chosen.mean(score) or 0.0)):.1f} points behind"
        for how, chosen in found
        if chosen
    ]
    if gaps:
        oracle = (
            f"{printable(best.label)} is best on the real images ({100 * highest:.1f}), which only their labels show"
        )
        lines.append(f"Oracle gap in {name}: {oracle}; {'; '.join(gaps)}.")
    return lines


def synthetic_score(method: MethodResult) -> float | None:
    """The mean score of a system on held-out synthetic images: of its runs, or else the best of its tuning runs."""
    of_runs = method.mean("held_out")
    return of_runs if of_runs is not None else max((trial.held_out for trial in method.trials), default=None)


def pair_lines(labels: Sequence[str], pairs: Sequence[Difference]) -> list[str]:
    """For each system the others that it is ahead of, behind, and neither.

    Args:
        labels: of the systems, in the order of the table.
        pairs: of every two of them.
    """
    if len(pairs) < 2:
        return []
    lines = [PAIRS_NOTE, ""]
    for label in labels:
        verdicts: dict[str, list[str]] = {"ahead": [], "behind": [], "not settled": []}
        for pair in pairs:
            if label == pair.label:
                verdicts[pair.verdict].append(pair.reference)
            elif label == pair.reference:
                verdicts[_OPPOSITE.get(pair.verdict, pair.verdict)].append(pair.label)
        said = [
            f"{words} {', '.join(map(printable, others))}"
            for words, others in zip(("ahead of", "behind", "not settled against"), verdicts.values(), strict=True)
            if others
        ]
        if said:
            lines.append(f"- {printable(label)}: {'; '.join(said)}")
    return [*lines, ""]


_OPPOSITE = {"ahead": "behind", "behind": "ahead"}


def _highest(methods: Sequence[MethodResult], value: Value) -> MethodResult | None:
    """The system with the highest value, the first of equal ones; None unless all have one."""
    values = [value(method) for method in methods]
    if not values or any(found is None for found in values):
        return None
    return methods[max(range(len(methods)), key=lambda place: values[place] or 0.0)]
