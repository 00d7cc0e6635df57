"""csg installed without an extra: each command names the extra that it needs."""

import subprocess
import sys

import pytest

from csg_cli import EXTRAS, ORDER
from tests.helpers.cli import refused


def csg_without(module, *words):
    """Run a command in a process in which a module cannot be imported."""
    code = f"import sys; sys.modules[{module!r}] = None; from csg_cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "module", "extra"),
    [
        (("train", "cls"), "torch", "train"),
        (("export",), "onnx", "export"),
        (("deploy",), "tritonclient", "serve"),
        (("evaluate",), "tritonclient", "serve"),
        (("serve",), "google.protobuf", "serve"),
        (("deploy",), "grpc", "serve"),
    ],
)
def test_a_missing_package_is_one_line_with_the_extra(words, module, extra):
    done = csg_without(module, *words)
    refused(done, 2, rf"csg {words[0]} needs the module {module}.*; pip install -e '.*\[{extra}\]'")


def test_a_missing_module_of_csg_is_an_internal_error():
    done = csg_without("csg_train.training.command", "train", "cls")
    assert done.returncode == 1
    assert "internal error: ModuleNotFoundError" in done.stderr


def test_every_command_has_an_extra():
    assert set(EXTRAS) == set(ORDER) - {"demo", "doctor"}  # the first runs the others, the second needs none
