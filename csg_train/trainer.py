"""The trainer: the loop, readable top to bottom, for any Method.

Mixed precision, gradient scaling, schedule, logging, checkpoints and stopping are here; what is learned is the
method's.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from rich.progress import Progress, TaskID
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from csg.card import Evaluation
from csg.console import progress, say
from csg.errors import CsgError
from csg.realset import LabelledImages
from csg_train.data.views import Steps, Views, loader
from csg_train.evaluate import evaluate_student
from csg_train.methods import Batch, Method
from csg_train.recipe import Optim, Recipe
from csg_train.run import Run

LOG_EVERY = 10  # steps
CHECKPOINT_EVERY_S = 300.0


@dataclass
class Precision:
    """The arithmetic of the forward pass; parameters and their updates are float32."""

    name: str
    dtype: torch.dtype


def precision_for(wanted: str, device: torch.device) -> Precision:
    """`auto` is bf16 where the device has instructions for it, else fp16 on a GPU and fp32 on a CPU."""
    if wanted == "auto":
        if device.type == "cuda":
            wanted = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        else:
            wanted = "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"
    return Precision(wanted, {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[wanted])


def make_optimiser(method: Method, optim: Optim) -> torch.optim.SGD:
    """SGD with two groups: the student's encoder, and the heads (method.md section 6)."""
    groups = [
        {"params": [p for p in method.student.encoder.parameters() if p.requires_grad], "base_lr": optim.lr_backbone},
        {"params": list(method.head_parameters()), "base_lr": optim.lr_heads},
    ]
    return torch.optim.SGD(groups, lr=optim.lr_heads, momentum=optim.momentum, weight_decay=optim.weight_decay)


def poly(step: int, steps: int, power: float) -> float:
    """Factor of the learning rate at `step` of `steps`: (1 - step / steps) ** power (method.md section 6)."""
    return float((1 - step / steps) ** power)


