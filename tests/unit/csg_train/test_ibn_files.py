"""Weights published with IBN-Net: files of their layout give the network of their layout."""

import types

import pytest
import torch
import torchvision
from torch import nn

from csg.errors import InputError
from csg_train.models.backbones import Encoder
from csg_train.models.teacher import Teacher
from csg_train.models.weights import load_weights
from tests.helpers.cli import csg, refused

PIXELS = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class HalfInstance(nn.Module):
    """Variant a's norm."""

    def __init__(self, width):
        super().__init__()
        self.IN, self.BN = nn.InstanceNorm2d(width // 2, affine=True), nn.BatchNorm2d(width - width // 2)

    def forward(self, x):
        cut = self.IN.num_features
        return torch.cat([self.IN(x[:, :cut]), self.BN(x[:, cut:])], 1)


def last_block(self, x):
    """The forward pass of variant b's last block in layer1 and layer2."""
    y = self.relu(self.bn1(self.conv1(x)))
    y = self.bn2(self.conv2(y))
    if hasattr(self, "conv3"):
        y = self.bn3(self.conv3(self.relu(y)))
    return self.relu(self.IN(y + (x if self.downsample is None else self.downsample(x))))


def published(name):
    """IBN-Net's arrangement of a ResNet, with its names and random weights."""
    plain, _, variant = name.partition("_ibn_")
    torch.manual_seed(0)
    model = getattr(torchvision.models, plain)()
    if variant == "a":
        for layer in (model.layer1, model.layer2, model.layer3):
            for block in layer:
                block.bn1 = HalfInstance(block.bn1.num_features)
    else:
        model.bn1 = nn.InstanceNorm2d(64, affine=True)
        for layer in (model.layer1, model.layer2):
            width = list(layer[-1].children())[-2 if plain == "resnet50" else -1].num_features
            layer[-1].IN = nn.InstanceNorm2d(width, affine=True)
            layer[-1].forward = types.MethodType(last_block, layer[-1])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18_ibn_a", "resnet50_ibn_a", "resnet18_ibn_b", "resnet50_ibn_b"])
def test_published_weights_give_the_published_network(name, tmp_path):
    model = published(name)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    weights = load_weights(name, tmp_path / "w.pth")
    encoder, teacher = Encoder(name, weights, True).eval(), Teacher(name, weights)
    with torch.no_grad():
        maps, expected = encoder(PIXELS), model(encoder.normalise(PIXELS))
        for logits in (model.fc(maps["layer4"].mean((2, 3))), teacher.classify(teacher(PIXELS))):
            torch.testing.assert_close(
                logits / expected.abs().max(), expected / expected.abs().max(), rtol=0, atol=1e-4
            )


def test_a_training_checkpoint_with_data_parallel_names_and_half_precision_gives_the_same(tmp_path):
    state = published("resnet18_ibn_b").state_dict()
    half = {f"module.{k}": v.half() if v.is_floating_point() else v for k, v in state.items()}
    half = {k: v for k, v in half.items() if not k.endswith("num_batches_tracked")}  # as torch 0.3 saved it
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"epoch": 3, "arch": "resnet18", "state_dict": half, "optimizer": optimizer}, tmp_path / "w.pth.tar")
    encoder = Encoder("resnet18_ibn_b", load_weights("resnet18_ibn_b", tmp_path / "w.pth.tar"), True)
    found = encoder.stages["layer1"][-2].weight
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, state["layer1.1.IN.weight"], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("held", "wanted", "says"),
    [
        ("resnet18_ibn_a", "resnet18", "IBN-Net, for a backbone whose name ends with _ibn_a"),
        ("resnet18_ibn_b", "resnet18_ibn_a", "IBN-Net, for a backbone whose name ends with _ibn_b"),
        ("resnet18_ibn_a", "resnet50_ibn_a", "lacks layer1.0.conv3.weight and"),
        ("resnet50_ibn_b", "resnet18_ibn_b", "lacks layer1.1.IN.weight and 3 more"),
        ("resnet18_ibn_a", "mobilenet_v2_ibn_a", "lacks"),
    ],
)
def test_weights_of_another_variant_are_refused(held, wanted, says, tmp_path):
    torch.save(published(held).state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=rf"w\.pth does not fit backbone {wanted}: .*{says}"):
        load_weights(wanted, tmp_path / "w.pth")


def test_a_training_starts_from_them(tmp_path):
    torch.save(published("resnet18_ibn_a").state_dict(), tmp_path / "w.pth")
    small = ["data.count=20", "data.real=[]", "optim.steps=1", "optim.batch=4", "data.workers=0", "precision=fp32"]
    words = [word for setting in small for word in ("--set", setting)]
    start = ("train", "cls", "--backbone", "resnet18", *words)
    done = csg(*start, "--method", "ibn-a", "--weights", "w.pth", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = csg(*start, "--method", "none", "--weights", "w.pth", cwd=tmp_path)
    refused(again, 3, "does not fit backbone resnet18: it holds weights of IBN-Net")
