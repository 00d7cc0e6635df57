"""The command line. Each command calls one function of a stage, imported inside it so that start-up stays fast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from csg import __version__
from csg.errors import CsgError

app = typer.Typer(
    help="From synthetic images to a served model for real photographs: train, export, deploy, serve, evaluate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
train_app = typer.Typer(help="Train on synthetic images.", no_args_is_help=True)
compare_app = typer.Typer(help="Compare systems on the same data and budget.", no_args_is_help=True)
weights_app = typer.Typer(help="Pretrained ImageNet weights.", no_args_is_help=True)
data_app = typer.Typer(help="The embedded synthetic set.", no_args_is_help=True)
app.add_typer(train_app, name="train")
app.add_typer(compare_app, name="compare")
app.add_typer(weights_app, name="weights")
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, words on standard error.")]
Unreadable = Annotated[
    Literal["fail", "skip"],
    typer.Option(help="What to do with an image that can't be read: stop, or leave it out and count it."),
]
Server = Annotated[str, typer.Option(help="gRPC address HOST:PORT of a running Triton.")]
Repository = Annotated[Path, typer.Option(help="Model repository.")]


@train_app.command("cls")
def train_cls(
    recipe: Annotated[Optional[str], typer.Option(help="Recipe: a name or a YAML file.", show_default="digits")] = None,
    data: Annotated[
        Optional[list[str]],
        typer.Option(help="Synthetic images: class folders or a list file; may be given more than once."),
    ] = None,
    real: Annotated[
        Optional[list[str]],
        typer.Option(help="Real images to measure on, never trained on; --data without it measures nothing."),
    ] = None,
    method: Annotated[
        Optional[str],
        typer.Option(help="none, l2, si, feature-l2, asg, ibn-a, ibn-b, drpc, simclr, moco-v2 or csg."),
    ] = None,
    backbone: Annotated[
        Optional[str],
        typer.Option(help="mobilenet_v2, resnet18, 34, 50 or 101, with _ibn_a or _ibn_b behind it, or timm:<name>."),
    ] = None,
    weights: Annotated[
        Optional[str], typer.Option(help="File with ImageNet weights, or 'none'.", show_default="torch's cache")
    ] = None,
    epochs: Annotated[Optional[int], typer.Option(help="Passes over the synthetic images.")] = None,
    max_steps: Annotated[Optional[int], typer.Option(help="Stop the schedule after this many steps.")] = None,
    evaluate_every: Annotated[Optional[int], typer.Option(help="Measure on the real set every N epochs too.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Fixes everything that is random.")] = None,
    precision: Annotated[Optional[str], typer.Option(help="auto, bf16, fp16 or fp32.")] = None,
    unreadable: Annotated[
        Optional[str], typer.Option(help="An image that can't be read: 'fail', or 'skip' and count it.")
    ] = None,
    strength: Annotated[Optional[float], typer.Option(help="Weight of the system's own loss (lambda, mu, c).")] = None,
    styles: Annotated[Optional[str], typer.Option(help="drpc: folder of images to restyle with.")] = None,
    fisher: Annotated[bool, typer.Option("--fisher", help="l2: weigh by Fisher information (EWC).")] = False,
    learned_rates: Annotated[
        bool, typer.Option("--learned-rates", help="asg: layer-wise learning rates by the L2O policy.")
    ] = False,
    no_apool: Annotated[bool, typer.Option("--no-apool", help="csg: pool by the mean, not by attention.")] = False,
    no_mlp: Annotated[bool, typer.Option("--no-mlp", help="csg: projection heads of one layer.")] = False,
    no_augment: Annotated[bool, typer.Option("--no-augment", help="No RandAugment.")] = False,
    stages: Annotated[Optional[str], typer.Option(help="csg: stages contrasted.", show_default="layer3,layer4")] = None,
    temperature: Annotated[Optional[float], typer.Option(help="csg: temperature tau.")] = None,
    queue: Annotated[Optional[int], typer.Option(help="csg: negative keys in the queue, K.")] = None,
    assign: Annotated[Optional[list[str]], typer.Option("--set", help="Any setting of the recipe, as a.b=c.")] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="Run folder.", show_default="runs/cls/<recipe>-<method>-<n>")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest unfinished run, or the one at --out.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a classifier; without arguments, on the embedded digits."""
    from csg_train.train import train_command

    changes = {
        "data.train": data,
        "data.real": real,
        "data.unreadable": unreadable,
        "method": method,
        "model.backbone": backbone,
        "optim.epochs": epochs,
        "optim.max_steps": max_steps,
        "evaluate_every": evaluate_every,
        "seed": seed,
        "precision": precision,
        "augment.operations": 0 if no_augment else None,
        "own.weight": strength,
        "own.styles": styles,
        "own.fisher": fisher or None,
        "own.learned": learned_rates or None,
        "own.apool": False if no_apool else None,
        "own.mlp": False if no_mlp else None,
        "own.stages": stages.split(",") if stages else None,
        "own.temperature": temperature,
        "own.queue": queue,
    }
    train_command(recipe, changes, assign or [], weights, out, resume, as_json)


