"""PyTriton, as in its quick start: a function with @batch, bound with the largest batch; called over gRPC.

https://triton-inference-server.github.io/pytriton/latest/quick_start
https://triton-inference-server.github.io/pytriton/latest/binding_configuration: max_batch_size.
"""

from __future__ import annotations

import os

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers.model import MAX_BATCH, PORT, Classifier

classifier = Classifier()


@batch
def infer_fn(encoded: np.ndarray) -> list[np.ndarray]:
    """Classes (N, 1) of files (N, 1)."""
    images = [classifier.prepare(jpeg) for jpeg in encoded[:, 0]]
    return [np.array(classifier.classes(images), np.int64)[:, None]]


if __name__ == "__main__":
    config = TritonConfig(
        grpc_address="127.0.0.1",
        grpc_port=PORT,
        http_address="127.0.0.1",
        http_port=int(os.environ["PEER_HTTP_PORT"]),
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="peer",
            infer_func=infer_fn,
            inputs=[Tensor(name="encoded", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="class", dtype=np.int64, shape=(1,))],
            config=ModelConfig(max_batch_size=MAX_BATCH),
        )
        triton.serve()
