"""The commands of csg_serve but deploy: serve, models, evaluate, predict, bench; and the demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from csg.errors import UsageError
from csg_cli import options as o


def models(
    server: o.Server = None,
    load: Annotated[
        Optional[str], typer.Option(help="Load this model, or what its configuration names now (explicit control).")
    ] = None,
    unload: Annotated[Optional[str], typer.Option(help="Unload this model (explicit control).")] = None,
    tls_ca: o.TlsCa = None,
    tls_cert: o.TlsCert = None,
    tls_key: o.TlsKey = None,
    secret_file: o.SecretFile = None,
    as_json: o.Json = False,
) -> None:
    """The models of a running server: version, state, what they answered and how long it took."""
    from csg_serve.client.endpoints import named_servers
    from csg_serve.client.models import models_command

    models_command(named_servers(server, tls_ca, tls_cert, tls_key, secret_file), load, unload, as_json)


def serve(
    repository: o.Repository = Path("model_repository"),
    address: Annotated[str, typer.Option(help="IPv4 address to listen on; 0.0.0.0 for all of them.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="HTTP port; 0 takes a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="gRPC port; 0 takes a free one.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Metrics port; 0 takes a free one.")] = 8002,
    control: Annotated[
        Literal["poll", "explicit"],
        typer.Option(help="New versions: found by polling, or loaded by `csg deploy` and `csg models --load`."),
    ] = "poll",
    secret_file: Annotated[
        Optional[Path],
        typer.Option(
            help="File with the secret of the control API.",
            show_default="none on loopback; a new secret when other machines reach the server",
        ),
    ] = None,
    tls_cert: Annotated[
        Optional[Path], typer.Option(help="PEM certificate: gRPC speaks TLS, HTTP stays on loopback.")
    ] = None,
    tls_key: Annotated[Optional[Path], typer.Option(help="PEM key of the certificate.")] = None,
    tls_client_ca: Annotated[
        Optional[Path], typer.Option(help="PEM certificates of a CA: clients need a certificate that it signed.")
    ] = None,
    threads: Annotated[
        Optional[int], typer.Option(help="Cores a model may use.", min=1, show_default="all there are")
    ] = None,
    drain: Annotated[
        int, typer.Option(help="Seconds that requests under way get when the server is stopped.", min=0)
    ] = 30,
    log_level: Annotated[
        Literal["error", "warning", "info", "verbose"], typer.Option(help="What goes into the server's log.")
    ] = "info",
    tuning: Annotated[
        str,
        typer.Option(
            help="CPU tuning: on, off, or a comma-separated list of settings (docs/performance-notes.md).",
            envvar="CSG_TUNING",
        ),
    ] = "on",
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when every model is ready, and leave the server running.")
    ] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop the server that --detach left running on this repository.")
    ] = False,
    print_command: Annotated[
        bool, typer.Option("--print-command", help="Start nothing; print the command, here and in NVIDIA's container.")
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Start Triton on the model repository, on loopback; Ctrl-C or SIGTERM stops it when it has answered."""
    from csg_serve.server.options import ServerOptions, check_address, check_tls
    from csg_serve.server.print_command import print_command as print_start_command
    from csg_serve.server.serve import serve_command, stop_command
    from csg_serve.server.tuning import check_tuning
    from csg_serve.triton.machine import available_cores

    if stop:
        stop_command(repository, as_json)
        return
    options = ServerOptions(
        address=check_address(address),
        ports=(http_port, grpc_port, metrics_port),
        control=control,
        secret_file=secret_file,
        tls=check_tls(tls_cert, tls_key, tls_client_ca),
        threads=threads or available_cores(),
        drain_s=drain,
        log_level=log_level,
        tuning=check_tuning(tuning),
    )
    if print_command:
        print_start_command(repository, options, as_json)
    else:
        serve_command(repository, options, detach, as_json)


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
    from csg_serve.client.endpoints import named_servers
    from csg_serve.evaluate.command import Wish, evaluate_command

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
    from csg_serve.client.endpoints import named_servers
    from csg_serve.evaluate.predict import predict_command

    servers = named_servers(server, tls_ca, tls_cert, tls_key, secret_file)
    predict_command(images, servers, model, tile, out, as_json)


def bench(
    server: o.Server = None,
    model: o.Model = None,
    concurrency: Annotated[str, typer.Option(help="Requests under way; a level each.")] = "1,2,4,8,16",
    batch: Annotated[int, typer.Option(help="Images of a request.", min=1)] = 1,
    seconds: Annotated[float, typer.Option(help="Time of a level, or of a scenario.", min=0.1)] = 10.0,
    data: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Images to send, as csg evaluate takes them.",
            show_default="random pixels; with --accuracy the embedded digits",
        ),
    ] = None,
    scenario: Annotated[
        Optional[list[str]],
        typer.Option(
            help="MLPerf LoadGen's single-stream, server or offline, in place of the levels; may be given more than "
            "once."
        ),
    ] = None,
    accuracy: Annotated[bool, typer.Option("--accuracy", help="Scenarios: LoadGen's accuracy mode too.")] = False,
    qps: Annotated[
        Optional[float],
        typer.Option(help="Scenario server: queries a second.", show_default="search for the most", min=0.01),
    ] = None,
    latency_ms: Annotated[
        float, typer.Option(help="Scenario server: what 99 % of the queries must keep.", min=0.1)
    ] = 100.0,
    out: Annotated[
        Optional[Path],
        typer.Option(help="Folder for the report.", show_default="measurements/<model>-<version>-<n>"),
    ] = None,
    tls_ca: o.TlsCa = None,
    tls_cert: o.TlsCert = None,
    tls_key: o.TlsKey = None,
    secret_file: o.SecretFile = None,
    as_json: o.Json = False,
) -> None:
    """Throughput and latency of a served model under growing load, or as MLPerf's LoadGen asks.

    Client and server share the cores where they run on one machine: what the client takes of them is in the report.
    """
    from csg_serve.bench.command import bench_command, parse_concurrency, parse_scenarios
    from csg_serve.bench.results import BenchOptions
    from csg_serve.client.endpoints import named_servers

    if accuracy and not scenario:
        raise UsageError(
            "--accuracy is a mode of MLPerf's scenarios", "name one with --scenario, or use `csg evaluate`"
        )
    options = BenchOptions(
        concurrency=parse_concurrency(concurrency),
        batch=batch,
        seconds=seconds,
        data=tuple(data or ()),
        scenarios=parse_scenarios(scenario or []),
        accuracy=accuracy,
        qps=qps,
        latency_ms=latency_ms,
    )
    servers = named_servers(server, tls_ca, tls_cert, tls_key, secret_file)
    bench_command(servers, model, options, out, as_json)


def demo() -> None:
    """The whole road on the embedded digits, in the current folder: train, export, deploy, serve, evaluate."""
    from csg_cli.demo import demo_command

    demo_command()
