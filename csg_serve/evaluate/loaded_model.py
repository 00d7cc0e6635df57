"""A bundle that is open in this process: it predicts and is evaluated without a server."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from csg_serve.client.bundle_model import open_bundle
from csg_serve.client.kept_model import KeptModel
from csg_serve.client.synchronous import SynchronousModel
from csg_serve.evaluate.command import evaluated
from csg_serve.evaluate.records import ClassificationResult, SegmentationResult
from csg_serve.evaluate.session import EvaluateOptions


class LoadedModel(SynchronousModel):
    """An open bundle.

    Args:
        path: folder of the bundle.

    Example:
        >>> model = csg.load("bundles/digits")
        >>> model.predict("seven.png").label
        '7'
        >>> model.evaluate("photos/").accuracy
        0.93
    """

    def __init__(self, path: Path):
        super().__init__(lambda: KeptModel(partial(open_bundle, path)))
        self.path = path

    def evaluate(
        self,
        data: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
        *,
        labels: str | None = None,
        report: bool = False,
        out: str | os.PathLike[str] | None = None,
    ) -> ClassificationResult | SegmentationResult:
        """Measure the model on labelled real images; `csg.evaluate` has more options.

        Args:
            data: class folders or a list file; of a segmenter folders with images/ and labels/; several are joined.
                None: the embedded dataset of the model's task.
            labels: of a segmenter: label set of the masks; None: the model's own.
            report: write an HTML page, report.html in the folder of the evaluation.
            out: folder of the evaluation; None: a new one in evaluations/.

        Returns:
            the figures, with intervals, and the `folder` that keeps them.

        Raises:
            CsgError: the data can't be used.
        """
        sources = [data] if isinstance(data, str | os.PathLike) else data or ()
        options = EvaluateOptions(
            source=self.path,
            data=tuple(os.fspath(one) for one in sources),
            labels=labels,
            report=report,
            out=Path(out) if out else None,
        )
        return evaluated(options)

    def __repr__(self) -> str:
        card = self.card()
        return f"LoadedModel('{self.path}': {card.task}, {len(card.classes)} classes, {card.precision})"
