"""A student and a teacher small enough to be checked weight by weight: two convolutions for an encoder."""

import torch
from torch import nn


class TinyEncoder(nn.Module):
    """Images uint8 (B, H, W, 3) to layer3 and layer4, 4 and 5 channels."""

    name = "resnet18"
    channels = {"layer3": 4, "layer4": 5}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.layer3, self.layer4 = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 5, 3, 2)

    def forward(self, images):
        layer3 = self.layer3(images.permute(0, 3, 1, 2).float() / 255)
        return {"layer3": layer3, "layer4": self.layer4(layer3.relu())}

    def groups(self):
        return {"layer3": list(self.layer3.parameters()), "layer4": list(self.layer4.parameters())}


class TinyStudent(nn.Module):
    """A linear head on the pooled layer4, three classes."""

    def __init__(self):
        super().__init__()
        self.encoder, self.head = TinyEncoder(), nn.Linear(5, 3)

    def embed(self, maps):
        return maps["layer4"].mean((2, 3))

    def classify(self, maps):
        return self.head(self.embed(maps))

    def forward(self, images):
        return self.classify(self.encoder(images))


class TinyTeacher(nn.Module):
    """A frozen encoder with an "ImageNet" of six classes."""

    dilated = False

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(5, 6)
        self.eval().requires_grad_(False)

    def forward(self, images):
        return self.encoder(images)

    def check_classifier(self):
        assert self.head

    def classify(self, maps, pooled=True):
        layer4 = maps["layer4"]
        return self.head(layer4.mean((2, 3)) if pooled else layer4.permute(0, 2, 3, 1).flatten(0, 2))


def tiny(seed=0):
    """A student and its teacher, of the same weights."""
    import copy

    torch.manual_seed(seed)
    student = TinyStudent()
    return student, TinyTeacher(copy.deepcopy(student.encoder))


def nudge(student, by=0.05, seed=1):
    """Move all weights a little."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
