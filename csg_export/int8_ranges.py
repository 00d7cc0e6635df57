"""The range of each value of a graph on images, from which the scale of its 8-bit numbers follows."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import ModelProto
from onnxruntime.quantization import CalibrationMethod as OrtMethod
from onnxruntime.quantization.calibrate import CalibrationDataReader, TensorsData, create_calibrator

from csg.errors import VerificationError
from csg.provenance import CalibrationMethod
from csg_export.onnx_graph import INPUT

Ranges: TypeAlias = Any
"""ONNX Runtime's `TensorsData`: the lowest and the highest value by the name of the value."""
CALIBRATION_BATCH = 8
ORT_METHODS: dict[CalibrationMethod, OrtMethod] = {
    "minmax": OrtMethod.MinMax,
    "entropy": OrtMethod.Entropy,
    "percentile": OrtMethod.Percentile,
    "mse": OrtMethod.Percentile,  # from the same histograms
    "minmax90": OrtMethod.Percentile,  # whose calibrator sees all values
}
STEPS = 255
SHARES = np.geomspace(1, 0.02, 24)
"""Shares of a value's largest and smallest number at which "mse" tries to clip it."""
MOST_IMAGES = 0.9
"""Share of the images whose largest and smallest numbers are not clipped by "minmax90", at each end."""


def measured_ranges(
    model: ModelProto, batches: Sequence[np.ndarray], method: CalibrationMethod, symmetric: bool, operators: list[str]
) -> Ranges:
    """The range of each value on the images.

    Percentiles are taken at both ends even for a symmetric dialect, and the quantizer makes the ranges symmetric. ONNX
    Runtime's histogram of absolute values starts at the smallest value of the first images, and grows without limit
    where that value is far from 0.

    Args:
        batches: prepared images, uint8 (B, H, W, 3).
        symmetric: whether the numbers have no zero point.
        operators: the operators whose inputs and outputs are measured.

    Raises:
        VerificationError: a value is NaN or infinite on some image.
    """
    with _calibrated(model, batches, method, symmetric, operators) as calibrator:
        if method == "mse":
            return _least_squares(calibrator, symmetric)
        return _of_most_images(calibrator) if method == "minmax90" else calibrator.compute_data()


def histogram_ranges(
    model: ModelProto, batches: Sequence[np.ndarray], symmetric: bool, operators: list[str]
) -> dict[CalibrationMethod, Ranges]:
    """The ranges of four methods from one pass over the images; arguments as for `measured_ranges`."""
    with _calibrated(model, batches, "percentile", symmetric, operators) as calibrator:
        found = {name: (lowest, highest) for name, (_, _, lowest, highest, _) in _histograms(calibrator).items()}
        return {
            "mse": _least_squares(calibrator, symmetric),
            "percentile": calibrator.compute_data(),
            "minmax": _tensors_data(found),
            "minmax90": _of_most_images(calibrator),
        }


@contextlib.contextmanager
def _calibrated(
    model: ModelProto, batches: Sequence[np.ndarray], method: CalibrationMethod, symmetric: bool, operators: list[str]
) -> Iterator[Any]:
    """ONNX Runtime's calibrator after a few images at a time: it keeps every value of a batch."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "fp32.onnx")
        onnx.save(model, source)
        with contextlib.redirect_stdout(io.StringIO()):
            calibrator = create_calibrator(
                source,
                operators,
                str(Path(folder, "augmented.onnx")),
                ORT_METHODS[method],
                extra_options={"symmetric": symmetric and method in ("minmax", "entropy")},
            )
            calibrator.infer_session = _WatchedSession(calibrator.infer_session)
            for images in batches:
                for start in range(0, len(images), CALIBRATION_BATCH):
                    calibrator.collect_data(_Images([images[start : start + CALIBRATION_BATCH]]))
            yield calibrator


class _WatchedSession:
    """The calibrator's session, which notes the smallest and the largest number of each value for each image.

    It refuses values that are not finite: the histograms pass over NaN in silence.
    """

    def __init__(self, session: Any):
        self.session = session
        self.names = [output.name for output in session.get_outputs()]
        self.extremes: dict[str, list[np.ndarray]] = {name: [] for name in self.names}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def run(self, names: Sequence[str] | None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        values: list[np.ndarray] = self.session.run(names, inputs)
        if not all(np.isfinite(value).all() for value in values):
            what = "the network's own values are not finite on training images, so they have no range for int8"
            raise VerificationError(what, "train again with smaller learning rates, or export another precision")
        for name, value in zip(self.names, values, strict=True):
            self.extremes[name].append(_extremes(value, len(inputs[INPUT])))
        return values


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """The calibrator's view of a few batches of images."""

    def __init__(self, batches: Sequence[np.ndarray]):
        self.batches: Iterator[np.ndarray] = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        images = next(self.batches, None)
        return None if images is None else {INPUT: images}


