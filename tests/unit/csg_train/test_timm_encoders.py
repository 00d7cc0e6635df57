"""timm's networks as encoders: any size, stages, strides and blocks."""

import pytest
import torch

from csg.errors import UsageError
from csg_train.models.backbones import STAGES, Encoder
from csg_train.models.teacher import Teacher
from csg_train.models.timm_backbone import TimmStages, check_size, feeds_last_map
from csg_train.models.timm_model import check_name, create, multiple_of, normalisation
from csg_train.models.weights import load_weights
from csg_train.models.weights_licence import pretrained_weights

timm = pytest.importorskip("timm")

PYRAMID = (4, 8, 16, 32)
NETWORKS = {
    "vit_small_patch14_dinov2": ((14,) * 4, 14, 13),
    "vit_small_patch16_dinov3": ((16,) * 4, 16, 13),
    "vit_tiny_patch16_224": ((16,) * 4, 16, 13),
    "swin_tiny_patch4_window7_224": (PYRAMID, 4, 13),
    "convnext_tiny": (PYRAMID, 1, 19),
    "efficientnet_b0": (PYRAMID, 1, 17),
    "tf_efficientnet_lite0": (PYRAMID, 1, 17),
    "mobilenetv4_conv_small": (PYRAMID, 1, 18),
    "regnety_004": (PYRAMID, 1, 17),
    "resnet50": (PYRAMID, 1, 17),
}
"""Strides, multiple and number of blocks with the stem."""


LIGHT = ("vit_tiny_patch16_224", "mobilenetv4_conv_small", "regnety_004")


