"""A backbone of another family than the recipe's takes the optimizer's settings of its family."""

import pytest

from csg_train.models.encoder_families import family_of
from csg_train.recipe import load_recipe

SWIN = "timm:swin_tiny_patch4_window7_224"


@pytest.mark.parametrize(
    ("backbone", "family"),
    [
        ("mobilenet_v2_ibn_a", "mobile"),
        ("resnet101", "resnet"),
        ("timm:vit_small_patch14_dinov2", "vit"),
        ("timm:vit_small_patch16_dinov3", "vit"),
        ("timm:deit3_small_patch16_224", "vit"),
        ("timm:eva02_tiny_patch14_224", "vit"),
        ("timm:beit_base_patch16_224", "vit"),
        (SWIN, "swin"),
        ("timm:swinv2_tiny_window8_256", "swin"),
        ("timm:convnext_tiny", "convnext"),
        ("timm:convnextv2_atto", "convnext"),
        ("timm:efficientnet_b0", "mobile"),
        ("timm:tf_efficientnet_lite0", "mobile"),
        ("timm:mobilenetv4_conv_small", "mobile"),
        ("timm:mobilevit_s", "mobile"),
        ("timm:regnety_004", "resnet"),
        ("timm:levit_128s", "resnet"),
    ],
)
def test_the_name_tells_the_family(backbone, family):
    assert family_of(backbone) == family


@pytest.mark.parametrize("backbone", ["resnet18", "timm:efficientnet_b0", "mobilenet_v2"])
def test_a_family_that_is_trained_in_the_same_way_keeps_the_recipes_values(backbone, capsys):
    assert load_recipe("pacs", {"model.backbone": backbone}).optim == load_recipe("pacs").optim
    assert not capsys.readouterr().err
