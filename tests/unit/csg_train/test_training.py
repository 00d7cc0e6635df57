"""The trainer: seeds, stopping, resuming, precision; with real pretrained weights and small images."""

import json
import signal
import subprocess
import time

import pytest
import torch

from csg.errors import InputError, UsageError
from csg_train.data.synthetic_digits import SYNTHETIC_DIGITS
from csg_train.methods import METHODS
from csg_train.methods.base import Batch
from csg_train.models.weights import load_weights
from csg_train.training.command import build_method, train
from csg_train.training.optimizer import make_optimiser, precision_for, set_learning_rates
from csg_train.training.run_folder import Run
from csg_train.training.signals import Stopped
from csg_train.training.trainer import Trainer
from tests.helpers.cli import CSG, csg, refused
from tests.helpers.small_runs import noisy_images, settings

CPU = torch.device("cpu")


def recipe_of(small_recipe, method, **changes):
    """The small recipe with a method; drpc gets the digits themselves for styles."""
    styles = {"styles": str(SYNTHETIC_DIGITS.cached(200, seed=0)), "versions": 2}
    drpc = {"methods__drpc": styles} if method == "drpc" else {}
    return small_recipe(method=method, **drpc, **changes)


def states_equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_leaves_what_it_promises(trained):
    files = "recipe.yaml environment.json metrics.jsonl student.safetensors predictions.npz result.json"
    found = {file.name for file in trained.path.iterdir() if not file.name.startswith("events")}
    assert found - {"pictures"} == set(files.split())  # test_pictures.py is about these
    assert list(trained.path.glob("events.out.tfevents*"))
    record = trained.environment()
    assert record.fast_layers
    assert record.seed == 0
    assert {"torch", "torchvision"} < record.packages.keys()
    lines = [json.loads(line) for line in trained.metrics.read_text().splitlines()]
    assert {"loss/task", "loss/contrast/layer3", "positive_ranked_first/layer4", "lr/layer1", "lr/heads"} <= lines[
        -2
    ].keys()
    assert lines[-1]["real/accuracy"] == trained.result().real.accuracy
    assert lines[-1]["real/E_1"] == trained.result().energy.E_1
    assert trained.recipe().digest() == record.recipe_digest


def test_the_student_file_holds_neither_teacher_nor_heads_nor_queues(trained):
    assert {name.split(".")[0] for name in trained.student()} == {"encoder", "head"}


@pytest.mark.slow
def test_one_seed_one_result(trained, small_recipe, tmp_path):
    again, other = Run(tmp_path / "again"), Run(tmp_path / "other")
    train(small_recipe(optim__max_steps=8, data__workers=0, data__real=[]), again)
    train(small_recipe(optim__max_steps=8, seed=1, data__real=[]), other)
    assert states_equal(again.student(), trained.student())
    assert not states_equal(other.student(), trained.student())


def test_a_stopped_run_resumes_to_the_same_weights(trained, small_recipe, tmp_path, monkeypatch):
    run, recipe = Run(tmp_path / "run"), small_recipe(optim__max_steps=8, data__real=[])
    one_step = Trainer._one_step

    def stop_at_five(self, batch):
        values = one_step(self, batch)
        self.stop.wanted = self.step == 5
        return values

    monkeypatch.setattr(Trainer, "_one_step", stop_at_five)
    with pytest.raises(Stopped, match="step 5 of 8"):
        train(recipe, run)
    assert not run.finished
    monkeypatch.undo()
    train(recipe, run)
    assert states_equal(run.student(), trained.student())
    steps = [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()]
    assert steps == sorted(steps)
    assert not (run.path / "checkpoints").exists()


def test_a_broken_checkpoint_is_passed_over(tmp_path, capsys):
    run = Run(tmp_path)
    for step in (1, 2, 3):
        run.save_checkpoint(step, {"x": torch.full((100,), step)})
    files = sorted((tmp_path / "checkpoints").iterdir())
    assert [f.name for f in files] == ["step-00000002.safetensors", "step-00000003.safetensors"]
    files[-1].write_bytes(files[-1].read_bytes()[:-50])
    step, tensors = run.load_checkpoint()
    assert (step, tensors["x"][0]) == (2, 2)
    assert "step-00000003" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_stops_with_a_checkpoint_and_kill_loses_nothing(tmp_path):
    run, data = tmp_path / "run", noisy_images(tmp_path / "data")
    train_cls = ("train", "cls", "--data", str(data), *settings(optim__steps=100), "--out", str(run))

    def start(*words):
        return subprocess.Popen([*CSG, *words], stderr=subprocess.PIPE, text=True)

    process = start(*train_cls)
    _wait_for(process, lambda: list((run / "checkpoints").glob("step-*")))
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=300)
    assert process.returncode == 130, words
    assert "--resume --out" in words
    stopped_at = Run(run).load_checkpoint()[0]
    process = start("train", "cls", "--resume", "--out", str(run))
    _wait_for(process, lambda: Run(run).load_checkpoint()[0] > stopped_at)
    process.kill()
    process.communicate()
    assert Run(run).load_checkpoint()[0] > stopped_at
    refused(csg("export", run), 3, "not finished")
    refused(csg(*train_cls), 2, "exists already and is not empty")


