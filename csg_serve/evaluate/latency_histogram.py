"""A histogram of latencies that takes constant memory."""

from __future__ import annotations

import math
from collections import Counter

BIN_RATIO = 1.02
"""Upper edge of a bin over its lower edge; quantiles are exact to one percent."""


class LatencyHistogram:
    """Milliseconds in bins of equal width on a logarithmic scale.

    Attributes:
        bins: number of values by bin; bin b holds values in [BIN_RATIO**b, BIN_RATIO**(b + 1)).
    """

    def __init__(self) -> None:
        self.bins: Counter[int] = Counter()

    def add(self, ms: float) -> None:
        """Count one value; values below a microsecond count as one."""
        self.bins[math.floor(math.log(max(ms, 0.001), BIN_RATIO))] += 1

    def __len__(self) -> int:
        return self.bins.total()

    def quantile(self, share: float) -> float:
        """Milliseconds that this share of the values does not exceed, exact to one percent; NaN without values."""
        left = share * len(self)
        for index in sorted(self.bins):
            left -= self.bins[index]
            if left <= 0:
                return float(BIN_RATIO ** (index + 0.5))
        return float("nan")

    def percentiles(self) -> dict[str, float]:
        """p50, p90 and p99 in milliseconds."""
        return {f"p{percent}": round(self.quantile(percent / 100), 3) for percent in (50, 90, 99)}
