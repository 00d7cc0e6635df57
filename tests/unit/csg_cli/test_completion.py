"""What a shell completes, asked as bash asks."""

import os
import subprocess

import pytest

from tests.helpers.cli import CSG, csg

PLUGIN = """
from csg_train.methods.base import Method
class Mine(Method): ...
"""


def asking(line):
    """The variables with which bash asks for the last word of a command line."""
    return {"_CSG_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("csg ev", ["evaluate"]),
        ("csg train cls --method a", ["asg", "asg-l2o"]),
        ("csg compare seg --method none --method c", ["csg"]),
        ("csg train cls --recipe dig", ["digit-scenes", "digits"]),
        ("csg train cls --backbone mob", ["mobilenet_v2", "mobilenet_v2_ibn_a", "mobilenet_v2_ibn_b"]),
        ("csg train cls --precision ", ["auto", "bf16", "fp16", "fp32"]),
        ("csg train cls --set optim.m", ["optim.momentum=", "optim.max_steps="]),
        ("csg export --precision ", ["fp32", "fp16", "bf16", "int8"]),
        ("csg evaluate --labels c", ["camvid11", "cityscapes16", "cityscapes19"]),
        ("csg weights pull resnet34", ["resnet34", "resnet34_ibn_a", "resnet34_ibn_b"]),
    ],
)
def test_values_complete(line, words, monkeypatch):
    for name, value in asking(line).items():
        monkeypatch.setenv(name, value)
    assert csg().stdout.split() == words


def test_a_method_of_another_package_completes(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    package = tmp_path / "mine-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[csg.methods]\nmine = mine:Mine\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | asking("csg train cls --method mi") | {"PYTHONPATH": path}
    done = subprocess.run(CSG, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["mine"]
