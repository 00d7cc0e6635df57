"""Run MLPerf's LoadGen against a served model.

LoadGen issues queries from its own thread. The requests are sent from the event loop, which reports the answers back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlperf_loadgen as lg
import numpy as np
from numpy.typing import NDArray

from csg.console import log
from csg.datasets.classification import EMBEDDED_DIGITS
from csg.errors import CsgError
from csg.metrics import classification_scores
from csg_serve.bench.load import Send, generate_load, open_sender, parse_logits, serialize_request
from csg_serve.bench.results import BenchOptions, ScenarioName, ScenarioResult
from csg_serve.bench.samples import Samples, prepare_requests, read_labelled_samples, read_samples, stack_images
from csg_serve.client.connection import ServedModel

LOADGEN_NAMES: dict[ScenarioName, str] = {"single-stream": "SingleStream", "server": "Server", "offline": "Offline"}
RATE_KEYS: dict[ScenarioName, str] = {
    "single-stream": "result_qps_with_loadgen_overhead",
    "server": "result_completed_samples_per_sec",
    "offline": "result_samples_per_second",
}
"""Key of the throughput in LoadGen's log."""
PERCENTILES = ("50.00", "90.00", "95.00", "97.00", "99.00", "99.90")
IN_FLIGHT: dict[ScenarioName, int] = {"single-stream": 1, "server": 1024, "offline": 16}
"""Requests in flight, at most."""
PERFORMANCE_SAMPLES = 1024
"""Samples in memory at once: MLPerf's number for ImageNet."""
SEARCH_STEPS = 6
"""Runs of the search for the highest rate within the latency bound."""
ESTIMATE_S = 2.0
"""Seconds of the load that estimates the throughput."""
FAILURE_PAUSE_S = 0.05
"""Pause before each empty answer after a failure."""
LOG_PREFIX = "mlperf_log_"


async def run_scenarios(served: ServedModel, options: BenchOptions, folder: Path) -> list[ScenarioResult]:
    """Run each scenario in performance mode, and in accuracy mode if the options say so.

    Args:
        served: the model.
        options: scenarios and their settings.
        folder: where LoadGen writes its logs.

    Raises:
        ServerError: a request failed.
        InputError: the data can't be used.
        UsageError: the accuracy of a segmenter is asked for, or the images of a batch have different sizes.
    """
    if options.accuracy:
        samples = read_labelled_samples(served.card, options.data or (EMBEDDED_DIGITS,))
    else:
        samples = read_samples(served.card, options.data)
    results = []
    async with open_sender(options.servers) as send:
        requests = await asyncio.to_thread(prepare_requests, served, samples, options.batch)
        load = await generate_load(send, requests, IN_FLIGHT["offline"], min(options.seconds, ESTIMATE_S))
        images_per_s = load.requests_per_s * options.batch
        runner = _ScenarioRunner(
            served=served, samples=samples, send=send, options=options, folder=folder, images_per_s=images_per_s
        )
        log(f"{served.name} version {served.version} at {served.server}: {samples.name}, {images_per_s:.1f} images/s")
        for scenario in options.scenarios:
            if scenario == "server" and options.qps is None:
                results.append(await runner.find_max_qps())
            else:
                results.append(await runner.performance(scenario, options.qps if scenario == "server" else None))
            if options.accuracy:
                results.append(await runner.accuracy(scenario))
    return results


