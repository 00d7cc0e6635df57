"""Options of `csg serve`, with a real Triton: who may do what, how new versions come in, how a server ends."""

import json
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
import trustme
from PIL import Image
from tritonclient.utils import InferenceServerException

from csg.bundle import write_bundle
from csg.errors import CsgError, InputError, UsageError
from csg_serve.client.client import Client
from csg_serve.server.options import ServerOptions, check_address, check_tls, control_secret, read_secret
from tests.helpers.cli import FREE_PORTS, csg, refused
from tests.helpers.served import serving, start_in_foreground
from tests.helpers.tiny_bundle import tiny_card, write_colour_bundle

DEPLOY = Path(__file__).resolve().parents[2] / "docs" / "deploy"
SECRET = "only-for-the-operators"
KEY = {"triton-grpc-protocol-csg-secret": SECRET}
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


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_colour_bundle(tmp_path_factory.mktemp("bundles") / "colour")


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority, tmp_path_factory):
    """PEM files: ca, cert and key of the server, client.cert and client.key."""
    folder, files = tmp_path_factory.mktemp("tls"), {}
    for name, issued in (("", authority.issue_cert("127.0.0.1")), ("client-", authority.issue_cert("a-client"))):
        files[f"{name}cert"], files[f"{name}key"] = folder / f"{name}cert.pem", folder / f"{name}key.pem"
        issued.cert_chain_pems[0].write_to_path(files[f"{name}cert"])
        issued.private_key_pem.write_to_path(files[f"{name}key"])
    files["ca"] = folder / "ca.pem"
    authority.cert_pem.write_to_path(files["ca"])
    return files


@contextmanager
def under_load(client, state, model="colour", predicts=None):
    """Requests without a pause, over two threads; none may fail, and the server calls itself ready all the time.

    Yields the answers so far: version (None of `predicts`), class, and the thread that asked.
    predicts: csg's own client, over another thread.
    """
    answered, failed, done = [], [], threading.Event()
    image = triton.InferInput("image", [1, 32, 32, 3], "UINT8")
    image.set_data_from_numpy(np.full((1, 32, 32, 3), (250, 9, 3), np.uint8))

    def ask():
        while not done.is_set():
            try:
                answer = client.infer(model, [image])
                version = answer.get_response().model_version
                answered.append((version, answer.as_numpy("logits").argmax(), threading.get_ident()))
            except InferenceServerException as error:
                failed.append(str(error))

    def predict():
        red = Image.new("RGB", (40, 40), (250, 9, 3))
        while predicts and not done.is_set():
            try:
                answered.append((None, predicts.predict([red])[0].argmax(), threading.get_ident()))
            except CsgError as error:
                failed.append(str(error))

    def probe():
        while not done.is_set():
            try:
                urllib.request.urlopen(f"http://{state['http']}/v2/health/ready", timeout=10)
            except OSError as error:
                failed.append(f"readiness: {error}")

    threads = [threading.Thread(target=one) for one in (ask, ask, predict, probe)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failed
    assert {best for _, best, _ in answered} == {0}


@pytest.fixture(scope="module")
def explicit(bundle, tmp_path_factory):
    """A server in explicit control whose control API asks for a secret; a folder with the repository and the secret."""
    root = tmp_path_factory.mktemp("explicit")
    assert csg("deploy", bundle.path, "--repository", root / "repository").returncode == 0
    config = root / "repository" / "colour" / "config.pbtxt"
    config.write_text(re.sub(r"count: \d", "count: 2", config.read_text()))
    (root / "secret").write_text(SECRET + "\n")
    options = ("--control", "explicit", "--secret-file", root / "secret", "--threads", 5, "--log-level", "verbose")
    with serving(root / "repository", *options) as state:
        yield root, state


def test_the_control_api_is_for_those_with_the_secret(explicit):
    _, state = explicit
    client = triton.InferenceServerClient(state["grpc"])
    for call in (
        client.get_model_repository_index,
        client.get_system_shared_memory_status,
        client.get_cuda_shared_memory_status,
        client.get_log_settings,
        client.get_trace_settings,
        lambda **options: client.unload_model("colour", **options),
    ):
        for headers in (None, dict.fromkeys(KEY, "guessed-by-somebody")):
            with pytest.raises(InferenceServerException, match="restricted"):
                call(headers=headers)
    assert client.is_model_ready("colour")
    assert [one.name for one in client.get_model_repository_index(headers=KEY).models] == ["colour", "colour_encoded"]
    index = f"http://{state['http']}/v2/repository/index"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(index, method="POST"))
    named = urllib.request.Request(index, method="POST", headers={"csg-secret": SECRET})
    assert json.load(urllib.request.urlopen(named))[0]["state"] == "READY"


