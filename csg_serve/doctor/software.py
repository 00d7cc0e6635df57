"""csg, Python and the packages: their versions, and whether they can be imported.

Each large package is imported in a process of its own: one that hangs or crashes does not end the report.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata

import csg
from csg.errors import one_line
from csg.extras import SOURCES, install_command
from csg_serve.doctor.report import Problem, ReportPart
from csg_serve.python_backend.sessions import has_gpu

IMPORT_S = 120
"""Seconds that the import of related packages may take; on an idle machine it is less than ten."""
PACKAGES = (
    *("numpy", "torch", "torchvision", "timm", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino"),
    *("tensorrt", "tensorrt-rtx", "tritonclient"),
)
"""The packages whose versions are shown, if they are installed."""
IMPORTED = (("torch", "torchvision"), ("onnx", "onnxruntime"), ("openvino",), ("tensorrt_rtx",), ("tritonclient.grpc",))
"""Modules that are imported, each group in a process of its own."""
SAID = {
    "torch": "['CUDA ' + m.version.cuda if m.version.cuda else 'for CPUs', *([m.cuda.get_device_name(i) for i in "
    "range(m.cuda.device_count())] if m.cuda.is_available() else ['finds no GPU'])]",
    "onnxruntime": "m.get_available_providers()",
    "openvino": "m.Core().available_devices",
}
"""For each module, as an expression, what is said of it."""
MARK = "csg doctor: "
PROGRAM = f"""
import importlib, json, sys
for name, said in json.loads(sys.argv[1]).items():
    m = importlib.import_module(name)
    print({MARK!r} + json.dumps({{name: eval(said)}}), flush=True)
"""
"""A program that imports modules in turn, and prints of each what its expression says."""
EXTRAS = {
    "train": ("torch", "torchvision", "safetensors", "scipy", "matplotlib", "tabulate", "tensorboard"),
    "export": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "serve": ("aiohttp", "jinja2", "google.protobuf", "psutil", "tritonclient"),
    "local": ("aiohttp", "onnx", "onnxruntime"),
    "video": ("av",),
    "bench": ("matplotlib", "tritonclient"),
    "openvino": ("openvino",),
    "timm": ("timm",),
    "hub": ("huggingface_hub",),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
    "ray": ("ray",),
    "tensorrt-rtx": ("tensorrt_rtx",),
}
"""Modules of each extra for users that tell whether it is installed."""


def software() -> ReportPart:
    """Versions of csg, Python and the packages; a package that can't be imported is a problem."""
    part = ReportPart("software", {"csg": f"{csg.__version__}, {SOURCES}", "python": _python()})
    part.facts.update({name: version for name in PACKAGES if (version := _version(name))})
    groups = [present for group in IMPORTED if (present := [module for module in group if _exists(module)])]
    with ThreadPoolExecutor() as pool:
        for facts, problem in pool.map(_import, groups):
            part.facts.update({f"{module} says": text for module, text in facts.items() if text})
            part.problems.extend([problem] if problem else [])
    part.problems.extend(_contradictions(part.facts))
    return part


def extras() -> ReportPart:
    """Which extras are installed, and how to add one that is not."""
    facts = {}
    for extra, modules in EXTRAS.items():
        lacking = [module for module in modules if not _exists(module)]
        facts[extra] = f"lacks {', '.join(lacking)}: {install_command(extra)}" if lacking else "installed"
    return ReportPart("extras", facts)


def _python() -> str:
    return f"{platform.python_version()}, {sys.executable}, {platform.platform()}"


def _version(name: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # the package around it is not there
        return False


def _import(modules: list[str]) -> tuple[dict[str, str], Problem | None]:
    """What modules say of themselves, up to the first that can't be imported, and why it can't."""
    said, why = dict[str, str](), f"it takes more than {IMPORT_S} s"
    command = [sys.executable, "-P", "-c", PROGRAM, json.dumps({module: SAID.get(module, "[]") for module in modules})]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as child:
        try:
            output, errors = child.communicate(timeout=IMPORT_S)
            why = one_line((errors.strip().splitlines() or [f"exit code {child.returncode}"])[-1], 200)
        except subprocess.TimeoutExpired:
            child.kill()
            output, errors = child.communicate()
    for line in output.splitlines():
        with suppress(ValueError):  # what a library prints
            found = json.loads(line.removeprefix(MARK)) if line.startswith(MARK) else {}
            said |= {module: ", ".join(map(str, words)) for module, words in found.items()}
    failed = next((module for module in modules if module not in said), None)
    advice = "install it again, in the version that csg asks for"
    return said, Problem(f"{failed} can't be imported: {why}", advice) if failed else None


def _contradictions(facts: dict[str, str]) -> list[Problem]:
    """Packages that are there and do not fit each other, or the machine."""
    found = []
    if {"onnxruntime", "onnxruntime-gpu"} <= facts.keys():
        uninstall = "pip uninstall onnxruntime onnxruntime-gpu, then install one of them again"
        found.append(Problem("onnxruntime and onnxruntime-gpu are both installed, and overwrite each other", uninstall))
    if has_gpu() and "finds no GPU" in facts.get("torch says", ""):
        advice = "install the build of torch for the driver's CUDA (see pytorch.org), or update the driver"
        found.append(Problem("this machine has an NVIDIA GPU, and torch does not find it", advice))
    if has_gpu() and "CUDA" not in facts.get("onnxruntime says", "CUDA"):
        advice = "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        found.append(Problem("this machine has an NVIDIA GPU, and ONNX Runtime is built for CPUs", advice))
    installed = _version("csg")
    if installed and installed != csg.__version__ and not (SOURCES / "pyproject.toml").is_file():
        found.append(
            Problem(
                f"the installed package csg {installed} is not the csg that runs, {csg.__version__}",
                "pip uninstall csg, then install csg from its repository or wheel: PyPI's csg is another project",
            )
        )
    return found
