"""A method of one's own is trained, compared and exported, by the steps of docs/how-to/method.md."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "how-to" / "method.md").read_text()
EXAMPLE = ROOT / "examples" / "own_method.py"
TINY = ["data.size=32", "data.resize=32", "optim.batch=4", "optim.max_steps=2", "precision=fp32", "data.workers=0"]
TINY += ["model.backbone=resnet18", "model.weights=none"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two folders of eight images of two classes: synthetic and real."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for kind in ("synthetic", "real"):
        for label in ("dark", "light"):
            (folder / kind / label).mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(0, 100, (32, 32, 3), np.uint8) + (155 if label == "light" else 0)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / label / f"{number}.png")
    return folder


def by_file(folder):
    """Step 2b, in a copy of the packages."""
    for package in ("csg", "csg_cli", "csg_train", "csg_export"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(EXAMPLE, folder / "csg_train" / "methods")
    registry = folder / "csg_train" / "methods" / "__init__.py"
    (row,) = re.findall(r'^ {4}"small-logits": "csg_train.*\n', PAGE, re.M)
    before, start, after = registry.read_text().partition("METHODS: dict[str, str] = {\n")
    registry.write_text(before + start + row + after)


def by_entry_point(folder):
    """Step 2a: the files that installing a package with this entry point writes."""
    shutil.copy(EXAMPLE, folder)
    info = folder / "own_method-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-method\nVersion: 1.0\n")
    (line,) = re.findall(r'^small-logits = "(own_method:\w+)"$', PAGE, re.M)
    (info / "entry_points.txt").write_text(f"[csg.methods]\nsmall-logits = {line}\n")


@pytest.mark.slow
@pytest.mark.parametrize("register", [by_file, by_entry_point])
def test_a_method_of_ones_own_trains_compares_and_exports(register, images, tmp_path):
    register(tmp_path)

    def csg(*args):
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
        done = subprocess.run([sys.executable, "-m", "csg", *args], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    data = ["--data", str(images / "synthetic"), "--real-data", str(images / "real")]
    data += [word for setting in TINY for word in ("--set", setting)]
    assert "small-logits" in csg("train", "cls", "--help")
    csg("train", "cls", "--method", "small-logits:weight=0.1", *data, "--out", "run")
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert last["loss/penalty"] == pytest.approx(0.1 * last["mean_squared_logit"], rel=1e-4)
    if register is by_entry_point:  # what is known by name is known to every command
        compared = csg("compare", "cls", "--method", "small-logits", "--seeds", "1", "--no-tune", *data, "--json")
        assert [row["method"] for row in json.loads(compared)["rows"]] == ["small-logits"]
        csg("export", "run", "--out", "bundle")
        assert (tmp_path / "bundle" / "model.onnx").is_file()
