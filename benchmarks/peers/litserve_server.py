"""LitServe: requests batched, several workers, several API servers, its fast queue.

https://lightning.ai/docs/litserve/features/batching: max_batch_size, batch_timeout.
https://lightning.ai/docs/litserve/api-reference/litserver: workers_per_device, fast_queue, run(num_api_servers=...).
https://lightning.ai/docs/litserve/features/request-response-format: types of requests.
LitServe reads annotations as types, so that they can't be strings.
"""

from typing import Any

import litserve as ls
from fastapi import UploadFile

from benchmarks.peers.model import MAX_BATCH, PORT, WORKERS, Classifier


class ClassifierAPI(ls.LitAPI):
    """Decode, batch, run, answer: the steps that LitServe names."""

    def setup(self, device: str) -> None:
        self.classifier = Classifier()

    def decode_request(self, request: UploadFile) -> Any:
        return self.classifier.prepare(request.file.read())

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, batch: list[Any]) -> list[int]:
        return self.classifier.classes(batch)

    def unbatch(self, output: list[int]) -> list[int]:
        return output

    def encode_response(self, output: int) -> dict[str, int]:
        return {"class": output}


if __name__ == "__main__":
    api = ClassifierAPI(max_batch_size=MAX_BATCH, batch_timeout=0.001, api_path="/classify")
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, fast_queue=True)
    server.run(host="127.0.0.1", port=PORT, num_api_servers=WORKERS, generate_client_file=False, log_level="warning")
