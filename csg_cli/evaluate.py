"""`csg evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from csg.errors import UsageError
from csg_cli import completion
from csg_cli.options import ConnectionOptions, Json, Model, Tile, examples, grouped

if TYPE_CHECKING:
    from csg_serve.evaluate.against import Against
    from csg_serve.evaluate.budget.command import BudgetOptions
    from csg_serve.evaluate.session import EvaluateOptions

EVALUATE_EXAMPLES = examples(
    "csg evaluate --data photos/ --server gpu-box:8001 --report",
    "csg evaluate bundles/pacs-csg-1 --data unlabelled/ --budget 100",
)


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What is evaluated, and what is written."""

    data: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Real images: class folders, a list file, or 'digits'; for segmenters folders with images/ and "
            "labels/, Cityscapes' tree, a list file, or 'digit-scenes'. Repeatable.",
            show_default="the task's embedded dataset",
        ),
    ] = None
    labels: Annotated[
        Optional[str],
        typer.Option(
            help="Segmenters: label set of the masks, a name or a YAML file.",
            show_default="labels.yaml in the folder, or the model's",
            autocompletion=completion.label_sets,
        ),
    ] = None
    tile: Tile = None
    mirrored: Annotated[
        bool,
        typer.Option(
            "--mirrored",
            help="Also send the mirror image of each, and show the figures of both together beside the plain ones; "
            "segmenters need their logits (`csg export --logits`).",
        ),
    ] = False
    out: Annotated[
        Optional[Path],
        typer.Option(help="Folder of the evaluation.", show_default="evaluations/<model>-<version or bundle>-<n>"),
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the newest unfinished evaluation, or the one at --out. --data names images that moved.",
        ),
    ] = False
    ordered: Annotated[
        bool, typer.Option("--ordered/--unordered", help="Take answers in the order of the images, or as they arrive.")
    ] = False
    report: Annotated[
        bool, typer.Option("--report", help="Write a self-contained HTML page to PAGE or <folder>/report.html.")
    ] = False
    words: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="[BUNDLE] [PAGE]",
            help="A bundle to evaluate in this process, without a server; where --report writes the page.",
            show_default="the model of --server; <folder>/report.html",
            autocompletion=completion.bundles,
        ),
    ] = None
    on_unreadable: Annotated[
        Literal["fail", "skip"],
        typer.Option(help="What to do with an image that can't be read: stop, or skip it and count it."),
    ] = "fail"

    def evaluate_options(self, connection: ConnectionOptions, model: str | None) -> EvaluateOptions:
        """The options as csg_serve takes them.

        Raises:
            UsageError: an argument is neither a bundle nor the page.
            UsageError, InputError: as `ConnectionOptions.source`.
        """
        from csg_serve.evaluate.session import EvaluateOptions

        source, pages = connection.source(self.words or [])
        if pages[1:] or (pages and not self.report):
            raise UsageError(
                f"unexpected argument {pages[-1]!r}",
                "a bundle is a folder with card.json, a page is written with --report, images are given by --data",
            )
        return EvaluateOptions(
            source=source,
            model=model,
            data=tuple(self.data or ()),
            labels=self.labels,
            tile=self.tile,
            mirrored=self.mirrored,
            out=self.out,
            on_unreadable=self.on_unreadable,
            ordered=self.ordered,
            resume=self.resume,
            report=self.report,
            page=Path(pages[0]) if pages else None,
        )


AGAINST = "Comparison"