def test_the_secret_is_for_its_owner_alone(explicit, bundle):
    root, _ = explicit
    kept = root / "repository" / ".csg-serve.secret"
    assert (kept.read_text(), stat.S_IMODE(kept.stat().st_mode)) == (SECRET, 0o600)
    for file in (".csg-serve.log", ".csg-serve.json"):
        assert SECRET not in (root / "repository" / file).read_text()
    for content, says in (("guessed-by-somebody", "does not accept the secret in"), ("", "holds no secret")):
        kept.write_text(content)
        refused(csg("deploy", bundle.path, "--repository", root / "repository"), 4, says)
    kept.write_text(SECRET)


def test_clients_need_no_secret(explicit, tmp_path):
    _, state = explicit
    Image.new("RGB", (40, 40), (0, 20, 180)).save(tmp_path / "blue.png")
    client = Client(state["grpc"])
    assert client.card().classes[client.predict([tmp_path / "blue.png"])[0].argmax()] == "blue"


def test_a_server_that_is_told_lets_go_of_the_encoded_model_too(explicit, bundle):
    root, state = explicit
    client = triton.InferenceServerClient(state["grpc"])
    deploy = ("deploy", bundle.path, "--name", "other", "--repository", root / "repository")
    assert csg(*deploy).returncode == 0
    assert client.is_model_ready("other_encoded")
    assert csg(*deploy, "--no-encoded").returncode == 0
    assert client.is_model_ready("other", "2")
    for _ in range(100):
        if not client.is_model_ready("other_encoded"):
            break
        time.sleep(0.1)
    assert not client.is_model_ready("other_encoded")
    shutil.rmtree(root / "repository" / "other")
    client.unload_model("other", headers=KEY)


def states_of(done, model="colour"):
    return [one["state"] for one in json.loads(done.stdout)["models"] if one["model"] == model]


def test_models_are_loaded_and_unloaded_by_those_with_the_secret(explicit, tmp_path):
    root, state = explicit
    server = ("models", "--server", state["grpc"], "--json")
    without = csg(*server)
    assert "--secret-file" in without.stderr
    assert states_of(without) == ["READY"]
    refused(csg(*server, "--unload", "colour"), 4, "restricted", "--secret-file")
    (tmp_path / "wrong").write_text("guessed-by-somebody")
    refused(csg(*server, "--secret-file", tmp_path / "wrong"), 4, "does not take this secret")
    secret = ("--secret-file", root / "secret")
    unloaded = csg(*server, "--unload", "colour", *secret)
    while (states := states_of(unloaded)) == ["UNLOADING"]:
        unloaded = csg(*server, *secret)
    assert states == ["UNAVAILABLE"]
    loaded = csg(*server, "--load", "colour", *secret)
    assert states_of(loaded) == ["READY"], loaded.stderr
    refused(csg(*server, "--load", "nothing", *secret), 4, "does not load nothing")
    refused(csg(*server, "--load", "../x", *secret), 2, "no plain name")


def test_instances_share_the_cores(explicit):
    """5 cores, 2 instances: 2 threads each."""
    root, _ = explicit
    log = (root / "repository" / ".csg-serve.log").read_text()
    for instance in ("colour_0_0", "colour_0_1"):
        assert f"{instance}: one of 2 instances, 2 threads" in log


def test_the_probes_and_the_autoscaler_of_docs_deploy_find_what_they_ask_for(explicit):
    _, state = explicit
    for path in set(re.findall(r"/v2/health/\w+", (DEPLOY / "kubernetes.yaml").read_text())):
        assert urllib.request.urlopen(f"http://{state['http']}{path}").status == 200
    metrics = urllib.request.urlopen(f"http://{state['metrics']}/metrics").read().decode()
    asked_for = set(re.findall(r"nv_\w+", (DEPLOY / "prometheus-adapter.yaml").read_text()))
    assert asked_for
    for name in asked_for:
        assert re.search(rf'^{name}{{model="colour",version="\d"}} \d', metrics, re.M), name


def test_explicit_control_a_new_version_goes_live_under_load_without_a_failed_request(explicit, bundle, tmp_path):
    root, state = explicit
    deploy = ("deploy", "--repository", root / "repository", "--name", "colour")
    other = write_bundle(
        tmp_path / "other",
        tiny_card().model_copy(update={"precision_note": "another model"}),
        {"model.onnx": bundle.model.read_bytes()},
    )
    with under_load(
        triton.InferenceServerClient(state["grpc"]), state, predicts=Client(state["grpc"], "colour")
    ) as answered:
        assert csg(*deploy, other.path, "--version", 10).returncode == 0
        assert f"live at {state['grpc']}" in csg(*deploy, bundle.path, "--version", 20).stderr
        write_bundle(tmp_path / "broken", tiny_card(), {"model.onnx": b"this is no graph"})
        refused(csg(*deploy, tmp_path / "broken"), 4, "colour version 21 does not load: .*onnx", "stays live")
        assert csg(*deploy, "--rollback", "--version", 1).returncode == 0
        seen = len(answered)
        while len(answered) < seen + 20:
            time.sleep(0.01)
    versions = [number for number, _, _ in answered if number]
    assert [versions[0], versions[-1]] == ["1", "1"]
    assert set(versions) == {"1", "10", "20"}
    assert len(versions) < len(answered), "csg's own client was there too"