@dataclass(frozen=True, kw_only=True)
class _ScenarioRunner:
    served: ServedModel
    samples: Samples
    send: Send
    options: BenchOptions
    folder: Path
    images_per_s: float
    """Estimated throughput of the server."""

    async def performance(self, scenario: ScenarioName, qps: float | None = None) -> ScenarioResult:
        """One performance run; `qps` is the query rate of the scenario "server"."""
        settings = self._settings(scenario, lg.TestMode.PerformanceOnly)
        settings.server_target_qps = qps or self.images_per_s
        logs = f"{scenario}-{qps:.1f}" if scenario == "server" else scenario
        found = await self._run(settings, logs, scenario)
        latency_ms = {percent: found[f"result_{percent}_percentile_latency_ns"] / 1e6 for percent in PERCENTILES}
        samples_per_s, verdict = found[RATE_KEYS[scenario]], found["result_validity"]
        log(f"{logs}: {samples_per_s:.1f} samples/s, p99 {latency_ms['99.00']:.1f} ms, {verdict}")
        return ScenarioResult(
            scenario=scenario,
            mode="performance",
            data=self.samples.name,
            logs=logs,
            queries=found["result_query_count"],
            valid=verdict == "VALID",
            samples_per_s=samples_per_s,
            latency_ms=latency_ms,
            target_qps=qps,
            latency_bound_ms=self.options.latency_ms if scenario == "server" else None,
        )

    async def find_max_qps(self) -> ScenarioResult:
        """The scenario "server" at the highest rate within the latency bound, by bisection.

        Returns:
            the run at that rate; if none is within the bound, the one at the lowest rate tried.
        """
        low, high, best = 0.0, self.images_per_s, None
        for _ in range(SEARCH_STEPS):
            qps = (low + high) / 2
            result = await self.performance("server", qps)
            if result.latency_ms["99.00"] <= self.options.latency_ms:
                low, best = qps, result
            else:
                high = qps
        return best or result

    async def accuracy(self, scenario: ScenarioName) -> ScenarioResult:
        """One accuracy run over every sample; the predicted classes are read from LoadGen's log."""
        logs = f"{scenario}-accuracy"
        await self._run(self._settings(scenario, lg.TestMode.AccuracyOnly), logs, scenario)
        entries = json.loads((self.folder / logs / f"{LOG_PREFIX}accuracy.json").read_text())
        classes = {entry["qsl_idx"]: int.from_bytes(bytes.fromhex(entry["data"]), "little") for entry in entries}
        assert self.samples.labels is not None
        true = self.samples.labels[list(classes)]
        scores = classification_scores(true, np.array(list(classes.values())), len(self.served.card.classes))
        log(f"{logs}: accuracy {scores.accuracy:.2%}")
        return ScenarioResult(
            scenario=scenario,
            mode="accuracy",
            data=self.samples.name,
            logs=logs,
            queries=len(classes),
            accuracy=scores.accuracy,
            mean_class_accuracy=scores.mean_class_accuracy,
        )

    def _settings(self, scenario: ScenarioName, mode: Any) -> Any:
        settings = lg.TestSettings()
        settings.scenario, settings.mode = getattr(lg.TestScenario, LOADGEN_NAMES[scenario]), mode
        settings.min_duration_ms, settings.min_query_count = int(self.options.seconds * 1e3), 1
        settings.offline_expected_qps = settings.server_target_qps = self.images_per_s
        settings.server_target_latency_ns = int(self.options.latency_ms * 1e6)
        return settings

    async def _run(self, settings: Any, logs: str, scenario: ScenarioName) -> dict[str, Any]:
        """Run LoadGen, and return the values in its detail log, by key."""
        (self.folder / logs).mkdir(parents=True, exist_ok=True)
        log_settings = lg.LogSettings()
        log_settings.enable_trace = False
        log_settings.log_output.outdir, log_settings.log_output.prefix = str(self.folder / logs), LOG_PREFIX
        system = _SystemUnderTest(
            self.served, self.samples, self.send, batch=self.options.batch, in_flight=IN_FLIGHT[scenario]
        )
        sut = lg.ConstructSUT(system.issue, lambda: None)
        held = min(self.samples.count, PERFORMANCE_SAMPLES)
        library = lg.ConstructQSL(self.samples.count, held, system.load, system.unload)
        try:
            await asyncio.to_thread(lambda: lg.StartTestWithLogSettings(sut, library, settings, log_settings))
        finally:
            lg.DestroyQSL(library)
            lg.DestroySUT(sut)
        if system.failure:
            raise system.failure
        lines = (self.folder / logs / f"{LOG_PREFIX}detail.txt").read_text().splitlines()
        entries = (json.loads(line.removeprefix(":::MLLOG ")) for line in lines if line.startswith(":::MLLOG "))
        return {entry["key"]: entry["value"] for entry in entries}


class _SystemUnderTest:
    """What LoadGen calls. LoadGen can't be stopped: after a failure every query gets an empty answer until it ends."""

    def __init__(self, served: ServedModel, samples: Samples, send: Send, *, batch: int, in_flight: int):
        self.served, self.samples, self.send, self.batch = served, samples, send, batch
        self.loop, self.in_flight = asyncio.get_running_loop(), asyncio.Semaphore(in_flight)
        self.pixels: dict[int, NDArray[np.uint8]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.failure: BaseException | None = None

    def load(self, indices: Sequence[int]) -> None:
        """Prepare samples before the measurement."""
        try:
            self.pixels |= {index: self.samples.pixels(index) for index in indices}
        except CsgError as error:
            self.failure = error

    def unload(self, indices: Sequence[int]) -> None:
        """Free samples."""
        for index in indices:
            self.pixels.pop(index, None)

    def issue(self, queries: Sequence[Any]) -> None:
        """Take queries: one, or all of them in the scenario "offline"."""
        samples = [(query.id, query.index) for query in queries]
        self.loop.call_soon_threadsafe(self._send_batches, samples)

    def _send_batches(self, queries: Sequence[tuple[int, int]]) -> None:
        for start in range(0, len(queries), self.batch):
            task = self.loop.create_task(self._answer(queries[start : start + self.batch]))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _answer(self, queries: Sequence[tuple[int, int]]) -> None:
        """Send one request, and report the class of each image to LoadGen, int32; zeros for a segmenter.

        Args:
            queries: LoadGen's id and the sample index of each query.
        """
        classes = np.zeros(len(queries), np.int32)
        try:
            async with self.in_flight:
                if self.failure is None:
                    classes = await self._predict([index for _, index in queries])
            if self.failure:
                await asyncio.sleep(FAILURE_PAUSE_S)
        except BaseException as error:  # LoadGen waits for an answer in any case
            self.failure = error
        size = classes.itemsize
        responses = [
            lg.QuerySampleResponse(query, classes.ctypes.data + position * size, size)
            for position, (query, _) in enumerate(queries)
        ]
        lg.QuerySamplesComplete(responses)

    async def _predict(self, indices: Sequence[int]) -> NDArray[np.int32]:
        images = stack_images([self.pixels[index] for index in indices])
        answer = await self.send(serialize_request(self.served, images))
        if self.samples.labels is None:
            return np.zeros(len(indices), np.int32)
        classes: NDArray[np.int32] = parse_logits(self.served, images, answer).argmax(1).astype(np.int32)
        return classes