@dataclass(frozen=True, kw_only=True)
class AgainstOptions:
    """What the model is compared with."""

    against: Annotated[
        Optional[str],
        typer.Option(
            metavar="EVALUATION|BUNDLE|MODEL",
            help="Show how far apart this model and another one are, and on which images: the folder of an evaluation "
            "of the same images; or a bundle or another model on the server, which is evaluated first.",
            rich_help_panel=AGAINST,
        ),
    ] = None
    require: Annotated[
        Optional[Literal["not-worse", "better"]],
        typer.Option(
            help="Exit code 5 unless the 95 % interval of the difference of the mean class accuracy or mIoU is above 0 "
            "(better) or above -MARGIN (not-worse).",
            rich_help_panel=AGAINST,
        ),
    ] = None
    margin: Annotated[
        Optional[float],
        typer.Option(
            help="--require not-worse: the loss that does not matter, in percentage points.",
            min=0.001,
            max=100,
            show_default="1",
            rich_help_panel=AGAINST,
        ),
    ] = None

    def options(self) -> Against | None:
        """The options as csg_serve takes them.

        Raises:
            UsageError: an option needs another one.
        """
        from csg_serve.evaluate.against import MARGIN, Against

        if self.require and not self.against:
            raise UsageError("--require needs something to compare with", "name another model with --against")
        if self.margin is not None and self.require != "not-worse":
            raise UsageError("--margin is the loss that --require not-worse allows", "add it, or leave out --margin")
        margin = MARGIN if self.margin is None else self.margin / 100
        return Against(self.against, self.require, margin) if self.against else None


FEW = "Few labels"


@dataclass(frozen=True, kw_only=True)
class FewLabelsOptions:
    """An evaluation on images without labels, of which some are labelled now."""

    budget: Annotated[
        Optional[int],
        typer.Option(
            metavar="LABELS",
            help="The images of --data have no labels: choose so many (of segmenters, points of images), label them in "
            "a page, and estimate the scores. With --out and a larger budget, an earlier list is continued.",
            min=1,
            rich_help_panel=FEW,
        ),
    ] = None
    half_width: Annotated[
        Optional[float],
        typer.Option(
            help="Stop labelling when the 95 % interval of the mean class accuracy or mIoU is as short as this much to "
            "each side, such as 0.02.",
            min=0.0001,
            max=0.5,
            rich_help_panel=FEW,
        ),
    ] = None
    person: Annotated[
        str, typer.Option(help="Who labels; several people label in one folder.", rich_help_panel=FEW)
    ] = "me"
    label: Annotated[
        bool,
        typer.Option(
            "--label/--no-label",
            help="Label in a page; or only write the list, and estimate from the labels that are there.",
            rich_help_panel=FEW,
        ),
    ] = True
    browser: Annotated[
        bool,
        typer.Option(
            "--open/--no-open", help="Open the page in a browser, or only print its address.", rich_help_panel=FEW
        ),
    ] = True

    def budget_options(
        self, evaluation: EvaluationOptions, connection: ConnectionOptions, model: str | None
    ) -> BudgetOptions:
        """The options as csg_serve takes them.

        Raises:
            UsageError: an option is for images with labels.
            UsageError, InputError: as `EvaluationOptions.evaluate_options`.
        """
        from csg_serve.evaluate.budget.command import BudgetOptions, refuse_with_budget

        assert self.budget is not None
        given = {"--labels": bool(evaluation.labels), "--mirrored": evaluation.mirrored, "--resume": evaluation.resume}
        refuse_with_budget(given)
        same = evaluation.evaluate_options(connection, model)
        source = connection.source(evaluation.words or [])[0]
        return BudgetOptions(
            source=source,
            model=model,
            data=same.data,
            tile=same.tile,
            budget=self.budget,
            half_width=self.half_width,
            person=self.person,
            label=("open" if self.browser else "print") if self.label else "no",
            out=same.out,
            on_unreadable=same.on_unreadable,
            report=same.report,
            page=same.page,
        )


@grouped
def evaluate(
    *,
    connection: ConnectionOptions,
    model: Model = None,
    evaluation: EvaluationOptions,
    against: AgainstOptions,
    few: FewLabelsOptions,
    as_json: Json = False,
) -> None:
    """Evaluate a model on real images, through its server or from its bundle.

    They are labelled; or some of them are labelled now (--budget). An interrupted evaluation can be resumed.
    """
    if few.budget is not None:
        from csg_serve.evaluate.budget.command import budget_command, refuse_with_budget

        refuse_with_budget({"--against": against.against is not None, "--require": against.require is not None})
        budget_command(few.budget_options(evaluation, connection, model), as_json)
        return
    if few.half_width is not None:
        raise UsageError("--half-width is for images that are labelled now", "give --budget too, or leave it out")
    from csg_serve.evaluate.command import evaluate_command

    options = evaluation.evaluate_options(connection, model)
    evaluate_command(replace(options, against=against.options()), as_json)
