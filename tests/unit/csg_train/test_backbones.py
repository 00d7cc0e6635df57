"""Stages, instance norms, the frozen teacher, timm's models."""

import re

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from csg.errors import UsageError
from csg_train.methods import METHODS, load_method
from csg_train.models import backbones, names
from csg_train.models.backbones import BACKBONES, PLAIN, Encoder
from csg_train.models.ibn import InstanceBatchNorm
from csg_train.models.names import check_backbone
from csg_train.models.teacher import Teacher
from csg_train.training.run_folder import Run
from tests.conftest import ROOT
from tests.helpers.cli import csg

PIXELS = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
RESNETS = ["resnet18", "resnet50"]


def random_state(name):
    """A state dict of the backbone with batch norms that do something."""
    torch.manual_seed(0)
    model = BACKBONES[name].build()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.state_dict()


@pytest.mark.parametrize("name", PLAIN)
def test_stages_are_the_torchvision_model(name):
    state = random_state(name)
    encoder = Encoder(name, state, True).eval()
    maps = encoder(PIXELS)
    assert {stage: m.shape[1:] for stage, m in maps.items()} == {
        stage: (width, 64 // stride, 96 // stride)
        for (stage, width), stride in zip(encoder.channels.items(), (4, 8, 16, 32), strict=True)
    }
    model = BACKBONES[name].build().eval()
    model.load_state_dict(state)
    logits = model.get_submodule(BACKBONES[name].head)(maps["layer4"].mean((2, 3)))
    expected = model(encoder.normalise(PIXELS))
    torch.testing.assert_close(logits / expected.abs().max(), expected / expected.abs().max(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", [*PLAIN, "resnet18_ibn_a"])
def test_the_folded_teacher_is_the_imagenet_network(name):
    plain = name.removesuffix("_ibn_a")
    state = random_state(plain)
    teacher = Teacher(name, state)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in teacher.encoder.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher.train(False).training
    model = BACKBONES[plain].build().eval()
    model.load_state_dict(state)
    with torch.no_grad():
        expected = model(teacher.encoder.normalise(PIXELS))
        found, size = teacher.classify(teacher(PIXELS)), expected.abs().max()
        torch.testing.assert_close(found / size, expected / size, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", [*RESNETS, "mobilenet_v2"])
def test_ibn_a_normalises_half_the_channels_by_the_instance(name):
    encoder = Encoder(f"{name}_ibn_a", random_state(name), True)
    found = [path for path, module in encoder.named_modules() if isinstance(module, InstanceBatchNorm)]
    blocks = {"resnet18": 6, "resnet50": 13, "mobilenet_v2": 13}[name]
    assert len(found) == blocks
    assert not any("layer4" in path for path in found)
    assert encoder(PIXELS)["layer4"].isfinite().all()


def test_instance_batch_norm_is_the_formula():
    norm = nn.BatchNorm2d(5)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 1.5)
    x = torch.randn(3, 5, 4, 4)
    found = InstanceBatchNorm(norm).eval()(x).detach().numpy()
    for b in range(3):
        for c in range(5):
            plane = x[b, c].numpy()
            mean, variance = (plane.mean(), plane.var()) if c < 2 else (norm.running_mean[c], norm.running_var[c])
            slow = (plane - float(mean)) / np.sqrt(float(variance) + 1e-5)
            slow = slow * norm.weight[c].item() + norm.bias[c].item()
            np.testing.assert_allclose(found[b, c], slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*RESNETS, "mobilenet_v2"])
def test_ibn_b_adds_instance_norms_after_the_first_convolution_and_the_sums_of_two_stages(name):
    """Without them, and with the first batch norm back, it is the plain network: nothing else has changed."""
    state = random_state(name)
    encoder, plain = Encoder(f"{name}_ibn_b", state, True).eval(), Encoder(name, state, True).eval()
    norms = [(path, m) for path, m in encoder.stages.named_modules() if isinstance(m, nn.InstanceNorm2d)]
    assert [path.split(".")[0] for path, _ in norms] == ["layer1", "layer1", "layer2"]
    first = next(m for m in plain.stages.modules() if isinstance(m, nn.BatchNorm2d))
    torch.testing.assert_close(norms[0][1].weight, first.weight)
    back = nn.BatchNorm2d(first.num_features).eval()
    back.load_state_dict(first.state_dict())
    encoder.stages.set_submodule(norms[0][0], back)
    for path, _ in norms[1:]:
        encoder.stages.set_submodule(path, nn.Identity())
    for stage, found in encoder(PIXELS).items():
        expected = plain(PIXELS)[stage]
        torch.testing.assert_close(found / expected.abs().max(), expected / expected.abs().max(), rtol=0, atol=1e-4)


def test_ibn_methods_choose_the_backbone(small_recipe):
    assert small_recipe(method="ibn-a").model.backbone == "mobilenet_v2_ibn_a"
    assert small_recipe(method="ibn-b", model__backbone="resnet18").model.backbone == "resnet18_ibn_b"
    assert {m for m in METHODS if load_method(m).backbone_variant} == {"ibn-a", "ibn-b"}


def test_an_unknown_backbone_is_named(small_recipe):
    with pytest.raises(UsageError, match="no backbone 'resnet19'"):
        small_recipe(model__backbone="resnet19")
    with pytest.raises(UsageError, match="no backbone"):
        small_recipe(method="ibn-a", model__backbone="timm:resnet18")
    assert check_backbone("timm:anything") == "timm:anything"


def test_a_timm_backbone_has_stages_and_is_exported(tmp_path):
    timm = pytest.importorskip("timm")
    from csg_train.models.timm_model import create

    with pytest.raises(UsageError, match="has no model"):
        create("timm:convnext_unheard_of")
    name = "timm:convnext_atto"
    torch.manual_seed(0)
    state = create(name).state_dict()
    encoder = Encoder(name, state, True).eval()
    assert list(encoder.channels) == ["layer1", "layer2", "layer3", "layer4"]
    maps = encoder(PIXELS)
    model = timm.create_model("convnext_atto", features_only=True)
    model.load_state_dict(state)
    expected = model.eval()(encoder.normalise(PIXELS))
    for found, reference in zip(maps.values(), expected, strict=True):
        torch.testing.assert_close(found, reference)
    teacher = Teacher(name, state)
    with pytest.raises(UsageError, match="ImageNet classifier"):
        teacher.classify(maps)


def test_torchvision_has_no_other_widths():
    for name, row in PLAIN.items():
        head = getattr(torchvision.models, name)().get_submodule(row.head)
        last = [m for m in head.modules() if isinstance(m, nn.Linear)][-1]
        assert last.in_features == row.channels["layer4"]


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
@pytest.mark.parametrize("frozen", [True, False])
def test_folded_norms_change_neither_maps_nor_gradients(name, frozen):
    """Against the plain torchvision layers, in training, with the norm frozen and not."""
    state = random_state(name)
    ours = Encoder(name, state, frozen).train()
    model = BACKBONES[name].build()
    model.load_state_dict(state)
    plain = nn.ModuleDict(BACKBONES[name].cut(model)).train(not frozen)
    assert ours.stages.state_dict().keys() == plain.state_dict().keys()
    x = ours.normalise(PIXELS)
    maps, slow = ours.stages(x), {}
    for stage, module in plain.items():
        slow[stage] = x = module(x)
    for stage, found in maps.items():
        torch.testing.assert_close(found, slow[stage], rtol=1e-3, atol=1e-3)
    loss, slow_loss = (sum(m[stage].square().mean() for stage in ("layer3", "layer4")) for m in (maps, slow))
    gradients = torch.autograd.grad(loss, list(ours.stages.parameters()))
    expected = torch.autograd.grad(slow_loss, list(plain.parameters()))
    for found, reference in zip(gradients, expected, strict=True):
        size = reference.abs().max()
        torch.testing.assert_close(found / size, reference / size, rtol=0, atol=1e-3)


def test_the_names_without_torch_are_those_of_the_rows():
    assert list(names.PLAIN_NAMES) == list(PLAIN)
    assert sorted(names.BACKBONE_NAMES) == sorted(BACKBONES)


def test_a_backbone_is_a_row_and_its_name(monkeypatch, tmp_path):
    """The steps of docs/how-to/backbone.md: its row, its name, the checks of all rows, a run."""
    page = (ROOT / "docs" / "how-to" / "backbone.md").read_text()
    (row,) = re.findall(r"```python\n(.*?)```", page, re.S)
    added = eval(f"{{{row}}}", vars(backbones))
    (name,) = added
    for table in (PLAIN, BACKBONES):
        monkeypatch.setitem(table, name, added[name])
    monkeypatch.setattr(names, "BACKBONE_NAMES", (*names.BACKBONE_NAMES, name))
    test_stages_are_the_torchvision_model(name)
    test_the_folded_teacher_is_the_imagenet_network(name)
    for label in ("dark", "light"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (32, 32), "white" if label == "light" else "black").save(
                tmp_path / "images" / label / f"{number}.png"
            )
    settings = [f"model.backbone={name}", "model.weights=none", "optim.max_steps=1", "data.workers=0", "precision=fp32"]
    words = [word for setting in settings for word in ("--set", setting)]
    done = csg("train", "cls", "--method", "none", "--data", tmp_path / "images", *words, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert Run(tmp_path / "run").recipe().model.backbone == name
