"""Errors of a user: one line with a hint, an exit code, and no files left behind."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import csg_cli as cli


@pytest.fixture
def csg(monkeypatch, capfd, tmp_path):
    """Run a command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["csg", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            cli.main()
            raise SystemExit(0)
        return (end.value.code or 0, *capfd.readouterr())

    return call


def class_folders(folder, classes, images=4):
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(images):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def one_line(code, words, expected_code, *patterns):
    assert code == expected_code, words
    errors = [line for line in words.splitlines() if line.startswith(("error", "internal error", "Traceback"))]
    assert len(errors) == 1, words
    assert "; " in errors[0], "no hint"
    for pattern in patterns:
        assert re.search(pattern, errors[0]), errors[0]


BAD_COMMANDS = {
    "out is not UTF-8": (("train", "cls", "--out", "caf\udce9"), 3, r"caf\\xe9 is not UTF-8; rename it"),
    "data are not UTF-8": (("train", "cls", "--data", "caf\udce9"), 3, r"caf\\xe9 is not UTF-8; rename it"),
    "an empty value": (("train", "cls", "--out", ""), 2, "an argument is empty after --out"),
    "an empty value after =": (("train", "cls", "--out="), 2, "an argument is empty in --out="),
    "missing data": (("train", "cls", "--data", "nowhere", "--real-data", "nowhere"), 3, "nowhere"),
    "no such recipe": (("train", "cls", "--recipe", "nothing"), 2, "nothing.*digits"),
    "no such method": (("train", "cls", "--method", "magic"), 2, "magic.*csg"),
    "no such backbone": (("train", "cls", "--backbone", "vgg"), 2, "vgg.*mobilenet_v2"),
    "misspelt setting": (("train", "cls", "--set", "optim.epoch=3"), 2, "did you mean optim.epochs"),
    "setting without value": (("train", "cls", "--set", "optim.epochs"), 2, "name=value"),
    "impossible value": (("train", "cls", "--set", "optim.batch=0"), 2, r"optim\.batch"),
    "nothing to resume": (("train", "cls", "--resume"), 3, "no unfinished run"),
    "no run": (("export",), 3, "no run in runs"),
    "no run folder": (("export", "elsewhere"), 3, "elsewhere"),
    "no bundle": (("deploy",), 3, "no bundle in bundles"),
    "no model": (("serve",), 3, "no model in model_repository"),
    "random teacher": (("train", "cls", "--set", "model.weights=none"), 2, "pretrained teacher"),
    "missing weights": (("train", "cls", "--set", "model.weights=none.pth", "--set", "data.count=20"), 3, r"none\.pth"),
    "no such weights": (("weights", "pull", "vgg"), 2, "vgg"),
}


@pytest.mark.parametrize("name", BAD_COMMANDS)
def test_a_wrong_command_is_one_line(csg, tmp_path, name):
    args, expected, pattern = BAD_COMMANDS[name]
    code, out, words = csg(*args)
    one_line(code, words, expected, pattern)
    assert not out
    assert not [entry.name for entry in tmp_path.iterdir() if entry.name != "runs"]
    assert not list(tmp_path.glob("runs/*/*/*"))


def test_class_folders_that_differ(csg, tmp_path):
    class_folders(tmp_path / "synthetic", ["cat", "dog"])
    class_folders(tmp_path / "real", ["cat", "horse"])
    code, _, words = csg("train", "cls", "--data", "synthetic", "--real-data", "real", "--method", "none")
    one_line(code, words, 3, "only in real: horse", "missing in real: dog")


def test_an_empty_class_folder_is_named(csg, tmp_path):
    class_folders(tmp_path / "synthetic", ["cat", "dog"])
    (tmp_path / "synthetic" / "ox").mkdir()
    code, _, words = csg("train", "cls", "--data", "synthetic")
    one_line(code, words, 3, "synthetic/ox holds no image")


def test_an_unreadable_image_is_named_or_skipped(csg, tmp_path, weights):
    class_folders(tmp_path / "synthetic", ["cat", "dog"], images=8)
    (tmp_path / "synthetic" / "cat" / "0.png").write_bytes(b"broken")
    short = ("--set", "optim.max_steps=1", "--method", "none", "--set", "optim.batch=16")
    code, _, words = csg("train", "cls", "--data", "synthetic", *short)
    one_line(code, words, 3, r"synthetic/cat/0\.png")
    skip = ("--set", "data.on_unreadable=skip", "--out", "second", "--json")
    code, out, words = csg("train", "cls", "--data", "synthetic", *short, *skip)
    assert code == 0, words
    assert '"unreadable": 1' in out
    assert "cat/0.png" in words


def test_a_wrong_checkpoint_is_refused(csg, tmp_path, trained):
    import torch

    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    save_file({"encoder.weight": torch.zeros(3)}, run / "student.safetensors")
    code, _, words = csg("export", run)
    one_line(code, words, 3, r"student\.safetensors does not fit a mobilenet_v2")
    (run / "student.safetensors").write_bytes(b"cut")
    code, _, words = csg("export", run)
    one_line(code, words, 3, r"student\.safetensors is damaged")
    assert not (tmp_path / "bundles").exists()


@pytest.mark.slow
def test_an_error_of_a_download_names_file_address_and_setting(tmp_path):
    """Without network, in a separate process with an empty cache."""
    environment = {"TORCH_HOME": str(tmp_path), "PATH": "", "https_proxy": "http://127.0.0.1:9"}
    environment |= {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "csg", "weights", "pull", "resnet18"], env=environment, capture_output=True, text=True
    )
    one_line(
        done.returncode,
        done.stderr,
        3,
        r"resnet18-f37072fd\.pth",
        "https://download.pytorch.org",
        "--weights FILE",
    )
    assert not list(tmp_path.rglob("*.pth"))


