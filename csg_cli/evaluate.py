"""The commands that ask a model: evaluate, predict, bench."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from csg.errors import InputError, UsageError
from csg_cli import completion
from csg_cli.options import ConnectionOptions, Json, Model, Tile, examples, grouped

if TYPE_CHECKING:
    from csg_serve.bench.results import BenchOptions
    from csg_serve.client.endpoints import Servers
    from csg_serve.evaluate.against import Against
    from csg_serve.evaluate.budget.command import BudgetOptions
    from csg_serve.evaluate.session import EvaluateOptions

EVALUATE_EXAMPLES = examples(
    "csg evaluate --data photos/ --server gpu-box:8001 --report",
    "csg evaluate bundles/pacs-csg-1 --data unlabelled/ --budget 100",
)
PREDICT_EXAMPLES = examples(
    "csg predict bundles/pacs-csg-1 photos/ --top 5 --format csv",
    "csg predict --server gpu-box:8001 a.jpg clip.mp4 --every 2",
)
BENCH_EXAMPLES = examples("csg bench --concurrency 1,8", "csg bench --scenario server --latency-ms 50 --accuracy")


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


@dataclass(frozen=True, kw_only=True)
class PredictionOptions:
    """How images are predicted, and what is written."""

    top: Annotated[
        Optional[int],
        typer.Option(help="Classifiers: how many classes to give, the most probable first.", show_default="1", min=1),
    ] = None
    form: Annotated[
        Literal["text", "csv", "jsonl"],
        typer.Option("--format", help="Rows on standard output: lines for people, CSV, or JSON Lines."),
    ] = "text"
    out: Annotated[
        Optional[Path], typer.Option(help="Segmenters: folder for masks and overlays.", show_default="predictions")
    ] = None
    tile: Tile = None
    every: Annotated[
        float, typer.Option(help="Videos: seconds between the frames that are taken; 0 takes every frame.", min=0.0)
    ] = 1.0
    on_unreadable: Annotated[
        Optional[Literal["fail", "skip"]],
        typer.Option(
            help="What to do with an image that can't be read: stop there, or skip it and count it.",
            show_default="skip it, and exit with code 3 at the end",
        ),
    ] = None


@grouped
def predict(
    *,
    connection: ConnectionOptions,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[BUNDLE] IMAGES",
            help="A bundle to run in this process, without a server; then images: files, folders, patterns in quotes, "
            "- (one image on standard input), http(s) addresses, video files.",
            show_default=False,
            autocompletion=completion.bundles,
        ),
    ],
    model: Model = None,
    predictions: PredictionOptions,
    as_json: Json = False,
) -> None:
    """Predict the classes of images, or their masks, with a served model or a bundle; rows come as they are answered.

    An image that can't be read does not end the rest.
    """
    from csg_serve.evaluate.predict import PredictOptions, predict_command

    source, images = connection.source(words)
    if not connection.server and images == words:
        _check_first(images)
    options = PredictOptions(
        images=tuple(images),
        source=source,
        model=model,
        tile=predictions.tile,
        out=predictions.out,
        top=predictions.top,
        form=predictions.form,
        every=predictions.every,
        on_unreadable=predictions.on_unreadable,
    )
    predict_command(options, as_json)


def _check_first(images: Sequence[str]) -> None:
    """Raise InputError if the first word looks like a bundle that is not there: the default server would be asked."""
    from csg_serve.client.image_sources import may_name_images

    if images and not may_name_images(images[0]):
        raise InputError(f"there is no bundle and no image {images[0]}", "check the path")


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """What is measured."""

    concurrency: Annotated[
        str, typer.Option(help="Requests in flight, separated by commas; each number is measured on its own.")
    ] = "1,2,4,8,16"
    batch: Annotated[int, typer.Option(help="Images in a request.", min=1)] = 1
    seconds: Annotated[float, typer.Option(help="Duration of one measurement.", min=0.1)] = 10.0
    data: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Images to send, as `csg evaluate` takes them.",
            show_default="random pixels; with --accuracy the embedded digits",
        ),
    ] = None
    scenario: Annotated[
        Optional[list[str]],
        typer.Option(help="Run MLPerf LoadGen's single-stream, server or offline scenario instead. Repeatable."),
    ] = None
    accuracy: Annotated[bool, typer.Option("--accuracy", help="Scenarios: also run LoadGen's accuracy mode.")] = False
    qps: Annotated[
        Optional[float],
        typer.Option(help="Scenario server: queries per second.", show_default="the highest possible", min=0.01),
    ] = None
    latency_ms: Annotated[
        float, typer.Option(help="Scenario server: latency bound for 99 % of the queries.", min=0.1)
    ] = 100.0

    def bench_options(self, servers: Servers, model: str | None, out: Path | None) -> BenchOptions:
        """The options as csg_serve takes them.

        Raises:
            UsageError: --concurrency or --scenario is invalid, or --accuracy has no scenario.
        """
        from csg_serve.bench.command import parse_concurrency, parse_scenarios
        from csg_serve.bench.results import BenchOptions

        if self.accuracy and not self.scenario:
            raise UsageError(
                "--accuracy is a mode of MLPerf's scenarios", "name one with --scenario, or use `csg evaluate`"
            )
        return BenchOptions(
            servers=servers,
            model=model,
            out=out,
            concurrency=parse_concurrency(self.concurrency),
            batch=self.batch,
            seconds=self.seconds,
            data=tuple(self.data or ()),
            scenarios=parse_scenarios(self.scenario or []),
            accuracy=self.accuracy,
            qps=self.qps,
            latency_ms=self.latency_ms,
        )


@grouped
def bench(
    *,
    connection: ConnectionOptions,
    model: Model = None,
    load: LoadOptions,
    out: Annotated[
        Optional[Path],
        typer.Option(help="Folder for the report.", show_default="measurements/<model>-<version>-<n>"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the throughput and latency of a served model under load, or run MLPerf LoadGen's scenarios.

    On one machine, client and server share the cores: the report states what the client used.
    """
    from csg_serve.bench.command import bench_command

    bench_command(load.bench_options(connection.servers(), model, out), as_json)
