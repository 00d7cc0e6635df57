"""What else refers to a run: the comparison that it belongs to, and bundles that were exported from it."""

from __future__ import annotations

from pathlib import Path

from csg.bundle import BUNDLES, CARD
from csg.parsing import parse_json
from csg_train.runs.summary import RunSummary


def references(run: RunSummary) -> list[str]:
    """A sentence for each comparison and bundle that refers to a run; bundles are looked for in `bundles`."""
    found = []
    comparison = Path(run.path).resolve().parent.parent
    if (comparison / "plan.json").is_file():
        found.append(f"it belongs to the comparison {comparison.name}, which trains it again unless it has its figures")
    for card in sorted(BUNDLES.glob(f"*/{CARD}")):
        if _is_of(card, run):
            found.append(f"{card.parent} was exported from it, and does not need it")
    return found


def _is_of(card: Path, run: RunSummary) -> bool:
    try:
        provenance = parse_json(card.read_bytes())["provenance"]
        return bool(provenance["run"] == Path(run.path).resolve().name and provenance["seed"] == run.seed)
    except (OSError, ValueError, LookupError, TypeError):
        return False
