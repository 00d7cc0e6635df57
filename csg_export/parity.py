"""Parity: each stage of the export against the trained network in PyTorch, on the same prepared images.

Shape letters: N images, or pixels; K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnxruntime as ort
import torch
from scipy.special import log_softmax
from torch import Tensor, nn

from csg.card import Parity, ParityStage
from csg.errors import UsageError, VerificationError
from csg_export.onnx_graph import EMBEDDING, INPUT, LABEL_MAP, LOGITS
from csg_export.parity_images import HARD, Inputs
from csg_train.tasks import Predict, Prediction

Answers = tuple[np.ndarray, np.ndarray]  # logits, float (N, K), and the classes chosen, (N,)
Runner = Callable[[np.ndarray], Answers]


@dataclass(frozen=True)
class Promise:
    """What is held against a stage: the largest difference of a logit, as a share of the largest logit, the share of
    equal classes among the images, or pixels, that are no ties, and among all of them.
    """

    tolerance: float
    agreement: float
    of_all: float = 0.0


PROMISES: dict[str, Promise] = {
    "fp32": Promise(1e-4, 0.998),
    "fp16": Promise(2e-2, 0.99),
    "bf16": Promise(0.1, 0.98),
    "int8": Promise(1.0, 0.0, 0.9),  # clipped ranges cost single logits much and classes little
}


@dataclass(frozen=True)
class Runnable:
    """A stage that can be run, and what is promised of it: of bf16 and int8 on hard inputs, finite numbers alone."""

    name: str
    run: Runner
    precision: str

    def promise(self, source: str, tolerance: float | None) -> Promise:
        """The promise on images of `source`, with the user's tolerance if the stage is of reduced precision."""
        promise = PROMISES[self.precision]
        if self.precision in ("bf16", "int8") and source == HARD:
            return Promise(float("inf"), 0)
        return replace(promise, tolerance=tolerance) if tolerance and self.precision != "fp32" else promise


class Tally:
    """What has been compared so far, of one stage.

    decided: images, or pixels, which PyTorch decides by more than the tolerance, and which of them agree; which class
    wins a tie says nothing about the graph.
    """

    def __init__(self, promise: Promise):
        self.promise = promise
        self.images = self.compared = self.equal = self.decided = self.decided_equal = 0
        self.sum_of_differences = self.sum_of_divergences = 0.0
        self.numbers = 0
        self.difference, self.largest = 0.0, 1.0

    def add(self, images: int, expected: Answers, got: Answers) -> None:
        """Compare the answers for so many images."""
        (true, chosen), (found, classes) = expected, got
        self.largest = max(self.largest, float(np.abs(true).max()))
        second, first = np.partition(true, -2, axis=1)[:, -2:].T
        equal, decided = chosen == classes, first - second > self.tolerance
        difference = np.abs(true - found)
        self.images += images
        self.compared += len(equal)
        self.equal += int(equal.sum())
        self.decided += int(decided.sum())
        self.decided_equal += int((equal & decided).sum())
        self.difference = max(self.difference, float(difference.max()), key=_nan_last)
        self.sum_of_differences += float(difference.sum(dtype=np.float64))
        self.numbers += difference.size
        self.sum_of_divergences += float(_divergences(true, found).sum())

    @property
    def tolerance(self) -> float:
        """The largest difference of a logit that is allowed."""
        return self.promise.tolerance * self.largest

    @property
    def kept(self) -> bool:
        """Whether the promise is kept; a number that is not finite breaks any."""
        few = self.decided_equal < self.promise.agreement * self.decided
        few = few or self.equal < self.promise.of_all * self.compared
        return bool(np.isfinite(self.difference)) and self.difference <= self.tolerance and not few

    def stage(self, name: str, source: str) -> ParityStage:
        """The figures as the card holds them. The agreement is that of all, ties included."""
        return ParityStage(
            stage=name,
            source=source,
            images=self.images,
            agreement=self.equal / self.compared,
            max_abs_diff=self.difference,
            mean_abs_diff=self.sum_of_differences / self.numbers,
            kl=self.sum_of_divergences / self.compared,
        )


def _nan_last(value: float) -> tuple[bool, float]:
    return value != value, value


