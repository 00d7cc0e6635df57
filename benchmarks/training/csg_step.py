"""A csg training step against the shape of the published loop: fp32, NCHW, three eager forwards, one step at a time.

    python -m benchmarks.training.csg_step [backbone ...]
    python -m benchmarks.training.csg_step attention

Both take the same random pixels, compute the same losses and update the same weights; steps alternate within one
process, medians are compared. The published loop is rewritten here from its description, with plain torch.

`attention` compares csg's own step with the gradient through A-pool's attention and without: pairs of steps on the same
pixels, in CPU time of the process, the order within a pair changing each time.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csg.console import show_table
from csg_train.methods.base import Batch
from csg_train.models.backbones import BACKBONES
from csg_train.recipe import Recipe, load_recipe
from csg_train.training.command import build_method
from csg_train.training.optimizer import make_optimiser, precision_for

CPU = torch.device("cpu")
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class PlainLoop:
    """Student on both views, teacher on the k-view, A-pool, heads and their average, queues: as written in papers."""

    def __init__(self, backbone: str, weights: dict[str, Tensor], keys: int):
        torch.manual_seed(0)
        row = BACKBONES[backbone]
        model = row.build()
        model.load_state_dict(weights)
        self.student = nn.ModuleDict(row.cut(model)).eval()
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        widths = {stage: row.channels[stage] for stage in ("layer3", "layer4")}
        self.head = nn.Sequential(nn.Linear(widths["layer4"], 512), nn.ReLU(), nn.Linear(512, 7))
        self.h = nn.ModuleDict(
            {s: nn.Sequential(nn.Linear(c, c), nn.ReLU(), nn.Linear(c, 128)) for s, c in widths.items()}
        )
        self.h_average = copy.deepcopy(self.h).requires_grad_(False)
        self.queues = {stage: F.normalize(torch.randn(keys, 128), dim=1) for stage in widths}
        groups = [
            {"params": self.student.parameters(), "lr": 1e-3},
            {"params": [*self.head.parameters(), *self.h.parameters()], "lr": 1e-2},
        ]
        self.optimiser = torch.optim.SGD(groups, momentum=0.9, weight_decay=5e-4)

    @staticmethod
    def _maps(stages: nn.ModuleDict, images: Tensor) -> dict[str, Tensor]:
        maps, x = {}, (images.permute(0, 3, 1, 2).contiguous().float() / 255 - MEAN) / STD
        for name, stage in stages.items():
            maps[name] = x = stage(x)
        return maps

    @staticmethod
    def _pool(values: Tensor, attending: Tensor) -> Tensor:
        v = attending.detach().relu()
        scores = torch.einsum("bchw,bc->bhw", v, v.mean((2, 3)))
        return torch.einsum("bchw,bhw->bc", values.relu(), scores / scores.sum((1, 2), keepdim=True))

    def step(self, batch: Batch) -> None:
        q_view, k_view = batch.views
        q_maps = self._maps(self.student, q_view)
        with torch.no_grad():
            k_student, k_teacher = self._maps(self.student, k_view), self._maps(self.teacher, k_view)
        loss = F.cross_entropy(self.head(q_maps["layer4"].mean((2, 3))), batch.labels)
        for stage, queue in self.queues.items():
            anchor = F.normalize(self.h[stage](self._pool(q_maps[stage], q_maps[stage])), dim=1)
            key = F.normalize(self.h_average[stage](self._pool(k_teacher[stage], k_student[stage])), dim=1)
            logits = torch.cat([(anchor * key).sum(1, keepdim=True), anchor @ queue.T], 1) / 0.07
            loss = loss + 0.1 * F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64))
            self.queues[stage] = torch.cat([key, queue[: -len(key)]])
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        with torch.no_grad():
            for average, now in zip(self.h_average.parameters(), self.h.parameters(), strict=True):
                average.mul_(0.999).add_(now, alpha=0.001)


def csg_step(recipe: Recipe, weights: dict[str, Tensor]) -> tuple[Callable[[Batch], None], str]:
    """csg's own step at `--precision auto`, for 7 classes."""
    method = build_method(recipe, 7, CPU, weights).train()
    optimiser, precision = make_optimiser(method, recipe.optim), precision_for("auto", CPU)

    def step(batch: Batch) -> None:
        with torch.autocast("cpu", precision.dtype, enabled=precision.name != "fp32"):
            losses, _ = method(batch)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
        method.after_step()

    return step, precision.name


