"""Where the trainings of a comparison run, and how long they are said to take."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from csg.errors import UsageError
from csg_train.compare.executors import LocalExecutor, _resources, open_executor
from csg_train.compare.resources import RunResources
from csg_train.compare.runs import Job, Killed, in_a_process
from csg_train.compare.timing import Forecast, Pace, timed_try
from csg_train.training.command import train
from csg_train.training.run_folder import Run
from tests.helpers.small_runs import noisy_images, stopped_run, tiny_recipe

PACE = Pace(first_s=1.0, low=0.1, high=0.2, batch=4, measured=12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slurm", "no executor 'slurm'"),
        ("Ray", "did you mean ray"),
        ("local:cpus=2", "local has no resources"),
        ("ray:cpu=2", "no resource cpu; did you mean cpus"),
        ("ray:cpus=0", "cpus: Input should be greater than 0"),
        ("ray:gpus=-1", "gpus: "),
        ("ray:memory=much", "memory: "),
        ("ray:cpus", "not of the form name=value"),
        ("ray:cpus=1:cpus=2", "given twice"),
    ],
)
def test_an_executor_that_is_written_wrongly_is_refused(text, words):
    with pytest.raises(UsageError, match=words):
        open_executor(text)


def test_executors_by_name():
    assert isinstance(open_executor("local"), LocalExecutor)
    assert _resources("", {"cpus": 4, "gpus": 0.5}) == RunResources(cpus=4, gpus=0.5)


def test_a_try_measures_steps_and_writes_nothing(tmp_path):
    images = noisy_images(tmp_path / "data"), noisy_images(tmp_path / "real", seed=1)
    pace = timed_try(tiny_recipe(*images))
    assert 0 < pace.low <= pace.high
    assert (pace.batch, pace.measured) == (4, 12)
    assert {file.name for file in tmp_path.iterdir()} == {"data", "real"}


def jobs(tmp_path, count, **changes):
    recipe = tiny_recipe(noisy_images(tmp_path / "data"), optim__steps=100, **changes)
    return [Job(tmp_path, f"runs/none-{seed}", recipe, "none") for seed in range(count)]


def test_a_forecast_is_a_range_that_follows_the_runs_that_are_made(tmp_path):
    forecast = Forecast({"none": PACE}, images=12, at_once=1)
    for job in jobs(tmp_path, 4):
        forecast.expect(job)
    low, high = forecast.seconds()
    assert 4 * 100 * PACE.low < low < high
    for number in range(3):
        forecast.note(f"runs/none-{number}", 50.0)
    low, high = forecast.seconds()
    assert low == pytest.approx(0.85 * 50)
    assert high == pytest.approx(1.15 * 50)
    forecast.note("runs/none-3", 50.0)
    assert forecast.seconds() == (0, 0)


def test_trainings_at_a_time_take_less_but_not_less_than_the_longest(tmp_path):
    one, two, many = (Forecast({"none": PACE}, images=12, at_once=n) for n in (1, 2, 100))
    for forecast in (one, two, many):
        for job in jobs(tmp_path / str(forecast.at_once), 3):
            forecast.expect(job)
    assert one.seconds()[0] > two.seconds()[0] > many.seconds()[0] >= max(low for low, _ in one.left.values())
    assert one.seconds()[1] > two.seconds()[1]


def test_what_a_stopped_run_has_made_is_not_expected_again(tmp_path):
    recipe = tiny_recipe(noisy_images(tmp_path / "data"))
    stopped_run(tmp_path / "runs" / "none-0", recipe)
    forecast = Forecast({"none": PACE}, images=12, at_once=1)
    job = Job(tmp_path, "runs/none-0", recipe, "none")
    forecast.expect(job)
    new = Forecast({"none": PACE}, images=12, at_once=1)
    new.expect(Job(tmp_path, "runs/none-1", recipe, "none"))
    assert new.seconds()[0] - forecast.seconds()[0] == pytest.approx(3 * PACE.low)
    train(recipe, Run(job.run.path))
    assert job.made


def test_a_run_whose_process_is_killed_is_told_from_one_that_failed():
    with pytest.raises(Killed, match="SIGKILL"):
        in_a_process([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])


def test_a_training_ends_with_the_worker_that_started_it():
    command = [sys.executable, "-m", "csg_train.compare.ends_with_parent", "/bin/sleep", "600"]
    script = f"import subprocess, time; print(subprocess.Popen({command}).pid, flush=True); time.sleep(600)"
    words = [sys.executable, "-c", script]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as worker:
        child = psutil.Process(int(worker.stdout.readline()))
        while child.name() != "sleep":
            assert worker.poll() is None
        os.kill(worker.pid, signal.SIGKILL)
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
