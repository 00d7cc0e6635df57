"""BentoML: one worker a core, or adaptive batching.

https://docs.bentoml.com/en/latest/build-with-bentoml/parallelize-requests.html: workers, for multi-core CPUs.
https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html: batchable, max_batch_size, max_latency_ms.
"""

from __future__ import annotations

import os

import bentoml
from PIL.Image import Image

from benchmarks.peers.model import MAX_BATCH, WORKERS, Classifier
from csg.images import prepare

BATCHED = os.environ.get("PEER_BATCHED") == "1"


@bentoml.service(workers=WORKERS, traffic={"timeout": 60})
class Peer:
    """A JPEG's class."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    def _classes(self, images: list[Image]) -> list[int]:
        return self.classifier.classes([prepare(image.convert("RGB"), self.classifier.spec) for image in images])

    if BATCHED:

        @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=60_000)
        def classify(self, images: list[Image]) -> list[int]:
            return self._classes(images)

    else:

        @bentoml.api
        def classify(self, images: Image) -> int:
            return self._classes([images])[0]
