"""Imports run one way (the contracts in pyproject.toml), and what must start light does (docs/architecture.md)."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_rooms_import_one_way_and_in_no_circle():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "statement", ["import csg_cli", "from csg_cli import app; import typer; typer.main.get_command(app)"]
)
def test_the_command_line_starts_light(statement):
    heavy = "numpy pydantic PIL sklearn torch torchvision tritonclient onnx onnxruntime yaml scipy matplotlib"
    check = f"{statement}; import sys; print([m for m in {heavy.split()!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_serving_works_without_training_packages():
    check = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'torchvision', 'csg_train', 'csg_export', 'onnx']));"
        "import csg_serve.client.client, csg_serve.evaluate.command, csg_serve.repository.deploy;"
        "import csg_serve.server.serve, csg_serve.bench.command"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
