"""Classify the images of a folder with a served model: file, class, probability.

python examples/predict.py localhost:8001 photos
"""

from __future__ import annotations

import sys
from pathlib import Path

from csg_serve import Client


def main(server: str, folder: str) -> None:
    client = Client(server)
    classes = client.card().classes
    files = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    for file, probabilities in zip(files, client.predict(files), strict=True):
        best = int(probabilities.argmax())
        print(f"{file.name}\t{classes[best]}\t{probabilities[best]:.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
