"""What trains, with which rates: full, frozen, LP-FT and LoRA, by SGD and AdamW; and that all of it can be resumed."""

import pytest
import torch

from csg.errors import UsageError
from csg_train.compare.tuning import candidates
from csg_train.methods.l2 import L2
from csg_train.methods.settings import L2Settings
from csg_train.methods.spec import parse_method
from csg_train.models.lora import add_lora, merge_lora, merged_state
from csg_train.recipe import Optim, load_recipe
from csg_train.tasks import TASKS
from csg_train.training.command import build_method, train
from csg_train.training.optimizer import make_optimiser, rate_factor, set_learning_rates
from csg_train.training.run_folder import Run
from csg_train.training.schedule import Schedule
from csg_train.training.student import load_student
from tests.helpers.small_runs import noisy_images, stopped_run, tiny_recipe

CPU = torch.device("cpu")
PIXELS = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MODES = {
    "frozen": {"model__training": "frozen"},
    "lp-ft": {"model__training": "lp-ft", "optim__optimizer": "adamw"},
    "lora": {"model__training": "lora", "optim__optimizer": "adamw", "optim__average": 0.5, "precision": "bf16"},
    "adamw": {"optim__optimizer": "adamw", "optim__layer_decay": 0.5, "model__freeze_batch_norm": False},
    "a method with a state of its own": {"method": "si"},
}


def fresh(recipe):
    """The student of a recipe before its training."""
    torch.manual_seed(recipe.seed)
    return TASKS[recipe.task].student(recipe, 2, None)


