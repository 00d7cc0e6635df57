"""Probe of a server in a container: is every model's process alive, and are its answers right?

    python3 -m csg_serve.server.probe [HOST:PORT]      # HTTP inside the container; default: 127.0.0.1:8000

It runs beside the server every few seconds, so it is cheap: it imports little, and sends one golden image to each model
of csg: to `<name>_encoded`, which asks `<name>`, or else to `<name>` itself. A late answer of a model is no failure,
since a busy server must not be restarted. Exit code 0: good or busy; 4: the server does not answer, or has no model; 5:
a model answers wrongly or with an error, or a process of the Python backend is dead, which Triton does not report.
"""

from __future__ import annotations

import http.client
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from csg.card import ModelCard, parse_card
from csg.errors import CsgError, ServerError, VerificationError
from csg.golden import GoldenAnswer, golden_pixels, parse_golden

DEADLINE_S = 5.0
"""Seconds that all answers of one look together may take."""

AGAIN_S = 1.0
"""Seconds until a failure is looked at again: a server that switches versions ends processes, too."""

AGAIN_REQUESTS = 4
"""Images for each model at the second look: a model's instances take turns, and one of them may have failed."""

STUB = "triton_python_b"
"""Name of the Python backend's processes, as the kernel cuts it."""


def main() -> None:
    """Run the probe."""
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8000"
    try:
        try:
            check(address)
        except CsgError:
            time.sleep(AGAIN_S)
            check(address, AGAIN_REQUESTS)
    except TimeoutError:
        print(f"no answer within {DEADLINE_S:g} s: the server is busy")
    except CsgError as error:
        print(error)
        sys.exit(error.exit_code)


def check(address: str, requests: int = 1, processes: Path = Path("/proc")) -> None:
    """Check every model of a server.

    Args:
        address: HOST:PORT of its HTTP endpoint.
        requests: golden images for each model.
        processes: where the kernel lists the processes of the container.

    Raises:
        ServerError: the server does not answer, or has no model.
        VerificationError: a model does not answer as PyTorch did, or a process is dead.
        TimeoutError: a model's answer is late.
    """
    if dead := dead_processes(processes):
        raise VerificationError(f"{dead} processes of models are dead", "restart the server")
    server = _Server(address)
    try:
        models = {entry["name"] for entry in server.get("/v2/models/stats")["model_stats"]}
    except TimeoutError:
        raise ServerError(f"the server at {address} does not answer within {DEADLINE_S:g} s", "see its log") from None
    if not models:
        raise ServerError("the server has no model", "deploy one with `csg deploy`")
    for model in sorted(models):
        parameters = server.get(f"/v2/models/{model}/config").get("parameters", {})
        card, golden = (parameters.get(name, {}).get("string_value") for name in ("csg_card", "csg_golden"))
        if card and golden:
            parsed = parse_card(card, model)
            answers = parse_golden(golden, parsed, model).answers
            asked = f"{model}_encoded" if f"{model}_encoded" in models else model
            for answer in random.choices(answers, k=requests):
                _compare(server, asked, parsed, answer)


def dead_processes(processes: Path) -> int:
    """Return the number of dead processes of the Python backend."""
    dead = 0
    for stat in processes.glob("[0-9]*/stat"):
        try:
            name, _, state = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:  # it has ended
            continue
        dead += name.startswith(STUB) and state.split()[0] == "Z"
    return dead


def _compare(server: _Server, asked: str, card: ModelCard, answer: GoldenAnswer) -> None:
    """Send a golden image to a model and compare its answer.

    Raises:
        VerificationError: it differs, or is an error.
    """
    pixels, padded = golden_pixels(answer, card)
    if asked.endswith("_encoded"):
        content = len(answer.image).to_bytes(4, "little") + answer.image
        tensor = {"name": "encoded", "shape": [1, 1], "datatype": "BYTES"}
    else:
        content, padded = pixels.tobytes(), None
        tensor = {"name": card.input.name, "shape": [1, *pixels.shape], "datatype": "UINT8"}
    output = card.outputs[0].name
    got = server.infer(asked, tensor, content, output).astype(np.float64 if card.task == "classification" else np.uint8)
    if difference := answer.difference(got[0], padded):
        raise VerificationError(f"{asked} answers wrongly: {difference}", "see the server's log; deploy it again")


class _Server:
    """The HTTP endpoint of a Triton."""

    def __init__(self, address: str):
        self.address, self.deadline = address, time.monotonic() + DEADLINE_S

    def get(self, path: str) -> Any:
        return json.loads(self._request("GET", path)[0])

    def infer(self, model: str, tensor: dict[str, Any], content: bytes, output: str) -> np.ndarray:
        """Return one output of a model for one input tensor."""
        wanted = {"name": output, "parameters": {"binary_data": True}}
        tensor = tensor | {"parameters": {"binary_data_size": len(content)}}
        header = json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(header))}
        body, size = self._request("POST", f"/v2/models/{model}/infer", header + content, headers)
        (described,) = json.loads(body[:size])["outputs"]
        dtype = {"FP32": np.float32, "UINT8": np.uint8}[described["datatype"]]
        return np.frombuffer(body[size:], dtype).reshape(described["shape"])

    def _request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[bytes, int]:
        """Return the body of the response, and the length of the header in it.

        Raises:
            ServerError: no server answers.
            VerificationError: it answers with an error.
            TimeoutError: it does not answer in time.
        """
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        connection = http.client.HTTPConnection(self.address, timeout=remaining)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content = response.read()
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(f"no Triton answers at {self.address}: {error}", "wait, or see its log") from None
        finally:
            connection.close()
        if response.status in (http.client.SERVICE_UNAVAILABLE, http.client.TOO_MANY_REQUESTS):
            raise TimeoutError  # its queue is full
        if response.status != http.client.OK:
            words = content.decode(errors="replace")[:300]
            raise VerificationError(f"{path} fails with HTTP {response.status}: {words}", "see the server's log")
        return content, int(response.headers.get("Inference-Header-Content-Length") or 0)


if __name__ == "__main__":
    main()