@dataclass
class Stop:
    """Set by the first Ctrl-C or SIGTERM: the step in progress is finished, a checkpoint written."""

    wanted: bool = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals while the block runs; a second one falls through."""
        old = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def note(number: int, _: FrameType | None) -> None:
            self.wanted = True
            signal.signal(number, old[number])

        for number in old:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


class Stopped(CsgError):
    """The user stopped the run."""

    exit_code = 130


@dataclass
class Trainer:
    """One run of a method.

    real: the set to measure on, in the order of the classes trained on; None: nothing is measured.
    """

    run: Run
    recipe: Recipe
    method: Method
    images: LabelledImages
    real: LabelledImages | None
    device: torch.device
    step: int = 0
    unreadable: int = 0
    stop: Stop = field(default_factory=Stop)

    def __post_init__(self) -> None:
        optim = self.recipe.optim
        self.batch = min(optim.batch, len(self.images))
        self.steps_per_epoch = len(self.images) // self.batch
        self.steps = min(optim.epochs * self.steps_per_epoch, optim.max_steps or 2**62)
        self.precision = precision_for(self.recipe.precision, self.device)
        self.optimiser = make_optimiser(self.method, optim)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision.name == "fp16")
        self.seconds, self.images_seen = 0.0, 0
        self.logged = (0, 0.0)

    def train(self) -> dict[str, Any]:
        """Run to the end, and measure on the real set.

        Returns:
            `run`, `steps`, `images_per_s`, and `real` when there is a real set.

        Raises:
            Stopped: by Ctrl-C or SIGTERM; the run can be resumed.
        """
        self._restore()
        with (
            self.stop.listening(),
            SummaryWriter(str(self.run.path), purge_step=self.step) as self.curves,
            self.run.metrics.open("a") as self.lines,
        ):
            self._steps()
            real = self._measure() if self.real else None
        self.run.write_student(self.method.student.state_dict())
        result: dict[str, Any] = {
            "run": str(self.run.path),
            "steps": self.step,
            "images_per_s": round(self.images_seen / self.seconds, 1) if self.seconds else 0.0,
            "unreadable": self.unreadable,
        }
        if real:
            result["real"] = real
        self.run.write("result.json", json.dumps(result, indent=2) + "\n")
        self.run.drop_checkpoints()
        return result

    def _steps(self) -> None:
        recipe = self.recipe
        views = Views(self.images, recipe.data, recipe.augment, self.method.views, recipe.seed)
        order = Steps(len(self.images), self.batch, recipe.seed, self.step, self.steps)
        batches = loader(views, order, recipe.data.workers, self.device.type == "cuda")
        self.method.train()
        saved, started = time.monotonic(), time.monotonic()
        with progress() as bar:
            task = bar.add_task("training", total=self.steps, completed=self.step, note="")
            for loaded in batches:
                self._note_unreadable(loaded.unreadable)
                batch = Batch(
                    loaded.views.to(self.device, non_blocking=True), loaded.labels.to(self.device, non_blocking=True)
                )
                values = self._one_step(batch)
                self.images_seen += len(batch.labels)
                self.seconds = time.monotonic() - started
                self._log(values, bar, task)
                epoch_ends = self.step % self.steps_per_epoch == 0
                if self.stop.wanted or epoch_ends or time.monotonic() - saved > CHECKPOINT_EVERY_S:
                    self._save()
                    saved = time.monotonic()
                if self.stop.wanted:
                    raise Stopped(
                        f"stopped after step {self.step} of {self.steps}",
                        f"go on with `csg train {recipe.task} --resume --out {self.run.path}`",
                    )
                every = recipe.evaluate_every * self.steps_per_epoch
                if self.real and every and self.step % every == 0 and self.step < self.steps:
                    self._measure()

    def _one_step(self, batch: Batch) -> dict[str, Tensor]:
        """One optimiser step; returns what is logged, still on the device."""
        factor = poly(self.step, self.steps, self.recipe.optim.power)
        for group in self.optimiser.param_groups:
            group["lr"] = group["base_lr"] * factor
        with torch.autocast(self.device.type, self.precision.dtype, enabled=self.precision.name != "fp32"):
            losses, figures = self.method(batch)
        total = torch.stack(list(losses.values())).sum()
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.method.after_step()
        self.step += 1
        named = {f"loss/{name}": value for name, value in losses.items()}
        return {name: value.detach() for name, value in ({"loss": total} | named | figures).items()}

    def _log(self, values: dict[str, Tensor], bar: Progress, task: TaskID) -> None:
        bar.advance(task)
        if self.step % LOG_EVERY and self.step != self.steps:
            return
        line = {name: round(float(value), 6) for name, value in values.items()}
        if not all(map(_finite, line.values())):
            say(f"warning: step {self.step}: a loss is not finite")
        backbone, heads = (group["lr"] for group in self.optimiser.param_groups)
        seen, seconds = self.images_seen - self.logged[0], self.seconds - self.logged[1]
        self.logged = (self.images_seen, self.seconds)
        line |= {"lr/backbone": backbone, "lr/heads": heads, "images_per_s": round(seen / seconds, 1)}
        self._write(line)
        bar.update(task, note=f"loss {line['loss']:.3f}")
        if self.step % self.steps_per_epoch < LOG_EVERY and not bar.live.is_started:
            say(f"step {self.step}/{self.steps}  loss {line['loss']:.3f}  {line['images_per_s']:.0f} images/s")

    def _measure(self) -> dict[str, Any]:
        """Measure on the real set in fp32."""
        assert self.real
        data = self.recipe.data
        scores, skipped = evaluate_student(
            self.method.student, self.real, data.image_input(), self.device, data.unreadable == "skip"
        )
        evaluation = Evaluation(
            dataset=self.real.name,
            images=scores.images,
            skipped=skipped,
            accuracy=scores.accuracy,
            mean_class_accuracy=scores.mean_class_accuracy,
        ).model_dump()
        self._write({"real/accuracy": scores.accuracy, "real/mean_class_accuracy": scores.mean_class_accuracy})
        say(
            f"step {self.step}: {scores.accuracy:.2%} of {scores.images} real images ({self.real.name}) right, "
            f"mean over classes {scores.mean_class_accuracy:.2%}"
        )
        return evaluation

    def _write(self, line: dict[str, float]) -> None:
        self.lines.write(json.dumps({"step": self.step} | line) + "\n")
        self.lines.flush()
        for name, value in line.items():
            self.curves.add_scalar(name, value, self.step)

    def _note_unreadable(self, lines: list[str]) -> None:
        for line in lines:
            say(f"left out: {line}")
        self.unreadable += len(lines)

    def _save(self) -> None:
        """Everything the next step depends on; the data's order depends on the step alone."""
        tensors = {f"method.{name}": value for name, value in self.method.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors[f"momentum.{index}"] = state["momentum_buffer"]
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        tensors["scale"] = torch.tensor(self.scaler.get_scale(), dtype=torch.float64)
        tensors["unreadable"] = torch.tensor(self.unreadable)
        self.run.save_checkpoint(self.step, tensors)

    def _restore(self) -> None:
        found = self.run.load_checkpoint()
        if found is None:
            self.run.metrics.unlink(missing_ok=True)
            return
        self.step, tensors = found
        self.method.load_state_dict(
            {n.removeprefix("method."): t for n, t in tensors.items() if n.startswith("method.")}
        )
        momenta = {int(n.split(".")[1]): t for n, t in tensors.items() if n.startswith("momentum.")}
        plain = self.optimiser.state_dict()
        plain["state"] = {index: {"momentum_buffer": tensor} for index, tensor in momenta.items()}
        self.optimiser.load_state_dict(plain)
        torch.set_rng_state(tensors["rng.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(self.scaler.state_dict() | {"scale": float(tensors["scale"])})
        self.unreadable = int(tensors["unreadable"])
        lines = self.run.metrics.read_text().splitlines() if self.run.metrics.is_file() else []
        kept = [line for line in lines if _step_of(line) <= self.step]
        self.run.write("metrics.jsonl", "".join(f"{line}\n" for line in kept))
        say(f"resumed after step {self.step} of {self.steps}")


def _step_of(line: str) -> int:
    """The step of a line of metrics; a line cut short by a kill counts as later than any."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return 2**62


def _finite(value: float) -> bool:
    return value - value == 0
