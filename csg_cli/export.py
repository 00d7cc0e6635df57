"""The commands of csg_export: export, and export inspect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from csg.errors import UsageError
from csg_cli import completion
from csg_cli.default_command import DEFAULT, DefaultCommand, DefaultGroup
from csg_cli.options import Json, examples, grouped

if TYPE_CHECKING:
    from csg_export.options import ExportOptions

INSPECT = "inspect"
OUTPUTS, INT8, ENGINES = "Inputs and outputs", "int8", "TensorRT engines"


export_app = typer.Typer(cls=DefaultGroup, help="Export a run as a bundle, or inspect a bundle.")


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """The network to export."""

    run: Annotated[
        Optional[Path],
        typer.Argument(
            help="Run folder.", show_default="the newest in runs/", autocompletion=completion.runs_and_inspect
        ),
    ] = None
    checkpoint: Annotated[
        Optional[Path],
        typer.Option(help="Export this checkpoint of the method's published code (NVlabs/CSG), not a run."),
    ] = None
    classes: Annotated[
        Optional[str],
        typer.Option(
            help="With --checkpoint: file with a class name a line; segmenters: label set.",
            show_default="VisDA-17's, Cityscapes'",
        ),
    ] = None
    torchvision: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Export this ImageNet classifier of torchvision, not a run.")
    ] = None
    weights: Annotated[
        Optional[str],
        typer.Option(help="With --torchvision: file with its weights, or 'none'.", show_default="torchvision's"),
    ] = None
    data: Annotated[
        Optional[list[str]],
        typer.Option(
            help="int8: where the run's training images are now, or images for the checkpoint. Repeatable.",
            show_default="where the run found them",
        ),
    ] = None
    real_data: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Where the run's real images are now, or images for the checkpoint. Repeatable. Without them, only "
            "hard inputs are compared.",
            show_default="where the run found them",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What the exported model is like."""

    fp16: Annotated[bool, typer.Option("--fp16", help="Short for --precision fp16.")] = False
    bf16: Annotated[bool, typer.Option("--bf16", help="Short for --precision bf16.")] = False
    int8: Annotated[bool, typer.Option("--int8", help="Short for --precision int8.")] = False
    precision: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            autocompletion=completion.precisions,
            help="Arithmetic of the model. fp32; fp16: where it is measured to be safe; bf16: on CPUs, by OpenVINO; "
            "int8: calibrated on training images.",
            show_default="fp32",
        ),
    ] = None
    format: Annotated[
        Literal["onnx", "tensorrt", "tensorrt-rtx"],
        typer.Option(help="An ONNX graph, alone or with an engine: tensorrt needs a GPU, tensorrt-rtx does not."),
    ] = "onnx"
    tolerance: Annotated[
        Optional[float],
        typer.Option(
            help="Largest accepted difference of a logit from PyTorch's, relative to the largest logit. Above it, "
            "nothing is written.",
            min=0.0,
            show_default="fp16 0.02, bf16 0.1, int8 1",
        ),
    ] = None
    logits: Annotated[
        bool, typer.Option("--logits", help="Segmenters: also return the logits.", rich_help_panel=OUTPUTS)
    ] = False
    embedding: Annotated[
        bool,
        typer.Option("--embedding", help="Classifiers: also return the pooled features.", rich_help_panel=OUTPUTS),
    ] = False
    golden_real: Annotated[
        bool,
        typer.Option(
            "--golden-real",
            help="Keep two real images, 128 pixels wide, in the golden answers. Every client can read them: only for "
            "images that you may pass on.",
            rich_help_panel=OUTPUTS,
        ),
    ] = False
    license: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            help="Licence of your model by Hugging Face's name, such as apache-2.0, for its README.md.",
            show_default="unknown",
        ),
    ] = None
    calibration: Annotated[
        Optional[Literal["minmax", "minmax90", "entropy", "percentile", "mse"]],
        typer.Option(
            help="How ranges are derived from values; minmax90: of 90 % of the images; mse: by least squared error.",
            show_default="the most accurate: docs/export.md",
            rich_help_panel=INT8,
        ),
    ] = None
    fp32_first_last: Annotated[
        bool,
        typer.Option(
            "--fp32-first-last/--int8-first-last",
            help="Precision of the first and the last layer.",
            rich_help_panel=INT8,
        ),
    ] = True
    batch: Annotated[
        Optional[str],
        typer.Option(
            metavar="MIN:BEST:MAX",
            help="Batch sizes.",
            show_default="1:8:32, of segmenters 1:1:4",
            rich_help_panel=ENGINES,
        ),
    ] = None
    compute_capability: Annotated[
        Optional[list[str]],
        typer.Option(
            help="tensorrt-rtx: GPU to build for, such as 8.6. Repeatable.",
            show_default="this machine's, or all from 8.0 on",
            rich_help_panel=ENGINES,
        ),
    ] = None
    memory: Annotated[
        Optional[int],
        typer.Option(
            help="Limit of the builder's workspace, MiB.", min=1, show_default="2048", rich_help_panel=ENGINES
        ),
    ] = None
    portable: Annotated[
        bool,
        typer.Option(
            "--portable",
            help="tensorrt: an engine that newer versions and other GPUs load too.",
            rich_help_panel=ENGINES,
        ),
    ] = False

    def export_options(self) -> ExportOptions:
        """The options as csg_export takes them.

        Raises:
            UsageError: --batch is malformed, two precisions are given, or an option is not used by the precision or the
                format.
        """
        from csg_export.command import parse_batch
        from csg_export.options import ExportOptions
        from csg_export.readme_metadata import check_licence
        from csg_export.tensorrt import WORKSPACE_MIB, EngineOptions

        precision = self._chosen_precision()
        self._refuse_unused(precision)
        engine = EngineOptions(
            batch=None if self.batch is None else parse_batch(self.batch),
            compute_capabilities=tuple(self.compute_capability or ()),
            memory_mib=self.memory or WORKSPACE_MIB,
            portable=self.portable,
        )
        return ExportOptions(
            precision=precision,
            format=self.format,
            logits=self.logits,
            embedding=self.embedding,
            tolerance=self.tolerance,
            calibration=self.calibration,
            fp32_first_last=self.fp32_first_last,
            engine=engine,
            golden_real=self.golden_real,
            licence=check_licence(self.license),
        )

    def _refuse_unused(self, precision: str) -> None:
        """Raise UsageError if an option has no effect with the precision or the format."""
        engines, int8 = ("tensorrt", "tensorrt-rtx"), ("int8",)
        for option, given, value, used_by in (
            ("--calibration", self.calibration, precision, int8),
            ("--int8-first-last", not self.fp32_first_last, precision, int8),
            ("--batch", self.batch, self.format, engines),
            ("--memory", self.memory, self.format, engines),
            ("--compute-capability", self.compute_capability, self.format, ("tensorrt-rtx",)),
            ("--portable", self.portable, self.format, ("tensorrt",)),
        ):
            if given and value not in used_by:
                kind = "--precision" if used_by is int8 else "--format"
                raise UsageError(
                    f"{option} is not used by {kind} {value}", f"leave it out, or use {kind} {' or '.join(used_by)}"
                )

    def _chosen_precision(self) -> str:
        flags = {"--fp16": self.fp16, "--bf16": self.bf16, "--int8": self.int8, "--precision": self.precision}
        given = [option for option, value in flags.items() if value]
        if len(given) > 1:
            raise UsageError(f"{given[0]} and {given[1]} both name a precision", "use one of them")
        return self.precision or (given[0].removeprefix("--") if given else "fp32")


