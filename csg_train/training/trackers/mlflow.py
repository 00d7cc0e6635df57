"""MLflow: a server, a database or a folder, as MLFLOW_TRACKING_URI says."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from PIL import Image

from csg_train.training.trackers.protocol import TrackedRun

PARAMS_AT_ONCE = 100
"""As many as a server takes in one request."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""By default MLflow waits for a server that is gone for minutes."""
RENAMED = {"loss": "loss/total"}
"""A store in a folder has a folder for `loss/task`, and so no file `loss`."""


class MLflow:
    """Writes into an experiment: that of MLFLOW_EXPERIMENT_NAME, or `csg`."""

    def __init__(self, run: TrackedRun):
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        self.client = MlflowClient()
        self.id = self._continued(run.id) if run.id else self._started(run)

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        now = time.time_ns() // 10**6
        metrics = [Metric(RENAMED.get(name, name), value, now, step) for name, value in values.items()]
        self.client.log_batch(self.id, metrics=metrics)

    def images(self, step: int, images: Mapping[str, Image.Image]) -> None:
        for name, image in images.items():
            self.client.log_image(self.id, image, artifact_file=f"images/{name}.png")

    def results(self, step: int, values: Mapping[str, float]) -> None:
        self.figures(step, values)

    def close(self, finished: bool) -> None:
        self.client.set_terminated(self.id, "FINISHED" if finished else "KILLED")

    def _started(self, run: TrackedRun) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "csg")
        found = self.client.get_experiment_by_name(experiment)
        parent = found.experiment_id if found else self.client.create_experiment(experiment)
        started: str = self.client.create_run(parent, run_name=run.folder.name).info.run_id
        params = [Param(name, str(value)) for name, value in run.settings.items()]
        for first in range(0, len(params), PARAMS_AT_ONCE):
            self.client.log_batch(started, params=params[first : first + PARAMS_AT_ONCE])
        return started

    def _continued(self, run_id: str) -> str:
        self.client.update_run(run_id, "RUNNING")
        return run_id
