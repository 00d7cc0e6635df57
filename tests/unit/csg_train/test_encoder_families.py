"""A backbone of another family than the recipe's takes the optimizer's settings of its family."""

import pytest

from csg_train.compare.tuning import candidates, choose, recipe_for, trial_settings
from csg_train.methods.spec import parse_method
from csg_train.models.encoder_families import DEFAULTS, family_of
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


def test_the_recipes_own_values_give_way_unless_the_user_set_them(capsys):
    optim = load_recipe("pacs", {"model.backbone": SWIN, "optim.lr_heads": 0.5}).optim
    assert optim.optimizer == "adamw"
    assert (optim.lr_backbone, optim.lr_heads, optim.warm_up) == (DEFAULTS["swin"].lr_backbone, 0.5, 100)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{SWIN} is trained with the defaults of its family, swin")
    assert "lr_heads" not in line


@pytest.mark.parametrize("backbone", ["resnet18", "timm:efficientnet_b0", "mobilenet_v2"])
def test_a_family_that_is_trained_in_the_same_way_keeps_the_recipes_values(backbone, capsys):
    assert load_recipe("pacs", {"model.backbone": backbone}).optim == load_recipe("pacs").optim
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "settings"),
    [
        (f"none:model.backbone={SWIN}", {"model.backbone": SWIN}),
        (f"miro:weight=0.1:model.backbone={SWIN}:model.training=lora", {"model.backbone": SWIN}),
        ('none:model.backbone="timm:resnet18"', {"model.backbone": "timm:resnet18"}),
    ],
)
def test_a_row_names_a_network_of_timm(row, settings):
    spec = parse_method(row)
    assert spec.changes.items() >= settings.items()
    assert spec.label == row


def test_a_row_of_a_comparison_brings_the_values_of_its_family_unless_it_sets_them(capsys):
    base = load_recipe("pacs", {"optim.warm_up": 20, "optim.lr_backbone": 0.3})
    vit = "timm:vit_tiny_patch16_224"
    (spec, _), _ = choose([f"none:model.backbone={vit}:optim.lr_heads=0.5", "none"], base)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{vit} is trained with the defaults of its family, vit")
    assert "lr_heads" not in line
    optim = recipe_for(spec, base, {"seed": 1}).optim
    assert optim.optimizer == "adamw"
    assert (optim.lr_backbone, optim.lr_heads, optim.warm_up) == (DEFAULTS["vit"].lr_backbone, 0.5, 100)
    first = candidates(spec, base)[0]
    assert first == {"optim.lr_backbone": DEFAULTS["vit"].lr_backbone, "optim.lr_heads": 0.5}
    tried = recipe_for(spec, base, trial_settings(recipe_for(spec, base), 1000, first)).optim
    assert (tried.optimizer, tried.lr_heads, tried.warm_up) == ("adamw", 2.0, 25)
    assert recipe_for(parse_method("none"), base).optim == base.optim
    assert not capsys.readouterr().err
