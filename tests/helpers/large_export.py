"""Export weights in files, and print the peak memory: `python -m tests.helpers.large_export PRECISION WIDTH BUNDLE`."""

import json
import resource
import sys
from pathlib import Path

import torch
from torch import nn

from csg_export import external_weights
from csg_export.export import export
from csg_export.options import ExportOptions
from tests.helpers.small_source import classifier


class LargeNetwork(nn.Module):
    """One matrix of width x width weights, and three classes."""

    def __init__(self, width):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, width), nn.Linear(width, 3)
        self.large = nn.utils.skip_init(nn.Linear, width, width, bias=False)  # random numbers take seconds
        with torch.no_grad():
            self.large.weight.copy_(torch.randn(width) / width**0.5)

    def forward(self, images):
        return self.last(self.large(self.first(images.float().mean((1, 2)) / 255)))


def peak_bytes():
    """Peak memory of this process so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(precision, width, bundle):
    options, classes = ExportOptions(precision), ("a", "b", "c")
    export(classifier(LargeNetwork(8), classes), options, Path(f"{bundle}-small"))
    base = peak_bytes()  # of the process with all its packages
    network = LargeNetwork(int(width))
    if (size := network.large.weight.nbytes) < external_weights.MAX_WEIGHT_BYTES:
        external_weights.MAX_WEIGHT_BYTES = size
    weights = sum(weight.numel() * weight.element_size() for weight in network.parameters())
    export(classifier(network, classes), options, Path(bundle))
    print(json.dumps({"weights": weights, "peak": peak_bytes() - base}))


if __name__ == "__main__":
    main(*sys.argv[1:])