def measure(backbone: str, size: int, images: int, steps: int) -> tuple[str, str, str, str]:
    """Images a second of both loops, and their ratio."""
    state = BACKBONES[backbone].build().state_dict()
    plain = PlainLoop(backbone, state, 4096)
    ours, precision = csg_step(load_recipe("pacs", {"model.backbone": backbone}), state)
    batch = Batch(torch.randint(0, 256, (2, images, size, size, 3), dtype=torch.uint8), torch.arange(images) % 7)
    times: dict[str, list[float]] = {"plain": [], "csg": []}
    for _ in range(steps + 2):
        for name, step in (("plain", plain.step), ("csg", ours)):
            started = time.perf_counter()
            step(batch)
            times[name].append(time.perf_counter() - started)
    rates = {name: images / statistics.median(found[2:]) for name, found in times.items()}
    title = f"{backbone}, {size} px, batch {images}, {precision}"
    return title, f"{rates['plain']:.1f}", f"{rates['csg']:.1f}", f"{rates['csg'] / rates['plain']:.2f}"


def attention_ratio(name: str, size: int, pairs: int) -> tuple[str, str, str, str]:
    """Median CPU time of a step with detached and attached attention, and the median of the paired ratios."""
    recipes = [load_recipe(name, {"method.attention": form}) for form in ("detached", "attached")]
    weights = BACKBONES[recipes[0].model.backbone].build().state_dict()
    steps = [csg_step(recipe, weights)[0] for recipe in recipes]
    images, pixels = recipes[0].optim.batch, recipes[0].task == "seg"
    shape = (images, size, size) if pixels else (images,)
    views = torch.randint(0, 256, (2, images, size, size, 3), dtype=torch.uint8)
    batch = Batch(views, torch.randint(0, 7, shape, dtype=torch.uint8 if pixels else torch.int64))
    times: list[list[float]] = []
    for pair in range(pairs + 2):
        spent = [0.0, 0.0]
        for which in (0, 1) if pair % 2 else (1, 0):
            started = time.process_time()
            steps[which](batch)
            spent[which] = time.process_time() - started
        times.append(spent)
    detached, attached = (statistics.median(spent[which] for spent in times[2:]) for which in (0, 1))
    ratio = statistics.median(with_ / without for without, with_ in times[2:])
    title = f"{name}, {recipes[0].model.backbone}, {size} px, batch {images}"
    return title, f"{detached * 1e3:.0f}", f"{attached * 1e3:.0f}", f"{ratio:.3f}"


def compare_attention() -> None:
    """Measure and print what the gradient through the attention costs."""
    rows = [attention_ratio("pacs", 96, 24), attention_ratio("digit-scenes", 96, 16)]
    columns = ("", "detached, ms", "attached, ms", "attached / detached")
    show_table(f"{torch.get_num_threads()} threads, CPU time a step", columns, rows)


def main() -> None:
    """Measure and print."""
    if sys.argv[1:] == ["attention"]:
        compare_attention()
        return
    rows = [measure(backbone, 96, 32, 12) for backbone in sys.argv[1:] or ["mobilenet_v2", "resnet18", "resnet50"]]
    show_table(f"{torch.get_num_threads()} threads, images/s", ("", "plain loop", "csg", "csg / plain"), rows)


if __name__ == "__main__":
    main()
