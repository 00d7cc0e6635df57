"""FastAPI + ONNX Runtime, under uvicorn with several worker processes.

https://fastapi.tiangolo.com/deployment/server-workers: "some replication of processes to take advantage of multiple
cores": --workers. https://fastapi.tiangolo.com/advanced/using-request-directly: the body as it is, without multipart.
https://fastapi.tiangolo.com/async: blocking work belongs into the thread pool.
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

from benchmarks.peers.model import Classifier

app, classifier = FastAPI(), Classifier()


def _classify(jpeg: bytes) -> int:
    return classifier.classes([classifier.prepare(jpeg)])[0]


@app.post("/classify")
async def classify(request: Request) -> dict[str, int]:
    """The class of a JPEG."""
    return {"class": await run_in_threadpool(_classify, await request.body())}