@export_app.command(
    DEFAULT,
    cls=DefaultCommand,
    epilog=examples("csg export --fp16", "csg export runs/cls/digits-csg-1 --out bundles/digits"),
)
@grouped
def export(
    source: SourceOptions,
    model: ModelOptions,
    size: Annotated[
        Optional[str],
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="Segmenters: fixed input size, multiples of 8.",
            show_default="any multiple of 8",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="Bundle folder.", show_default="bundles/<run>-<precision>-<n>")
    ] = None,
    page: Annotated[
        bool, typer.Option("--page", help="Also write a page that runs the bundle in a browser, as `csg page` does.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Export the trained model of a run as a bundle with an ONNX graph, every stage checked against PyTorch.

    `csg export inspect BUNDLE` checks a bundle and shows what it contains.
    """
    from csg_export.command import export_command
    from csg_export.options import ExportRequest
    from csg_serve.page.command import PageOptions, page_command

    options = model.export_options()
    if page and options.precision == "bf16":
        raise UsageError("--page is not for --precision bf16", "a browser can't run it; use fp32, fp16 or int8")
    request = ExportRequest(
        run=source.run,
        checkpoint=source.checkpoint,
        classes=source.classes,
        torchvision=source.torchvision,
        weights=source.weights,
        data=tuple(source.data or ()),
        real_data=tuple(source.real_data or ()),
        size=size,
        options=options,
        out=out,
    )
    bundle = export_command(request, as_json)
    if page:
        page_command(PageOptions([bundle.path]))


@export_app.command(
    INSPECT,
    epilog=examples("csg export inspect bundles/digits", "csg export inspect bundles/digits --json"),
)
def inspect(
    bundle: Annotated[
        Path,
        typer.Argument(
            help="Bundle folder.",
            autocompletion=completion.bundles,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Check a bundle against its SHA-256 sums and show what it contains."""
    from csg_export.inspect import inspect_command

    inspect_command(bundle, as_json)
