"""Options of `csg serve`, with a real Triton: who may do what, how new versions come in, how a server ends."""

import json
import signal
import socket
import subprocess
import threading
import time

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.helpers.certificates import encrypted_client
from tests.helpers.cli import FREE_PORTS, csg, refused
from tests.helpers.served import KEY, SECRET, start_in_foreground

pytestmark = pytest.mark.server

SLOW_S = 4
SLOW_MODEL = f"""
import time
from pathlib import Path
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        Path(__file__).parents[3].joinpath("at work").touch()
        time.sleep({SLOW_S})
        images = [pb_utils.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("image", image)]) for image in images]
"""
SLOW_CONFIG = """
name: "slow" backend: "python" instance_group { kind: KIND_CPU count: 1 }
input { name: "image" data_type: TYPE_UINT8 dims: [-1] } output { name: "image" data_type: TYPE_UINT8 dims: [-1] }
"""


@pytest.mark.slow
@pytest.mark.parametrize("drain", [30, 1])
def test_requests_under_way_are_answered_before_the_server_ends(drain, tmp_path):
    """SIGTERM to `csg serve`: the slow request is answered, a new one refused, but only for --drain-seconds."""
    repository = tmp_path / "repository"
    (repository / "slow" / "1").mkdir(parents=True)
    (repository / "slow" / "1" / "model.py").write_text(SLOW_MODEL)
    (repository / "slow" / "config.pbtxt").write_text(SLOW_CONFIG)
    process = start_in_foreground(repository, *FREE_PORTS, "--drain-seconds", drain)
    try:
        state = json.loads((repository / ".csg-serve.json").read_text())
        client = triton.InferenceServerClient(state["grpc"])
        image = triton.InferInput("image", [3], "UINT8")
        image.set_data_from_numpy(np.arange(3, dtype=np.uint8))
        outcome, answered = [], threading.Event()

        def take(result, error):
            outcome.append(error or result.as_numpy("image").tolist())
            answered.set()

        client.async_infer("slow", [image], take)
        while not (tmp_path / "at work").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        if drain > SLOW_S:
            with pytest.raises(InferenceServerException, match=r"UNAVAILABLE|no available versions"):
                while True:
                    client.infer("slow", [image])
        assert answered.wait(60)
        _, words = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in words
    if drain > SLOW_S:
        assert (outcome, process.returncode) == ([[0, 1, 2]], 0)
    else:
        assert "UNAVAILABLE" in str(outcome[0])
        assert "still running after 1 s" in words
    assert not (repository / ".csg-serve.json").exists()


def test_an_address_of_another_machine_is_refused(bundle, tmp_path):
    repository = ("--repository", tmp_path / "repository")
    assert csg("deploy", bundle.path, *repository).returncode == 0
    refused(
        csg("serve", *repository, *FREE_PORTS, "--address", "192.0.2.1"),
        2,
        "192.0.2.1 is not an address of this",
    )
    assert not (tmp_path / "repository" / ".csg-serve.json").exists()


@pytest.mark.slow
def test_the_printed_command_starts_a_server(bundle, tls, tmp_path):
    """As pasted into a shell; the secret is read then, and not shown."""
    repository, secret = tmp_path / "repository", tmp_path / "the secret"
    assert csg("deploy", bundle.path, "--repository", repository).returncode == 0
    secret.write_text(SECRET)
    ports = [free_port() for _ in range(3)]
    named = ("--http-port", ports[0], "--grpc-port", ports[1], "--metrics-port", ports[2])
    options = ("--repository", repository, "--secret-file", secret, "--tls-cert", tls["cert"], "--tls-key", tls["key"])
    refused(csg("serve", "--print-command", *options, "--http-port", 0), 2, "needs fixed ports")
    printed = csg("serve", "--print-command", "--json", *options, *named)
    commands = json.loads(printed.stdout)
    assert SECRET not in printed.stdout
    for word in (f"--publish=127.0.0.1:{ports[1]}:8001", f"--volume={tls['key']}:/tls/key.pem:ro", "csg-triton:26.07"):
        assert word in commands["container"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(["sh", "-c", f"exec {commands['here']}"], stdout=log, stderr=log)
    try:
        client = encrypted_client(f"127.0.0.1:{ports[1]}", tls, private_key=None, certificate_chain=None)
        while not ready(client):
            assert process.poll() is None
            time.sleep(0.1)
        assert client.get_model_repository_index(headers=KEY).models[0].state == "READY"
    finally:
        process.terminate()
        assert process.wait(60) == 0


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ready(client):
    try:
        return client.is_model_ready("colour")
    except InferenceServerException:
        return False
