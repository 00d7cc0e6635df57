"""What is recorded of the licence of pretrained weights: what their publisher states, and no more."""

import json

import pytest
import torchvision

from csg.card import ModelCard, parse_card
from csg_train.models.weights_licence import limits_of_use, pretrained_weights, torchvision_weights
from csg_train.training.command import train
from csg_train.training.environment import Environment
from csg_train.training.run_folder import Run
from tests.helpers.small_runs import noisy_images, tiny_recipe
from tests.helpers.tiny_bundle import tiny_card


@pytest.mark.parametrize(
    ("backbone", "weights", "name", "licence", "said"),
    [
        ("resnet50", None, "ResNet50_Weights.IMAGENET1K_V1", None, "terms of their own"),
        ("mobilenet_v2", None, "MobileNet_V2_Weights.IMAGENET1K_V1", None, "image-net.org"),
        ("resnet18_ibn_a", None, "ResNet18_Weights.IMAGENET1K_V1", None, "BSD-3-Clause"),
        ("resnet50", "none", "none", None, "random weights"),
        ("timm:resnet18", "none", "none", None, "random weights"),
        ("resnet50", "/home/me/secret/w.pth", "w.pth", None, "has to know"),
        ("timm:vit_small_patch16_dinov3", None, "timm:vit_small_patch16_dinov3.lvd1689m", "dinov3-license", "meta.com"),
        ("timm:vit_small_patch14_dinov2", None, "timm:vit_small_patch14_dinov2.lvd142m", "apache-2.0", "timm names"),
        ("timm:resnet18.fb_swsl_ig1b_ft_in1k", None, "timm:resnet18.fb_swsl_ig1b_ft_in1k", "cc-by-nc-4.0", "timm"),
    ],
)
def test_what_the_publisher_states_is_recorded(backbone, weights, name, licence, said):
    if backbone.startswith("timm:"):
        pytest.importorskip("timm", reason="needs the extra timm")
    found = pretrained_weights(backbone, weights)
    assert (found.name, found.licence) == (name, licence)
    assert said in found.note
    assert "/home" not in found.model_dump_json()


@pytest.mark.parametrize(
    ("backbone", "limited"),
    [
        ("timm:vit_small_patch16_dinov3", "dinov3-license, which is not free for all uses: read https://ai.meta.com"),
        ("timm:convnextv2_atto", "cc-by-nc-4.0, which is not free"),
        ("timm:vit_small_patch14_dinov2", None),
        ("timm:tf_efficientnet_lite0", None),
        ("mobilenet_v2", None),
    ],
)
def test_weights_that_are_not_free_for_all_uses_are_said_to_be(backbone, limited):
    pytest.importorskip("timm", reason="needs the extra timm")
    line = limits_of_use(pretrained_weights(backbone, None))
    assert (line is None) == (limited is None)
    assert (limited or "") in (line or "")


def test_weights_of_torchvision_with_a_licence_of_their_own_name_it():
    found = torchvision_weights(torchvision.models.ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1)
    assert found.licence == "CC-BY-NC-4.0"
    assert "SWAG/blob/main/LICENSE" in found.note


def test_a_run_records_it_and_older_records_and_cards_lack_it(tmp_path):
    train(tiny_recipe(noisy_images(tmp_path / "data")), Run(tmp_path / "run"))
    recorded = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert recorded.pop("weights")["name"] == "none"
    assert Environment.model_validate(recorded).weights is None
    card = json.loads(tiny_card().to_json())
    del card["weights"]
    assert isinstance(parse_card(json.dumps(card), "card"), ModelCard)
