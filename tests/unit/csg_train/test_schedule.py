"""How long a training is: by epochs, by steps, and what happens at the end of each epoch either way."""

import json

import pytest

from csg_cli.options import RecipeOptions
from csg_train.methods.base import Method
from csg_train.recipe import Optim, load_recipe
from csg_train.training import progress_report
from csg_train.training.command import train
from csg_train.training.optimizer import rate_factor
from csg_train.training.progress_report import duration
from csg_train.training.run_folder import Run
from tests.helpers.cli import csg
from tests.helpers.small_runs import noisy_images, settings, tiny_recipe


@pytest.mark.parametrize(
    ("optim", "images", "steps"),
    [
        ({"epochs": 3, "batch": 4}, 12, 9),
        ({"epochs": 3, "batch": 4}, 13, 9),
        ({"epochs": 3, "batch": 400}, 13, 3),
        ({"epochs": 3, "batch": 4, "max_steps": 5}, 12, 5),
        ({"epochs": 3, "batch": 4, "max_steps": 50}, 12, 9),
        ({"epochs": 3, "batch": 4, "steps": 50}, 12, 50),
        ({"epochs": 300, "batch": 4, "steps": 2}, 12, 2),
        ({"steps": 100_000, "batch": 6}, 12_403, 100_000),
        ({"steps": 100_000, "batch": 6}, 24_966, 100_000),
        ({"steps": 50, "max_steps": 7}, 12, 7),
    ],
)
def test_the_number_of_steps(optim, images, steps):
    recipe = load_recipe("gta5", {f"optim.{name}": value for name, value in ({"steps": None} | optim).items()})
    assert recipe.schedule(images) == steps


def test_passes_on_the_command_line_take_the_place_of_a_recipes_steps():
    assert load_recipe("gta5", RecipeOptions(epochs=2).settings({})).schedule(12) == 4
    assert load_recipe("gta5", RecipeOptions(epochs=2, assignments=["optim.steps=5"]).settings({})).schedule(12) == 5


def test_warm_up_and_decay_over_200_steps_are_those_published():
    published = [min(0.01 + 0.99 * (i / 100) ** 2, 1) * (1 - i / 200) ** 0.9 for i in range(200)]
    assert [rate_factor(i, 200, Optim(warm_up=100, power=0.9)) for i in range(200)] == pytest.approx(published)
    decay = [(1 - i / 200) ** 0.9 for i in range(200)]
    assert [rate_factor(i, 200, Optim(warm_up=0, power=0.9)) for i in range(200)] == pytest.approx(decay)


def test_a_training_shorter_than_its_warm_up_is_told(tmp_path):
    done = csg("train", "cls", *settings(optim__warm_up=100), "--data", noisy_images(tmp_path / "data"))
    assert done.returncode == 0
    assert "warning: the warm-up takes 100 steps and the training ends after 6" in done.stderr
    lines = [json.loads(line) for line in Run(tmp_path / "runs/cls/digits-none-1").metrics.read_text().splitlines()]
    assert lines[-1]["lr/heads"] == pytest.approx(1e-3 * (0.01 + 0.99 * 0.05**2) * (1 / 6) ** 0.9)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(steps)`: a run of so many steps, three of them an epoch, and the number of epochs that the method saw."""
    epochs = []
    monkeypatch.setattr(Method, "after_epoch", lambda self: epochs.append(self))
    data, real = noisy_images(tmp_path / "data"), noisy_images(tmp_path / "real", 2, seed=1)

    def make(steps):
        made = Run(tmp_path / f"r{steps}")
        train(tiny_recipe(data, real, optim__steps=steps, optim__epochs=1, evaluate_every=3), made)
        return made, len(epochs)

    return make


@pytest.mark.parametrize(("steps", "epochs", "measured"), [(2, 0, [2]), (3, 1, [3]), (7, 2, [3, 6, 7])])
def test_epochs_go_on_beyond_their_number_and_need_not_be_whole(run, steps, epochs, measured):
    made, seen = run(steps)
    assert made.result().steps == steps
    assert seen == epochs
    lines = [json.loads(line) for line in made.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if "real/accuracy" in line] == measured
    assert lines[-2]["lr/heads"] == pytest.approx(1e-3 * (1 / steps) ** 0.9), "the rates decay over the steps"


@pytest.mark.parametrize("every_s", [0, 3600])
def test_without_a_terminal_steps_are_shown_with_the_time_left(tmp_path, monkeypatch, every_s):
    monkeypatch.setattr(progress_report, "LINE_EVERY_S", every_s)
    done = csg("train", "cls", *settings(optim__steps=13), "--data", noisy_images(tmp_path / "data"))
    lines = [line for line in done.stderr.splitlines() if line.startswith("step ")]
    shown = [int(line.split()[1].removesuffix("/13")) for line in lines]
    assert shown == ([1, 13] if every_s else list(range(1, 14))), "the first and the last step, and one in every time"
    assert lines[0].endswith(" left")
    assert lines[-1].endswith(" 0 s left")


def test_durations_are_short():
    words = [duration(seconds) for seconds in (0, 59.6, 75, 3599, 7500, 90_000)]
    assert words == ["0 s", "1 min 0 s", "1 min 15 s", "59 min 59 s", "2 h 5 min", "25 h 0 min"]
