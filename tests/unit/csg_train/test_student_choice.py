"""What a run measures, which weights become its student, and that an interruption changes neither."""

import json

import numpy as np
import pytest
import torch

from csg.metrics import scores_from_confusion, segmentation_scores
from csg_export.sources import from_run
from csg_train.training.command import train
from csg_train.training.measurements import Measurements
from csg_train.training.run_folder import Run
from csg_train.training.run_result import StudentChoice
from csg_train.training.tensor_files import read_tensors
from csg_train.training.trainer import Trainer
from tests.helpers.cli import csg, refused
from tests.helpers.small_runs import noisy_images, settings, stopped_run, tiny_recipe

BOTH = {
    "data__holdout": 0.34,
    "evaluate_every": 2,
    "optim__steps": 7,
    "optim__lr_heads": 0.01,  # too high: both kinds of images are recognised best after four steps
    "model__weights": None,
    "model__freeze_batch_norm": True,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory, weights):
    folder = tmp_path_factory.mktemp("images")
    return noisy_images(folder / "data", 9), noisy_images(folder / "real", 8, seed=1)


@pytest.fixture
def seen(monkeypatch):
    """The student's weights after each step of a training."""
    states, one_step = {}, Trainer._one_step

    def note(self, batch):
        values = one_step(self, batch)
        states[self.step] = {name: value.clone() for name, value in self.method.student.state_dict().items()}
        return values

    monkeypatch.setattr(Trainer, "_one_step", note)
    return states


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def measured(run, name):
    """A figure by step, of the lines of metrics that have it."""
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def best_step(figures):
    return max(figures, key=lambda step: (figures[step], step))


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def trained(path, images, **changes):
    run = Run(path)
    train(tiny_recipe(*images, **BOTH | changes), run)
    return run


def test_both_kinds_of_images_are_measured_and_the_best_on_the_real_ones_is_kept(images, tmp_path, seen):
    run = trained(tmp_path / "run", images)
    result, real = run.result(), measured(run, "real/mean_class_accuracy")
    assert list(real) == list(measured(run, "held_out/mean_class_accuracy")) == [2, 4, 6, 7]
    assert (result.held_out.images, result.real.images) == (6, 16)
    assert result.real.mean_class_accuracy == real[7]
    assert measured(run, "real/E_1")[7] == result.energy.E_1
    assert result.student == StudentChoice(step=7, rule="last")
    assert result.last is None
    assert equal(run.student(), seen[7])
    best = best_step(real)
    assert best < 7, "the test needs a run that was better before its end"
    assert result.best_on_real.step == best
    assert result.best_on_real.evaluation.mean_class_accuracy == real[best]
    weights, notes = read_tensors(run.path / "best-on-real.safetensors")
    assert notes == {"step": str(best)}
    assert equal(weights, seen[best])
    assert not run.checkpoints.exists()


def test_the_student_is_the_one_that_is_best_on_held_out_synthetic_images(images, tmp_path, seen):
    run = trained(tmp_path / "run", images, checkpoint="synthetic")
    result, held_out = run.result(), measured(run, "held_out/mean_class_accuracy")
    best = best_step(held_out)
    assert best < 7, "the test needs a run that was better before its end"
    assert result.student == StudentChoice(step=best, rule="synthetic")
    assert equal(run.student(), seen[best])
    assert result.held_out.mean_class_accuracy == held_out[best]
    real = measured(run, "real/mean_class_accuracy")
    assert (result.real.mean_class_accuracy, result.last.mean_class_accuracy) == (real[best], real[7])
    assert result.mirrored.images == 16
    assert from_run(run).provenance.steps == best


@pytest.mark.parametrize(("share", "first"), [(0.3, 6), (0.01, 7), (0.6, 4)])
def test_the_student_is_the_mean_of_the_last_weights(images, tmp_path, seen, share, first):
    run = trained(tmp_path / "run", images, optim__average=share, model__freeze_batch_norm=False)
    weights = {name: value for name, value in run.student().items() if not name.endswith(STATISTICS)}
    assert weights.keys() < run.student().keys()
    for name, value in weights.items():
        of_steps = torch.stack([seen[step][name] for step in range(first, 8)])
        expected = of_steps.double().mean(0) if value.is_floating_point() else of_steps[-1]
        torch.testing.assert_close(value, expected.to(value.dtype), rtol=1e-5, atol=1e-6)
    result = run.result()
    assert result.student == StudentChoice(step=7, rule="average")
    assert result.last.mean_class_accuracy == measured(run, "real/mean_class_accuracy")[7]
    assert result.real.mean_class_accuracy == measured(run, "average/real/mean_class_accuracy")[7]
    assert result.best_on_real.step == best_step(measured(run, "real/mean_class_accuracy"))


SYNTHETIC, AVERAGE = {"checkpoint": "synthetic"}, {"optim__average": 0.6, "model__freeze_batch_norm": False}
SWAD, WISE = {"optim__swad": 1.3, "evaluate_every": 1}, {"optim__wise": "auto"}


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "step"), [(SYNTHETIC, 4), (SYNTHETIC, 7), (AVERAGE, 5), (SWAD, 5), (WISE, 3)])
def test_an_interruption_changes_neither_choices_nor_weights(images, tmp_path, rule, step):
    whole = trained(tmp_path / "whole", images, **rule)
    run = stopped_run(tmp_path / "run", tiny_recipe(*images, **BOTH | rule), step)
    train(run.recipe(), run)
    names = ("real", "held_out", "energy", "student", "last", "best_on_real", "steps")
    assert [getattr(run.result(), name) for name in names] == [getattr(whole.result(), name) for name in names]
    for file in ("student", "best-on-real"):
        one, two = (read_tensors(r.path / f"{file}.safetensors")[0] for r in (run, whole))
        assert equal(one, two), file
    one, two = (np.load(r.path / "predictions.npz") for r in (run, whole))
    assert one.files == two.files
    assert all(np.array_equal(one[name], two[name]) for name in one.files)
    for name in ("real/E_0", "held_out/accuracy", "loss"):
        assert measured(run, name) == measured(whole, name)


