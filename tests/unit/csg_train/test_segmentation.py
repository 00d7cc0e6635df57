"""Segmentation: dilated encoders, heads, dense contrast, pixel losses, and scores, against slow references."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from csg.errors import InputError, UsageError
from csg.metrics import PixelConfusion
from csg_train.methods import METHODS
from csg_train.methods.base import Batch, task_loss
from csg_train.models.backbones import PLAIN, Encoder
from csg_train.models.segmentation_heads import make_head
from csg_train.models.segmenter import Segmenter
from csg_train.models.teacher import Teacher
from csg_train.recipe import load_recipe
from csg_train.tasks import TASKS
from csg_train.training.command import TrainRequest, build_method, load_task_recipe, train, train_command
from csg_train.training.optimizer import make_optimiser
from csg_train.training.run_folder import Run
from tests.helpers.tiny_student import nudge
from tests.unit.csg_train.test_backbones import random_state

CPU = torch.device("cpu")
EIGHT = {"layer4": 32}, {"layer4": 8}  # channels and strides
PIXELS = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", PLAIN)
def test_dilation_keeps_the_pretrained_weights_valid(name):
    """At the positions that the strides would have kept, the dilated encoder's maps are the undilated one's."""
    state = random_state(name)
    plain = Encoder(name, state, True).eval()(PIXELS)
    dilated = Encoder(name, state, True, dilated=True).eval()(PIXELS)
    assert [m.shape[2:] for m in dilated.values()] == [(16, 24), (8, 12), (8, 12), (8, 12)]
    for stage, step in (("layer1", 1), ("layer2", 1), ("layer3", 2), ("layer4", 4)):
        size = plain[stage].abs().max()
        torch.testing.assert_close(dilated[stage][:, :, ::step, ::step] / size, plain[stage] / size, rtol=0, atol=1e-4)


def test_a_resnet_is_dilated_as_the_paper_says():
    stages = Encoder("resnet50", None, True, dilated=True).stages
    rates = {name: [block.conv2.dilation[0] for block in stages[name]] for name in ("layer3", "layer4")}
    assert rates == {"layer3": [1, 2, 2, 2, 2, 2], "layer4": [2, 4, 4]}
    strided = [m for m in stages["layer4"].modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    assert not strided


def test_heads_are_the_published_ones():
    x = torch.randn(2, 32, 10, 12)
    classic = make_head("deeplabv2", *EIGHT, 5).eval()
    slow = sum(
        F.conv2d(x, b.weight, b.bias, 1, rate, rate) for b, rate in zip(classic.branches, (6, 12, 18, 24), strict=True)
    )
    torch.testing.assert_close(classic(x), slow, rtol=1e-4, atol=1e-5)
    aspp = make_head("aspp", *EIGHT, 5)
    rates = [m.dilation[0] for m in aspp.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert rates == [12, 24, 36, 1]
    assert [m.p for m in aspp.modules() if isinstance(m, nn.Dropout)] == [0.5]
    assert {m.out_channels for m in aspp.modules() if isinstance(m, nn.Conv2d)} == {256, 5}
    assert aspp.eval()(x).shape == (2, 5, 10, 12)


@pytest.mark.parametrize(("head", "align_corners"), [("aspp", True), ("deeplabv2", False)])
def test_logits_have_the_images_size(head, align_corners):
    student = Segmenter(Encoder("mobilenet_v2", None, True, dilated=True), 7, head, align_corners).eval()
    maps = student.encoder(PIXELS)
    logits = student(PIXELS)
    assert logits.shape == (2, 7, 64, 96)
    small = student.head(maps["layer4"])
    slow = F.interpolate(small, (64, 96), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(logits, slow)


@pytest.mark.parametrize(("version", "align_corners"), [(1, False), (2, True)])
def test_a_run_of_an_older_csg_keeps_its_upsampling(tmp_path, version, align_corners):
    tree = load_recipe("digit-scenes", {"method": "none"}).model_dump(mode="json", exclude={"model": {"align_corners"}})
    if version == 1:
        tree |= {"version": 1, "augment": {"scales": [1.0, 1.25]}, "optim": {}, "methods": {}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    recipe = Run(tmp_path).recipe()
    assert recipe.model.align_corners == align_corners
    assert TASKS["seg"].student(recipe, 5, None).align_corners == align_corners


def test_with_align_corners_the_corners_are_those_of_the_map():
    """Between them every pixel is the bilinear mean of its neighbours, at (size of the map - 1) / (size - 1)."""
    student = Segmenter(Encoder("mobilenet_v2", None, True, dilated=True), 2, "deeplabv2", True)
    student.head = nn.Identity()
    small_BCHW = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    logits_BCHW = student.classify({"layer4": small_BCHW})
    for y, x in np.ndindex(24, 32):
        row, column = y * 2 / 23, x * 3 / 31
        top, left = min(int(row), 1), min(int(column), 2)
        down, right = row - top, column - left
        square = small_BCHW[0, :, top : top + 2, left : left + 2]
        weights = torch.tensor([[(1 - down) * (1 - right), (1 - down) * right], [down * (1 - right), down * right]])
        torch.testing.assert_close(logits_BCHW[0, :, y, x], (square * weights).sum((1, 2)), rtol=0, atol=1e-5)


def test_pixels_that_are_ignored_cost_nothing():
    logits = torch.randn(2, 4, 3, 5, requires_grad=True)
    labels = torch.randint(0, 4, (2, 3, 5), dtype=torch.uint8)
    labels[0, 1] = 255
    loss = task_loss(logits, labels)
    log_p = torch.log_softmax(logits.detach().double(), 1)
    places = [(b, i, j) for b, i, j in np.ndindex(2, 3, 5) if labels[b, i, j] < 255]
    slow = [-log_p[b, int(labels[b, i, j]), i, j].item() for b, i, j in places]
    assert loss.item() == pytest.approx(np.mean(slow), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[0, :, 1].any()
    assert task_loss(logits, torch.full_like(labels, 255)).item() == 0
    many = torch.randn(3, 400)
    assert task_loss(many, torch.tensor([255, 399, 0])).item() == pytest.approx(
        F.cross_entropy(many, torch.tensor([255, 399, 0])).item()
    ), "class 255 of a classifier is a class"


def scene_method(name, **settings):
    published = {"model.freeze_batch_norm": True, "model.freeze_affine": True}
    settings = {f"methods.{name}.{key}": value for key, value in settings.items()}
    recipe = load_recipe("camvid", {"method": name} | published | settings)
    return build_method(recipe, 11, CPU).train(), recipe


def scene_batch(views, images=2, side=64):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (views, images, side, side, 3), dtype=torch.uint8, generator=generator)
    return Batch(pixels, torch.randint(0, 11, (images, side, side), dtype=torch.uint8, generator=generator))


@pytest.mark.parametrize("name", METHODS)
def test_every_system_trains_on_scenes(weights, name, tmp_path):
    """Losses are finite, and gradients reach the encoder; batch norm's scale and shift stay, as published."""
    if name == "drpc":
        write = np.zeros((40, 40, 3), np.uint8)
        Image.fromarray(write).save(tmp_path / "style.png")
    method, recipe = scene_method(name, **({"styles": str(tmp_path), "versions": 2} if name == "drpc" else {}))
    losses, _ = method(scene_batch(method.views))
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    encoder = method.student.encoder
    convolutions = [m for m in encoder.stages.modules() if isinstance(m, nn.Conv2d)]
    assert all(conv.weight.grad is not None for conv in convolutions)
    norms = [m for m in encoder.stages.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(p.requires_grad for norm in norms for p in norm.parameters())
    trained = {id(p) for group in make_optimiser(method, recipe.optim).param_groups for p in group["params"]}
    assert trained == {id(p) for p in method.parameters() if p.requires_grad}
    method.after_step()
    method.after_epoch()


def test_dense_csg_contrasts_each_patch_with_the_teachers(weights):
    method, _ = scene_method("csg", queue=256)
    batch = scene_batch(2)
    keys = method.keys(batch.views[1])
    for stage in ("layer3", "layer4"):
        attending, watched = method.student.encoder(batch.views[1])[stage], method.teacher(batch.views[1])[stage]
        assert keys[stage].shape == (2 * 64, 128)
        for row, column in ((0, 0), (3, 5), (7, 7)):  # the maps are 8 x 8: a patch is a position
            slow = method.key_projection.heads[stage](watched[1, :, row, column].relu()[None])
            torch.testing.assert_close(
                keys[stage][64 + 8 * row + column], F.normalize(slow, dim=1)[0], rtol=1e-3, atol=1e-4
            )
        assert attending.shape == watched.shape
    method(batch)
    method.after_step()
    assert int(method.queues.queues["layer4"].next) == 2 * 64


def test_the_projection_heads_may_stay_as_they_begin(weights):
    method, recipe = scene_method("csg", queue=64, train_heads=False)
    ids = {id(p) for group in make_optimiser(method, recipe.optim).param_groups for p in group["params"]}
    assert not ids & {id(p) for p in method.projection.parameters()}
    sum(method(scene_batch(2))[0].values()).backward()
    assert all(p.grad is None for p in method.projection.parameters())


def test_published_defaults_of_segmentation():
    assert load_recipe("gta5").methods["csg"]["grid"] == 8
    assert load_recipe("gta5", {"method": "asg"}).methods["asg"]["weight"] == 75
    assert load_recipe("visda17", {"method": "asg"}).methods["asg"]["weight"] == 0.1


@pytest.mark.parametrize("pooled", [True, False])
def test_asg_imitates_the_pooled_prediction_or_each_position(weights, pooled):
    method, _ = scene_method("asg", **({} if pooled else {"pooled": False}))
    nudge(method.student.encoder, by=0.002)
    batch = scene_batch(1)
    losses, _ = method(batch)
    ours, theirs = method.student.encoder(batch.views[0])["layer4"], method.teacher(batch.views[0])["layer4"]
    places = [(b, slice(None), slice(None)) for b in range(2)] if pooled else list(np.ndindex(2, 8, 8))
    slow = []
    for b, i, j in places:
        features = (m[b, :, i, j].reshape(1280, -1).mean(1) for m in (theirs, ours))
        p, q = (torch.log_softmax(method.teacher.head(x[None]).double(), 1) for x in features)
        slow.append((p.exp() * (p - q)).sum().item())
    assert losses["imitation"].item() == pytest.approx(0.1 * np.mean(slow), rel=1e-3, abs=1e-7)


def test_a_dilated_teacher_is_of_the_students_resolution():
    teacher = Teacher("mobilenet_v2", random_state("mobilenet_v2"), dilated=True)
    assert teacher(PIXELS)["layer4"].shape[2:] == (8, 12)
    assert teacher.classify(teacher(PIXELS)).shape == (2, 1000)
    assert teacher.classify(teacher(PIXELS), pooled=False).shape == (2 * 8 * 12, 1000)


@given(st.integers(2, 5), st.integers(1, 40), st.integers(0, 2**16), st.integers(1, 4))
def test_scores_are_those_of_plain_loops(classes, pixels, seed, parts):
    """mIoU over classes there or predicted; ignored pixels out; predictions beyond the classes are mistakes."""
    rng = np.random.default_rng(seed)
    true = rng.choice([*range(classes), 255], (parts, pixels)).astype(np.uint8)
    predicted = rng.choice([*range(classes), 255], (parts, pixels)).astype(np.uint8)
    counts = PixelConfusion(classes)
    for t, p in zip(true, predicted, strict=True):
        counts.add(t, p)
    found, pairs = counts.scores(), [(t, p) for t, p in zip(true.ravel(), predicted.ravel(), strict=True) if t != 255]
    if not pairs:
        assert np.isnan(found.miou)
        return
    ious, weighted = [], 0.0
    for c in range(classes):
        both = sum(t == c and p == c for t, p in pairs)
        either = sum(t == c or p == c for t, p in pairs)
        if either:
            ious.append(both / either)
            weighted += sum(t == c for t, _ in pairs) / len(pairs) * both / either
            assert found.per_class[c] == pytest.approx(both / either)
        else:
            assert np.isnan(found.per_class[c])
    assert found.miou == pytest.approx(np.mean(ious))
    assert found.pixel_accuracy == pytest.approx(np.mean([t == p for t, p in pairs]))
    assert found.frequency_weighted_iou == pytest.approx(weighted)


@pytest.mark.slow
def test_commands_of_one_task_do_not_take_the_others_runs(segmented):
    with pytest.raises(UsageError, match="csg train seg"):
        load_task_recipe("cls", "digit-scenes", {})
    with pytest.raises(UsageError, match="csg train seg"):
        train_command(TrainRequest(task="cls", out=segmented.path, resume=True), as_json=False)


def test_real_scenes_of_other_classes_are_refused_before_training(weights, tmp_path):
    settings = {"data.count": 20, "data.real_labels": "camvid11", "method": "none"}
    real = tmp_path / "real"
    for kind in ("images", "labels"):
        (real / kind).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3) if kind == "images" else (8, 8), np.uint8)).save(real / kind / "0.png")
    recipe, run = load_recipe("digit-scenes", settings | {"data.real": [str(real)]}), Run(tmp_path / "run")
    with pytest.raises(InputError, match="digit-scenes and camvid11 differ"):
        train(recipe, run)
    assert not run.path.exists()