def _histograms(calibrator: Any) -> dict[str, Any]:
    """Counts, edges of the bins, minimum, maximum and ONNX Runtime's threshold, by the name of the value."""
    return dict(calibrator.collector.histogram_dict)


def _extremes(values: np.ndarray, images: int) -> np.ndarray:
    """The smallest and the largest number of each image, (B, 2); (1, 2) of values that are the same for all images."""
    own = values.ndim > 0 and len(values) % images == 0  # windows of an image follow each other
    values_BN = values.reshape(images if own else 1, -1)
    return np.stack([values_BN.min(1), values_BN.max(1)], 1)


def _of_most_images(calibrator: Any) -> Ranges:
    """The range of each value that clips nothing of 90 % of the images, at each end.

    A few images whose values are many times larger, as some renders are for a network that learnt from few, would
    otherwise leave the others a few of the 255 steps.
    """
    found = {}
    for name in _histograms(calibrator):
        ends = np.concatenate(calibrator.infer_session.extremes[name])
        found[name] = (float(np.quantile(ends[:, 0], 1 - MOST_IMAGES)), float(np.quantile(ends[:, 1], MOST_IMAGES)))
    return _tensors_data(found)


def _least_squares(calibrator: Any, symmetric: bool) -> Ranges:
    """The range of least squared error for each value."""
    found = {}
    for name, (counts, edges, lowest, highest, _) in _histograms(calibrator).items():
        used = counts > 0
        centres = ((edges[:-1] + edges[1:]) / 2)[used].clip(lowest, highest)
        found[name] = least_squares_range(centres, counts[used], symmetric)
    return _tensors_data(found)


def least_squares_range(values: np.ndarray, counts: np.ndarray, symmetric: bool) -> tuple[float, float]:
    """The range, clipped at both ends, whose 255 steps leave the least squared error.

    Args:
        values: numbers, float (N,).
        counts: how often each occurs, (N,).
        symmetric: whether 0 has to be in the middle.

    Example:
        >>> least_squares_range(np.array([0.0, 0.5, 100.0]), np.array([10, 10**6, 1]), symmetric=False)[1] < 100
        True
    """
    low, high = min(0.0, float(values.min(initial=0.0))), max(0.0, float(values.max(initial=0.0)))
    if symmetric:
        high = max(high, -low)
        ranges = [(-high * share, high * share) for share in SHARES]
    else:
        lows = [low * share for share in SHARES] if low else [0.0]
        highs = [high * share for share in SHARES] if high else [0.0]
        ranges = [(one, other) for one in lows for other in highs]
    return min(ranges, key=lambda ends: _squared_error(values, counts, *ends))


def _squared_error(values: np.ndarray, counts: np.ndarray, low: float, high: float) -> float:
    if low == high:
        return 0.0 if not values.any() else float("inf")
    step = (high - low) / STEPS
    zero = np.round(-low / step)
    rounded = ((values / step).round() + zero).clip(0, STEPS)
    return float((counts * (values - (rounded - zero) * step) ** 2).sum())


def _tensors_data(found: dict[str, tuple[float, float]]) -> Ranges:
    return TensorsData(
        OrtMethod.MinMax, {name: (np.float32(low), np.float32(high)) for name, (low, high) in found.items()}
    )
