"""The rooms: imports run one way, and the command line starts without the heavy ones (docs/architecture.md)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "csg": set(),
    "csg_cli": {"csg", "csg_train", "csg_export", "csg_serve"},
    "csg_train": {"csg"},
    "csg_export": {"csg", "csg_train"},
    "csg_serve": {"csg"},
}


def imported(path):
    """Modules that a file imports anywhere, functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:  # scripts for Triton import each other from the folder they are copied to
                assert path.parent.name == "python_backend", f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        inside = path.relative_to(ROOT).as_posix()
        for module in imported(path):
            other = module.split(".")[0]
            if other in MAY_IMPORT and other != package and inside != "csg/__main__.py":
                assert other in MAY_IMPORT[package], f"{inside} imports {module}"
            if package in ("csg", "csg_serve"):
                assert other not in ("torch", "torchvision"), f"{inside} imports {module}"
            if package not in ("csg_serve", "csg_cli"):
                assert other != "tritonclient", f"{inside} imports {module}"


@pytest.mark.parametrize(
    "statement", ["import csg_cli", "from csg_cli import app; import typer; typer.main.get_command(app)"]
)
def test_the_command_line_starts_light(statement):
    heavy = "numpy pydantic PIL sklearn torch torchvision tritonclient onnx onnxruntime yaml scipy matplotlib"
    check = f"{statement}; import sys; print([m for m in {heavy.split()!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_serving_client_works_without_torch():
    check = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'torchvision', 'csg_train', 'csg_export', 'onnx']));"
        "import csg_serve.client.client, csg_serve.evaluate.command, csg_serve.repository.deploy;"
        "import csg_serve.server.serve, csg_serve.triton.config"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
