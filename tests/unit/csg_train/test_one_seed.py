"""A seed fixes a run: its precision, its checkpoints, its random numbers; what would change it is refused or said."""

import json
from types import MappingProxyType

import pytest
import torch

from csg.errors import InputError, VerificationError
from csg_train.training import optimizer
from csg_train.training.checkpoint import TrainingState
from csg_train.training.command import train
from csg_train.training.optimizer import precision_for
from csg_train.training.run_folder import Run
from csg_train.training.tensor_files import read_tensors, tensors_digest, write_tensors
from tests.helpers.cli import csg, refused
from tests.helpers.small_runs import noisy_images, stopped_run, tiny_recipe

CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path):
    return noisy_images(tmp_path / "data")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("features", "wanted"),
    [
        ({"architecture": "x86_64", "avx512_f": True}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bf16"),
        ({"neon": True, "bf16": True}, "bf16"),
        ({"neon": True, "bf16": False, "sve_max_length": 16}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_the_precision_depends_on_the_features_of_the_cpu_alone(monkeypatch, features, wanted):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(features))
    assert {precision_for("auto", CPU).name for _ in range(5)} == {wanted}


@pytest.mark.parametrize(
    ("text", "wanted"), [("flags : fma avx512_bf16 x", "bf16"), ("flags : fma", "fp32"), (None, "fp32")]
)
def test_an_older_torch_reads_the_features_from_the_system(monkeypatch, tmp_path, text, wanted):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(optimizer, "CPU_INFO", tmp_path / "cpuinfo")
    if text:
        (tmp_path / "cpuinfo").write_text(text)
    assert precision_for("auto", CPU).name == wanted


def test_a_digest_sees_names_types_shapes_bytes_and_notes():
    one = {"a": torch.arange(4.0), "b": torch.tensor(True)}
    others = [
        {"c": one["a"], "b": one["b"]},
        one | {"a": torch.arange(4)},
        one | {"a": one["a"].reshape(2, 2)},
        one | {"a": one["a"].nextafter(torch.tensor(9.0))},
        {"a": one["a"]},
    ]
    digests = {tensors_digest(tensors, {}) for tensors in (one, *others)} | {tensors_digest(one, {"step": "1"})}
    assert len(digests) == len(others) + 2
    assert tensors_digest(dict(reversed(one.items())), {}) == tensors_digest(one, {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8, torch.float16])
def test_tensors_of_every_type_are_read_as_they_were_written(tmp_path, dtype):
    tensors = {
        "x": torch.tensor([[0, 1], [1, 0]]).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        "none": torch.empty(0),
    }
    write_tensors(tmp_path / "x.safetensors", tensors, {"step": "3"})
    found, notes = read_tensors(tmp_path / "x.safetensors")
    assert equal(found, tensors)
    assert notes == {"step": "3"}


def flip(file, at):
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("at", [-1, -100, -3000])
def test_a_changed_bit_of_a_student_is_found(data, tmp_path, at):
    train(tiny_recipe(data, optim__steps=1), Run(tmp_path / "r"))
    flip(tmp_path / "r" / "student.safetensors", at)
    for command in ("export", "embed"):
        refused(csg(command, "r"), 5, "student.safetensors is damaged: its SHA-256")


def test_a_file_of_an_older_version_has_no_hash_and_is_read(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.ones(2)}, tmp_path / "old.safetensors")
    assert read_tensors(tmp_path / "old.safetensors")[0]["x"].tolist() == [1, 1]
    with pytest.raises(InputError, match="does not exist"):
        read_tensors(tmp_path / "other.safetensors")


def test_a_changed_bit_of_a_checkpoint_is_found_and_the_one_before_it_is_used(data, tmp_path, capsys):
    whole = Run(tmp_path / "whole")
    train(tiny_recipe(data, optim__steps=9), whole)
    run = stopped_run(tmp_path / "r", tiny_recipe(data, optim__steps=9), step=5)
    files = sorted((run.path / "checkpoints").iterdir())
    flip(files[-1], -1000)
    with pytest.raises(VerificationError):
        read_tensors(files[-1])
    train(tiny_recipe(data, optim__steps=9), run)
    assert "step-00000005.safetensors is damaged" in capsys.readouterr().err
    assert equal(run.student(), whole.student())


def test_measuring_on_the_way_changes_nothing(data, tmp_path):
    real, students = noisy_images(tmp_path / "real", 3, seed=1), []
    for every in (0, 3):
        run = Run(tmp_path / f"r{every}")
        train(tiny_recipe(data, real, optim__steps=9, evaluate_every=every), run)
        students.append(run.student())
    assert equal(*students)
    measured = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [line["step"] for line in measured if "real/accuracy" in line] == [3, 6, 9]


def test_a_run_is_resumed_on_another_device_with_a_word(data, tmp_path, capsys):
    recipe = tiny_recipe(data)
    run = stopped_run(tmp_path / "r", recipe)
    step, tensors = run.load_checkpoint()
    run.save_checkpoint(step, tensors | {"rng.cuda": torch.zeros(16, dtype=torch.uint8)})
    train(recipe, run)
    assert "trained on a GPU before" in capsys.readouterr().err
    assert run.finished


def test_a_checkpoint_of_a_cpu_is_unpacked_on_a_gpu(capsys):
    method = torch.nn.Linear(1, 1)
    method.method = method.state_dict()
    optimiser = torch.optim.SGD(torch.nn.Linear(1, 1).parameters())
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    tensors = TrainingState(method, optimiser, scaler, CPU).pack()
    TrainingState(method, optimiser, scaler, torch.device("cuda")).unpack(tensors)
    assert "trained on a CPU before" in capsys.readouterr().err


def test_a_run_is_not_resumed_with_another_number_of_processes(data, tmp_path):
    run = stopped_run(tmp_path / "r", tiny_recipe(data))
    run.write_record("environment.json", run.environment().model_copy(update={"processes": 4}))
    done = csg("train", "cls", "--resume", "--out", "r")
    refused(done, 2, "4 processes.*with 1; .*`torchrun --nproc-per-node 4 -m csg train cls --resume --out r`")


def test_a_run_is_not_resumed_with_other_weights(data, tmp_path, weights):
    run = stopped_run(tmp_path / "r", tiny_recipe(data, model__weights=str(weights)))
    state = torch.load(weights, weights_only=True)
    torch.save(state, tmp_path / "copy.pth")
    state["features.0.0.weight"][0] += 1
    torch.save(state, tmp_path / "other.pth")
    resume = ["train", "cls", "--resume", "--out", "r", "--set"]
    refused(csg(*resume, "model.weights=other.pth"), 3, "not those that run r was started with.*--weights FILE")
    refused(csg(*resume, "model.weights=none"), 3, "not those that run r was started with")
    assert csg(*resume, "model.weights=copy.pth").returncode == 0
    assert run.recipe().model.weights == str(tmp_path / "copy.pth")
