"""Loader processes that hang, die or find shared memory full: one line and a checkpoint, no traceback, no hang."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from csg_train.data import shared_memory
from csg_train.data.shared_memory import fitting_workers
from csg_train.training.run_folder import Run
from tests.helpers.cli import CSG
from tests.helpers.small_runs import noisy_images, settings

WORDS = settings(data__workers=2, optim__steps=100_000, model__freeze_batch_norm=True)


def test_fewer_loader_processes_are_used_where_shared_memory_is_small(monkeypatch, capsys):
    for free, batch, fitting in ((64, 10, 0), (64, 9, 1), (64, 1, 8), (1, 10, 0), (1000, 10, 8)):
        monkeypatch.setattr(shared_memory, "_free_bytes", lambda free=free: free * 2**20)
        assert fitting_workers(8, batch * 2**20) == fitting
        assert ("--shm-size" in capsys.readouterr().err) == (fitting < 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert fitting_workers(8, 10 * 2**20) == 5, "the processes of a training share the memory"
    monkeypatch.setattr(shared_memory, "_free_bytes", lambda: None)
    assert fitting_workers(8, 2**40) == 8, "no /dev/shm: nothing is known"


@pytest.fixture
def started(tmp_path):
    """`started(*before)`: a training with two loader processes, some steps old, with a folder for temporary files."""
    running = []

    def start(*before):
        data, out = noisy_images(tmp_path / "data", 20), tmp_path / "run"
        (tmp_path / "tmp").mkdir()
        env = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
        command = [*before, *CSG, "train", "cls", *WORDS, "--data", str(data), "--out", str(out)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
        running.append(process)
        wait_for(process, lambda: list((out / "checkpoints").glob("step-*")))
        return process, Run(out)

    yield start
    for process in running:
        process.kill()


def wait_for(process, ready):
    for _ in range(2400):
        assert process.poll() is None, process.stderr.read()
        if ready():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def loaders(pid):
    """The loader processes of a training."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(process, code, *words):
    """Check how a training has ended, and that its loader processes, which are killed, have left no sockets."""
    _, said = process.communicate(timeout=60)
    assert not list(Path("tmp").glob("pymp-*"))
    assert process.returncode == code, said
    lines = [line for line in said.splitlines() if line.startswith(("error", "internal", "Traceback", "Exception"))]
    assert len(lines) == 1, said
    for word in (*words, "csg train cls --resume --out"):
        assert word in lines[0], lines[0]


@pytest.mark.slow
def test_a_signal_ends_a_training_whose_loader_processes_hang(started):
    process, run = started()
    for pid in loaders(process.pid):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(2)  # the batches that were loaded ahead are used up
    before = run.load_checkpoint()[0]
    process.send_signal(signal.SIGHUP)
    ended(process, 130, "stopped after step")
    assert run.load_checkpoint()[0] >= before
    assert not run.finished


@pytest.mark.slow
@pytest.mark.parametrize(("number", "words"), [(signal.SIGKILL, "was killed"), (signal.SIGSEGV, "code -11")])
def test_a_loader_process_that_dies_ends_the_training_with_a_checkpoint(started, number, words):
    process, run = started()
    os.kill(loaders(process.pid)[0], number)
    ended(process, 3, "loading images failed", words, "data.workers=0")
    assert run.load_checkpoint()[0] > 0


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts a small /dev/shm")
def test_shared_memory_that_fills_up_ends_the_training_with_a_checkpoint(started):
    mount = 'mount -t tmpfs -o size=16m tmpfs /dev/shm && exec "$@"'
    process, run = started("unshare", "-m", "bash", "-c", mount, "sh")
    fill = "head -c 32M /dev/zero > /dev/shm/other"
    subprocess.run(["nsenter", "-m", "-t", str(process.pid), "sh", "-c", fill], stderr=subprocess.DEVNULL)
    ended(process, 3, "/dev/shm", "--shm-size")
    assert run.load_checkpoint()[0] > 0


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts a small disk")
def test_a_disk_that_fills_up_leaves_the_older_checkpoint(tmp_path):
    """The disk has room for two checkpoints, not for three; the run is continued once there is more."""
    data = noisy_images(tmp_path / "data", 20)
    (tmp_path / "disk").mkdir()
    words = " ".join(settings(optim__steps=30, model__freeze_batch_norm=True))
    script = f"""
        mount -t tmpfs -o size=48m tmpfs disk
        {" ".join(CSG)} train cls {words} --data {data} --out disk/run
        echo ended with $?; ls disk/run/checkpoints
        mount -o remount,size=500m disk
        {" ".join(CSG)} train cls --resume --out disk/run; echo resumed with $?
    """
    done = subprocess.run(["unshare", "-m", "bash", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert "ended with 3\nstep-00000010.safetensors\nstep-00000020.safetensors\n" in done.stdout, done.stderr
    error = next(line for line in done.stderr.splitlines() if line.startswith("error"))
    assert "(that of step 20 is kept); free space, then continue with `csg train cls --resume --out" in error
    assert "resumed after step 20 of 30" in done.stderr
    assert "resumed with 0" in done.stdout, done.stderr
