"""Options that several commands share, so that each has one meaning and one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from csg_train.methods import METHODS

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, words on standard error.")]
Unreadable = Annotated[
    Literal["fail", "skip"],
    typer.Option(help="What to do with an image that can't be read: stop, or leave it out and count it."),
]
Server = Annotated[
    Optional[list[str]],
    typer.Option(
        help="Address of a running Triton: gRPC's HOST:PORT, or http://HOST:PORT; may be given more than once, for "
        "servers of the same model to share the work.",
        show_default="localhost:8001",
    ),
]
TlsCa = Annotated[
    Optional[Path],
    typer.Option(
        help="Ask over TLS, and trust these PEM certificates; grpcs:// trusts the system's.", envvar="CSG_TLS_CA"
    ),
]
TlsCert = Annotated[
    Optional[Path], typer.Option(help="PEM certificate to show to a server that asks for one.", envvar="CSG_TLS_CERT")
]
TlsKey = Annotated[Optional[Path], typer.Option(help="PEM key of --tls-cert.", envvar="CSG_TLS_KEY")]
SecretFile = Annotated[
    Optional[Path],
    typer.Option(help="File with the secret of the server's control protocols.", show_default="$CSG_SECRET, or none"),
]
Repository = Annotated[Path, typer.Option(help="Model repository.")]
Model = Annotated[Optional[str], typer.Option(help="Model name.", show_default="the only csg model there")]

RecipeName = Annotated[
    Optional[str], typer.Option(help="Recipe: a name or a YAML file.", show_default="the embedded set's")
]
Synthetic = Annotated[
    Optional[list[str]],
    typer.Option("--data", help="Synthetic images: class folders or a list file; may be given more than once."),
]
SyntheticScenes = Annotated[
    Optional[list[str]],
    typer.Option(
        "--data", help="Synthetic scenes: folders with images/ and labels/, or Cityscapes' tree; several are joined."
    ),
]
Real = Annotated[
    Optional[list[str]],
    typer.Option(help="Real images to measure on, never trained on; --data without it measures nothing."),
]
Labels = Annotated[
    Optional[str],
    typer.Option(help="Label set of the masks: cityscapes19 (GTA5's too), camvid11, or a YAML file."),
]
RealLabels = Annotated[
    Optional[str], typer.Option(help="Label set of the real masks, if it is another.", show_default="as --labels")
]
Head = Annotated[Optional[str], typer.Option(help="aspp (DeepLabv3's) or deeplabv2.")]
Backbone = Annotated[
    Optional[str],
    typer.Option(help="mobilenet_v2, resnet18, 34, 50 or 101, with _ibn_a or _ibn_b behind it, or timm:<name>."),
]
Weights = Annotated[
    Optional[str], typer.Option(help="File with ImageNet weights, or 'none'.", show_default="torch's cache")
]
Epochs = Annotated[Optional[int], typer.Option(help="Passes over the synthetic images.")]
MaxSteps = Annotated[Optional[int], typer.Option(help="Stop the schedule after this many steps.")]
Precision = Annotated[Optional[str], typer.Option(help="auto, bf16, fp16 or fp32.")]
Assign = Annotated[Optional[list[str]], typer.Option("--set", help="Any setting of the recipe, as a.b=c.")]

Method = Annotated[Optional[str], typer.Option(help=f"One of {', '.join(METHODS)}.")]
EvaluateEvery = Annotated[Optional[int], typer.Option(help="Measure on the real set every N epochs too.")]
Seed = Annotated[Optional[int], typer.Option(help="Fixes everything that is random.")]
UnreadableSetting = Annotated[
    Optional[str], typer.Option(help="An image that can't be read: 'fail', or 'skip' and count it.")
]
Strength = Annotated[Optional[float], typer.Option(help="Weight of the system's own loss (lambda, mu, c).")]
Styles = Annotated[Optional[str], typer.Option(help="drpc: folder of images to restyle with.")]
Fisher = Annotated[bool, typer.Option("--fisher", help="l2: weigh by Fisher information (EWC).")]
LearnedRates = Annotated[
    bool, typer.Option("--learned-rates", help="asg: layer-wise learning rates by the L2O policy.")
]
NoApool = Annotated[bool, typer.Option("--no-apool", help="csg: pool by the mean, not by attention.")]
NoMlp = Annotated[bool, typer.Option("--no-mlp", help="csg: projection heads of one layer.")]
Stages = Annotated[Optional[str], typer.Option(help="csg: stages contrasted.", show_default="layer3,layer4")]
Temperature = Annotated[Optional[float], typer.Option(help="csg: temperature tau.")]
Queue = Annotated[Optional[int], typer.Option(help="csg: negative keys in the queue, K.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the newest unfinished run, or the one at --out.")]

Methods = Annotated[
    Optional[list[str]],
    typer.Option(
        "--method",
        help="A method, settings behind colons: ewc, asg-l2o, csg:apool=false; may be given more than once.",
        show_default="all",
    ),
]
Seeds = Annotated[int, typer.Option(min=1, help="Runs of each system, with seeds 0, 1, ...")]
Tune = Annotated[bool, typer.Option(help="Three short tries of each system, judged on held-out synthetic images.")]
CompareStyles = Annotated[
    Optional[str], typer.Option("--styles", help="Folder of images drpc restyles with; without it, no drpc.")
]
CompareOut = Annotated[
    Optional[Path],
    typer.Option("--out", help="Folder; what it holds already is not made again.", show_default="comparisons/<recipe>"),
]
