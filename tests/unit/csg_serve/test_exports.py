"""What `import csg_serve` exports, and what it loads."""

import subprocess
import sys

import pytest

import csg_serve

HEAVY = "torch torchvision sklearn scipy matplotlib onnx onnxruntime aiohttp jinja2 yaml csg_train csg_export"
IMPORT = "import sys; from csg_serve import Client, open_model, stream"


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_every_exported_name_exists():
    assert set(csg_serve.__all__) <= set(dir(csg_serve))
    for name in csg_serve.__all__:
        assert getattr(csg_serve, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Server'"):
        _ = csg_serve.Server


def test_the_client_imports_nothing_heavy():
    assert run(f"{IMPORT}; print([name for name in {HEAVY.split()} if name in sys.modules])") == "[]"


def test_the_package_itself_loads_nothing():
    assert run("import csg_serve, sys; print([n for n in ('numpy', 'grpc', 'pydantic') if n in sys.modules])") == "[]"