def changed(run, recipe):
    """Which tensors of the student training has changed."""
    before = fresh(recipe).state_dict()
    return {name for name, value in run.student().items() if not torch.equal(value, before[name])}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return noisy_images(tmp_path_factory.mktemp("data"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_stopped_run_of_each_mode_ends_with_the_weights_of_one_that_was_not(images, tmp_path, mode):
    recipe = tiny_recipe(images, optim__warm_up=0, **MODES[mode])
    whole, stopped = Run(tmp_path / "whole"), stopped_run(tmp_path / "stopped", recipe, step=4)
    train(recipe, whole)
    train(recipe, stopped)
    one, other = whole.student(), stopped.student()
    assert one.keys() == other.keys() == fresh(recipe).state_dict().keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(name.startswith("encoder") for name in changed(whole, recipe)) == (mode != "frozen")
    assert load_student(stopped)(PIXELS).isfinite().all()


def test_a_frozen_encoder_keeps_all_it_has_even_the_statistics_of_its_batch_norms(images, tmp_path):
    recipe, run = tiny_recipe(images, model__training="frozen", model__freeze_batch_norm=False), Run(tmp_path / "run")
    train(recipe, run)
    assert {name.split(".")[0] for name in changed(run, recipe)} == {"head"}


def test_lp_ft_trains_the_head_alone_and_then_everything(images, tmp_path):
    recipe = tiny_recipe(images, model__training="lp-ft", optim__probe=0.7, model__freeze_batch_norm=False)
    moved = []
    for steps in (4, 6):
        run = stopped_run(tmp_path / str(steps), recipe, step=steps) if steps < 6 else Run(tmp_path / "all")
        if steps < 6:
            state = {n.removeprefix("method."): v for n, v in run.load_checkpoint()[1].items()}
        else:
            train(recipe, run)
            state = {f"student.{name}": value for name, value in run.student().items()}
        before = fresh(recipe).state_dict()
        moved.append({n for n in before if not torch.equal(before[n], state[f"student.{n}"])})
    assert {name.split(".")[0] for name in moved[0]} == {"head"}
    assert {name.split(".")[0] for name in moved[1]} == {"encoder", "head"}


def test_both_parts_of_lp_ft_have_a_warm_up_and_a_decay_of_their_own():
    recipe = load_recipe("digits", {"model.training": "lp-ft", "optim.probe": 0.3, "optim.steps": 10})
    schedule = Schedule.of(recipe, 100)
    expected = [rate_factor(i, 3, recipe.optim) for i in range(3)] + [rate_factor(i, 7, recipe.optim) for i in range(7)]
    assert [schedule.factor(step) for step in range(10)] == expected


def test_lora_starts_from_the_pretrained_network_and_merges_into_one_without_a_trace():
    recipe = tiny_recipe("x", model__backbone="resnet18")
    plain, adapted = fresh(recipe).eval(), fresh(recipe).eval()
    add_lora(adapted.encoder, 4)
    assert torch.equal(adapted(PIXELS), plain(PIXELS))
    for parameter in adapted.encoder.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    trained, state = adapted(PIXELS), merged_state(adapted)
    merge_lora(adapted)
    assert state.keys() == plain.state_dict().keys() == adapted.state_dict().keys()
    assert torch.equal(adapted(PIXELS), trained)
    plain.load_state_dict(state)
    assert torch.equal(plain(PIXELS), trained)
    assert not torch.equal(trained, fresh(recipe).eval()(PIXELS))
    changes = [
        (state[name] - before).flatten(1) for name, before in fresh(recipe).state_dict().items() if before.ndim > 1
    ]
    assert {int(torch.linalg.matrix_rank(one)) for one in changes} == {0, 4}


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_lora_and_layer_decay_reach_all_layers_of_a_large_encoder(name):
    size = 224 if name.startswith("swin") else 32
    changes = {"model.backbone": f"timm:{name}", "model.training": "lora", "data.size": size, "data.resize": size}
    recipe = load_recipe("digits", changes | {"model.weights": "none", "method": "none", "optim.layer_decay": 0.5})
    method = build_method(recipe, 2, CPU)
    encoder = method.student.encoder
    trained = {n.partition(".parametrizations")[0] for n, p in encoder.named_parameters() if p.requires_grad}
    assert len(trained) > 20
    scales = [group["scale"] for group in make_optimiser(method, recipe.optim).param_groups if group["name"] != "heads"]
    assert min(scales) < max(scales) == 0.5


@pytest.mark.parametrize(
    ("method", "training"),
    [
        ("l2", "frozen"),
        ("ewc", "frozen"),
        ("csg", "frozen"),
        ("feature-l2", "frozen"),
        ("asg", "frozen"),
        ("si", "lora"),
    ],
)
def test_a_method_for_the_encoder_is_refused_where_that_does_not_train(method, training):
    with pytest.raises(UsageError, match=f"method {method} .* model.training={training}: use full"):
        load_recipe("digits", {"method": method, "model.training": training})


def test_adamw_shrinks_neither_norms_nor_biases_and_blocks_have_rates_that_fall_towards_the_input():
    recipe = tiny_recipe("x", model__backbone="resnet18")
    method, optim = build_method(recipe, 2, CPU), Optim(optimizer="adamw", layer_decay=0.5, lr_backbone=1, lr_heads=8)
    optimiser = make_optimiser(method, optim)
    set_learning_rates(optimiser, method, optim, 0.5)
    decayed = {id(p) for group in optimiser.param_groups if group["weight_decay"] for p in group["params"]}
    assert {p.ndim > 1 for p in method.student.parameters() if id(p) in decayed} == {True}
    assert {p.ndim > 1 for p in method.student.parameters() if id(p) not in decayed} == {False}
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert len(rates) == len(list(method.student.parameters()))
    blocks = [{rates[id(p)] for p in block} for block in method.student.encoder.blocks()]
    assert blocks == [{0.5 * 0.5 ** (9 - number)} for number in range(9)]
    assert rates[id(method.student.head[0].weight)] == 4


def test_rows_with_another_optimizer_or_other_layers_to_train_are_tuned_by_their_rates():
    base = load_recipe("digits")
    found = {
        text: candidates(parse_method(text), base)
        for text in (
            "none:model.training=lora",
            "csg:model.training=lora:optim.lr_heads=0.25",
            "l2:optim.optimizer=adamw",
            "l2",
        )
    }
    heads = base.optim.lr_heads
    assert found["none:model.training=lora"] == [{"optim.lr_heads": heads * factor} for factor in (1, 10, 100)]
    assert [one["optim.lr_heads"] for one in found["csg:model.training=lora:optim.lr_heads=0.25"]] == [0.25, 2.5, 25]
    assert set(found["l2:optim.optimizer=adamw"][1]) == {"optim.lr_heads", "optim.lr_backbone"}
    assert set(found["l2"][1]) == {"methods.l2.weight"}


def test_l2_measures_how_far_the_low_rank_change_has_gone():
    adapted = fresh(tiny_recipe("x", model__backbone="resnet18"))
    add_lora(adapted.encoder, 2)
    method = L2(adapted, None, L2Settings())
    assert float(method.anchored.distance(adapted.encoder).detach()) == 0
    before = merged_state(adapted.encoder)
    for parameter in adapted.encoder.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    moved = sum(float((value - before[name]).square().sum()) for name, value in merged_state(adapted.encoder).items())
    distance = method.anchored.distance(adapted.encoder)
    assert float(distance.detach()) == pytest.approx(moved, rel=1e-4)
    distance.backward()
    assert all(p.grad is not None for p in adapted.encoder.parameters() if p.requires_grad)
