"""`csg deploy`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from csg.errors import UsageError
from csg_cli import completion
from csg_cli.options import Json, Repository, examples, grouped

if TYPE_CHECKING:
    from csg_serve.repository.deploy import Check
    from csg_serve.triton.deploy_options import DeployOptions

BATCHES, QUEUE, DEVICES, LIMITS = "Batches", "Queue", "Instances", "Rate limits"
Backend = Literal["auto", "python", "onnxruntime", "tensorrt"]
ROLLBACK_OPTIONS = {"--rollback", "--repository", "--name", "--version", "--mode", "--json"}
EXAMPLES = examples("csg deploy", "csg deploy bundles/digits --max-batch 16 --instances 2")


@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """How the model is served."""

    encoded: Annotated[
        Optional[bool],
        typer.Option(
            help="Also deploy <name>_encoded, a model that takes image files.",
            show_default="if tritonserver has the Python backend",
        ),
    ] = None
    formats: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="Image files that <name>_encoded takes besides png: jpeg, webp, gif, bmp, dib, ppm, tiff.",
        ),
    ] = "jpeg,png,webp"
    keep: Annotated[
        Optional[int], typer.Option(help="Earlier versions to keep for --rollback.", min=1, show_default="all")
    ] = None
    max_batch: Annotated[
        Optional[int],
        typer.Option(
            help="Maximum batch size.",
            min=1,
            show_default="32; segmenters: by memory; engines: their largest",
            rich_help_panel=BATCHES,
        ),
    ] = None
    preferred_batch: Annotated[
        Optional[list[int]],
        typer.Option(
            help="A batch of this size does not wait for more requests. Repeatable.",
            show_default="the maximum; classifiers on a CPU: one image per core",
            rich_help_panel=BATCHES,
        ),
    ] = None
    queue_delay: Annotated[
        float,
        typer.Option(help="How long a request waits for others to join its batch, ms.", min=0, rich_help_panel=BATCHES),
    ] = 0.1
    queue_size: Annotated[
        Optional[int],
        typer.Option(
            help="Maximum number of waiting requests; more are refused.",
            min=1,
            show_default="no limit",
            rich_help_panel=QUEUE,
        ),
    ] = None
    timeout: Annotated[
        Optional[float],
        typer.Option(
            help="A request that has waited this long is refused, ms.",
            min=0.001,
            show_default="no limit",
            rich_help_panel=QUEUE,
        ),
    ] = None
    response_cache: Annotated[
        bool, typer.Option("--response-cache", help="Answer repeated requests from a cache.", rich_help_panel=QUEUE)
    ] = False
    instances: Annotated[
        Optional[int],
        typer.Option(
            help="Instances of the model on each device.",
            min=1,
            show_default="1; classifiers on a CPU: 2, in the onnxruntime backend one a core",
            rich_help_panel=DEVICES,
        ),
    ] = None
    device: Annotated[
        Literal["auto", "cpu", "gpu"],
        typer.Option(help="auto uses a GPU if there is one.", rich_help_panel=DEVICES),
    ] = "auto"
    warm_up: Annotated[
        bool, typer.Option(help="Run the first batches before the model becomes ready.", rich_help_panel=DEVICES)
    ] = True
    accelerator: Annotated[
        Literal["none", "tensorrt"],
        typer.Option(help="Backend onnxruntime: TensorRT inside, in the bundle's precision.", rich_help_panel=DEVICES),
    ] = "none"
    engine_cache: Annotated[
        str, typer.Option(help="Folder on the server for the accelerator's engines.", rich_help_panel=DEVICES)
    ] = "/tmp"
    rate_limit: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="RESOURCE:COUNT", help="Resources that one execution takes. Repeatable.", rich_help_panel=LIMITS
        ),
    ] = None
    priority: Annotated[
        Optional[int],
        typer.Option(
            help="Priority of its executions over other models', 1 is the highest.", min=1, rich_help_panel=LIMITS
        ),
    ] = None

    def deploy_options(self, backend: Backend) -> DeployOptions:
        """The options as csg_serve takes them."""
        from csg_serve.triton.deploy_options import DeployOptions
        from csg_serve.triton.executable import has_python_backend

        return DeployOptions(
            backend=backend,
            encoded=has_python_backend() if self.encoded is None else self.encoded,
            formats=self.formats,
            keep=self.keep,
            max_batch=self.max_batch,
            preferred_batch=tuple(self.preferred_batch or ()),
            queue_delay_ms=self.queue_delay,
            queue_size=self.queue_size,
            timeout_ms=self.timeout,
            response_cache=self.response_cache,
            instances=self.instances,
            device=self.device,
            warm_up=self.warm_up,
            accelerator=self.accelerator,
            engine_cache=self.engine_cache,
            rate_limit=tuple(self.rate_limit or ()),
            priority=self.priority,
        )


@grouped
def deploy(
    *,
    context: typer.Context,
    bundle: Annotated[
        Optional[Path],
        typer.Argument(
            help="Bundle folder.",
            show_default="the newest in bundles/",
            autocompletion=completion.bundles,
        ),
    ] = None,
    repository: Repository = Path("model_repository"),
    name: Annotated[Optional[str], typer.Option(help="Name of the model.", show_default="the card's")] = None,
    backend: Annotated[
        Backend,
        typer.Option(help="Triton backend; auto chooses one that tritonserver has."),
    ] = "auto",
    version: Annotated[
        Optional[int], typer.Option(help="Version number; with --rollback the version to return to.", min=1)
    ] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Serve an earlier version again, by default the previous one.")
    ] = False,
    mode: Annotated[
        Optional[str],
        typer.Option(
            metavar="OCTAL",
            help="Permissions of the files, such as 644; folders to match. For a server that another user runs.",
            show_default="your umask",
        ),
    ] = None,
    only_if_better: Annotated[
        bool,
        typer.Option(
            "--only-if-better",
            help="First evaluate the bundle and the live version on --data, in this process; exit code 5, and nothing "
            "changes, unless the 95 % interval of the difference is above 0.",
        ),
    ] = False,
    data: Annotated[
        Optional[list[str]],
        typer.Option(help="--only-if-better: labelled real images, as `csg evaluate` takes them. Repeatable."),
    ] = None,
    serving: ServingOptions,
    as_json: Json = False,
) -> None:
    """Add a bundle to a Triton model repository as the model's next version, or return to an earlier version.

    The options apply to this version only: the next deployment starts from the defaults again.
    """
    from csg_serve.repository.deploy import deploy_command
    from csg_serve.repository.rollback import roll_back_command

    if rollback:
        if others := _given(context) - ROLLBACK_OPTIONS:
            raise UsageError(
                f"--rollback can't be combined with {min(others)}",
                "a version is served as it was deployed; choose it with --version",
            )
        roll_back_command(repository, name, version=version, mode=mode, as_json=as_json)
        return
    options, check = serving.deploy_options(backend), _check(only_if_better, data or [])
    deploy_command(
        bundle, repository, name=name, version=version, options=options, mode=mode, check=check, as_json=as_json
    )


def _check(only_if_better: bool, data: list[str]) -> Check:
    """What a bundle has to pass before it is deployed.

    Raises:
        UsageError: --only-if-better has no images, or there are images without it.
    """
    from csg_serve.repository.deploy import unchecked

    if only_if_better != bool(data):
        given, missing = ("--only-if-better", "--data") if only_if_better else ("--data", "--only-if-better")
        raise UsageError(f"{given} needs {missing}", f"add {missing}, or leave out {given}")
    if not only_if_better:
        return unchecked
    from csg_serve.evaluate.only_if_better import check_better

    return partial(check_better, data=tuple(data))


def _given(context: typer.Context) -> set[str]:
    """The arguments and options on the command line, by name."""
    sources = {one.opts[0]: context.get_parameter_source(str(one.name)) for one in context.command.params}
    return {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
