"""What every peer serves: the same ONNX file, JPEG in, index of the class out, resized and cropped by csg itself.

A file is decoded as the documents of all these servers do it: with Pillow, to RGB, in full. With PEER_SCALED=1 it is
decoded by csg too, at a reduced scale where the card says so.

Other settings are environment variables as well: PEER_MODEL (the ONNX file), PEER_THREADS (per session), PEER_SPIN
(whether threads spin while they wait, as is ONNX Runtime's default), PEER_WORKERS (processes), PEER_PORT.
"""

from __future__ import annotations

import io
import os

import numpy as np
import onnxruntime as ort
from PIL import Image

from csg.card import ClassificationInput, parse_card
from csg.images import load, prepare

PORT, WORKERS = int(os.environ.get("PEER_PORT", 0)), int(os.environ.get("PEER_WORKERS", 1))
MAX_BATCH = 32


class Classifier:
    """An ONNX Runtime session, and the input described by the model card."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ["PEER_THREADS"])
        options.add_session_config_entry("session.intra_op.allow_spinning", os.environ["PEER_SPIN"])
        model = os.environ["PEER_MODEL"]
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        card = parse_card(self.session.get_modelmeta().custom_metadata_map["csg_card"], model)
        assert isinstance(card.input, ClassificationInput)
        self.spec = card.input

    def prepare(self, jpeg: bytes) -> np.ndarray:
        """The pixels of one file, uint8 (H, W, 3)."""
        if os.environ.get("PEER_SCALED") == "1":
            return load(jpeg, self.spec)
        return prepare(Image.open(io.BytesIO(jpeg)).convert("RGB"), self.spec)

    def classes(self, images: list[np.ndarray]) -> list[int]:
        """The class of each image, from one run of the graph."""
        logits = self.session.run(None, {self.spec.name: np.stack(images)})[0]
        return [int(index) for index in logits.argmax(1)]
