"""How to run a bundle's graph with ONNX Runtime alone: the Python of README.md, which a test runs."""

from __future__ import annotations

from string import Template

from csg.card import ClassificationInput, ModelCard, SegmentationInput

OPEN = """from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

labels = Path("labels.txt").read_text("utf-8").splitlines()
session = onnxruntime.InferenceSession("model.onnx")
image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
"""
CLASSIFICATION = Template("""
scale = min(image.size) / $shorter
width, height = $width * scale, $height * scale  # of the part that is kept
left, top = (image.width - width) / 2, (image.height - height) / 2
box = (left, top, min(left + width, image.width), min(top + height, image.height))
pixels = np.asarray(image.resize(($width, $height), Image.Resampling.BILINEAR, box=box))

logits = session.run(["$output"], {"$input": pixels[None]})[0][0]
probabilities = np.exp(logits - logits.max())
probabilities /= probabilities.sum()
for index in np.argsort(-probabilities)[:5]:
    print(f"{probabilities[index]:.4f} {labels[index]}")
""")
SEGMENTATION = Template("""
scale = $scale
width, height = (max(1, round(side * scale)) for side in image.size)
padded = Image.new("RGB", ($padded), $colour)
padded.paste(image.resize((width, height), Image.Resampling.BILINEAR), (0, 0))

label_map = session.run(["$output"], {"$input": np.asarray(padded)[None]})[0][0]
label_map = Image.fromarray(label_map[:height, :width]).resize(image.size, Image.Resampling.NEAREST)
for index, count in zip(*np.unique(label_map, return_counts=True)):
    print(f"{count / (image.width * image.height):.4f} {labels[index]}")
""")


def classification_snippet(card: ModelCard) -> str:
    """A program that prints the five most probable classes of photo.jpg with their probabilities."""
    spec = card.input
    assert isinstance(spec, ClassificationInput)
    return OPEN + CLASSIFICATION.substitute(
        shorter=spec.resize_shorter_side,
        width=spec.width,
        height=spec.height,
        input=spec.name,
        output=card.outputs[0].name,
    )


def segmentation_snippet(card: ModelCard) -> str:
    """A program that prints the classes of photo.jpg with the share of the pixels that each has."""
    spec = card.input
    assert isinstance(spec, SegmentationInput)
    scale = f"{spec.resize_shorter_side} / min(image.size)" if spec.resize_shorter_side else "1.0"
    padded = "-(-width // 8) * 8, -(-height // 8) * 8"
    if spec.width and spec.height:
        padded = f"{spec.width}, {spec.height}"
        scale = f"min({scale}, {spec.width} / image.width, {spec.height} / image.height)"
    return OPEN + SEGMENTATION.substitute(
        scale=scale, padded=padded, colour=tuple(spec.pad_colour), input=spec.name, output=card.outputs[0].name
    )
