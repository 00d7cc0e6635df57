"""`csg serve` and `csg models`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from csg.errors import UsageError
from csg_cli.options import ConnectionOptions, Json, Repository, examples, grouped

if TYPE_CHECKING:
    from csg_serve.server.options import ServerOptions

SERVE_EXAMPLES = examples("csg serve", "csg serve --detach --http-port 0 --grpc-port 0 --metrics-port 0")
MODELS_EXAMPLES = examples("csg models --server gpu-box:8001 --load digits", "csg models --verify")


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """How Triton is started."""

    address: Annotated[
        str, typer.Option(help="IPv4 address for gRPC and metrics; 0.0.0.0: all of them. HTTP: see --expose-http.")
    ] = "127.0.0.1"
    expose_http: Annotated[
        bool,
        typer.Option(
            "--expose-http",
            help="HTTP listens on --address too, not only on loopback. Requests without authentication have ended "
            "Triton's HTTP server (SECURITY.md).",
        ),
    ] = False
    http_port: Annotated[int, typer.Option(help="HTTP port; 0 chooses a free one.")] = 8000
    grpc_port: Annotated[int, typer.Option(help="gRPC port; 0 chooses a free one.")] = 8001
    metrics_port: Annotated[int, typer.Option(help="Metrics port; 0 chooses a free one.")] = 8002
    control: Annotated[
        Literal["poll", "explicit"],
        typer.Option(help="New versions: found by polling, or loaded by `csg deploy` and `csg models --load`."),
    ] = "poll"
    secret_file: Annotated[
        Optional[Path],
        typer.Option(
            help="File with the secret of the control API.",
            show_default="a new secret",
        ),
    ] = None
    tls_cert: Annotated[Optional[Path], typer.Option(help="PEM certificate: gRPC uses TLS. Triton has no HTTPS.")] = (
        None
    )
    tls_key: Annotated[Optional[Path], typer.Option(help="PEM key of --tls-cert.")] = None
    tls_client_ca: Annotated[
        Optional[Path], typer.Option(help="PEM certificates of a CA: clients need a certificate signed by it.")
    ] = None
    threads: Annotated[
        Optional[int], typer.Option(help="CPU cores that a model may use.", min=1, show_default="all")
    ] = None
    drain_seconds: Annotated[
        int, typer.Option(help="Time that running requests get to finish when the server stops.", min=0)
    ] = 30
    log_level: Annotated[
        Literal["error", "warning", "info", "verbose"], typer.Option(help="Lowest severity in the server's log.")
    ] = "info"
    tuning: Annotated[
        str,
        typer.Option(
            help="CPU tuning: on, off, or a comma-separated list of settings (docs/performance-notes.md).",
            envvar="CSG_TUNING",
        ),
    ] = "on"

    def server_options(self) -> ServerOptions:
        """The options as csg_serve takes them, checked."""
        from csg_serve.server.options import ServerOptions, check_address, check_tls
        from csg_serve.server.tuning import check_tuning
        from csg_serve.triton.machine import available_cores

        return ServerOptions(
            address=check_address(self.address),
            expose_http=self.expose_http,
            ports=(self.http_port, self.grpc_port, self.metrics_port),
            control=self.control,
            secret_file=self.secret_file,
            tls=check_tls(self.tls_cert, self.tls_key, self.tls_client_ca),
            threads=self.threads or available_cores(),
            drain_s=self.drain_seconds,
            log_level=self.log_level,
            tuning=check_tuning(self.tuning),
        )


@grouped
def serve(
    *,
    repository: Repository = Path("model_repository"),
    triton: TritonOptions,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when every model is ready; the server keeps running.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the server that runs on this repository.")] = False,
    print_command: Annotated[
        bool,
        typer.Option("--print-command", help="Start nothing; print the commands, here and for NVIDIA's container."),
    ] = False,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Start nothing; create the environment that the server runs in.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start Triton on a model repository, on loopback; Ctrl-C or SIGTERM stops it after it has answered."""
    from csg_serve.server.prepare import prepare_command
    from csg_serve.server.print_command import print_command as print_start_command
    from csg_serve.server.serve import serve_command
    from csg_serve.server.stop import stop_command

    if stop:
        stop_command(repository, as_json)
    elif prepare:
        prepare_command(repository, as_json)
    elif print_command:
        print_start_command(repository, triton.server_options(), as_json)
    else:
        serve_command(repository, triton.server_options(), detach, as_json)


@grouped
def models(
    connection: ConnectionOptions,
    load: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Load or reload this model (explicit control).")
    ] = None,
    unload: Annotated[Optional[str], typer.Option(metavar="NAME", help="Unload this model (explicit control).")] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Send each model the images of its golden answers, and compare its answers."),
    ] = False,
    model: Annotated[
        Optional[str], typer.Option(help="With --verify: the model, and its <name>_encoded.", show_default="all of csg")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the models of a running server: version, state, requests and latency; or verify their answers."""
    if verify:
        from csg_serve.verify.command import verify_command

        if load or unload:
            raise UsageError("--verify can't be combined with --load and --unload", "call csg models twice")
        verify_command(connection.servers(), model, as_json)
        return
    if model:
        raise UsageError("--model needs --verify", "without it, all models are listed")
    from csg_serve.client.models import models_command

    models_command(connection.servers(), load, unload, as_json)
