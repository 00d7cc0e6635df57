"""The tables of `csg data check`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from csg.console import show_key_values, show_table
from csg_train.data.findings import Findings, MaskValue

SHOWN_KINDS = 4
"""Sizes and formats that are listed."""


def show_findings(sets: Sequence[tuple[str, Findings]]) -> None:
    """Print tables of sets of images.

    Args:
        sets: what each set is for, and its findings.
    """
    for role, found in sets:
        show_key_values(f"{found.name} ({role})", _overview(found))
    if sets[0][1].classes:
        _show_classes(sets)
    for role, found in sets:
        if found.values:
            rows = [_value_row(value) for value in found.values]
            columns = ("class", "value", "% of the pixels", "masks")
            show_table(f"masks of {found.name} ({role}), label set {found.label_set}", columns, rows)


def _overview(found: Findings) -> dict[str, str]:
    rows = {"images": f"{found.images:,}"}
    if len(found.sources) > 1:
        rows |= {f"  {number}: {source.name}": f"{source.images:,}" for number, source in enumerate(found.sources, 1)}
    rows["sizes"] = _sizes(found.sizes)
    rows["formats"] = _counted(found.formats)
    if found.label_set:
        rows["masks"] = _counted(found.mask_formats)
        rows["ignored pixels"] = "-" if found.ignored is None else f"{100 * found.ignored:.1f} %"
    rows["can't be used"] = f"{found.unusable.count:,}"
    copies = found.duplicates
    details = [f"{copies.other_label:,} with another {'mask' if found.label_set else 'class'}"] * bool(
        copies.other_label
    )
    details += [f"{copies.between_sources:,} between sources"] * bool(copies.between_sources)
    rows["duplicates"] = f"{copies.count:,}" + (f" ({', '.join(details)})" if details else "")
    rows |= {f"note {number}": note for number, note in enumerate(found.notes, 1)}
    rows["fingerprint"] = found.fingerprint[:12]
    return rows


def _sizes(sizes: dict[str, int]) -> str:
    """The sizes of images; of many the smallest, the largest and the most frequent one."""
    if len(sizes) <= SHOWN_KINDS:
        return _counted(sizes)
    by_area = sorted(sizes, key=lambda size: math.prod(map(int, size.split(" x "))))
    often = next(iter(sizes))
    return f"{len(sizes):,} from {by_area[0]} to {by_area[-1]}, most often {often} ({sizes[often]:,})"


def _counted(counts: dict[str, int]) -> str:
    """The most frequent kinds with their counts.

    Example:
        >>> _counted({"JPEG RGB": 900, "JPEG L": 12})
        'JPEG RGB (900), JPEG L (12)'
    """
    if not counts:
        return "-"
    shown = [f"{kind} ({count:,})" for kind, count in list(counts.items())[:SHOWN_KINDS]]
    more = len(counts) - SHOWN_KINDS
    return ", ".join(shown) + (f", and {more:,} others" if more > 0 else "")


def _show_classes(sets: Sequence[tuple[str, Findings]]) -> None:
    columns = ["class"]
    for role, found in sets:
        several = len(found.sources) > 1
        columns += [f"{role} {number}" for number in range(1, len(found.sources) + 1)] if several else [role]
    names = sets[0][1].classes
    rows = [[name, *(f"{n:,}" for _, found in sets for n in found.classes[name])] for name in names]
    show_table("images of each class", columns, rows)


def _value_row(row: MaskValue) -> list[str]:
    name = (
        row.class_name
        if row.class_name is not None
        else {"ignored": "(ignored)"}.get(row.kind, "(not in the label set)")
    )
    value = "-" if row.value is None else str(row.value)
    return [name, value, f"{100 * row.share:.2f}", f"{row.masks:,}"]
