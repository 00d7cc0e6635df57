"""Segmentation with encoders of any stride: padding, heads, patches of the dense contrast, and the ONNX graph."""

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from csg.card import SegmentationInput
from csg.errors import UsageError
from csg_export.onnx_graph import INPUT, LOGITS, strip, to_onnx
from csg_train.methods.base import task_loss
from csg_train.models.backbones import Encoder
from csg_train.models.segmentation_heads import PyramidHead, make_head
from csg_train.models.segmenter import Segmenter
from csg_train.recipe import load_recipe
from csg_train.tasks import TASKS
from csg_train.tasks.base import predicting

VIT, CONVOLUTIONAL = "timm:test_vit", "timm:test_efficientnet"
PIXELS = torch.randint(0, 256, (2, 72, 104, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _needs_timm():
    pytest.importorskip("timm", reason="needs the extra timm")


def segmenter(name, head="linear"):
    torch.manual_seed(0)
    return Segmenter(Encoder(name, None, True, True, dilated=True), 3, head, align_corners=True).eval()


@pytest.mark.parametrize("head", ["linear", "pyramid", "deeplabv2", "aspp"])
@pytest.mark.parametrize("name", [VIT, CONVOLUTIONAL])
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


def test_a_network_without_a_graph_of_free_size_is_refused_before_training():
    settings = {"model.backbone": "timm:swin_tiny_patch4_window7_224", "method": "none"}
    with pytest.raises(UsageError, match="any height and width"):
        TASKS["seg"].student(load_recipe("digit-scenes", settings), 5, None)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["linear", "pyramid"])
def test_the_graph_takes_any_height_and_width(head):
    student = segmenter(VIT, head)
    graph = to_onnx(strip(student), SegmentationInput()).SerializeToString()
    session = onnxruntime.InferenceSession(graph)
    for height, width in ((64, 64), (72, 104), (232, 136)):
        pixels = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
        with torch.inference_mode():
            expected = student(torch.from_numpy(pixels)).numpy()
        (found,) = session.run([LOGITS], {INPUT: pixels})
        assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
