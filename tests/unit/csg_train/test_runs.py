"""`csg runs`: runs of every kind are listed, only comparable ones are compared, and only runs are removed."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from csg.locks import locked
from csg.paired_tests import compare_classifications
from csg_train.runs.summary import SCORES, read_summary
from csg_train.tasks import TASKS
from csg_train.training.command import train
from csg_train.training.run_folder import Run
from tests.helpers.cli import csg, refused
from tests.helpers.small_runs import noisy_images, tiny_recipe


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs with different seeds on the same images, and one that is measured on others."""
    folder = tmp_path_factory.mktemp("made")
    data, real, other = (noisy_images(folder / name, seed=n) for n, name in enumerate(("train", "real", "other")))
    for name, measured, seed in (("one", real, 0), ("two", real, 1), ("three", other, 0)):
        train(tiny_recipe(data, measured, seed=seed), Run(folder / "runs" / name))
    return folder / "runs"


@pytest.fixture
def runs(made, tmp_path):
    """Copies that a test may change."""
    return shutil.copytree(made, tmp_path / "runs")


def listed(*folders):
    done = csg("runs", *folders, "--json")
    assert done.returncode == 0, done.stderr
    return {Path(run["path"]).name: run for run in json.loads(done.stdout)["runs"]}


def unfinished(run):
    for name in ("result.json", "student.safetensors", "predictions.npz"):
        (run / name).unlink()
    return run


def test_the_scores_are_those_of_the_tasks():
    assert {task: tuple(TASKS[task].scores) for task in TASKS} == SCORES


def test_listing_needs_no_torch():
    code = "import sys, csg_train.runs.listing, csg_train.runs.removing as _; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_run_is_listed_with_what_its_result_says(runs):
    result, found = Run(runs / "one").result(), listed(runs)["one"]
    scores = {"mean_class_accuracy": result.real.mean_class_accuracy, "accuracy": result.real.accuracy}
    assert (found["scores"], found["energy"]["E_1"]) == (scores, result.energy.E_1)
    named = ("state", "task", "recipe", "method", "seed", "data", "measured_data", "images", "steps")
    expected = ["finished", "cls", "digits", "none", 0, ["train"], "real", 12, 6]
    assert [found[name] for name in named] == expected


def test_runs_that_ended_in_any_way_are_listed(runs):
    for name in ("old", "stopped", "running", "diverged", "cut", "newer", "no-recipe", "bytes"):
        shutil.copytree(runs / "one", runs / "deep" / "deeper" / name)
    at = runs / "deep" / "deeper"
    (at / "old" / "predictions.npz").unlink()
    (at / "old" / "result.json").write_text(json.dumps({"real": {"accuracy": 0.5}}))
    for name in ("stopped", "running", "diverged"):
        unfinished(at / name)
    (at / "diverged" / "diverged.txt").write_text("step 3")
    (at / "cut" / "result.json").write_text('{"real": {"acc')
    (at / "newer" / "result.json").write_text('{"version": 99}')
    (at / "no-recipe" / "recipe.yaml").unlink()
    (at / "bytes" / "recipe.yaml").write_bytes(bytes(range(256)))
    (runs / "recipe.yaml").write_text("name: a recipe of the user's")
    with locked(at / "running"):
        states = {name: run["state"] for name, run in listed(runs).items()}
    expected = {"old": "finished", "cut": "damaged", "newer": "damaged", "no-recipe": "damaged", "bytes": "damaged"}
    expected |= {name: name for name in ("stopped", "running", "diverged")}
    assert states == expected | dict.fromkeys(("one", "two", "three"), "finished")


def test_links_are_not_followed_in_circles(runs):
    (runs / "circle").symlink_to(".")
    (runs / "one" / "circle").symlink_to("..")
    assert listed(runs).keys() == {"one", "two", "three"}


def test_no_line_of_the_table_is_wider_than_a_terminal(runs):
    shutil.copytree(runs / "one", runs / ("a-name-that-goes-on-" * 9))
    shutil.copytree(runs / "one", runs / "red \x1b[31m\nnext")
    done = csg("runs", runs)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("command", [(), ("best",), ("prune",)])
