"""int8 graphs of a network, each closer to the float32 graph than the one before, made while they are asked for.

The first is the plain one. Then come remedies that cost nothing or little at inference, and then graphs with ever more
layers in float32: with each, the error has to be half as large, by as few layers as the search finds. The last is the
most accurate that was tried with at most half of the layers, if it is more accurate than those. Everything is measured
on the calibration images; whoever asks decides when a graph is good enough. The same images and weights give the same
graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto

from csg.console import log, progress_bar
from csg.provenance import Float32Layer, Int8Calibration
from csg_export.block_search import blocks_of, minimal_set
from csg_export.int8 import Int8Dialect, Int8Plan, plain_plan, quantise
from csg_export.int8_judge import Int8Judge, sample_of
from csg_export.int8_ranges import histogram_ranges, measured_ranges
from csg_export.int8_remedies import corrected_biases, equalised

JUDGED_IMAGES, RATED_IMAGES = 64, 16
"""Number of calibration images for the error of a graph, and for that of each layer."""
MAX_TRIES = 60
"""Number of graphs that the search for float32 layers makes at most, beside one for each layer."""
HALVINGS = 10
"""How often the error is halved by float32 layers, at most."""
MOST_FLOAT32 = 0.5
"""Share of the layers that may be float32: with more, the graph is hardly smaller or faster than a float one."""
ENOUGH, ENOUGH_FOR_SUMS = 0.9, 0.5
"""A remedy is kept if it leaves at most this share of the error; float32 sums cost time, and have to bring more."""


@dataclass(frozen=True)
class Int8Graph:
    """An int8 graph, and how it differs from the plain one."""

    model: ModelProto
    """The graph."""
    settings: Int8Calibration
    """For the model card, with the remedies and the layers that compute in float32."""
    layers: int
    """Number of layers of the graph."""


def int8_graphs(
    model: ModelProto,
    batches: Sequence[np.ndarray],
    settings: Int8Calibration,
    dialect: Int8Dialect,
    fixed_method: bool,
) -> Iterator[Int8Graph]:
    """The plain int8 graph, and repaired ones.

    Args:
        model: the float32 graph.
        batches: prepared calibration images, uint8 (B, H, W, 3).
        settings: the calibration method, and whether the first and the last layer stay float32.
        dialect: the kind of graph that the runtime takes.
        fixed_method: whether the user chose the calibration method, so that it stays.
    """
    plan, layers = plain_plan(model, batches, settings, dialect), len(blocks_of(model)) - 1
    plain = quantise(plan)
    yield Int8Graph(plain, settings, layers)
    remedied = _Remedies(plan, plain, batches, settings)
    remedied.try_all(fixed_method)
    plan, settings = remedied.plan, remedied.settings
    if settings.remedies or remedied.changed_method:
        yield Int8Graph(remedied.graph, settings, layers)
    search = _Float32Search(plan, remedied.judge, batches)
    for found in search.steps(remedied.error):
        float32 = tuple(sorted((search.layer(block) for block in found), key=lambda layer: -layer.error))
        graph = quantise(search.plan_with(found))
        yield Int8Graph(graph, settings.model_copy(update={"float32_layers": float32}), layers)


class _Remedies:
    """Tries one remedy after the other and keeps what helps.

    Args:
        plan: of the plain graph.
        graph: the plain int8 graph.
        batches: calibration images.
        settings: of the plain graph.
    """

    def __init__(self, plan: Int8Plan, graph: ModelProto, batches: Sequence[np.ndarray], settings: Int8Calibration):
        self.plan, self.graph, self.batches, self.settings = plan, graph, batches, settings
        self.samples = sample_of(batches, JUDGED_IMAGES)
        self.judge = Int8Judge(plan.model, self.samples)
        self.error = self.judge.error(graph)
        self.changed_method = False
        log(f"int8: error {_percent(self.error)} of the logits' variance on calibration images; trying remedies")

    def try_all(self, fixed_method: bool) -> None:
        """Try every remedy; another calibration method only if the user chose none."""
        if any(node.op_type == "Add" for node in self.plan.model.graph.node):
            self._try("sums in float32", replace(self.plan, float32_sums=True), ENOUGH_FOR_SUMS)
        if model := equalised(self.plan.model, self.samples):
            ranges = self._ranges(model)
            self._try("channels equalised", replace(self.plan, model=model, ranges=ranges))
        if not fixed_method:
            symmetric, operators = self.plan.dialect.symmetric, self.plan.operators
            found = histogram_ranges(self.plan.model, self.batches, symmetric, operators)
            for method, ranges in found.items():
                if method != self.settings.method and self._try(f"{method} ranges", replace(self.plan, ranges=ranges)):
                    self.settings, self.changed_method = self.settings.model_copy(update={"method": method}), True
        if biases := corrected_biases(self.plan, self.samples):
            self._try("biases corrected", replace(self.plan, biases=biases))

    def _ranges(self, model: ModelProto) -> object:
        return measured_ranges(
            model, self.batches, self.settings.method, self.plan.dialect.symmetric, self.plan.operators
        )

    def _try(self, name: str, plan: Int8Plan, enough: float = ENOUGH) -> bool:
        graph = quantise(plan)
        error = self.judge.error(graph)
        helps = error <= enough * self.error
        log(f"int8: {name}: error {_percent(error)}{', kept' if helps else ''}")
        if helps:
            self.plan, self.graph, self.error = plan, graph, error
            if not name.endswith("ranges"):
                self.settings = self.settings.model_copy(update={"remedies": (*self.settings.remedies, name)})
        return helps


class _Float32Search:
    """Finds few layers that, in float32, bring the error below a limit; remembers what it has measured."""

    def __init__(self, plan: Int8Plan, judge: Int8Judge, batches: Sequence[np.ndarray]):
        self.plan, self.judge = plan, judge
        self.blocks = blocks_of(plan.model)
        quantised = {node.name for node in plan.model.graph.node if node.op_type in plan.operators}
        quantised -= set(plan.excluded)
        candidates = [index for index, names in enumerate(self.blocks) if quantised & {*names}]
        self.errors: dict[frozenset[int], float] = {}
        rated = Int8Judge(plan.model, sample_of(batches, RATED_IMAGES))
        self.alone: dict[int, float] = {}
        with progress_bar("int8: error of each layer", len(candidates)) as advance:
            for block in candidates:
                others = frozenset(candidates) - {block}
                self.alone[block] = rated.error(quantise(self.plan_with(others)))
                advance(1)

    def plan_with(self, float32: frozenset[int]) -> Int8Plan:
        """The plan with these blocks in float32."""
        return replace(self.plan, float32_nodes=frozenset(name for block in float32 for name in self.blocks[block]))

    def layer(self, block: int) -> Float32Layer:
        """The block's layer, for the model card."""
        return Float32Layer(name=self.blocks[block][0], error=self.alone[block])

    def steps(self, error: float) -> Iterator[frozenset[int]]:
        """Sets of blocks, each with half the error of the one before; at last the most accurate that was tried.

        Args:
            error: without any block in float32.
        """
        most = len(self.alone) * MOST_FLOAT32
        for _ in range(HALVINGS):
            found = self.within(error / 2)
            if found is None or len(found) > most:
                break
            error = self.errors[found]
            yield found
        few = (float32 for float32 in self.errors if len(float32) <= most)
        last = min(few, key=lambda float32: (self.errors[float32], len(float32), sorted(float32)))
        if self.errors[last] < error:
            yield last

    def within(self, limit: float) -> frozenset[int] | None:
        """The smallest set of blocks that was found within the limit; None if none was."""
        worst_first = sorted(self.alone, key=lambda block: (-self.alone[block], block))
        minimal_set(worst_first, lambda float32: self._error(float32) <= limit)
        return min(
            (float32 for float32, error in self.errors.items() if error <= limit),
            key=lambda float32: (len(float32), self.errors[float32], sorted(float32)),
            default=None,
        )

    def _error(self, float32: frozenset[int]) -> float:
        """The error with these blocks in float32; infinite after the last try, so that the search leaves it at that."""
        if float32 not in self.errors:
            if len(self.errors) == MAX_TRIES:
                return float("inf")
            self.errors[float32] = self.judge.error(quantise(self.plan_with(float32)))
            log(
                f"int8: {len(float32)} of {len(self.alone)} layers in float32: error {_percent(self.errors[float32])} "
                f"(try {len(self.errors)} of at most {MAX_TRIES})"
            )
        return self.errors[float32]


def _percent(error: float) -> str:
    return f"{100 * error:.2g} %"
