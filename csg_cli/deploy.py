"""`csg deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from csg.errors import UsageError
from csg_cli import options as o

BATCHES, QUEUE, DEVICES, LIMITS = "Batches", "Queue", "Instances", "Rate limits"
OF_A_ROLLBACK = {"--rollback", "--repository", "--name", "--version", "--json"}

Backend = Annotated[
    Literal["auto", "python", "onnxruntime", "tensorrt"],
    typer.Option(help="Triton backend; auto takes what the tritonserver found here can run."),
]
Encoded = Annotated[
    Optional[bool],
    typer.Option(
        help="A second model, <name>_encoded, that takes image files.",
        show_default="where the tritonserver found here has the Python backend",
    ),
]
Keep = Annotated[
    Optional[int], typer.Option(help="Earlier versions to leave for --rollback.", min=1, show_default="all")
]
MaxBatch = Annotated[
    Optional[int],
    typer.Option(
        help="Most images in a batch.",
        min=1,
        show_default="32, of segmenters as memory allows, of a plan its largest",
        rich_help_panel=BATCHES,
    ),
]
PreferredBatch = Annotated[
    Optional[list[int]],
    typer.Option(
        help="A batch of this size does not wait for more; may be given more than once.",
        show_default="the largest; of a classifier in the Python backend on a CPU an image a core",
        rich_help_panel=BATCHES,
    ),
]
QueueDelay = Annotated[
    float,
    typer.Option(help="How long a request waits for others to share its batch, ms.", min=0, rich_help_panel=BATCHES),
]
QueueSize = Annotated[
    Optional[int],
    typer.Option(help="Requests that may wait; more are refused.", min=1, show_default="all", rich_help_panel=QUEUE),
]
Timeout = Annotated[
    Optional[float],
    typer.Option(
        help="A request that has waited so long is refused, ms.", min=0.001, show_default="none", rich_help_panel=QUEUE
    ),
]
ResponseCache = Annotated[
    bool, typer.Option("--response-cache", help="Answer equal requests from memory.", rich_help_panel=QUEUE)
]
Instances = Annotated[
    Optional[int],
    typer.Option(
        help="Instances of the model on each device.",
        min=1,
        show_default="1; of a classifier in the Python backend on a CPU 2",
        rich_help_panel=DEVICES,
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "gpu"], typer.Option(help="auto takes a GPU where there is one.", rich_help_panel=DEVICES)
]
WarmUp = Annotated[
    bool, typer.Option(help="Compute first batches before the model counts as ready.", rich_help_panel=DEVICES)
]
Accelerator = Annotated[
    Literal["none", "tensorrt"],
    typer.Option(help="onnxruntime: TensorRT inside, in the bundle's precision.", rich_help_panel=DEVICES),
]
EngineCache = Annotated[
    str, typer.Option(help="Folder on the server's machine for the accelerator's engines.", rich_help_panel=DEVICES)
]
RateLimit = Annotated[
    Optional[list[str]],
    typer.Option(
        metavar="RESOURCE:COUNT", help="What one run takes; may be given more than once.", rich_help_panel=LIMITS
    ),
]
Priority = Annotated[
    Optional[int],
    typer.Option(help="Of its runs among other models', 1 the highest.", min=1, rich_help_panel=LIMITS),
]


def deploy(
    context: typer.Context,
    bundle: Annotated[
        Optional[Path], typer.Argument(help="Bundle folder.", show_default="the newest in bundles/")
    ] = None,
    repository: o.Repository = Path("model_repository"),
    name: Annotated[Optional[str], typer.Option(help="Model name.", show_default="the card's")] = None,
    backend: Backend = "auto",
    encoded: Encoded = None,
    version: Annotated[
        Optional[int], typer.Option(help="Version number; with --rollback the one to go back to.", min=1)
    ] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Serve an earlier version again, by default the one before.")
    ] = False,
    keep: Keep = None,
    max_batch: MaxBatch = None,
    preferred_batch: PreferredBatch = None,
    queue_delay: QueueDelay = 0.1,
    queue_size: QueueSize = None,
    timeout: Timeout = None,
    response_cache: ResponseCache = False,
    instances: Instances = None,
    device: Device = "auto",
    warm_up: WarmUp = True,
    accelerator: Accelerator = "none",
    engine_cache: EngineCache = "/tmp",
    rate_limit: RateLimit = None,
    priority: Priority = None,
    as_json: o.Json = False,
) -> None:
    """Put a bundle into a Triton model repository, as the model's next version; or go back to an earlier one.

    Options are those of this version: the next deployment starts from the defaults again, a way back from what it had.
    """
    from csg_serve.repository.deploy import deploy_command, roll_back_command
    from csg_serve.triton.deploy_options import DeployOptions
    from csg_serve.triton.executable import has_python_backend

    if rollback:
        if others := _given(context) - OF_A_ROLLBACK:
            raise UsageError(
                f"--rollback takes no {min(others)}", "a version comes back as it was deployed; name it with --version"
            )
        roll_back_command(repository, name, version, as_json)
        return
    options = DeployOptions(
        encoded=has_python_backend() if encoded is None else encoded,
        keep=keep,
        max_batch=max_batch,
        preferred_batch=tuple(preferred_batch or ()),
        queue_delay_ms=queue_delay,
        queue_size=queue_size,
        timeout_ms=timeout,
        response_cache=response_cache,
        instances=instances,
        device=device,
        warm_up=warm_up,
        accelerator=accelerator,
        engine_cache=engine_cache,
        rate_limit=tuple(rate_limit or ()),
        priority=priority,
    )
    deploy_command(bundle, repository, name, backend, version, options, as_json)


def _given(context: typer.Context) -> set[str]:
    """The arguments and options that stand in the command line, by name."""
    sources = {one.opts[0]: context.get_parameter_source(str(one.name)) for one in context.command.params}
    return {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
