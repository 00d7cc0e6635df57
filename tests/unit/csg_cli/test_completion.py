"""What a shell completes, asked as bash asks."""

import os
import subprocess
import sys

import pytest

PLUGIN = """
from csg_train.methods.base import Method
class Mine(Method): ...
"""


def completed(line, *paths):
    """The words that bash is offered for the last word of a command line."""
    environment = os.environ | {
        "_CSG_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
        "PYTHONPATH": os.pathsep.join([*map(str, paths), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run([sys.executable, "-m", "csg"], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


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
        ("csg evaluate --labels c", ["camvid11", "cityscapes19"]),
        ("csg weights pull resnet34", ["resnet34", "resnet34_ibn_a", "resnet34_ibn_b"]),
    ],
)
def test_values_complete(line, words):
    assert completed(line) == words


def test_a_method_of_another_package_completes(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    package = tmp_path / "mine-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[csg.methods]\nmine = mine:Mine\n")
    assert completed("csg train cls --method mi", tmp_path) == ["mine"]
