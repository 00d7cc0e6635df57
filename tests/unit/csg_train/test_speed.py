"""Settings of `speed`: the same results on a CPU, or a line that says that there is no effect."""

import copy
import shutil

import pytest
import torch
from torch import nn

from csg_train.data.shared_memory import default_workers
from csg_train.methods.base import Method
from csg_train.models.backbones import Encoder
from csg_train.models.batch_norm import batch_norms
from csg_train.models.gradient_checkpointing import blocks, use_gradient_checkpointing
from csg_train.models.sync_batch_norm import synchronise_batch_norms
from csg_train.recipe import Speed
from csg_train.training.command import train
from csg_train.training.run_folder import Run
from csg_train.training.speed import set_network, without_compiling
from csg_train.training.training_batches import one_ahead
from csg_train.training.waiting import advice
from tests.helpers.cli import csg, refused
from tests.helpers.small_networks import dense
from tests.helpers.small_runs import noisy_images, settings, tiny_recipe

IMAGES = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return noisy_images(tmp_path_factory.mktemp("speed") / "data")


@pytest.fixture(scope="module")
def plain(data):
    """A run without any of them."""
    run = Run(data.parent / "plain")
    train(tiny_recipe(data), run)
    return run


def encoder(name, frozen):
    torch.manual_seed(0)
    return Encoder(name, None, freeze_batch_norm=frozen).train()


def gradients(network):
    maps = network(IMAGES)
    maps["layer4"].square().mean().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18_ibn_a"])
@pytest.mark.parametrize("frozen", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients_and_running_statistics(name, frozen):
    one = encoder(name, frozen)
    other = copy.deepcopy(one)
    use_gradient_checkpointing(other)
    assert other.state_dict().keys() == one.state_dict().keys()
    expected, found = gradients(one), gradients(other)
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def test_gradient_checkpointing_keeps_the_input_of_each_block_alone():
    saved = []
    for checkpointed in (False, True):
        network = encoder("resnet18", frozen=True)
        if checkpointed:
            use_gradient_checkpointing(network)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.nbytes) or x, lambda x: x):
            network(IMAGES)
        saved.append(sum(kept))
    assert saved[1] < saved[0] / 3


def test_the_blocks_of_a_network_are_its_innermost_repeated_parts():
    network = encoder("resnet18", frozen=True)
    assert [type(block).__name__ for block in blocks(network)] == ["BasicBlock"] * 8
    timm = pytest.importorskip("timm")
    for name, kind, count in (("vit_tiny_patch16_224", "Block", 12), ("convnext_atto", "ConvNeXtBlock", 12)):
        found = [type(block).__name__ for block in blocks(timm.create_model(name))]
        assert found == [kind] * count


def test_synchronised_batch_norms_keep_the_state_and_the_answers():
    one = encoder("mobilenet_v2", frozen=False)
    other = copy.deepcopy(one)
    count = len(list(batch_norms(one)))
    assert synchronise_batch_norms(other) == count
    assert sum(isinstance(norm, nn.SyncBatchNorm) for norm in other.modules()) == count
    assert other.state_dict().keys() == one.state_dict().keys()
    torch.testing.assert_close(other.eval()(IMAGES)["layer4"], one.eval()(IMAGES)["layer4"], rtol=1e-4, atol=1e-5)
    assert synchronise_batch_norms(encoder("mobilenet_v2", frozen=True)) == 0


@pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"fused": True}])
def test_a_training_with_it_gives_the_same_weights(data, plain, tmp_path, changes):
    run = Run(tmp_path / "run")
    train(tiny_recipe(data, **{f"speed__{name}": value for name, value in changes.items()}), run)
    state = run.student()
    for name, value in plain.student().items():
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-6)


def test_what_has_no_effect_here_is_said_and_changes_nothing(data, plain, tmp_path):
    gpu = {"tf32": "all", "deterministic": False, "cudnn_benchmark": True, "copy_ahead": True, "sync_batch_norm": True}
    words = settings(**{f"speed__{name}": value for name, value in gpu.items()})
    done = csg("train", "cls", "--data", data, *words, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "without effect in a single process: speed.sync_batch_norm" in done.stderr
    if not torch.cuda.is_available():
        idle = "speed.tf32, speed.deterministic, speed.cudnn_benchmark, speed.copy_ahead"
        assert f"without effect on a CPU: {idle}" in done.stderr
        state = Run(tmp_path / "run").student()
        assert all(torch.equal(state[name], value) for name, value in plain.student().items())


def test_algorithms_chosen_by_time_need_a_run_that_is_not_repeated(data):
    done = csg("train", "cls", "--data", data, *settings(speed__cudnn_benchmark=True))
    refused(done, 2, "speed: cudnn_benchmark .* set deterministic to false too")


def test_compiling_and_gradient_checkpointing_are_refused_together(data):
    done = csg("train", "cls", "--data", data, *settings(speed__compile=True, speed__gradient_checkpointing=True))
    refused(done, 2, "speed: compile and gradient_checkpointing do not work together")


def test_without_a_compiler_compile_is_refused_in_a_line(data, monkeypatch, tmp_path):
    def no_compiler(function):
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")

    monkeypatch.setattr(torch, "compile", no_compiler)
    done = csg("train", "cls", "--data", data, *settings(speed__compile=True), "--out", tmp_path / "run")
    refused(done, 3, r"speed.compile: .*Failed to find C compiler\. .*leave out speed.compile")
    assert not list((tmp_path / "run").glob("*"))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_compiled_networks_give_the_same_gradients_and_run_as_they_are_in_measurements():
    plain, compiled = (Method(dense(True).train().requires_grad_(), None, Method.Settings()) for _ in range(2))
    set_network(compiled, Speed(compile=True), torch.device("cpu"))
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    for method in (plain, compiled):
        method.student(IMAGES).square().mean().backward()
    for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-5)
    with without_compiling(Speed(compile=True)), torch.no_grad():
        assert torch.equal(compiled.student(IMAGES[:3]), plain.student(IMAGES[:3]))


def test_the_next_item_is_made_before_one_is_handed_over():
    made = []
    ahead = one_ahead(made.append(number) or number for number in range(1, 4))
    assert [(next(ahead), list(made)) for _ in range(3)] == [(1, [1, 2]), (2, [1, 2, 3]), (3, [1, 2, 3])]
    assert next(ahead, None) is None


def test_a_run_says_which_share_of_its_time_it_waited(plain):
    assert 0 < plain.result().waiting_for_data < 1


@pytest.mark.parametrize(
    ("changes", "share", "patterns"),
    [
        ({}, 0.1, ()),
        ({"data__workers": 0}, 0.3, ("30% of the time", "data.workers=2", "shorter side of 32 pixels")),
        ({"data__workers": 3}, 1.0, ("100% of the time", "more loader processes than 3", "data.workers=6")),
        ({"data__workers": None}, 0.5, (f"more loader processes than {default_workers()}",)),
        ({"data__jpeg_scaling": False}, 0.5, ("data.jpeg_scaling=true",)),
    ],
)
def test_a_long_wait_comes_with_what_to_change(data, changes, share, patterns):
    said = advice(tiny_recipe(data, **changes), share) or ""
    assert bool(said) == bool(patterns)
    assert all(pattern in said for pattern in patterns)