@pytest.mark.parametrize("name", [n if n in LIGHT else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS])
def test_a_network_has_stages_at_any_size(name):
    strides, multiple, blocks = NETWORKS[name]
    side = multiple * (112 // multiple)
    check_size(f"timm:{name}", side)
    encoder = Encoder(f"timm:{name}", None, True, size=(side, side)).eval()
    with torch.inference_mode():
        maps = encoder(torch.randint(256, (1, side, side, 3), dtype=torch.uint8))
    assert encoder.multiple == multiple
    assert encoder.strides == dict(zip(STAGES, strides, strict=True))
    for stage, stride in encoder.strides.items():
        cells = -(-side // stride)
        assert maps[stage].shape[1] == encoder.channels[stage]
        assert maps[stage].shape[2] == maps[stage].shape[3]
        assert cells - 1 <= maps[stage].shape[2] <= cells
    own = {id(p) for p in encoder.parameters()}
    assert list(encoder.groups()) == list(STAGES)
    assert len(encoder.blocks()) == blocks
    assert {id(p) for block in encoder.blocks() for p in block} == own
    assert [id(p) for group in encoder.groups().values() for p in group] == [
        id(p) for block in encoder.blocks() for p in block
    ]


def test_a_plain_vit_gives_four_depths_with_the_final_norm():
    name = "vit_tiny_patch16_224"
    model = timm.create_model(name, num_classes=0).eval()
    encoder = Encoder(f"timm:{name}", model.state_dict(), True, size=(224, 224)).eval()
    images = torch.randint(256, (1, 224, 224, 3), dtype=torch.uint8)
    with torch.inference_mode():
        maps = encoder(images)
        x, slow = model._pos_embed(model.patch_embed(encoder.normalise(images))), []
        for block in model.blocks:
            x = block(x)
            slow.append(model.norm(x)[:, 1:].reshape(1, 14, 14, 192).permute(0, 3, 1, 2))
    for stage, depth in zip(STAGES, (3, 6, 9, 12), strict=True):
        torch.testing.assert_close(maps[stage], slow[depth - 1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["vit_small_patch14_dinov2", "vit_small_patch16_dinov3", "swin_tiny_patch4_window7_224"]
)
def test_an_encoder_for_any_size_equals_that_for_one(name):
    """With one set of weights, at a size that is not the network's own."""
    side, state = (112, 98)[name.endswith("dinov2")], timm.create_model(name).state_dict()
    images = torch.randint(256, (1, side, side, 3), dtype=torch.uint8)
    fixed = Encoder(f"timm:{name}", state, True, size=(side, side)).eval()
    free = Encoder(f"timm:{name}", state, True).eval()
    with torch.inference_mode():
        stages = STAGES[:2] if name.startswith("swin") else STAGES  # deeper, the window of the fixed one is the map
        for stage in stages:
            torch.testing.assert_close(free(images)[stage], fixed(images)[stage], rtol=1e-4, atol=1e-5)
        wide = free(torch.cat([images, images], 2))
    assert wide["layer4"].shape[3] > wide["layer4"].shape[2]


@pytest.mark.parametrize(
    ("name", "side", "good"), [("vit_small_patch14_dinov2", 96, 98), ("vit_tiny_patch16_224", 100, 96)]
)
def test_a_size_that_patches_do_not_divide_is_refused_with_one_that_suits(name, side, good):
    with pytest.raises(UsageError, match=rf"no images of {side} x {side} pixels: .*data\.size={good}"):
        check_size(f"timm:{name}", side)
    check_size(f"timm:{name}", good)


def test_a_network_that_csg_cannot_run_at_its_own_size_is_not_recommended_that_size(monkeypatch):
    monkeypatch.setattr("csg_train.models.timm_backbone.model_size", lambda name: 64)
    with pytest.raises(UsageError, match=r"no images of 64 x 64 pixels: .*window") as refusal:
        check_size("timm:test_maxvit", 64)
    assert refusal.value.hint == "use another backbone"


@pytest.mark.parametrize("name", ["pit_ti_224", "tresnet_m"])
def test_weights_are_loaded_whatever_the_feature_model_calls_its_parts(name):
    """timm puts the one as `body` into a model that hooks its layers; the other has a `body` itself."""
    torch.manual_seed(0)
    state = timm.create_model(name).state_dict()
    encoder = Encoder(f"timm:{name}", state, True, size=(224, 224))
    loaded = encoder.stages.state_dict()
    assert sum(value.sum().item() for value in loaded.values()) == pytest.approx(
        sum(value.sum().item() for key, value in state.items() if not key.startswith("head")), rel=1e-4
    )
    assert encoder.blocks()


def test_weights_that_layer4_does_not_depend_on_are_noticed():
    """Several processes must know of them: they get no gradient."""
    found = [feeds_last_map(TimmStages(f"timm:{name}", size=(224, 224))) for name in ("pit_ti_224", "test_vit")]
    assert found == [False, True]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_network", "timm has no model 'no_such_network'"),
        ("", "timm has no model ''"),
        ("resnet18.a1_in2k", "timm's resnet18 has no weights 'a1_in2k'; it has .*a1_in1k"),
        ("resnet18.", "timm's resnet18 has no weights ''"),
    ],
)
def test_a_name_that_timm_does_not_know_is_refused_wherever_it_is_used(name, said):
    for check in (check_name, normalisation, create, multiple_of, lambda name: pretrained_weights(name, None)):
        with pytest.raises(UsageError, match=said):
            check(f"timm:{name}")


@pytest.mark.parametrize(
    ("name", "multiple"), [("pvt_v2_b0", 1), ("vit_small_r26_s32_224", 32), ("xcit_nano_12_p16_224", 16)]
)
def test_only_whole_patches_divide_an_image(name, multiple):
    """Overlapping patches, patches of a convolutional map, patches by convolutions."""
    assert multiple_of(f"timm:{name}") == multiple


def test_timms_safetensors_are_read_with_the_classifier(tmp_path):
    from safetensors.torch import save_file

    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    save_file(state, tmp_path / "w.safetensors")
    found = load_weights("timm:vit_tiny_patch16_224", tmp_path / "w.safetensors")
    assert found.keys() == state.keys()
    encoder = Encoder("timm:vit_tiny_patch16_224", found, True, size=(32, 48))
    assert encoder.get_parameter("stages.model.model.pos_embed").shape == (1, 1 + 2 * 3, 192)
    torch.testing.assert_close(encoder.get_parameter("stages.model.model.norm.weight"), state["norm.weight"])


WITH_CLASSIFIER = ("convnext_atto", "tf_efficientnet_lite0", "mobilenetv4_conv_small")


@pytest.mark.parametrize(
    "name", [*WITH_CLASSIFIER, "regnety_002", pytest.param("swin_tiny_patch4_window7_224", marks=pytest.mark.slow)]
)
def test_the_teachers_classifier_is_that_of_the_network(name, monkeypatch):
    monkeypatch.setenv("CSG_PLAIN_LAYERS", "1")  # the same layers on both sides
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    teacher = Teacher(f"timm:{name}", model.state_dict(), size=(224, 224))
    images = torch.randint(256, (2, 224, 224, 3), dtype=torch.uint8)
    with torch.inference_mode():
        maps = teacher(images)
        expected = model(teacher.encoder.normalise(images))
        torch.testing.assert_close(teacher.classify(maps), expected, rtol=1e-4, atol=1e-5)
        assert teacher.classify(maps, pooled=False).shape == (2 * 7 * 7, 1000)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_a_network_without_a_classifier_of_maps_is_no_teacher_of_asg(name):
    """A ViT's takes the class token; the other has seven classes."""
    state = timm.create_model(name, num_classes=1000 if "vit" in name else 7).state_dict()
    with pytest.raises(UsageError, match="no ImageNet classifier of layer4"):
        Teacher(f"timm:{name}", state, size=(224, 224)).check_classifier()