def test_a_folder_without_runs_is_said(command, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(csg("runs", *command, tmp_path / "empty"), 3, "there is no run in")
    refused(csg("runs", *command, tmp_path / "missing"), 3, "there is no folder")


def test_only_runs_on_the_same_images_compete(runs):
    done = csg("runs", "best", runs, "--metric", "accuracy", "--json")
    groups = json.loads(done.stdout)["groups"]
    found = [(group["data"], sorted(Path(run["path"]).name for run in group["runs"])) for group in groups]
    assert found == [("real", ["one", "two"]), ("other", ["three"])]
    ranked = [run["scores"]["accuracy"] for run in groups[0]["runs"]]
    assert ranked == sorted(ranked, reverse=True)
    assert groups[0]["best"] == groups[0]["runs"][0]["path"]
    assert (
        "the best of 2 runs, by mean class accuracy on the same 12 images of real" in csg("runs", "best", runs).stdout
    )
    refused(csg("runs", "best", runs, "--metric", "acuracy"), 2, "did you mean accuracy")
    refused(csg("runs", "best", runs, "--metric", "miou"), 3, "no finished run was measured on real images with miou")


def test_two_runs_are_compared_on_the_same_images(runs):
    arrays = [np.load(runs / name / "predictions.npz") for name in ("one", "two")]
    expected = compare_classifications(arrays[0]["labels"], arrays[0]["student"], arrays[1]["student"])
    found = json.loads(csg("runs", "compare", runs / "one", runs / "two", "--json").stdout)
    assert found | expected.model_dump(mode="json") == found
    assert found["verdicts"]["accuracy"] == expected.verdict("accuracy")
    assert "McNemar's exact p" in csg("runs", "compare", runs / "one", runs / "two").stdout


def test_runs_on_other_images_are_not_compared(runs):
    refused(csg("runs", "compare", runs / "one", runs / "three"), 3, "not measured on the same images", "12 of other")
    refused(csg("runs", "compare", runs / "one", runs / "one"), 2, "the same run")
    (runs / "one" / "predictions.npz").unlink()
    refused(csg("runs", "compare", runs / "one", runs / "two"), 3, "keeps no predictions")
    (runs / "one" / "predictions.npz").write_bytes(b"PK")
    refused(csg("runs", "compare", runs / "one", runs / "two"), 3, "is damaged")
    refused(csg("runs", "compare", unfinished(runs / "three"), runs / "two"), 3, "three is stopped")


def test_segmenters_are_compared_by_the_pixels_of_each_image(runs):
    matrices = np.stack([np.diag(row) for row in np.random.default_rng(0).integers(1, 50, (12, 3))])
    for name in ("one", "two"):
        recipe = runs / name / "recipe.yaml"
        recipe.write_text(recipe.read_text().replace("task: cls", "task: seg"))
        np.savez(runs / name / "predictions.npz", student=np.pad(matrices, ((0, 0), (0, 0), (0, 1))))
    found = json.loads(csg("runs", "compare", runs / "one", runs / "two", "--json").stdout)
    assert (found["differing"], found["differences"]["miou"]["difference"]) == (0, 0)
    np.savez(runs / "one" / "predictions.npz", student=matrices[:5])
    refused(csg("runs", "compare", runs / "one", runs / "two"), 3, "not measured on the same images")


def test_a_run_is_removed_and_what_a_link_leads_to_stays(runs, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "photo.png").write_text("x")
    (runs / "one" / "checkpoints").symlink_to(tmp_path / "kept")
    done = csg("runs", "remove", runs / "one", runs / "one", "--yes", "--json")
    assert json.loads(done.stdout)["removed"] == [str(runs / "one")]
    assert {run.name for run in runs.iterdir()} == {"two", "three"}
    assert (tmp_path / "kept" / "photo.png").exists()


def test_what_is_not_a_run_or_is_in_use_is_not_removed(runs):
    (runs / "two" / "notes.txt").write_text("mine")
    (runs / "link").symlink_to("one")
    (runs / "project").mkdir()
    (runs / "project" / "recipe.yaml").write_text("name: mine")
    before = sorted(runs.rglob("*"))
    with locked(runs / "three"):
        refused(csg("runs", "remove", runs / "one", runs / "three", "--yes"), 2, "a process is working in")
    refused(csg("runs", "remove", runs / "two", "--yes"), 3, "files that no training writes: notes.txt")
    refused(csg("runs", "remove", runs / "link", "--yes"), 2, "is a link")
    refused(csg("runs", "remove", runs / "project", "--yes"), 3, "is not a run")
    refused(csg("runs", "remove", runs, "--yes"), 3, "is not a run")
    assert sorted(path for path in runs.rglob("*") if path.name != ".lock") == [
        path for path in before if path.name != ".lock"
    ]


def test_without_a_yes_nothing_is_removed(runs, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y"))
    done = csg("runs", "remove", runs / "one")
    assert done.returncode == 2
    assert "nobody is there to ask" in done.stderr
    assert "one" in done.stdout
    assert (runs / "one").is_dir()


def test_a_comparison_and_a_bundle_that_need_a_run_are_named(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "bundles" / "digits").mkdir(parents=True)
    card = {"provenance": {"run": "one", "seed": 0}}
    (tmp_path / "bundles" / "digits" / "card.json").write_text(json.dumps(card))
    done = csg("runs", "remove", "runs/one", "--yes")
    assert "it belongs to the comparison" in done.stderr
    assert "bundles/digits was exported from it" in done.stderr


def test_prune_frees_what_unfinished_runs_have_left(runs):
    unfinished(runs / "one")
    unfinished(runs / "two")
    (runs / "two" / "diverged.txt").write_text("step 3")
    (runs / "three" / "checkpoints").mkdir()
    (runs / "three" / "checkpoints" / "step-00000001.safetensors").write_bytes(bytes(1000))
    done = csg("runs", "prune", runs, "--only", "checkpoints", "--yes", "--json")
    assert json.loads(done.stdout) == {"removed": [str(runs / "three" / "checkpoints")], "freed_bytes": 1000}
    refused(csg("runs", "prune", runs, "--only", "everything", "--yes"), 2, "use one of stopped, diverged, checkpoints")
    assert csg("runs", "prune", runs, "--yes").returncode == 0
    assert [run.name for run in runs.iterdir()] == ["three"]
    assert read_summary(runs / "three").state == "finished"
    assert "nothing to remove" in csg("runs", "prune", runs, "--yes").stderr
