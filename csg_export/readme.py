"""README.md of a bundle: the model card for people, which Hugging Face shows.

Names of classes, data and runs come from users: `escaped` shows them as they are, whatever Markdown would make of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import csg
from csg.card import ClassificationInput, ModelCard
from csg.errors import printable
from csg.provenance import PretrainedWeights
from csg_export.intervals import Interval
from csg_export.readme_metadata import front_matter, measured, scores_of
from csg_export.readme_snippets import classification_snippet, segmentation_snippet

MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+!|~&$@:])")
"""Characters that Markdown or HTML may read as markup inside a line."""
SHOWN_CLASSES = 50
"""Classes that the text lists; labels.txt has all."""


@dataclass(frozen=True)
class ReadmeFacts:
    """What a README.md says beside what the card holds."""

    trained_on: str
    """What the network was trained on, as a sentence without its full stop."""
    training_data: tuple[str, ...] = ()
    """Names of the sources of the training images."""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """95 % intervals of the student's scores, by field of the evaluation."""
    licence: str | None = None
    """The model's licence by Hugging Face's name; None: nobody has stated one."""


def readme(card: ModelCard, facts: ReadmeFacts) -> str:
    """The content of README.md.

    Args:
        card: the model card.
        facts: what else is to be said.
    """
    sections = {
        card.name: _summary(card, facts),
        "Intended use": _intended_use(card),
        "Limits": _limits(card, facts),
        "Results": _results(card, facts),
        "Classes": _classes(card),
        "Input": _input(card),
        "How to run it": _how_to_run(card),
        "Licence": _licence(card, facts),
        "Origin": _origin(card),
    }
    heads = ["# ", *["## "] * (len(sections) - 1)]
    body = "\n\n".join(f"{head}{title}\n\n{text}" for head, (title, text) in zip(heads, sections.items(), strict=True))
    matter = front_matter(card, facts.intervals, licence=facts.licence, training_data=facts.training_data)
    return f"{matter}\n{body}\n"


def escaped(text: str) -> str:
    """A text that Markdown shows as it is, on one line.

    Example:
        >>> escaped("a|b <script>")
        'a\\\\|b \\\\<script\\\\>'
    """
    return MARKUP.sub(r"\\\1", printable(text))


def _summary(card: ModelCard, facts: ReadmeFacts) -> str:
    what = {
        "classification": "An image classifier: it names one of",
        "segmentation": "A semantic segmenter: it gives each pixel one of",
    }[card.task]
    origin = card.provenance
    return (
        f"{what} {len(card.classes)} classes. The network is {escaped(origin.backbone)}, "
        f"trained with the method {escaped(origin.method)}. {escaped(facts.trained_on)}. "
        f"The file is an ONNX graph in {card.precision}, with the normalisation of the pixels inside."
    )


def _intended_use(card: ModelCard) -> str:
    images = "one of the classes below" if card.task == "classification" else "scenes made of the classes below"
    return (
        f"Photographs that show {images}, like those in the results. "
        "Measure it on images of your own before you rely on it: `csg evaluate` gives the scores with intervals."
    )