def _wait_for(process, ready):
    for _ in range(6000):
        assert process.poll() is None, process.stderr.read()
        if ready():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def test_changed_data_is_not_trained_on_in_a_resumed_run(trained, small_recipe, tmp_path):
    run = Run(tmp_path / "run")
    record = trained.environment().model_copy(update={"data_fingerprint": "0" * 64})
    run.write_record("environment.json", record)
    with pytest.raises(InputError, match="not those"):
        train(small_recipe(optim__max_steps=1), run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-20], "environment.json is damaged"),
        (
            lambda text: text.replace('"version": 1', '"version": 2'),
            "format version 2, this csg reads 1",
        ),
        (lambda text: text.replace('"seed": 0', '"seed": "x"'), "environment.json is damaged: seed: "),
    ],
)
def test_a_damaged_or_newer_record_of_a_run_is_named(trained, tmp_path, change, message):
    run = Run(tmp_path)
    run.write("environment.json", change((trained.path / "environment.json").read_text()))
    with pytest.raises(InputError, match=message):
        run.environment()


def test_a_random_teacher_is_refused(small_recipe):
    with pytest.raises(UsageError, match="pretrained teacher"):
        build_method(small_recipe(model__weights="none"), 10, CPU)
    assert build_method(small_recipe(method="none", model__weights="none"), 10, CPU)


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_that_should_train_is_in_one_group(small_recipe, weights, method):
    built = build_method(recipe_of(small_recipe, method), 10, CPU)
    optimiser = make_optimiser(built, small_recipe().optim)
    set_learning_rates(optimiser, built, small_recipe().optim, 0.5)
    groups = optimiser.param_groups
    ids = [id(p) for group in groups for p in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in built.parameters() if p.requires_grad}
    assert [group["name"] for group in groups] == ["layer1", "layer2", "layer3", "layer4", "heads"]
    encoder = 6e-4 if method == "asg-l2o" else 1.5e-3  # asg-l2o starts with a tenth of the heads' rate
    assert [group["lr"] for group in groups] == pytest.approx([encoder] * 4 + [6e-3])


def test_precisions_agree_on_the_loss(small_recipe, weights):
    torch.manual_seed(0)
    batch = Batch(torch.randint(0, 256, (2, 8, 32, 32, 3), dtype=torch.uint8), torch.arange(8))
    losses = {}
    for name, dtype in (("fp32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        method = build_method(small_recipe(), 10, CPU).train()
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            losses[name] = {k: float(v.detach()) for k, v in method(batch)[0].items()}
    assert losses["fp32"].keys() == losses["bf16"].keys()
    for name, value in losses["fp32"].items():
        assert losses["bf16"][name] == pytest.approx(value, rel=0.05, abs=1e-3)
        assert losses["fp16"][name] == pytest.approx(value, rel=0.02, abs=1e-3)


def test_precision():
    assert precision_for("auto", CPU) == precision_for("auto", CPU)
    assert precision_for("auto", CPU).name in ("bf16", "fp32")
    assert precision_for("fp16", CPU).dtype == torch.float16


def test_frozen_batch_norm_stays_as_imagenet_left_it(small_recipe, weights):
    batch = Batch(torch.randint(0, 256, (1, 8, 32, 32, 3), dtype=torch.uint8), torch.arange(8))
    before = load_weights("mobilenet_v2", weights)["features.0.1.running_mean"]
    for frozen in (True, False):
        method = build_method(small_recipe(method="none", model__freeze_batch_norm=frozen), 10, CPU).train()
        method(batch)
        after = method.student.encoder.stages["layer1"][0][1].running_mean
        assert torch.equal(before, after) is frozen


def test_csg_step_order_and_the_untouched_teacher(small_recipe, weights):
    torch.manual_seed(0)
    method = build_method(small_recipe(methods__csg__queue=16), 10, CPU).train()
    teacher = {n: t.clone() for n, t in method.teacher.state_dict().items()}
    assert not any(name.startswith("teacher") for name in method.state_dict())
    queue = method.queues.queues["layer4"]
    before = queue.keys.clone()
    batch = Batch(torch.randint(0, 256, (2, 8, 32, 32, 3), dtype=torch.uint8), torch.arange(8))
    losses, _ = method(batch)
    assert torch.equal(queue.keys, before), "keys enter the queue after the loss"
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in method.projection.parameters())
    assert all(p.grad is None for p in method.key_projection.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())
    method.after_step()
    assert int(queue.next) == 8
    torch.testing.assert_close(queue.keys[:8].norm(dim=1), torch.ones(8))
    assert torch.equal(queue.keys[8:], before[8:])
    assert states_equal(method.teacher.state_dict(), teacher)


def test_keys_are_the_teachers_maps_under_the_students_attention(small_recipe, weights):
    from csg_train.methods.contrast import a_pool, attention, patch_means, positions

    method = build_method(small_recipe(), 10, CPU).train()
    with torch.no_grad():
        for parameter in method.student.encoder.parameters():
            parameter.mul_(1.01)
        view = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
        keys = method.keys(view)
        for stage in ("layer3", "layer4"):
            attended = method.student.encoder(view)[stage]
            weights_BGP = attention(positions(attended), patch_means(attended))
            pooled = a_pool(positions(method.teacher(view)[stage]), weights_BGP)
            slow = torch.nn.functional.normalize(method.key_projection.heads[stage](pooled), dim=1)
            torch.testing.assert_close(keys[stage], slow)
