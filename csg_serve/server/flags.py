"""Triton's command-line flags and environment variables for the options of `csg serve`."""

from __future__ import annotations

from collections.abc import Mapping

from csg_serve.server.options import ANY_ADDRESS, LOOPBACK, LogLevel, ServerOptions
from csg_serve.server.tuning import TUNING_VARIABLE
from csg_serve.triton.executable import Triton
from csg_serve.triton.protocol import POLL_S, SECRET_HEADER

KEEP_ON_LOAD_ERROR = "--exit-on-error=false"
"""Triton keeps running if a model does not load: `csg serve` reports which model it is, and why."""

CONTROL_API = "model-repository,shared-memory,trace,logging"
"""The restricted parts of Triton's protocols."""

CONTAINER_PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}

THREADS_VARIABLE = "CSG_THREADS"
"""Tells the scripts in Triton's Python backend how many cores one model may use."""

NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}
"""Recent versions of ONNX Runtime report their use to Microsoft, and write to the home folder, without it."""

LOG_FLAGS: dict[LogLevel, list[str]] = {
    "error": ["--log-warning=false", "--log-info=false"],
    "warning": ["--log-info=false"],
    "info": [],
    "verbose": ["--log-verbose=1"],
}

Endpoints = Mapping[str, tuple[str, int]]
"""Address and port of each endpoint: http, grpc, metrics."""


def triton_flags(options: ServerOptions, repository: str, endpoints: Endpoints, secret: str | None) -> list[str]:
    """Return Triton's flags.

    Strict readiness is off: a strict server is not ready while it loads a new version, and load balancers would drop
    it.
    """
    flags = [f"--model-repository={repository}", f"--model-control-mode={options.control}"]
    flags.append("--load-model=*" if options.control == "explicit" else f"--repository-poll-secs={POLL_S}")
    flags += ["--strict-readiness=false", f"--exit-timeout-secs={options.drain_s}", *LOG_FLAGS[options.log_level]]
    for name, (host, port) in endpoints.items():
        flags += [f"--{name}-address={host}", f"--{name}-port={port}"]
    if secret:
        restriction = f"{CONTROL_API}:{SECRET_HEADER}={secret}"
        flags += [f"--grpc-restricted-protocol={restriction}", f"--http-restricted-api={restriction}"]
    if tls := options.tls:
        flags += ["--grpc-use-ssl=true", f"--grpc-server-cert={tls.cert}", f"--grpc-server-key={tls.key}"]
        if tls.client_ca:
            flags += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={tls.client_ca}"]
    return flags


def container_flags(options: ServerOptions, secret: str | None) -> list[str]:
    """Return Triton's flags inside a container, where /models is the repository and the network is its own.

    There Triton ends if a model does not load at the start, so that whoever runs the container notices. HTTP stays on
    the container's loopback, where the probe uses it, unless it is exposed.
    """
    endpoints = {name: (ANY_ADDRESS, port) for name, port in CONTAINER_PORTS.items()}
    if not options.expose_http:
        endpoints["http"] = (LOOPBACK, CONTAINER_PORTS["http"])
    return triton_flags(options, "/models", endpoints, secret)


def script_variables(options: ServerOptions) -> dict[str, str]:
    """Return the environment variables for the scripts in Triton's Python backend."""
    return {THREADS_VARIABLE: str(options.threads), TUNING_VARIABLE: options.tuning, **NO_TELEMETRY}


def environment(triton: Triton, options: ServerOptions) -> dict[str, str]:
    """Return the environment of a server on this machine."""
    return triton.environment | script_variables(options)
