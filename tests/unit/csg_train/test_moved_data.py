"""Work that moves: the images of a run are found at new places, and other images are not taken for them."""

import pytest
import torch

from csg.errors import InputError, UsageError
from csg_train.compare.runs import Job
from csg_train.compare.trainings import Trainings
from csg_train.compare.tuning import recipe_for
from csg_train.methods.spec import parse_method
from csg_train.training.command import train
from csg_train.training.run_data import real_images, training_images
from csg_train.training.run_folder import Run
from tests.helpers.cli import csg, refused
from tests.helpers.small_runs import noisy_images, settings, stopped_run, tiny_recipe


@pytest.fixture
def moved(tmp_path):
    """A run that was stopped, and whose images were moved to new/."""
    train_images, real = noisy_images(tmp_path / "old" / "data"), noisy_images(tmp_path / "old" / "real", 2, seed=1)
    run = stopped_run(tmp_path / "run", tiny_recipe(train_images, real))
    (tmp_path / "old").rename(tmp_path / "new")
    return run


def test_a_resumed_run_finds_its_images_at_new_places_and_keeps_them(moved, tmp_path):
    refused(csg("train", "cls", "--resume", "--out", "run"), 3, "not at .*old/data", "--data")
    refused(csg("train", "cls", "--resume", "--out", "run", "--data", "new/data"), 3, "old/real", "--real-data")
    before = moved.recipe()
    done = csg("train", "cls", "--resume", "--out", "run", "--data", "new/data", "--real-data", "new/real")
    assert done.returncode == 0, done.stderr
    assert "resumed after step 3 of 6" in done.stderr
    assert moved.recipe().data.train == (str(tmp_path / "new" / "data"),)
    assert moved.recipe().data.real == (str(tmp_path / "new" / "real"),)
    assert moved.recipe().optim == before.optim
    assert csg("embed", "run").returncode == 0


def test_moving_the_images_does_not_change_the_weights(moved, tmp_path):
    csg("train", "cls", "--resume", "--out", "run", "--data", "new/data", "--real-data", "new/real")
    whole = Run(tmp_path / "whole")
    train(tiny_recipe("new/data"), whole)
    student = whole.student()
    assert all(torch.equal(tensor, student[name]) for name, tensor in moved.student().items())


@pytest.mark.parametrize("what", ["a file is gone", "other pixels", "another class"])
def test_other_images_are_refused_and_the_recipe_stays(moved, tmp_path, what):
    other = tmp_path / "other"
    classes = ("cat", "cow") if what == "another class" else ("cat", "dog")
    noisy_images(other, 5 if what == "a file is gone" else 6, classes, seed=7)
    before = moved.recipe()
    done = csg("train", "cls", "--resume", "--out", "run", "--data", "other", "--real-data", "new/real")
    refused(done, 3, "another|not those that run|classes differ")
    done = csg("train", "cls", "--resume", "--out", "run", "--data", "new/data", "--real-data", "other")
    refused(done, 3, "not those that run|classes differ")
    assert moved.recipe() == before


def test_only_places_and_ways_of_reading_may_change(moved):
    for more in (["--set", "optim.batch=2"], ["--epochs", 3], ["--method", "csg"], ["--seed", 1], ["--recipe", "pacs"]):
        refused(csg("train", "cls", "--resume", "--out", "run", *more), 2, "own recipe")
    ways = ["--set", "data.on_unreadable=skip", "--set", "data.workers=1"]
    done = csg("train", "cls", "--resume", "--out", "run", "--data", "new/data", "--real-data", "new/real", *ways)
    assert done.returncode == 0, done.stderr
    assert moved.recipe().data.on_unreadable == "skip"


def test_the_images_of_a_finished_run_are_read_with_the_same_guard(tmp_path):
    data, real = noisy_images(tmp_path / "data"), noisy_images(tmp_path / "real", 2, seed=1)
    run = Run(tmp_path / "run")
    train(tiny_recipe(data, real, optim__steps=1), run)
    noisy_images(tmp_path / "other", 3, seed=2)
    data.rename(tmp_path / "moved")
    real.rename(tmp_path / "moved-real")
    with pytest.raises(InputError, match=r"not at .*data; name their place with --data"):
        training_images(run)
    with pytest.raises(InputError, match="name their place with --real-data"):
        real_images(run)
    assert len(training_images(run, ["moved"])) == 12
    assert len(real_images(run, ["moved-real"])) == 4
    with pytest.raises(InputError, match="not those that run"):
        training_images(run, ["other"])
    with pytest.raises(InputError, match="not those that run"):
        real_images(run, ["other"])
    refused(csg("embed", "run"), 3, "moved|not at", "--data")
    assert csg("embed", "run", "--data", "other").returncode == 0, "any images may be embedded"


def test_held_out_images_do_not_count_as_training_images(tmp_path):
    run = Run(tmp_path / "run")
    train(tiny_recipe(noisy_images(tmp_path / "data"), optim__steps=1, data__holdout=0.25), run)
    assert len(training_images(run)) == 9
    assert real_images(run) is None


def test_missing_weights_are_found_before_data_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("CSG_CACHE", str(tmp_path / "empty"))
    refused(csg("train", "cls", "--set", "model.weights=nowhere.pth", "--set", "data.count=20"), 3, "nowhere.pth")
    done = csg("train", "cls", *settings(model__weights="nowhere.pth", method="csg"), "--data", "nothing")
    refused(done, 3, "nowhere.pth")
    assert not (tmp_path / "empty").exists()


@pytest.mark.slow
def test_a_comparison_goes_on_with_images_that_moved(tmp_path):
    data, real = noisy_images(tmp_path / "data"), noisy_images(tmp_path / "real", 2, seed=1)
    spec, folder = parse_method("none"), tmp_path / "comparison"
    base = tiny_recipe(data, real, optim__steps=6)
    run = stopped_run(folder / "runs" / "none-0", recipe_for(spec, base))
    (tmp_path / "moved").mkdir()
    place = data.rename(tmp_path / "moved" / "data")
    moved = tiny_recipe(place, real, optim__steps=6)
    found = Trainings().run(Job(folder, "runs/none-0", recipe_for(spec, moved), "none"))
    assert found.finished
    assert run.recipe().data.train == (str(place),)
    with pytest.raises(UsageError, match="has other settings"):
        Trainings().run(Job(folder, "runs/none-0", recipe_for(spec, tiny_recipe(place, real, optim__steps=7)), "none"))
