"""Segmentation with encoders of any stride: padding, heads, patches of the dense contrast, and the ONNX graph."""

import math

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from csg.card import SegmentationInput
from csg.errors import UsageError
from csg_export.onnx_graph import INPUT, LOGITS, strip, to_onnx
from csg_train.methods.base import Batch, task_loss
from csg_train.models.backbones import Encoder
from csg_train.models.gradient_checkpointing import use_gradient_checkpointing
from csg_train.models.segmentation_heads import PyramidHead, make_head
from csg_train.models.segmenter import Segmenter
from csg_train.recipe import load_recipe
from csg_train.tasks import TASKS
from csg_train.tasks.base import predicting
from csg_train.training.command import build_method

timm = pytest.importorskip("timm", reason="needs the extra timm")

VIT, CONVOLUTIONAL, PADDED = "timm:test_vit", "timm:test_efficientnet", "timm:test_mambaout"
"""The last has strides 4, 8, 16 and 32, and is not dilated."""
PIXELS = torch.randint(0, 256, (2, 72, 104, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def segmenter(name, head="linear"):
    torch.manual_seed(0)
    return Segmenter(Encoder(name, None, True, True, dilated=True), 3, head, align_corners=True).eval()


@pytest.mark.parametrize("head", ["linear", "pyramid", "deeplabv2", "aspp"])
@pytest.mark.parametrize("name", [VIT, CONVOLUTIONAL, PADDED])
def test_logits_have_the_images_size_whatever_the_stride(name, head):
    assert segmenter(name, head)(PIXELS).shape == (2, 3, 72, 104)


def test_images_are_padded_with_zeros_after_the_normalisation():
    student = segmenter(VIT)
    padded = F.pad(student.encoder.normalise(PIXELS), (0, 8, 0, 8))
    expected, maps = student.encoder.stages(padded), student.encoder(PIXELS)
    assert maps["layer4"].shape[2:] == (5, 7)
    for stage, found in maps.items():
        torch.testing.assert_close(found, expected[stage])


def test_loss_and_prediction_leave_the_padding_out():
    student, labels = segmenter(VIT), torch.ones(2, 72, 104, dtype=torch.uint8)
    padded = student.classify(student.encoder(PIXELS))
    assert padded.shape[2:] == (80, 112)
    assert task_loss(padded, labels) == task_loss(padded[..., :72, :104], labels)
    with predicting(student, mirrored=True) as predict:
        prediction = predict(PIXELS)
    assert prediction.logits.shape == prediction.mirrored.shape == (2, 3, 72, 104)


def test_convolutional_networks_are_dilated_where_timm_can():
    encoder = segmenter(CONVOLUTIONAL).encoder
    assert set(encoder.strides.values()) == {4, 8}
    assert not encoder.pads


@pytest.mark.parametrize(("stride", "rates"), [(8, [12, 24, 36]), (14, [7, 14, 21]), (16, [6, 12, 18])])
def test_aspp_reaches_as_far_in_the_image_at_every_stride(stride, rates):
    head = make_head("aspp", {"layer4": 4}, {"layer4": stride}, 2)
    convolutions = [m for m in head.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert [m.dilation[0] for m in convolutions][:3] == rates


@pytest.mark.parametrize(
    ("strides", "finest"), [((14,) * 4, 7), ((16,) * 4, 8), ((4, 8, 16, 32), 4), ((4, 8, 8, 8), 4), ((8, 16, 32), 8)]
)
def test_the_pyramid_brings_all_stages_to_one_stride(strides, finest):
    names = [f"layer{5 - number}" for number in range(len(strides), 0, -1)]
    strides = dict(zip(names, strides, strict=True))
    head = PyramidHead(dict.fromkeys(names, 6), strides, 2).eval()
    side = 2 * max(strides.values())
    maps = {name: torch.randn(1, 6, side // stride, side // stride) for name, stride in strides.items()}
    assert head.stride == finest
    assert head(maps).shape == (1, 2, side // finest, side // finest)


def test_a_crop_too_small_for_the_patches_is_refused_with_the_smallest_that_is_not():
    def student(side):
        settings = {"model.backbone": VIT, "data.crop": [side, side], "method": "csg"}
        return TASKS["seg"].student(load_recipe("digit-scenes", settings), 5, None)

    with pytest.raises(UsageError, match="8 x 8 patches") as caught:
        student(112)
    assert "at least 120 x 120" in caught.value.hint
    assert student(120).encoder.pads


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("test_vit_relpos", "doesn't match model"),
        ("test_maxvit", "divisible by window"),
    ],
)
def test_a_network_that_does_not_take_any_size_is_refused_before_training(name, why):
    settings = {"model.backbone": f"timm:{name}", "method": "none"}
    with pytest.raises(UsageError, match=f"any height and width, as a segmenter does: .*{why}"):
        TASKS["seg"].student(load_recipe("digit-scenes", settings), 5, None)


@pytest.mark.parametrize(("name", "method"), [(VIT, "csg"), (VIT, "feature-l2"), (PADDED, "csg"), (PADDED, "miro")])
def test_positions_of_padding_alone_count_in_no_loss(name, method, tmp_path):
    """With weights from a file; such positions are NaN."""
    save_file(timm.create_model(name.removeprefix("timm:")).state_dict(), tmp_path / "w.safetensors")
    changes = {"method": method, "model.backbone": name, "model.weights": str(tmp_path / "w.safetensors")}
    if method == "csg":
        changes |= {"methods.csg.grid": 2, "methods.csg.queue": 16, "methods.csg.stages": ["layer1", "layer4"]}
    recipe = load_recipe("digit-scenes", changes | {"data.crop": [40, 72]})
    system = build_method(recipe, 5, torch.device("cpu")).train()
    for encoder in (system.student.encoder, system.teacher.encoder):
        encoder.stages.register_forward_hook(lambda _, inputs, maps, encoder=encoder: poisoned(encoder, maps))
    views = torch.randint(0, 256, (system.views, 2, 40, 72, 3), dtype=torch.uint8)
    losses, _ = system(Batch(views, torch.randint(0, 5, (2, 40, 72), dtype=torch.uint8)))
    sum(losses.values()).backward()
    gradients = [p.grad for p in system.student.encoder.parameters() if p.grad is not None]
    assert gradients
    assert all(found.isfinite().all() for found in (*losses.values(), *gradients))
    system.after_step()


def poisoned(encoder, maps):
    """The maps of padded images of 40 x 72 pixels, with NaN where a position holds no pixel of the image."""
    found = {}
    for stage, whole in maps.items():
        rows, columns = (math.ceil(side / encoder.strides[stage]) for side in (40, 72))
        found[stage] = torch.full_like(whole, math.nan)
        found[stage][:, :, :rows, :columns] = whole[:, :, :rows, :columns]
    return found


@pytest.mark.parametrize("name", [VIT, PADDED])
def test_gradient_checkpointing_gives_the_same_gradients(name):
    found = []
    for checkpointed in (False, True):
        student = segmenter(name, "pyramid").train()
        if checkpointed:
            use_gradient_checkpointing(student.encoder)
        student(PIXELS[:, :40, :72]).square().mean().backward()
        found.append({key: parameter.grad for key, parameter in student.named_parameters()})
    assert any(gradient is not None and gradient.abs().max() > 0 for gradient in found[0].values())
    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient, rtol=1e-6, atol=1e-9)


def test_a_swin_is_exported_from_an_image_of_several_windows():
    """torch.export would take the number of windows for a constant where it is 1."""
    settings = {"model.backbone": "timm:swin_tiny_patch4_window7_224", "method": "none"}
    encoder = TASKS["seg"].student(load_recipe("digit-scenes", settings), 5, None).encoder
    assert min(encoder.example_size) > 7 * encoder.strides["layer4"]
    assert all(side % encoder.pad_to == 0 for side in encoder.example_size)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "head"), [(VIT, "linear"), (PADDED, "pyramid")])
def test_the_graph_takes_any_height_and_width(name, head):
    student = segmenter(name, head)
    graph = to_onnx(strip(student), SegmentationInput()).SerializeToString()
    session = onnxruntime.InferenceSession(graph)
    for height, width in ((64, 64), (72, 104), (232, 136)):
        pixels = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
        with torch.inference_mode():
            expected = student(torch.from_numpy(pixels)).numpy()
        (found,) = session.run([LOGITS], {INPUT: pixels})
        assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
