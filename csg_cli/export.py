"""The commands of csg_export: export, and export inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer
from typer.core import TyperGroup

from csg.errors import UsageError
from csg_cli import options as o

INSPECT = "inspect"


class _Export(TyperGroup):
    """`csg export [RUN]` exports; `csg export inspect BUNDLE` is the one command below it."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        return super().parse_args(ctx, args if args[:1] == [INSPECT] else ["run", *args])


export_app = typer.Typer(cls=_Export, help="Make a bundle of a run; or say what a bundle holds.")


@export_app.command("run")
def export(
    run: Annotated[Optional[Path], typer.Argument(help="Run folder.", show_default="the newest in runs/")] = None,
    torchvision: Annotated[
        Optional[str],
        typer.Option(help="Export this ImageNet classifier of torchvision's, unmodified, in place of a run."),
    ] = None,
    weights: Annotated[
        Optional[str],
        typer.Option(help="With --torchvision: file with its weights, or 'none'.", show_default="torchvision's"),
    ] = None,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Half precision where measured safe; input and output stay as they are.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit arithmetic, calibrated on the training images alone.")
    ] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="bf16 arithmetic on CPUs that have it, by OpenVINO.")] = False,
    format: Annotated[
        Literal["onnx", "tensorrt", "tensorrt-rtx"],
        typer.Option(help="An ONNX graph alone, or with an engine: tensorrt needs a GPU, tensorrt-rtx does not."),
    ] = "onnx",
    calibration: Annotated[
        Optional[Literal["minmax", "entropy", "percentile"]],
        typer.Option(help="int8: how ranges follow from values.", show_default="what cost least: docs/export.md"),
    ] = None,
    float_ends: Annotated[
        bool, typer.Option("--float-ends/--int8-ends", help="int8: whether the first and the last layer stay fp32.")
    ] = True,
    tolerance: Annotated[
        Optional[float],
        typer.Option(
            help="Largest difference of a logit from PyTorch's, as a share of the largest logit; above it nothing is "
            "written.",
            min=0.0,
            show_default="fp16 0.02, bf16 0.1, int8 1",
        ),
    ] = None,
    size: Annotated[
        Optional[str],
        typer.Option(help="Segmenters: fixed input HxW, multiples of 8.", show_default="any multiple of 8"),
    ] = None,
    logits: Annotated[bool, typer.Option("--logits", help="Segmenters: return the logits too.")] = False,
    embedding: Annotated[
        bool, typer.Option("--embedding", help="Classifiers: return the pooled features too.")
    ] = False,
    batch: Annotated[
        Optional[str],
        typer.Option(help="Engines: least, best and largest batch.", show_default="1:8:32, of segmenters 1:1:4"),
    ] = None,
    compute_capability: Annotated[
        Optional[list[str]],
        typer.Option(
            help="tensorrt-rtx: GPUs to build for, such as 8.6; may be given more than once.",
            show_default="this machine's, or all from 8.0 on",
        ),
    ] = None,
    memory: Annotated[int, typer.Option(help="Engines: limit of the builder's workspace, MiB.", min=1)] = 2048,
    portable: Annotated[
        bool, typer.Option("--portable", help="tensorrt: a plan that newer versions and other GPUs load too.")
    ] = False,
    out: Annotated[
        Optional[Path], typer.Option(help="Bundle folder.", show_default="bundles/<run>-<precision>-<n>")
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Strip a run down to its student and write it as a bundle with an ONNX graph, every stage checked against PyTorch.

    `csg export inspect BUNDLE` checks a bundle and says what is in it.
    """
    from csg_export.command import export_command, parse_batch
    from csg_export.export import ExportOptions
    from csg_export.tensorrt import EngineOptions

    chosen = [name for name, wanted in (("fp16", fp16), ("int8", int8), ("bf16", bf16)) if wanted]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} name two precisions", "give one of them")
    engine = EngineOptions(parse_batch(batch) if batch else None, tuple(compute_capability or ()), memory, portable)
    options = ExportOptions(
        precision=chosen[0] if chosen else "fp32",  # type: ignore[arg-type]
        format=format,
        logits=logits,
        embedding=embedding,
        tolerance=tolerance,
        calibration=calibration,
        float_ends=float_ends,
        engine=engine,
    )
    export_command(run, torchvision, weights, size, options, out, as_json)


@export_app.command(INSPECT)
def inspect(bundle: Annotated[Path, typer.Argument(help="Bundle folder.")], as_json: o.Json = False) -> None:
    """Check a bundle against its SHA-256 sums and say what is in it."""
    from csg_export.command import inspect_command

    inspect_command(bundle, as_json)
