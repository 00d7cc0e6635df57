"""Checkpoints of the layout that the method's published code writes, with random weights."""

from functools import cache

import torch
import torchvision
from torch import nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead


def hollow(tensor):
    """Zeros of the same shape and type, which need no space in a file."""
    return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)


def resnet(name, dilated=False):
    """torchvision's ResNet, with statistics that do something."""
    model = getattr(torchvision.models, name)(replace_stride_with_dilation=[False, dilated, dilated])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.running_mean, std=0.1)
    return model.eval()


def published_checkpoint(encoder, head, **more):
    """What the published code saves.

    Args:
        encoder: torchvision's ResNet.
        head: the task head, by the names below `fc_new.`.
        more: entries that replace others, by name.
    """
    width = encoder.fc.in_features
    backbone = {k: v for k, v in encoder.state_dict().items() if not k.startswith("fc.")}
    backbone |= {"fc.weight": torch.zeros(128, width), "fc.bias": torch.zeros(128)}
    heads = {
        f"fc_csg.stage{stage}.{layer}.{name}": tensor
        for stage, channels in ((3, width // 2), (4, width))
        for layer, outputs in ((0, channels), (2, 128))
        for name, tensor in nn.Linear(channels, outputs).state_dict().items()
    }
    state = {f"encoder_q.{k}": v for k, v in (backbone | heads).items()}
    state |= {f"encoder_q.fc_new.{k}": v for k, v in head.items()}
    state |= {f"encoder_k.{k}": hollow(v) for k, v in (backbone | heads).items()}
    for stage in (3, 4):
        state |= {f"queue{stage}": torch.randn(128, 64), f"queue_ptr{stage}": torch.zeros(1, dtype=torch.long)}
    return {"epoch": 30, "state_dict": state, "best_prec1": torch.tensor(64.1)} | more


def classifier(name="resnet18", classes=12):
    """A network of the published arrangement, and its checkpoint."""
    torch.manual_seed(0)
    model = resnet(name)
    width = model.fc.in_features
    head = nn.Sequential(nn.Linear(width, 512), nn.ReLU(), nn.Linear(512, classes))
    checkpoint = published_checkpoint(model, head.state_dict())
    model.fc = head
    return model, checkpoint


@cache
def hollow_classifier():
    """A small file: a checkpoint in which the head alone has values."""
    checkpoint = classifier()[1]
    state = {k: v if "fc_new" in k else hollow(v) for k, v in checkpoint["state_dict"].items()}
    return checkpoint | {"state_dict": state}


class Segmentation(nn.Module):
    """A dilated ResNet-50 with the published head; the corners of logits and image coincide."""

    def __init__(self, classes=19):
        super().__init__()
        self.encoder = resnet("resnet50", dilated=True)
        self.head = DeepLabHead(2048, classes, (12, 24, 36)).eval()

    def forward(self, x):
        maps = nn.Sequential(*list(self.encoder.children())[:-2])(x)
        return nn.functional.interpolate(self.head(maps), x.shape[2:], mode="bilinear", align_corners=True)


def segmenter(classes=19):
    """A network of the published arrangement, and its checkpoint."""
    torch.manual_seed(0)
    model = Segmentation(classes)
    head = {f"conv2d_list.0.{k}": v for k, v in model.head.state_dict().items()}
    return model, published_checkpoint(model.encoder, head)