@pytest.fixture(scope="module")
def encrypted(bundle, tls, tmp_path_factory):
    """A polling server that speaks TLS with clients whose certificate it knows."""
    repository = tmp_path_factory.mktemp("encrypted") / "repository"
    assert csg("deploy", bundle.path, "--repository", repository).returncode == 0
    options = ("--tls-cert", tls["cert"], "--tls-key", tls["key"], "--tls-client-ca", tls["ca"])
    with serving(repository, *options) as state:
        yield repository, state


def encrypted_client(address, tls, **files):
    files = {
        "root_certificates": tls["ca"],
        "private_key": tls["client-key"],
        "certificate_chain": tls["client-cert"],
    } | files
    return triton.InferenceServerClient(address, ssl=True, **{name: file and str(file) for name, file in files.items()})


def test_only_clients_with_a_certificate_are_served(encrypted, tls, tmp_path):
    _, state = encrypted
    assert encrypted_client(state["grpc"], tls).is_model_ready("colour")
    stranger = trustme.CA()
    stranger.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = stranger.issue_cert("a-client")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    for client in (
        triton.InferenceServerClient(state["grpc"]),
        encrypted_client(state["grpc"], tls, private_key=None, certificate_chain=None),
        encrypted_client(state["grpc"], tls, private_key=tmp_path / "key.pem", certificate_chain=tmp_path / "cert.pem"),
        encrypted_client(state["grpc"], tls, root_certificates=tmp_path / "ca.pem"),
    ):
        with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
            client.is_server_live(client_timeout=20)


def test_polling_a_new_version_goes_live_under_load_without_a_failed_request(encrypted, bundle, tls):
    repository, state = encrypted
    deploy = ("deploy", bundle.path, "--repository", repository)
    with under_load(encrypted_client(state["grpc"], tls), state) as answered:
        for _ in range(2):
            assert f"live at {state['grpc']}" in csg(*deploy).stderr
        while answered[-1][0] != "3":
            time.sleep(0.01)
    assert {number for number, _, _ in answered} == {"1", "2", "3"}
    for thread in {asked for _, _, asked in answered}:  # of two, the one with the older answer may note it later
        versions = [number for number, _, asked in answered if asked == thread]
        assert versions == sorted(versions)


def test_a_polling_server_loads_nothing_on_demand(bundle, encrypted, tls):
    _, state = encrypted
    with pytest.raises(InferenceServerException, match="polling"):
        encrypted_client(state["grpc"], tls).unload_model("colour")


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


def test_what_can_not_be_served_with_is_said_before_anything_starts(tls, tmp_path):
    assert check_tls(None, None, None) is None
    for files in ((tls["cert"], None, None), (None, tls["key"], None), (None, None, tls["ca"])):
        with pytest.raises(UsageError, match="--tls-cert and --tls-key"):
            check_tls(*files)
    (tmp_path / "no.pem").write_text("no certificate")
    for files, says in (
        ((tmp_path / "missing", tls["key"], None), "can't read .*missing"),
        ((tls["cert"], tls["client-key"], None), "not a certificate and its key: KEY_VALUES_MISMATCH"),
        ((tmp_path / "no.pem", tls["key"], None), "not a certificate and its key"),
        ((tls["cert"], tls["key"], tmp_path / "no.pem"), "no.pem holds no certificate"),
    ):
        with pytest.raises(InputError, match=says):
            check_tls(*files)
    for address in ("localhost", "::1", "1.2.3", "0.0.0.0:80"):
        with pytest.raises(UsageError, match="not an IPv4 address"):
            check_address(address)
    for content in ("", "short", "two-words-of letters", "name=0123456789abcdef", "0123456789abcdef,x:y=z"):
        (tmp_path / "secret").write_text(content)
        with pytest.raises(InputError, match="holds no secret; write at least 16"):
            read_secret(tmp_path / "secret")


def test_an_address_of_another_machine_is_refused(bundle, tmp_path):
    repository = ("--repository", tmp_path / "repository")
    assert csg("deploy", bundle.path, *repository).returncode == 0
    refused(
        csg("serve", *repository, *FREE_PORTS, "--address", "192.0.2.1"),
        2,
        "192.0.2.1 is not an address of this",
    )
    assert not (tmp_path / "repository" / ".csg-serve.json").exists()


def test_only_loopback_does_without_a_secret():
    assert not ServerOptions().exposed
    assert not ServerOptions(address="127.0.0.2").restricted
    assert ServerOptions(address="0.0.0.0").restricted
    assert ServerOptions(address="10.1.2.3").restricted
    assert control_secret(ServerOptions()) is None
    assert len({control_secret(ServerOptions(address="0.0.0.0")) for _ in range(9)}) == 9


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
    for word in (f"--publish=127.0.0.1:{ports[1]}:8001", f"--volume={tls['key']}:/tls/key.pem:ro", "nvcr.io/nvidia"):
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
