"""Makes a plan, keeps it in its folder, continues it, and reads its candidates and labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from csg.errors import InputError
from csg.estimates.candidates import Candidates, Ints
from csg.estimates.choice import Order, draw_order
from csg.estimates.report import task_chances
from csg.estimates.spread import chain_of_alike
from csg.files import atomic_write, sha256
from csg.npz import DAMAGED, npz_bytes
from csg_serve.evaluate.budget.ask import AskedCandidates
from csg_serve.evaluate.budget.plan import CANDIDATES, PLAN, LabelItem, LabelPlan, PlannedImage


@dataclass(frozen=True)
class PlanFolder:
    """A plan with all that its folder holds, but the labels."""

    folder: Path
    """The folder."""
    plan: LabelPlan
    """What is asked."""
    asked: AskedCandidates
    """All candidates; indices of images are those of the plan."""
    order: Order
    """Their order."""

    def with_budget(self, budget: int) -> PlanFolder:
        """The plan with as many items; those that it has stay as they are, and none is taken away."""
        rows, had = self.order.rows[:budget], len(self.plan.items)
        if len(rows) <= had:
            return self
        inclusion = self.order.inclusion(len(rows))
        new = [self._item(int(row), float(inclusion[row])) for row in rows[had:]]
        items = (*(one.model_copy(update={"chance": float(inclusion[one.candidate])}) for one in self.plan.items), *new)
        plan = self.plan.model_copy(update={"items": items})
        return PlanFolder(self.folder, plan, self.asked, self.order)

    def _item(self, row: int, chance: float) -> LabelItem:
        point = None if self.asked.point is None else tuple(self.asked.point[row].tolist())
        return LabelItem(
            image=int(self.asked.image[row]),
            point=point,
            candidate=row,
            chance=chance,
            predicted=int(self.asked.candidates.predicted[row]),
        )

    def write(self) -> None:
        """Write the candidates, then the plan."""
        asked, found = self.asked, self.asked.candidates
        arrays: dict[str, np.ndarray] = {
            "size": found.size,
            "probabilities": found.probabilities.astype(np.float32),
            "predicted": found.predicted,
            "image": asked.image,
            "chances": self.order.chances,
            "keys": self.order.keys,
        }
        if asked.point is not None:
            arrays["point"] = asked.point
        if not (self.folder / CANDIDATES).exists():
            atomic_write(self.folder / CANDIDATES, npz_bytes(arrays))
        atomic_write(self.folder / PLAN, self.plan.model_dump_json(indent=1).encode() + b"\n")


def new_plan(folder: Path, plan: LabelPlan, asked: AskedCandidates) -> PlanFolder:
    """A plan without items; images that can't be read are left out of it."""
    kept = np.setdiff1d(np.arange(len(plan.images)), asked.unreadable)
    place = np.full(len(plan.images), -1)
    place[kept] = np.arange(len(kept))
    images: tuple[PlannedImage, ...] = tuple(plan.images[index] for index in kept)
    plan = plan.model_copy(update={"images": images, "unreadable": plan.unreadable + len(asked.unreadable)})
    order = draw_order(task_chances(asked.candidates, plan.task), plan.seed, chain_of_alike(asked.candidates))
    moved = AskedCandidates(asked.candidates, place[asked.image], asked.point, ())
    return PlanFolder(folder, plan, moved, order)


def open_plan(folder: Path, plan: LabelPlan) -> PlanFolder:
    """Read the candidates of a plan.

    Raises:
        InputError: their file is missing, damaged, or of another plan.
    """
    try:
        with np.load(folder / CANDIDATES, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        point: Ints | None = arrays.get("point")
        probabilities = arrays["probabilities"].astype(np.float64)
        found = Candidates(arrays["size"], probabilities, arrays["predicted"], sampled=point is not None)
        order = Order(arrays["chances"], arrays["keys"])
        opened = PlanFolder(folder, plan, AskedCandidates(found, arrays["image"], point, ()), order)
        same = [one.candidate for one in plan.items] == order.rows[: len(plan.items)].tolist()
        if not same or probabilities.shape != (len(order.keys), len(plan.classes)):
            raise ValueError
    except DAMAGED:
        what = f"{folder / CANDIDATES} is missing, damaged, or of another plan"
        raise InputError(what, "start a new evaluation in another folder (--out)") from None
    return opened


def check_images(plan: LabelPlan) -> None:
    """Check that the images to label are still those of the plan.

    Raises:
        InputError: one is gone, or has changed.
    """
    for index in sorted({item.image for item in plan.items}):
        image = plan.images[index]
        try:
            same = sha256(Path(image.image)) == image.sha256
        except OSError:
            raise InputError(f"the image {image.image} of the plan is gone", "put it back") from None
        if not same:
            raise InputError(f"the image {image.image} has changed since the plan was made", "put the old one back")
