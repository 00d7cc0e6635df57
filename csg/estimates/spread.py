"""Random numbers for an order in which candidates that are alike come far apart: a sample has some of each kind.

Shape letter: M candidates.
"""

from __future__ import annotations

import numpy as np

from csg.estimates.candidates import Candidates, Floats, Ints

DIRECT = 2_500
"""Candidates of which all distances are computed; more are first put into cells."""
CELLS = 300
"""Cells, so that the cells of 100,000 candidates have a few hundred each."""


def chain_of_alike(candidates: Candidates) -> Ints:
    """An order of the candidates in which neighbours are alike, (M,), from what the model says and where they are.

    From each candidate the chain goes on to the nearest that is left of the same predicted class, and from each class
    to that with the nearest mean. The distance is that of Hellinger between the probabilities, and that of the places
    in the image.
    """
    features, random, chained = np.sqrt(candidates.calibrated()), np.random.default_rng(0), [np.zeros(1, np.int64)]
    if candidates.place is not None:
        features = np.concatenate([features, candidates.place], 1)
    classes = [np.flatnonzero(candidates.predicted == one) for one in np.unique(candidates.predicted)]
    means = np.stack([features[rows].mean(0) for rows in classes])
    for one in _nearest_first(means, np.arange(len(means)), 0):
        chained.append(_chain(features, classes[one], random, int(chained[-1][-1])))
    return np.concatenate(chained[1:])


def _chain(features: Floats, rows: Ints, random: np.random.Generator, before: int) -> Ints:
    """The rows as a chain that starts near the row `before`: cell after cell if they are many.

    The cells are those of the rows that are nearest to one of `CELLS` random rows.
    """
    if len(rows) <= DIRECT:
        return _nearest_first(features, rows, before)
    centres = _nearest_first(features, random.choice(rows, CELLS, replace=False), before)
    some = np.array_split(rows, len(rows) // DIRECT)
    cell = np.concatenate([_distances(features[part], features[centres]).argmin(1) for part in some])
    chained: list[Ints] = []
    for own in (rows[cell == number] for number in range(CELLS)):
        if len(own) > len(rows) - CELLS:  # nearly all are the same
            return rows
        if len(own):
            chained.append(_chain(features, own, random, before))
            before = int(chained[-1][-1])
    return np.concatenate(chained)


def _nearest_first(features: Floats, rows: Ints, before: int) -> Ints:
    """The rows, (rows,): first the nearest to `before`, then always the nearest that is left."""
    own = features[rows]
    left, place = _distances(own, own), int(_distances(features[[before]], own).argmin())
    found = [place]
    for _ in range(len(rows) - 1):
        left[:, place] = np.inf
        place = int(left[place].argmin())
        found.append(place)
    return np.asarray(rows[found])


def _distances(one: Floats, other: Floats) -> Floats:
    """Squared distances between rows, (one, other)."""
    return np.asarray((one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T)


def spread_numbers(count: int, random: np.random.Generator) -> Floats:
    """Random numbers, uniform on 0..1 each, that neighbours share out: (count,).

    From a random place on, of each 2, 4, 8, ... neighbours one number is in each of as many equal parts of 0..1: the
    sequence of van der Corput (1935), scrambled as Owen (1995) does.

    Example:
        >>> np.sort(spread_numbers(4, np.random.default_rng(0)) * 4 // 1)
        array([0., 1., 2., 3.])
    """
    levels, numbers = max(1, (count - 1).bit_length()), np.zeros(count)
    place = (np.arange(count) - random.integers(count)) % count
    for level in range(levels):
        half = place >> level
        swapped = random.integers(0, 2, (count >> (level + 1)) + 1)[half >> 1]
        numbers += ((half & 1) ^ swapped) / 2 ** (level + 1)
    return np.asarray(numbers + random.random(count) / 2**levels)
