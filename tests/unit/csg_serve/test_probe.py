"""The probe of the containers: what ends a server's service, and what does not."""

import contextlib
import http.server
import json
import socket
import threading
import time

import numpy as np
import pytest

from csg.errors import ServerError, VerificationError
from csg_serve.server import probe
from tests.helpers.tiny_bundle import write_colour_bundle, write_scene_bundle


class Triton(http.server.BaseHTTPRequestHandler):
    """Answers as a server with one model; the test says what for an inference, by `server.answer(model, body)`."""

    def do_GET(self):
        if self.path == "/v2/models/stats":
            self._send(200, json.dumps({"model_stats": [{"name": name} for name in self.server.models]}).encode())
        else:
            self._send(200, json.dumps({"parameters": self.server.models[self.path.split("/")[3]]}).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        content = body[int(self.headers["Inference-Header-Content-Length"]) :]
        self._send(*self.server.answer(self.path.split("/")[3], content))

    def _send(self, status, body, header=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if header:
            self.send_header("Inference-Header-Content-Length", str(header))
        self.end_headers()
        with contextlib.suppress(OSError):  # the probe did not wait
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(probe, "AGAIN_S", 0.01)
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Triton)
    listener.models = {}
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
    thread.start()
    yield listener
    listener.shutdown()
    thread.join()
    listener.server_close()


@pytest.fixture
def no_process(tmp_path):
    (tmp_path / "proc").mkdir()
    return tmp_path / "proc"


def serve(server, bundle, answer, encoded=True):
    """Let the server have a bundle's model, and `answer(golden answer, prepared)` as its output."""
    parameters = {
        "csg_card": {"string_value": bundle.card.to_json()},
        "csg_golden": {"string_value": bundle.golden.to_json()},
    }
    server.models[bundle.card.name] = parameters
    if encoded:
        server.models[f"{bundle.card.name}_encoded"] = {}
    asked = []

    def reply(model, content):
        asked.append(model)
        return binary(bundle, answer(find(bundle, model, content)))

    server.answer = reply
    return asked


def find(bundle, model, content):
    """The golden answer of which the image was sent: as a file, or as pixels."""
    for golden in bundle.golden.answers:
        if model.endswith("_encoded") and content == len(golden.image).to_bytes(4, "little") + golden.image:
            return golden
        if not model.endswith("_encoded") and content == probe.golden_pixels(golden, bundle.card)[0].tobytes():
            return golden
    raise AssertionError("that is no golden image")


def binary(bundle, values):
    output = bundle.card.outputs[0]
    datatype = {"FP32": np.float32, "UINT8": np.uint8}[output.dtype]
    array = np.asarray(values, datatype)[None]
    header = json.dumps({"outputs": [{"name": output.name, "datatype": output.dtype, "shape": array.shape}]}).encode()
    return 200, header + array.tobytes(), len(header)


def check(server, no_process):
    probe.check(f"127.0.0.1:{server.server_port}", processes=no_process)


@pytest.mark.parametrize("encoded", [True, False])
@pytest.mark.parametrize("write", [write_colour_bundle, lambda path: write_scene_bundle(path, side=32)])
def test_right_answers_are_good(server, no_process, tmp_path, write, encoded):
    bundle = write(tmp_path / "bundle")

    def right(golden):
        padded = probe.golden_pixels(golden, bundle.card)[1]
        return padded.restore(golden.expected) if padded and encoded else golden.expected

    asked = serve(server, bundle, right, encoded)
    check(server, no_process)
    assert asked == [bundle.card.name + ("_encoded" if encoded else "")]


@pytest.mark.parametrize("wrong", [lambda right: right + 1, lambda right: right * np.nan, lambda right: right[:2]])
def test_a_wrong_answer_is_told(server, no_process, tmp_path, wrong):
    bundle = write_colour_bundle(tmp_path / "bundle")
    serve(server, bundle, lambda golden: wrong(golden.expected))
    with pytest.raises(VerificationError, match="colour_encoded answers wrongly"):
        check(server, no_process)


@pytest.mark.parametrize("status", [400, 404, 500])
def test_an_error_is_no_answer(server, no_process, tmp_path, status):
    serve(server, write_colour_bundle(tmp_path / "bundle"), None)
    server.answer = lambda *_: (status, b'{"error":"Stub process is not healthy."}')
    with pytest.raises(VerificationError, match="not healthy"):
        check(server, no_process)


def test_a_busy_server_is_left_alone(server, no_process, tmp_path, monkeypatch, capsys):
    """A full queue, and an answer that comes late."""
    serve(server, write_colour_bundle(tmp_path / "bundle"), None)
    monkeypatch.setattr(probe, "DEADLINE_S", 0.2)
    monkeypatch.setattr(probe.sys, "argv", ["probe", f"127.0.0.1:{server.server_port}"])
    monkeypatch.setattr(probe, "dead_processes", lambda _: 0)
    for answer in (
        lambda *_: (503, b'{"error":"Exceeds maximum queue size"}'),
        lambda *_: time.sleep(0.5) or (500, b""),
    ):
        server.answer = answer
        probe.main()
        assert "busy" in capsys.readouterr().out


def test_no_server_and_no_model_are_not_ready(server, no_process, monkeypatch):
    with pytest.raises(ServerError, match="has no model"):
        check(server, no_process)
    with pytest.raises(ServerError, match="no Triton answers"):
        probe.check("127.0.0.1:1", processes=no_process)
    monkeypatch.setattr(probe, "DEADLINE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ServerError, match="does not answer within"):
        probe.check(f"127.0.0.1:{silent.getsockname()[1]}", processes=no_process)


def test_models_of_others_and_of_an_older_csg_are_passed_over(server, no_process, tmp_path):
    serve(server, write_colour_bundle(tmp_path / "bundle"), None)
    del server.models["colour"]["csg_golden"]
    server.models["other"] = {}
    check(server, no_process)


@pytest.mark.parametrize(
    ("stat", "dead"),
    [
        ("17 (triton_python_b) Z 1 17", 1),
        ("17 (triton_python_b) S 1 17", 0),
        ("17 (python3) Z 1 17", 0),
        ("17 (a) (b) Z 1 17", 0),
    ],
)
def test_a_dead_process_is_seen_before_a_request_meets_it(no_process, stat, dead):
    (no_process / "17").mkdir()
    (no_process / "17" / "stat").write_text(stat)
    assert probe.dead_processes(no_process) == dead
    if dead:
        with pytest.raises(VerificationError, match="1 processes of models are dead"):
            probe.check("127.0.0.1:1", processes=no_process)


def test_one_of_several_instances_that_fails_is_found(server, no_process, tmp_path, monkeypatch):
    """They take turns: after the first failure the second look asks all of them."""
    bundle = write_colour_bundle(tmp_path / "bundle")
    asked = serve(server, bundle, lambda golden: golden.expected + (len(asked) % 4 == 1))
    monkeypatch.setattr(probe, "dead_processes", lambda _: 0)
    monkeypatch.setattr(probe.sys, "argv", ["probe", f"127.0.0.1:{server.server_port}"])
    with pytest.raises(SystemExit) as end:
        probe.main()
    assert (end.value.code, len(asked)) == (5, 5)


def test_what_is_over_at_the_second_look_is_no_failure(server, no_process, tmp_path, monkeypatch):
    """A server that switches versions ends processes, and has none of them for a moment."""
    bundle = write_colour_bundle(tmp_path / "bundle")
    serve(server, bundle, lambda golden: golden.expected)
    looks = iter([1, 0])
    monkeypatch.setattr(probe, "dead_processes", lambda _: next(looks))
    monkeypatch.setattr(probe.sys, "argv", ["probe", f"127.0.0.1:{server.server_port}"])
    probe.main()
    monkeypatch.setattr(probe, "dead_processes", lambda _: 1)
    with pytest.raises(SystemExit) as end:
        probe.main()
    assert end.value.code == 5
