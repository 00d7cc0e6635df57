"""Options that several commands share: each one is declared once, so that it has one meaning and one help text.

A group of options is a dataclass; a command takes it as one parameter and is decorated with `grouped`.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, get_type_hints

import typer

from csg.errors import UsageError
from csg_cli import completion

if TYPE_CHECKING:
    from csg_serve.client.endpoints import Servers

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, log on standard error.")]
Repository = Annotated[Path, typer.Option(help="Model repository.")]
Model = Annotated[
    Optional[str], typer.Option(help="Name of the model.", show_default="the only csg model on the server")
]
Tile = Annotated[
    Optional[int], typer.Option(help="Segmenters: send images as overlapping tiles with sides of N pixels.", min=64)
]
Labels = Annotated[
    Optional[str],
    typer.Option(
        help="Segmenters: label set of the masks, a name or a YAML file.",
        show_default="labels.yaml in the folder",
        autocompletion=completion.label_sets,
    ),
]

Tracker = Annotated[
    Optional[list[str]],
    typer.Option(
        metavar="NAME",
        help="Also send the run's figures and images to mlflow, wandb or trackio. Repeatable; a resumed run keeps its "
        "own.",
        show_default="TensorBoard alone",
        autocompletion=completion.trackers,
    ),
]


@dataclass(frozen=True, kw_only=True)
class ConnectionOptions:
    """The servers that a command talks to."""

    server: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Address of a running Triton: HOST:PORT (gRPC), http://HOST:PORT or https://HOST/PATH. Repeat it to "
            "share the work among several servers of the same model.",
            show_default="localhost:8001",
        ),
    ] = None
    tls_ca: Annotated[
        Optional[Path],
        typer.Option(
            help="Connect over TLS and trust these PEM certificates (grpcs://HOST:PORT trusts the system's).",
            envvar="CSG_TLS_CA",
        ),
    ] = None
    tls_cert: Annotated[
        Optional[Path], typer.Option(help="PEM client certificate, if the server requires one.", envvar="CSG_TLS_CERT")
    ] = None
    tls_key: Annotated[Optional[Path], typer.Option(help="PEM key of --tls-cert.", envvar="CSG_TLS_KEY")] = None
    secret_file: Annotated[
        Optional[Path],
        typer.Option(help="File with the secret of the server's control API.", show_default="$CSG_SECRET, or none"),
    ] = None

    def source(self, words: Sequence[str]) -> tuple[Servers | Path, list[str]]:
        """Where the model is: in the bundle that is the first of a command's words, or on the servers.

        Args:
            words: the command's arguments, of which the first may be the folder of a bundle.

        Returns:
            the bundle or the servers, and the other arguments.

        Raises:
            UsageError: a server is given too, or the bundle is not the first word.
            InputError: the first word is a folder of another kind, such as a run; as `servers`.
        """
        from csg.folders import kind_of, wrong_folder

        kinds = [kind_of(Path(word)) for word in words]
        if "bundle" in kinds[1:]:
            raise UsageError(
                f"{words[kinds.index('bundle', 1)]} is a bundle", "name one bundle, before everything else"
            )
        if not words or kinds[0] is None:
            return self.servers(), list(words)
        bundle = Path(words[0])
        if kinds[0] != "bundle":
            raise wrong_folder(bundle, "bundle", "name a bundle")
        if self.server:
            raise UsageError(f"the bundle {bundle} answers in this process, without a server", "leave out --server")
        return bundle, list(words[1:])

    def servers(self) -> Servers:
        """The servers, with what they require of a client.

        Raises:
            InputError: the secret file can't be read.
        """
        from csg_serve.client.endpoints import named_servers

        return named_servers(
            self.server,
            tls_ca=self.tls_ca,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            secret_file=self.secret_file,
        )


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """The settings of a training that have an option of their own; all others are set with --set."""

    recipe: Annotated[
        Optional[str],
        typer.Option(
            help="Recipe: a name or a YAML file.",
            show_default="the embedded dataset's",
            autocompletion=completion.recipes,
        ),
    ] = None
    data: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Synthetic training images: class folders or a list file; for segmentation folders with images/ and "
            "labels/, Cityscapes' tree, or a list file. Repeat it to join several."
        ),
    ] = None
    real_data: Annotated[
        Optional[list[str]],
        typer.Option(help="Real images to measure on, never trained on. With --data alone, nothing is measured."),
    ] = None
    backbone: Annotated[
        Optional[str],
        typer.Option(
            help="mobilenet_v2, resnet18, resnet34, resnet50 or resnet101, each also with the suffix _ibn_a or _ibn_b; "
            "or timm:NAME.",
            autocompletion=completion.backbones,
        ),
    ] = None
    weights: Annotated[
        Optional[str],
        typer.Option(
            metavar="FILE",
            help="Pretrained weights of the backbone: torchvision's, timm's, IBN-Net's, or a checkpoint of the "
            "published code; or 'none'.",
            show_default="ImageNet's, downloaded",
        ),
    ] = None
    epochs: Annotated[Optional[int], typer.Option(help="Passes over the synthetic images.")] = None
    precision: Annotated[
        Optional[str],
        typer.Option(help="Arithmetic: auto, bf16, fp16 or fp32.", autocompletion=completion.training_precisions),
    ] = None
    assignments: Annotated[
        Optional[list[str]],
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any setting of the recipe, such as optim.batch=32, or of the method, such as method.temperature=0.2. "
            "Repeatable.",
            autocompletion=completion.settings,
        ),
    ] = None

    def settings(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that the options give, by dotted name.

        Args:
            more: settings of options outside this group; None for an option that is not given.

        Raises:
            UsageError: a --set is malformed, or a setting is given twice.
        """
        from csg_train.recipe import merge_settings, parse_settings

        options = {
            "data.train": self.data,
            "data.real": self.real_data,
            "model.backbone": self.backbone,
            "model.weights": self.weights,
            "optim.epochs": self.epochs,
            "precision": self.precision,
            **more,
        }
        given = {name: value for name, value in options.items() if value is not None}
        assigned = parse_settings(self.assignments or [])
        if self.epochs is not None and "optim.steps" not in assigned:
            given["optim.steps"] = None  # a recipe's steps would go before the passes
        return merge_settings(given, assigned)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with each parameter that is a dataclass of options replaced by those options.

    Example:
        >>> @grouped
        ... def models(connection: ConnectionOptions, as_json: Json = False) -> None: ...
    """
    groups: dict[str, type] = {}
    parameters = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        group = parameter.annotation
        if isinstance(group, type) and dataclasses.is_dataclass(group):
            groups[parameter.name] = group
            hints = get_type_hints(group, include_extras=True)
            parameters += [_keyword(f.name, f.default, hints[f.name]) for f in dataclasses.fields(group)]
        else:
            parameters.append(_keyword(parameter.name, parameter.default, parameter.annotation))

    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{f.name: values.pop(f.name) for f in dataclasses.fields(group)})
        command(**values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _keyword(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def examples(*commands: str) -> str:
    """The end of a command's help: examples, each on a line of its own."""
    return "\n\n".join(["Examples:", *(f"$ {command}" for command in commands)])
