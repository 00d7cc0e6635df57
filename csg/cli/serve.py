"""The commands of csg_serve: deploy, serve, evaluate, predict; and the demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from csg.cli import options as o
from csg.errors import UsageError


def deploy(
    bundle: Annotated[
        Optional[Path], typer.Argument(help="Bundle folder.", show_default="the newest in bundles/")
    ] = None,
    repository: o.Repository = Path("model_repository"),
    name: Annotated[Optional[str], typer.Option(help="Model name.", show_default="the card's")] = None,
    backend: Annotated[
        Literal["auto", "python", "onnxruntime", "tensorrt"],
        typer.Option(help="Triton backend; auto takes what the tritonserver found here can run."),
    ] = "auto",
    version: Annotated[
        Optional[int], typer.Option(help="Version number; with --rollback the one to go back to.", min=1)
    ] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Serve an earlier version again, by default the one before.")
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Put a bundle into a Triton model repository, as the model's next version; or go back to an earlier one."""
    from csg_serve.repository import deploy_command, roll_back_command

    if rollback:
        if bundle:
            raise UsageError("--rollback takes no bundle", "name the model with --name, the version with --version")
        roll_back_command(repository, name, version, as_json)
    else:
        deploy_command(bundle, repository, name, backend, version, as_json)


def models(
    server: o.Server = None,
    tls_ca: o.TlsCa = None,
    tls_cert: o.TlsCert = None,
    tls_key: o.TlsKey = None,
    secret_file: o.SecretFile = None,
    as_json: o.Json = False,
) -> None:
    """The models of a running server: version, state, what they answered and how long it took."""
    from csg_serve.models import models_command
    from csg_serve.servers import named_servers

    models_command(named_servers(server, tls_ca, tls_cert, tls_key, secret_file), as_json)


def serve(
    repository: o.Repository = Path("model_repository"),
    http_port: Annotated[int, typer.Option(help="HTTP port; 0 takes a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="gRPC port; 0 takes a free one.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Metrics port; 0 takes a free one.")] = 8002,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when every model is ready, and leave the server running.")
    ] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop the server that --detach left running on this repository.")
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Start Triton on the model repository, on loopback; Ctrl-C stops it."""
    from csg_serve.server import serve_command, stop_command

    if stop:
        stop_command(repository, as_json)
    else:
        serve_command(repository, (http_port, grpc_port, metrics_port), detach, as_json)


def evaluate(
    server: o.Server = None,
    model: o.Model = None,
    data: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Real images: class folders, a list file, or 'digits'; for a segmenter folders with images/ and "
            "labels/, Cityscapes' tree, or 'digit-scenes'; may be given more than once.",
            show_default="the task's embedded set",
        ),
    ] = None,
    labels: Annotated[
        Optional[str], typer.Option(help="Segmenters: label set of the masks.", show_default="the model's")
    ] = None,
    tile: Annotated[
        Optional[int], typer.Option(help="Segmenters: send images in overlapping tiles of this side.", min=64)
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(help="The evaluation's folder.", show_default="evaluations/<model>-<version>-<n>"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest unfinished evaluation, or the one at --out.")
    ] = False,
    ordered: Annotated[
        bool, typer.Option("--ordered/--unordered", help="Take answers in the order of the images, or as they come.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Write one self-contained HTML page, to PAGE or <folder>/report.html.")
    ] = False,
    page: Annotated[
        Optional[Path], typer.Argument(help="Where --report writes the page.", show_default="<folder>/report.html")
    ] = None,
    unreadable: o.Unreadable = "fail",
    tls_ca: o.TlsCa = None,
    tls_cert: o.TlsCert = None,
    tls_key: o.TlsKey = None,
    secret_file: o.SecretFile = None,
    as_json: o.Json = False,
) -> None:
    """Measure a served model on labelled real images, through the server; an interrupted evaluation can be resumed."""
    from csg_serve.evaluate import Wish, evaluate_command
    from csg_serve.servers import named_servers

    servers, sources = named_servers(server, tls_ca, tls_cert, tls_key, secret_file), tuple(data or ())
    wish = Wish(servers, model, sources, labels, tile, out, unreadable, ordered, resume, report, page)
    evaluate_command(wish, as_json)


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    server: o.Server = None,
    model: o.Model = None,
    tile: Annotated[
        Optional[int], typer.Option(help="Segmenters: send images in overlapping tiles of this side.", min=64)
    ] = None,
    out: Annotated[Path, typer.Option(help="Segmenters: folder for masks and overlays.")] = Path("predictions"),
    tls_ca: o.TlsCa = None,
    tls_cert: o.TlsCert = None,
    tls_key: o.TlsKey = None,
    secret_file: o.SecretFile = None,
    as_json: o.Json = False,
) -> None:
    """Class and confidence of images, or their masks, from a served model."""
    from csg_serve.predict import predict_command
    from csg_serve.servers import named_servers

    servers = named_servers(server, tls_ca, tls_cert, tls_key, secret_file)
    predict_command(images, servers, model, tile, out, as_json)


def demo() -> None:
    """The whole road on the embedded digits, in the current folder: train, export, deploy, serve, evaluate."""
    from csg.demo import demo_command

    demo_command()
