"""The command line on full and read-only disks, and without a reader: one line, exit code 3, nothing half-written."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.cli import CSG, refused
from tests.helpers.image_files import encoded, noise

SMALL = "--set data.size=32 --set data.resize=32 --set optim.batch=4 --set optim.max_steps=2 --set data.workers=0"
TRAIN = ("train", "cls", *SMALL.split(), "--set", "model.weights=none", "--method", "none", "--data", "data")
COMPARE = (*TRAIN[2:-4], "--data", "data", "--real-data", "data", "--method", "none", "--no-tune")
IN_A_NAMESPACE = ("unshare", "--mount", "bash", "-ec")
TEXT = {"capture_output": True, "text": True}


@pytest.fixture
def disk(tmp_path):
    """Run a command in an empty folder with images beside it, on a disk of its own that is mounted with options."""
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(encoded(noise(size=(40, 40))))
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "file").write_text("")

    def run(options, *args, after=""):
        script = f"""
            mount -t tmpfs -o {options.partition(",ro")[0]} none disk && cp -r data disk/ && touch disk/file
            {"mount -o remount,ro disk" if options.endswith(",ro") else ""}
            cd disk && code=0 && "$@" || code=$?
            find . -not -path './data*' -not -name file -not -name '.'; exit $code
        """
        return subprocess.run([*IN_A_NAMESPACE, script, "bash", *CSG, *map(str, args)], cwd=tmp_path, **TEXT)

    if subprocess.run([*IN_A_NAMESPACE, "mount -t tmpfs none disk"], cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("no permission to mount a disk")
    return run


def left(done):
    files = done.stdout.split()
    done.stdout = ""
    return files


@pytest.mark.parametrize(
    "args",
    [
        pytest.param(TRAIN, marks=pytest.mark.slow),
        pytest.param((*TRAIN, "--out", "new/run"), marks=pytest.mark.slow),
        pytest.param(("compare", "cls", *COMPARE), marks=pytest.mark.slow),
        ("data", "synth", "digits", "--count", "10"),
    ],
)
def test_a_read_only_folder(disk, args):
    done = disk("size=1m,ro", *args)
    assert not left(done)
    refused(done, 3, "the file system is read-only", "--out")


@pytest.mark.slow
@pytest.mark.parametrize("size", ["48k", "64k"])
def test_a_disk_that_is_full_while_training(disk, size):
    done = disk(f"size={size}", *TRAIN, "--out", "run")
    written = left(done)
    refused(done, 3, "the disk is full|No space left", "free (some )?space")
    assert not [name for name in written if "safetensors" in name or "result" in name]


@pytest.mark.parametrize("kind", ["digits", pytest.param("digit-scenes", marks=pytest.mark.slow)])
def test_a_disk_that_is_full_while_drawing(disk, kind):
    done = disk("size=200k", "data", "synth", "out", "--kind", kind, "--count", "400")
    assert not left(done)
    refused(done, 3, "can't use out: the disk is full")


def test_names_are_utf_8_whatever_the_locale(tmp_path):
    for name in ("café", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.png").write_bytes(encoded(noise()))
    ascii_locale = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = subprocess.run([*CSG, "data", "check", "data", "--json"], cwd=tmp_path, env=ascii_locale, **TEXT)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["training"]["classes"]) == {"café", "dog"}


@pytest.mark.parametrize("args", [("--help",), ("train", "cls", "--help")])
def test_a_reader_that_leaves_and_an_output_that_is_full(args):
    command = subprocess.Popen([*CSG, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    command.stdout.close()
    assert not command.stderr.read()
    assert command.wait() == 141
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*CSG, *args], stdout=full, stderr=subprocess.PIPE, text=True)
    done.stdout = ""
    refused(done, 3, "standard output: the disk is full")