def test_debug_shows_the_traceback(csg):
    from csg.errors import InputError

    with pytest.raises(InputError):
        csg("--debug", "export")


@pytest.mark.parametrize("command", [(), ("train", "cls"), ("export",), ("deploy",), ("serve",), ("evaluate",)])
def test_help_is_printed(csg, command):
    code, out, _ = csg(*command, "--help")
    assert code == 0
    assert "Usage: csg" in out


def test_export_and_inspect(csg, exported, tmp_path):
    bundle = shutil.copytree(exported("fp32").path, tmp_path / "bundle")
    _, out, err = csg("export", "inspect", bundle)
    assert "every file matches its SHA-256" in err
    for words in ("uint8 (batch, 32, 32, 3)", "54 with float weights", "stripped student", "opset 21", "7 hard"):
        assert words in out
    inside = json.loads(csg("export", "inspect", bundle, "--json")[1])
    assert inside["graph"]["layers"] == {"float": 54}
    assert inside["card"]["name"] == "digits-csg"
    (bundle / "model.onnx").write_bytes(b"other")
    code, _, err = csg("export", "inspect", bundle)
    one_line(code, err, 5, "does not match its SHA-256")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--torchvision", "resnet18"), "name two networks"),
        (
            ("--precision", "bf16", "--format", "tensorrt-rtx"),
            "bf16 is not available for --format tensorrt-rtx.*fp16",
        ),
        (("--format", "tensorrt"), "needs the package tensorrt.*tensorrt-rtx"),
        (("--batch", "8", "--format", "tensorrt-rtx"), "--batch 8"),
        (("--batch", "1:2:4"), "--batch is not used by --format onnx.*tensorrt or tensorrt-rtx"),
        (("--memory", "9"), "--memory is not used by --format onnx"),
        (("--portable", "--format", "tensorrt-rtx"), "--portable is not used by --format tensorrt-rtx.*tensorrt$"),
        (("--compute-capability", "8.6"), "--compute-capability is not used by --format onnx"),
        (("--calibration", "minmax"), "--calibration is not used by --precision fp32; .*int8"),
        (("--fp16", "--int8-first-last"), "--int8-first-last is not used by --precision fp16"),
        (("--weights", "none"), "--weights is for --torchvision only"),
        (("--data", "images"), "--data is not used by --precision fp32"),
        (("--tolerance", "inf"), "--tolerance inf"),
        (("--fp16", "--int8"), "--fp16 and --int8 both name a precision"),
        (("--precision", "bf16", "--fp16"), "--fp16 and --precision both name a precision"),
    ],
)
def test_invalid_exports_are_refused(csg, trained, words, says):
    code, _, err = csg("export", trained.path, *words)
    one_line(code, err, 2, says)