def _limits(card: ModelCard, facts: ReadmeFacts) -> str:
    lines = [f"{escaped(facts.trained_on)}; photographs differ from it."]
    if card.evaluations:
        names = {escaped(one.dataset): one.images for one in card.evaluations}
        sets = " and ".join(f"{count} real images ({name})" for name, count in names.items())
        lines.append(f"Measured on {sets} alone.")
    else:
        lines.append("Its scores on real images were not measured: what it is worth on photographs is not known.")
    lines += [
        "Not measured: other cameras, places, weather and light; groups of people; how well the probabilities are "
        "calibrated; images made to mislead it.",
        "It has no answer for what is none of its classes: it names one of them all the same.",
        f"The exported graph is not exactly the trained network: {_parity(card)}.",
        f"Precision: {escaped(card.precision_note)}.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _parity(card: ModelCard) -> str:
    parity = card.parity
    unit = "images" if card.task == "classification" else "pixels"
    return (
        f"on {parity.images} images ({escaped(parity.source)}) they agree in {parity.agreement:.2%} of the {unit}, and "
        f"no logit differs by more than {parity.max_abs_diff:.2g}"
    )


def _results(card: ModelCard, facts: ReadmeFacts) -> str:
    if not card.evaluations:
        return "Not measured on real images."
    rows = [
        (escaped(one.dataset), measured(one), score.name, f"{score.value:.2%}", _interval(score.interval))
        for one in card.evaluations
        for score in scores_of(one, facts.intervals)
    ]
    table = _table(("images", "measured", "score", "value", "95 % interval"), rows)
    return f"{table}\n\nThe intervals are those of the images: another sample of the same kind may differ by as much."


def _interval(interval: Interval | None) -> str:
    return f"{interval[0]:.2%} to {interval[1]:.2%}" if interval else "not known"


def _classes(card: ModelCard) -> str:
    shown = card.classes[:SHOWN_CLASSES]
    colours = card.colours[:SHOWN_CLASSES]
    columns = ("number", "class", "colour (RGB)") if colours else ("number", "class")
    rows: list[tuple[str, ...]] = [(str(index), escaped(name)) for index, name in enumerate(shown)]
    if colours:
        rows = [(*row, ", ".join(map(str, colour))) for row, colour in zip(rows, colours, strict=True)]
    left = len(card.classes) - len(shown)
    more = f"\n\nand {left} more: `labels.txt` has all, one a line, in the order of the outputs." if left else ""
    return _table(columns, rows) + more


def _input(card: ModelCard) -> str:
    spec = card.input
    if isinstance(spec, ClassificationInput):
        size = f"(batch, {spec.height}, {spec.width}, 3)"
        how = f"the shorter side is resized to {spec.resize_shorter_side} pixels and the centre is cropped"
    else:
        size = f"(batch, {spec.height or 'height'}, {spec.width or 'width'}, 3)"
        shorter = spec.resize_shorter_side
        resized = f"the shorter side is resized to {shorter} pixels, and " if shorter else ""
        how = f"{resized}the image is padded at the right and the bottom " + (
            "to that size" if spec.height else "to multiples of 8"
        )
    outputs = "\n".join(
        f"- `{one.name}`: {one.dtype}, {tuple(one.shape)} (-1: any): {escaped(one.meaning)}" for one in card.outputs
    )
    return (
        f"`{spec.name}`: RGB pixels from 0 to 255, uint8, {size}. From an image: {how}, bilinear with antialiasing. "
        f"Outputs:\n\n{outputs}"
    )


def _how_to_run(card: ModelCard) -> str:
    snippet = classification_snippet if card.task == "classification" else segmentation_snippet
    return f"""`FOLDER` is the folder of this file. csg {csg.__version__} or later comes from its own repository or
wheel: the package `csg` on PyPI is another project.

In one process:

```sh
csg predict FOLDER photo.jpg
```

On a Triton server:

```sh
csg deploy FOLDER
csg serve --detach
csg predict photo.jpg --server localhost:8001
```

In Python, with onnxruntime, numpy and pillow alone, in this folder:

```python
{snippet(card)}```"""


def _licence(card: ModelCard, facts: ReadmeFacts) -> str:
    own = f"`{facts.licence}`, as its owner states" if facts.licence else "its owner has stated none"
    return (
        f"- This model: {own}.\n"
        f"- The pretrained weights that it started from: {_weights(card.weights)}.\n"
        "- csg, the program, is Apache-2.0."
    )


def _weights(weights: PretrainedWeights | None) -> str:
    if weights is None:
        return "not known, nor is their licence: the training recorded nothing of them"
    if weights.name == "none":
        return f"none, {escaped(weights.note)}"
    address = f" (from {escaped(weights.source)})" if weights.source else ""
    return f"{escaped(weights.headline)}{address}. Their terms may apply to this model too"


def _origin(card: ModelCard) -> str:
    origin = card.provenance
    rows = {
        "run": escaped(origin.run),
        "recipe": f"{escaped(origin.recipe)}, SHA-256 of its settings {escaped(origin.recipe_digest)[:16]}",
        "steps, seed": f"{origin.steps}, {origin.seed}",
        "fingerprint of the training images": escaped(origin.data_fingerprint)[:16],
        "versions": escaped(", ".join(f"{name} {version}" for name, version in origin.versions.items())),
    }
    return _table(("", ""), list(rows.items())) + "\n\n`card.json` holds all of this for programs."


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
