"""MLPerf's LoadGen in front of a served model: its scenarios, its clock, its logs, its verdict.

LoadGen asks from a thread of its own; the requests are sent from the event loop, which hands their answers back.
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
from tritonclient.grpc.service_pb2 import ModelInferResponse

from csg.console import log
from csg.datasets.classification import EMBEDDED_DIGITS
from csg.errors import CsgError
from csg.metrics import classification_scores
from csg_serve.bench.load import Call, calling, keep_busy, request_bytes
from csg_serve.bench.results import BenchOptions, ScenarioName, ScenarioResult
from csg_serve.bench.samples import Samples, prepared_requests, read_labelled_samples, read_samples, stacked
from csg_serve.client.connection import ServedModel
from csg_serve.client.endpoints import Servers

LOADGEN_NAMES = {"single-stream": "SingleStream", "server": "Server", "offline": "Offline"}
PERCENTILES = ("50.00", "90.00", "95.00", "97.00", "99.00", "99.90")
IN_FLIGHT = {"single-stream": 1, "server": 1024, "offline": 16}  # requests
PERFORMANCE_SAMPLES = 1024  # held in memory at once: MLPerf's number for ImageNet
SEARCH_STEPS = 6
ESTIMATE_S = 2.0
AFTER_FAILURE_S = 0.05
LOG_PREFIX = "mlperf_log_"


async def run_scenarios(
    served: ServedModel, servers: Servers, options: BenchOptions, folder: Path
) -> list[ScenarioResult]:
    """Each scenario's performance mode, and its accuracy mode if asked; LoadGen's logs go into `folder`.

    Raises:
        ServerError: a request failed.
        InputError: the data can't be used.
        UsageError: accuracy of a segmenter, or images of different sizes in a batch.
    """
    if options.accuracy:
        samples = read_labelled_samples(served.card, options.data or [EMBEDDED_DIGITS])
    else:
        samples = read_samples(served.card, options.data)
    found = []
    async with calling(servers) as call:
        requests = await asyncio.to_thread(prepared_requests, served, samples, options.batch)
        spell = await keep_busy(call, requests, IN_FLIGHT["offline"], min(options.seconds, ESTIMATE_S))
        bench = _Bench(served, samples, call, options, folder, estimate=spell.per_s * options.batch)
        log(f"{served.name} version {served.version} at {served.server}: {samples.name}, {bench.estimate:.1f} images/s")
        for scenario in options.scenarios:
            if scenario == "server" and options.qps is None:
                found.append(await bench.most_queries())
            else:
                found.append(await bench.performance(scenario, options.qps if scenario == "server" else None))
            if options.accuracy:
                found.append(await bench.accuracy(scenario))
    return found


@dataclass(frozen=True)
class _Bench:
    """estimate: images a second that the server answers under closed load."""

    served: ServedModel
    samples: Samples
    call: Call
    options: BenchOptions
    folder: Path
    estimate: float

    async def performance(self, scenario: ScenarioName, qps: float | None = None) -> ScenarioResult:
        """One run; `qps` queries a second of the scenario "server"."""
        settings = self._settings(scenario, lg.TestMode.PerformanceOnly)
        settings.server_target_qps = qps or self.estimate
        logs = f"{scenario}-{qps:.1f}" if scenario == "server" else scenario
        facts = await self._run(settings, logs, scenario)
        latency = {share: facts[f"result_{share}_percentile_latency_ns"] / 1e6 for share in PERCENTILES}
        rate = {"single-stream": "qps_with_loadgen_overhead", "server": "completed_samples_per_sec"}
        result = ScenarioResult(
            scenario=scenario,
            mode="performance",
            data=self.samples.name,
            logs=logs,
            queries=facts["result_query_count"],
            valid=facts["result_validity"] == "VALID",
            samples_per_s=facts[f"result_{rate.get(scenario, 'samples_per_second')}"],
            latency_ms=latency,
            target_qps=qps,
            latency_bound_ms=self.options.latency_ms if scenario == "server" else None,
        )
        log(f"{logs}: {result.samples_per_s:.1f} samples/s, p99 {latency['99.00']:.1f} ms, {facts['result_validity']}")
        return result

    async def most_queries(self) -> ScenarioResult:
        """The scenario "server" at the most queries a second that keep the bound, by bisection; else at the fewest."""
        low, high, best = 0.0, self.estimate, None
        for _ in range(SEARCH_STEPS):
            qps = (low + high) / 2
            tried = await self.performance("server", qps)
            if tried.latency_ms["99.00"] <= self.options.latency_ms:
                low, best = qps, tried
            else:
                high = qps
        return best or tried

    async def accuracy(self, scenario: ScenarioName) -> ScenarioResult:
        """Every sample once; the classes are read back from LoadGen's log."""
        logs = f"{scenario}-accuracy"
        await self._run(self._settings(scenario, lg.TestMode.AccuracyOnly), logs, scenario)
        entries = json.loads((self.folder / logs / f"{LOG_PREFIX}accuracy.json").read_text())
        classes = {one["qsl_idx"]: int.from_bytes(bytes.fromhex(one["data"]), "little") for one in entries}
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
        settings.offline_expected_qps = settings.server_target_qps = self.estimate
        settings.server_target_latency_ns = int(self.options.latency_ms * 1e6)
        return settings

    async def _run(self, settings: Any, logs: str, scenario: ScenarioName) -> dict[str, Any]:
        """The values in LoadGen's log, by key."""
        (self.folder / logs).mkdir(parents=True, exist_ok=True)
        log_settings = lg.LogSettings()
        log_settings.enable_trace = False
        log_settings.log_output.outdir, log_settings.log_output.prefix = str(self.folder / logs), LOG_PREFIX
        asked = _Asked(self.served, self.samples, self.call, self.options.batch, IN_FLIGHT[scenario])
        sut = lg.ConstructSUT(asked.issue, lambda: None)
        held = min(self.samples.count, PERFORMANCE_SAMPLES)
        library = lg.ConstructQSL(self.samples.count, held, asked.load, asked.unload)
        try:
            await asyncio.to_thread(lg.StartTestWithLogSettings, sut, library, settings, log_settings)
        finally:
            lg.DestroyQSL(library)
            lg.DestroySUT(sut)
        if asked.failure:
            raise asked.failure
        lines = (self.folder / logs / f"{LOG_PREFIX}detail.txt").read_text().splitlines()
        entries = (json.loads(line.removeprefix(":::MLLOG ")) for line in lines if line.startswith(":::MLLOG "))
        return {entry["key"]: entry["value"] for entry in entries}


