"""Classify the images of a folder with a served model: file, class, probability.

python examples/predict.py localhost:8001 photos
"""

from __future__ import annotations

import sys
from pathlib import Path

from csg_serve import Client


def main(server: str, folder: str) -> None:
    for answer in Client(server).predict_iter(folder):
        print(f"{Path(answer.name).name}\t{answer.label}\t{answer.probability:.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
