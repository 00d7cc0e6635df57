"""`csg compare --executor ray` on a cluster of two workers on this machine, one of which is lost in the middle."""

import json
import signal
import subprocess
import time

import psutil
import pytest

from tests.helpers.cli import CSG, csg
from tests.helpers.small_runs import TINY, noisy_images

ray = pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
METHODS = ("--method", "none", "--method", "none:augment=true")


@pytest.fixture
def words(tmp_path):
    """The words of a comparison that both executors make: two short runs, with ten checkpoints each."""
    images = [noisy_images(tmp_path / name, 12, seed=seed) for seed, name in enumerate(("data", "real"))]
    shared = {name: value for name, value in TINY.items() if name != "method"} | {"optim.steps": 30}
    words = [word for name, value in shared.items() for word in ("--set", f"{name}={value}")]
    return ["--data", images[0], "--real-data", images[1], *words, *METHODS, "--seeds", 1, "--no-tune", "--json"]


@pytest.fixture
def cluster(monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as Ray does for a run with one core; sums depend on it
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 by default: beside other tests a run hardly moves
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        started.workers = [started.add_node(num_cpus=1, include_dashboard=False) for _ in range(2)]
        monkeypatch.setenv("RAY_ADDRESS", started.address)
        yield started
    finally:
        started.shutdown()


def started(folder, words):
    command = [*CSG, "compare", "cls", "--out", folder, "--executor", "ray:cpus=1", *words]
    return subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_in_the_middle(folder, process):
    """The name of a run that has a checkpoint and is not finished."""
    while not (files := list(folder.glob("runs/*/checkpoints/step-*"))):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return files[0].parent.parent.name


def worker_of(cluster, run):
    """The worker on which a run is trained, as soon as one trains it."""
    while True:
        for worker in cluster.workers:
            raylet = worker.all_processes["raylet"][0].process.pid
            if any(run in " ".join(words_of(child)) for child in psutil.Process(raylet).children(recursive=True)):
                return worker
        time.sleep(0.05)


def words_of(process):
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def without_times(text):
    result = json.loads(text)
    for row in result["rows"]:
        del row["step_ms"], row["peak_mb"]
    for method in result["methods"]:
        for run in method["runs"]:
            del run["seconds_per_step"], run["peak_memory_mib"]
    return result


def table(folder):
    """The lines of a table without its last two columns, which are time and memory."""
    lines = (folder / "table.md").read_text().splitlines()
    return [line.rsplit("|", 3)[0] if line.startswith("|") else line for line in lines]


def test_stopped_and_continued_with_a_worker_lost_no_figure_changes(cluster, words, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    process = started(there, words)
    run = run_in_the_middle(there, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 130, err
    assert "comparison stopped; continue it with the same command" in err
    process = started(there, words)
    cluster.remove_node(worker_of(cluster, run), allow_graceful=False)
    out, err = process.communicate(timeout=800)
    assert process.returncode == 0, err
    assert "resumed after step" in (there / "logs" / f"runs-{run}.log").read_text()
    alone = csg("compare", "cls", "--out", here, *words)
    assert alone.returncode == 0, alone.stderr
    assert without_times(out) == without_times(alone.stdout)
    assert table(there) == table(here)
