"""Export 2.1 GiB of weights, and print the peak memory: `python -m tests.helpers.large_export PRECISION BUNDLE`."""

import json
import resource
import sys
from pathlib import Path

import torch
from torch import nn

from csg_export.export import export
from csg_export.options import ExportOptions
from tests.helpers.small_source import classifier

WIDTH = 23_740


class LargeNetwork(nn.Module):
    """2.1 GiB in one matrix, and three classes."""

    def __init__(self, width=WIDTH):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.large, self.last = (
            nn.Linear(3, width),
            nn.Linear(width, width, bias=False),
            nn.Linear(width, 3),
        )

    def forward(self, images):
        return self.last(self.large(self.first(images.float().mean((1, 2)) / 255)))


def peak_bytes():
    """Peak memory of this process so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(precision, bundle):
    options, classes = ExportOptions(precision), ("a", "b", "c")
    export(classifier(LargeNetwork(8), classes), options, Path(f"{bundle}-small"))
    base = peak_bytes()  # of the process with all its packages
    network = LargeNetwork()
    weights = sum(weight.numel() * weight.element_size() for weight in network.parameters())
    export(classifier(network, classes), options, Path(bundle))
    print(json.dumps({"weights": weights, "peak": peak_bytes() - base}))


if __name__ == "__main__":
    main(*sys.argv[1:])
