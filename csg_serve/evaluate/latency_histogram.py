"""How long requests took, kept as a histogram: as many as there are, in the same memory."""

from __future__ import annotations

import math
from collections import Counter

STEP = 1.02  # a bin's upper edge over its lower one: quantiles are within one percent


class Latencies:
    """Milliseconds, in bins of equal width on a logarithmic scale."""

    def __init__(self) -> None:
        self.bins: Counter[int] = Counter()

    def add(self, ms: float) -> None:
        """Count one."""
        self.bins[math.floor(math.log(max(ms, 0.001), STEP))] += 1

    def __len__(self) -> int:
        return self.bins.total()

    def quantile(self, share: float) -> float:
        """The milliseconds that this share did not exceed, to one percent; NaN of none."""
        left = share * len(self)
        for place in sorted(self.bins):
            left -= self.bins[place]
            if left <= 0:
                return float(STEP ** (place + 0.5))
        return float("nan")

    def percentiles(self) -> dict[str, float]:
        """p50, p90 and p99."""
        return {f"p{percent}": round(self.quantile(percent / 100), 3) for percent in (50, 90, 99)}