@compare_app.command("cls")
def compare_cls(
    recipe: Annotated[Optional[str], typer.Option(help="Recipe: a name or a YAML file.", show_default="digits")] = None,
    data: Annotated[Optional[list[str]], typer.Option(help="Synthetic images; may be given more than once.")] = None,
    real: Annotated[Optional[list[str]], typer.Option(help="Real images to measure on, never trained on.")] = None,
    system: Annotated[
        Optional[list[str]],
        typer.Option(
            help="A system, settings behind colons: ewc, asg-l2o, csg:apool=false; may be given more than once.",
            show_default="all",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each system, with seeds 0, 1, ...")] = 3,
    tune: Annotated[
        bool, typer.Option(help="Three short tries of each system's strength, judged on held-out synthetic images.")
    ] = True,
    styles: Annotated[
        Optional[str], typer.Option(help="Folder of images drpc restyles with; without it, no drpc.")
    ] = None,
    backbone: Annotated[Optional[str], typer.Option(help="Backbone of all systems.")] = None,
    weights: Annotated[
        Optional[str], typer.Option(help="File with ImageNet weights.", show_default="torch's cache")
    ] = None,
    epochs: Annotated[Optional[int], typer.Option(help="Passes over the synthetic images.")] = None,
    max_steps: Annotated[Optional[int], typer.Option(help="Stop the schedule after this many steps.")] = None,
    precision: Annotated[Optional[str], typer.Option(help="auto, bf16, fp16 or fp32.")] = None,
    assign: Annotated[Optional[list[str]], typer.Option("--set", help="Any setting of the recipe, as a.b=c.")] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(help="Folder; what it holds already is not made again.", show_default="comparisons/<recipe>"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train the systems on the same data, seeds and budget, and write table and figures; run again to go on."""
    from csg_train.compare import compare_command

    changes = {
        "data.train": data,
        "data.real": real,
        "model.backbone": backbone,
        "optim.epochs": epochs,
        "optim.max_steps": max_steps,
        "precision": precision,
    }
    compare_command(recipe, changes, assign or [], system, seeds, tune, styles, weights, out, as_json)


@app.command()
def embed(
    run: Annotated[Optional[Path], typer.Argument(help="Run folder.", show_default="the newest in runs/")] = None,
    data: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Images: class folders or a list file; may be given more than once.", show_default="the run's real set"
        ),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="File to write.", show_default="<run>.npz")] = None,
    as_json: Json = False,
) -> None:
    """Write the pooled embeddings of a run's student as .npz, and print their hyperspherical energy."""
    from csg_train.embed import embed_command

    embed_command(run, data, out, as_json)


@weights_app.command("pull")
def weights_pull(backbone: Annotated[str, typer.Argument(help="Backbone, for example mobilenet_v2.")]) -> None:
    """Fetch a backbone's ImageNet weights into torch's cache, checked by hash."""
    from csg_train.models.weights import pull

    typer.echo(pull(backbone))


@data_app.command("synth")
def data_synth(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    count: Annotated[int, typer.Option(min=10, help="Number of images.")] = 8000,
    seed: Annotated[int, typer.Option(min=0, help="Fixes every image.")] = 0,
) -> None:
    """Write the embedded synthetic digits as class folders, to look at them."""
    from csg_train.data.synthetic import synth_command

    synth_command(out, count, seed)


@app.command()
def export(
    run: Annotated[Optional[Path], typer.Argument(help="Run folder.", show_default="the newest in runs/")] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision; input and logits stay as they are.")] = False,
    out: Annotated[
        Optional[Path], typer.Option(help="Bundle folder.", show_default="bundles/<run>-<precision>-<n>")
    ] = None,
    as_json: Json = False,
) -> None:
    """Strip a run down to its student and write it as a bundle with an ONNX graph, checked against PyTorch."""
    from csg_export.export import export_command

    export_command(run, fp16, out, as_json)


@app.command()
def deploy(
    bundle: Annotated[
        Optional[Path], typer.Argument(help="Bundle folder.", show_default="the newest in bundles/")
    ] = None,
    repository: Repository = Path("model_repository"),
    name: Annotated[Optional[str], typer.Option(help="Model name.", show_default="the card's")] = None,
    backend: Annotated[
        Literal["auto", "python", "onnxruntime"],
        typer.Option(help="Triton backend; auto takes what the tritonserver found here can run."),
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Put a bundle into a Triton model repository, as the model's next version."""
    from csg_serve.repository import deploy_command

    deploy_command(bundle, repository, name, backend, as_json)


@app.command()
def serve(
    repository: Repository = Path("model_repository"),
    http_port: Annotated[int, typer.Option(help="HTTP port; 0 takes a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="gRPC port; 0 takes a free one.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Metrics port; 0 takes a free one.")] = 8002,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when every model is ready, and leave the server running.")
    ] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop the server that --detach left running on this repository.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start Triton on the model repository, on loopback; Ctrl-C stops it."""
    from csg_serve.server import serve_command, stop_command

    if stop:
        stop_command(repository, as_json)
    else:
        serve_command(repository, (http_port, grpc_port, metrics_port), detach, as_json)


@app.command()
def evaluate(
    server: Server = "localhost:8001",
    model: Annotated[Optional[str], typer.Option(help="Model name.", show_default="the only csg model there")] = None,
    data: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Real images: class folders, a list file, or 'digits'; may be given more than once.",
            show_default="digits",
        ),
    ] = None,
    unreadable: Unreadable = "fail",
    as_json: Json = False,
) -> None:
    """Measure a served model on labelled real images, through the server."""
    from csg_serve.evaluate import evaluate_command

    evaluate_command(server, model, data, unreadable, as_json)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    server: Server = "localhost:8001",
    model: Annotated[Optional[str], typer.Option(help="Model name.", show_default="the only csg model there")] = None,
    as_json: Json = False,
) -> None:
    """Class and confidence of images, from a served model."""
    from csg_serve.evaluate import predict_command

    predict_command(images, server, model, as_json)


@app.command()
def demo() -> None:
    """The whole road on the embedded digits, in the current folder: train, export, deploy, serve, evaluate."""
    from csg.demo import demo_command

    demo_command()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"csg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line: one line and an exit code for what a user can cause, a traceback only with --debug."""
    args = sys.argv[1:]
    debug = "--debug" in args
    try:
        app([arg for arg in args if arg != "--debug"], prog_name="csg")
    except CsgError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        typer.echo(f"defect: {type(error).__name__}: {error}; run again with --debug for the traceback", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