def _divergences(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """KL(true || found) of the class probabilities, (N,), in nats."""
    log_p, log_q = log_softmax(true.astype(np.float64), axis=1), log_softmax(found.astype(np.float64), axis=1)
    return np.asarray((np.exp(log_p) * (log_p - log_q)).sum(1))


def tally(
    reference: Runner, stages: Sequence[Runnable], inputs: Inputs, tolerance: float | None = None
) -> dict[str, Tally]:
    """Run the stages on the inputs and compare each with the reference."""
    tallies = {stage.name: Tally(stage.promise(inputs.source, tolerance)) for stage in stages}
    for images in inputs.batches():
        expected = reference(images)
        for stage in stages:
            tallies[stage.name].add(len(images), expected, stage.run(images))
    return tallies


def verify(
    reference: Runner, stages: Sequence[Runnable], inputs: Sequence[Inputs], tolerance: float | None = None
) -> Parity:
    """Compare every stage on real and on hard inputs; the last stage is the graph that ships, the first inputs real.

    Raises:
        VerificationError: a stage is off its tolerance, or no image can be read.
    """
    found: list[ParityStage] = []
    for one in inputs:
        for name, tallied in tally(reference, stages, one, tolerance).items():
            if not tallied.compared:
                raise VerificationError(
                    f"parity can't be measured: no image of {one.source} can be read", "check the data"
                )
            found.append(tallied.stage(name, one.source))
            if not tallied.kept:
                raise VerificationError(_broken(found[-1], tallied), "nothing was written; see --tolerance and --help")
            if one is inputs[0] and name == stages[-1].name:
                shipped, allowed = found[-1], tallied.tolerance
    return Parity(
        images=shipped.images,
        source=shipped.source,
        agreement=shipped.agreement,
        max_abs_diff=shipped.max_abs_diff,
        tolerance=allowed,
        stages=tuple(found),
    )


def _broken(stage: ParityStage, tallied: Tally) -> str:
    return (
        f"{stage.stage} differs from PyTorch on {stage.images} images of {stage.source}: "
        f"agreement {stage.agreement:.2%} (at least {max(tallied.promise.agreement, tallied.promise.of_all):.1%} "
        f"promised), largest difference "
        f"{stage.max_abs_diff:.4g} (at most {tallied.tolerance:.4g} promised)"
    )


def of_network(network: nn.Module) -> Runner:
    """A network in PyTorch, which takes uint8 (B, H, W, 3)."""

    @torch.inference_mode()
    def run(images: np.ndarray) -> Answers:
        logits = rows(network(torch.from_numpy(images)).numpy())
        return logits, logits.argmax(1)

    return run


def of_graph(model: bytes) -> Runner:
    """A graph in ONNX Runtime on the CPU."""
    session = open_session(model)
    names = [output.name for output in session.get_outputs() if output.name != EMBEDDING]

    def run(images: np.ndarray) -> Answers:
        logits, *label_map = session.run(names, {INPUT: images})
        found = rows(logits)
        return found, label_map[0].ravel() if label_map else found.argmax(1)

    return run


def of_openvino(model: bytes, precision: str) -> Runner:
    """A graph in OpenVINO on the CPU, computing in "bf16" or "f32".

    Raises:
        UsageError: OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError:
        raise UsageError("--precision bf16 needs the package openvino", "pip install 'csg[openvino]'") from None
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": precision})
    names = [output.get_any_name() for output in compiled.outputs]

    def run(images: np.ndarray) -> Answers:
        answers = dict(zip(names, compiled([images]).values(), strict=True))
        logits = rows(answers[LOGITS])
        return logits, answers[LABEL_MAP].ravel() if LABEL_MAP in answers else logits.argmax(1)

    return run


def open_session(model: bytes) -> ort.InferenceSession:
    """ONNX Runtime on the CPU."""
    return ort.InferenceSession(model, providers=["CPUExecutionProvider"])


def rows(logits: np.ndarray) -> np.ndarray:
    """Logits (B, K) or (B, K, H, W) as a row for each image or pixel, (N, K)."""
    return np.moveaxis(logits, 1, -1).reshape(-1, logits.shape[1])


def onnx_predict(model: bytes) -> Predict:
    """A graph in ONNX Runtime, for the measurement of its accuracy or mIoU."""
    session = open_session(model)
    logits = session.get_outputs()[0].name

    def predict(images: Tensor) -> Prediction:
        return Prediction(torch.from_numpy(session.run([logits], {INPUT: images.numpy()})[0]))

    return predict