def test_a_killed_run_forgets_what_it_measured_after_its_checkpoint(images, tmp_path, monkeypatch):
    """The process ends between the measurement and the next checkpoint: no step is measured twice, none is missing."""
    whole = trained(tmp_path / "whole", images)
    take = Measurements.take

    def killed(self, student, step):
        take(self, student, step)
        if step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Measurements, "take", killed)
    run = Run(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(tiny_recipe(*images, **BOTH), run)
    monkeypatch.undo()
    train(run.recipe(), run)
    lines = [[line for line in r.metrics.read_text().splitlines() if "real/" in line] for r in (run, whole)]
    assert lines[0] == lines[1]
    assert run.result().best_on_real == whole.result().best_on_real


def test_of_equal_measurements_the_latest_is_kept(tmp_path, images):
    run = trained(tmp_path / "run", images, optim__lr_heads=1e-12, optim__lr_backbone=1e-12, optim__weight_decay=0)
    assert run.result().best_on_real.step == 7


def test_a_damaged_file_of_the_best_weights_is_named_on_resume(tmp_path, images):
    run = stopped_run(tmp_path / "run", tiny_recipe(*images, **BOTH), 5)
    (file,) = (run.checkpoints.glob("best-real-00000004.safetensors"),)
    file = next(iter(sorted(run.checkpoints.glob("best-real-*"))[::-1]))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    refused(csg("train", "cls", "--resume", "--out", run.path), 5, f"{file.name} is damaged")


def test_predictions_are_those_of_the_scores(tmp_path, images):
    run = trained(tmp_path / "run", images, optim__average=0.5)
    file, result = np.load(run.path / "predictions.npz"), run.result()
    assert set(file.files) == {"labels", "student", "last", "best_on_real"}
    for name, evaluation in (
        ("student", result.real), ("last", result.last), ("best_on_real", result.best_on_real.evaluation)
    ):  # fmt: skip
        confusion = np.zeros((2, 2), int)
        np.add.at(confusion, (file["labels"], file[name]), 1)
        assert scores_from_confusion(confusion).mean_class_accuracy == evaluation.mean_class_accuracy


@pytest.mark.slow
def test_predictions_of_a_segmenter_are_matrices_of_pixels(segmented):
    file, real = np.load(segmented.path / "predictions.npz"), segmented.result().real
    assert file.files == ["student"]
    assert file["student"].dtype == np.int64
    assert file["student"].shape == (real.images, 11, 12)
    assert segmentation_scores(file["student"].sum(0)).miou == real.miou


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoint": "synthetic"}, "needs data.holdout and evaluate_every above 0"),
        ({"checkpoint": "synthetic", "data__holdout": 0.5}, "needs data.holdout and evaluate_every above 0"),
        (
            {"checkpoint": "synthetic", "data__holdout": 0.5, "evaluate_every": 1, "optim__average": 0.5},
            "each choose the student",
        ),
        ({"data__holdout": 0.01}, "keeps 0 of 18 images from training"),
        ({"optim__swad": 1.3, "evaluate_every": 2}, "optim.swad needs data.holdout and evaluate_every above 0"),
        ({"optim__swad": 0.9}, "optim.swad"),
        (
            {"optim__swad": 1.3, "evaluate_every": 3, "data__holdout": 0.5},
            "no start in 2 measurements .evaluate_every=3 in 6 steps",
        ),
        ({"optim__wise": "auto", "model__weights": "x.pth"}, "optim.wise=auto needs data.holdout"),
        ({"optim__wise": 1.5, "model__weights": "x.pth"}, "optim.wise"),
        ({"optim__wise": 0.5}, "model.weights=none makes them random"),
        ({"optim__wise": 0.5, "optim__average": 0.1, "model__weights": "x.pth"}, "each choose the student"),
    ],
)
def test_a_choice_that_is_not_possible_is_refused_in_a_line(images, changes, words):
    refused(csg("train", "cls", *settings(**changes), "--data", images[0]), 2, words)


def test_the_command_measures_every_so_many_steps(images, tmp_path):
    run = Run(tmp_path / "run")
    done = csg(
        "train", "cls", *settings(), "--data", images[0], "--real-data", images[1], "--evaluate-every", 4,
        "--out", run.path, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(measured(run, "real/accuracy")) == [4, 6]
    assert json.loads(done.stdout) == json.loads((run.path / "result.json").read_text())
    assert "best on the real images, an oracle and not the student: step" in done.stderr


def test_a_run_without_measured_images_still_gets_the_mean_of_its_weights(images, tmp_path, seen):
    run = Run(tmp_path / "run")
    train(tiny_recipe(images[0], optim__average=0.5), run)
    name = "head.0.weight"
    expected = torch.stack([seen[step][name] for step in (4, 5, 6)]).mean(0)
    torch.testing.assert_close(run.student()[name], expected)
    assert run.result().student.rule == "average"
    assert not (run.path / "predictions.npz").exists()
