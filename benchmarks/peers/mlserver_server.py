"""MLServer, over gRPC: adaptive batching, several inference workers.

https://docs.seldon.ai/mlserver/user-guide/adaptive-batching: max_batch_size, max_batch_time.
https://docs.seldon.ai/mlserver/user-guide/parallel-inference: parallel_workers.
https://docs.seldon.ai/seldon-core-2/user-guide/performance-tuning/models/inference: gRPC for binary payloads;
parallel_workers in line with the number of cores.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.peers.model import MAX_BATCH, PORT, WORKERS, Classifier


class Runtime(MLModel):
    """A custom inference runtime."""

    async def load(self) -> bool:
        self.classifier = Classifier()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = [self.classifier.prepare(jpeg) for jpeg in payload.inputs[0].data]
        classes = np.array(self.classifier.classes(images), np.int64)[:, None]
        outputs = [NumpyCodec.encode_output("class", classes)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp())
    ports = {"http_port": int(os.environ["PEER_HTTP_PORT"]), "metrics_port": int(os.environ["PEER_METRICS_PORT"])}
    settings = {"host": "127.0.0.1", "grpc_port": PORT, **ports, "parallel_workers": WORKERS, "debug": False}
    settings["grpc_max_message_length"] = 2**26
    batching = {"max_batch_size": MAX_BATCH, "max_batch_time": 0.001} if os.environ.get("PEER_BATCHED") == "1" else {}
    model = {"name": "peer", "implementation": "benchmarks.peers.mlserver_server.Runtime", **batching}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    os.chdir(folder)
    command = str(Path(sys.executable).with_name("mlserver"))
    os.execv(command, [command, "start", str(folder)])
