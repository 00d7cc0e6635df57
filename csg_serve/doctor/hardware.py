"""CPU, memory, GPU, shared memory, disks and limits of this machine, or of the container that csg runs in."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from csg.files import cache_dir
from csg.sizes import size_text
from csg_serve.doctor.report import Problem, ReportPart
from csg_serve.triton.machine import available_cores

CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "bf16", "sve_bf16")
"""Features of a CPU that decide on how fast a model is, and on bf16."""
SHARED_MEMORY = Path("/dev/shm")
LEAST_SHARED, LEAST_MEMORY, LEAST_DISK, LEAST_FILES = 128 * 2**20, 2**30, 2**30, 4096
"""Free bytes of shared memory, of memory and of a disk, and open files, below which work fails sooner or later."""
CGROUP = Path("/sys/fs/cgroup")


def hardware() -> ReportPart:
    """What the machine has."""
    part = ReportPart("machine", {"cpu": _cpu(), "gpu": _gpu(), "container": _container()})
    _add_memory(part)
    _add_shared_memory(part)
    _add_disks(part)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    part.facts["open files"] = f"{soft}, at most {hard}"
    if 0 <= hard < LEAST_FILES:
        part.problems.append(Problem(f"at most {hard} files may be open", f"raise the limit: ulimit -Hn {LEAST_FILES}"))
    return part


def _cpu() -> str:
    text = _text(Path("/proc/cpuinfo"))
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in lines.items()}
    words = f"{fields.get('flags', '')} {fields.get('Features', '')}".split()
    features = [name for name in CPU_FEATURES if name in words]
    name = fields.get("model name") or platform.processor() or platform.machine()
    return f"{name}, {available_cores()} of {os.cpu_count()} cores usable, {' '.join(features) or 'no AVX2'}"


def _gpu() -> str:
    """NVIDIA's GPUs, as its driver lists them."""
    fields = "name,memory.total,compute_cap,driver_version"
    if not shutil.which("nvidia-smi"):
        driver = Path("/proc/driver/nvidia/version").is_file()
        return "a driver without nvidia-smi" if driver else "none (no nvidia-smi)"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        if not done.returncode:
            return "; ".join(line.strip() for line in done.stdout.splitlines()) or "none"
    return "nvidia-smi does not answer"


def _container() -> str:
    kinds = {"/.dockerenv": "Docker", "/run/.containerenv": "Podman", "/var/run/secrets/kubernetes.io": "Kubernetes"}
    return next((kind for file, kind in kinds.items() if Path(file).exists()), "no")


def _add_memory(part: ReportPart) -> None:
    lines = dict(line.split(":", 1) for line in _text(Path("/proc/meminfo")).splitlines() if ":" in line)
    kib = {name: int(value.split()[0]) for name, value in lines.items()}
    total, free = (kib.get(name, 0) * 1024 for name in ("MemTotal", "MemAvailable"))
    own = _text(Path("/proc/self/cgroup")).rpartition("0::/")[2].strip()
    with suppress(ValueError):  # no such file, or "max": no limit
        limit = int(_text(CGROUP / own / "memory.max"))
        used = int(_text(CGROUP / own / "memory.current"))
        total, free = min(total, limit), min(free, max(0, limit - used))
    part.facts["memory"] = f"{size_text(free)} available of {size_text(total)}"
    if total and free < LEAST_MEMORY:
        advice = "close other programs, or use smaller batches (--set optim.batch=N)"
        part.problems.append(Problem(f"only {size_text(free)} of memory are available", advice))


def _add_shared_memory(part: ReportPart) -> None:
    with suppress(OSError):
        usage = shutil.disk_usage(SHARED_MEMORY)
        part.facts[str(SHARED_MEMORY)] = f"{size_text(usage.free)} free of {size_text(usage.total)}"
        if usage.free < LEAST_SHARED:
            advice = "start the container with --shm-size=2g, or train with --set data.workers=0"
            part.problems.append(Problem(f"{SHARED_MEMORY} has {size_text(usage.free)} free", advice))
        return
    part.facts[str(SHARED_MEMORY)] = "not there"


def _add_disks(part: ReportPart) -> None:
    places = {"this folder": Path.cwd(), "cache": cache_dir(), "temporary files": Path(tempfile.gettempdir())}
    for name, place in places.items():
        there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
        free = shutil.disk_usage(there).free
        part.facts[f"disk of {name}"] = f"{size_text(free)} free, {place}"
        if free < LEAST_DISK:
            part.problems.append(Problem(f"the disk of {place} has {size_text(free)} free", "free some space on it"))
        if not os.access(there, os.W_OK | os.X_OK):
            advice = {
                "cache": "set CSG_CACHE to a folder of yours",
                "temporary files": "set TMPDIR to a folder of yours",
            }
            change = advice.get(name, "change to a folder of yours, or use --out")
            part.problems.append(Problem(f"{there} can't be written to", change))


def _text(file: Path) -> str:
    with suppress(OSError):
        return file.read_text(errors="replace")
    return ""