class _Asked:
    """What LoadGen calls. It can't be stopped: after a failure everything is answered empty until its time is over."""

    def __init__(self, served: ServedModel, samples: Samples, call: Call, batch: int, in_flight: int):
        self.served, self.samples, self.call, self.batch = served, samples, call, batch
        self.loop, self.room = asyncio.get_running_loop(), asyncio.Semaphore(in_flight)
        self.pixels: dict[int, NDArray[np.uint8]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.failure: BaseException | None = None

    def load(self, places: Sequence[int]) -> None:
        """Prepare samples, before the clock runs."""
        try:
            self.pixels |= {place: self.samples.pixels(place) for place in places}
        except CsgError as error:
            self.failure = error

    def unload(self, places: Sequence[int]) -> None:
        """Let go of them."""
        for place in places:
            self.pixels.pop(place, None)

    def issue(self, queries: Sequence[Any]) -> None:
        """Take samples to be answered: one, or all of them in the scenario "offline"."""
        asked = [(query.id, query.index) for query in queries]
        self.loop.call_soon_threadsafe(self._send, asked)

    def _send(self, asked: Sequence[tuple[int, int]]) -> None:
        for start in range(0, len(asked), self.batch):
            task = self.loop.create_task(self._answer(asked[start : start + self.batch]))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _answer(self, asked: Sequence[tuple[int, int]]) -> None:
        """One request; LoadGen is told the class of each image, int32, of a segmenter nothing."""
        classes = np.zeros(len(asked), np.int32)
        try:
            async with self.room:
                if self.failure is None:
                    images = stacked([self.pixels[place] for _, place in asked])
                    answer = await self.call(request_bytes(self.served, images))
                    if self.samples.labels is not None:
                        classes = _classes(answer, len(asked))
            if self.failure:
                await asyncio.sleep(AFTER_FAILURE_S)
        except BaseException as error:  # whatever it was, LoadGen waits for an answer
            self.failure = error
        size = classes.itemsize
        responses = [
            lg.QuerySampleResponse(number, classes.ctypes.data + place * size, size)
            for place, (number, _) in enumerate(asked)
        ]
        lg.QuerySamplesComplete(responses)


def _classes(answer: bytes, images: int) -> NDArray[np.int32]:
    """The class of each image, from the logits in an answer."""
    logits = np.frombuffer(ModelInferResponse.FromString(answer).raw_output_contents[0], np.float32)
    classes: NDArray[np.int32] = logits.reshape(images, -1).argmax(1).astype(np.int32)
    return classes
