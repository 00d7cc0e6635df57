"""A server in explicit control: who may do what with the secret, and how new versions go live."""

import json
import re
import shutil
import stat
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from csg.bundle import write_bundle
from csg_serve.client.client import Client
from csg_serve.python_backend.sessions import has_gpu
from tests.helpers.cli import csg, refused
from tests.helpers.load import under_load
from tests.helpers.served import KEY, SECRET, serving
from tests.helpers.tiny_bundle import tiny_card, write_unloadable_bundle

pytestmark = pytest.mark.server

GPU_METRICS = {"nv_gpu_utilization", "nv_gpu_memory_used_bytes"}  # as Triton's documentation names them
DEPLOY = Path(__file__).resolve().parents[2] / "docs" / "deploy"


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
    assert client.predict(tmp_path / "blue.png").label == "blue"


@pytest.mark.slow
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
    refused(csg(*server, "--secret-file", tmp_path / "wrong"), 4, "does not accept this secret")
    secret = ("--secret-file", root / "secret")
    unloaded = csg(*server, "--unload", "colour", *secret)
    while (states := states_of(unloaded)) == ["UNLOADING"]:
        unloaded = csg(*server, *secret)
    assert states == ["UNAVAILABLE"]
    loaded = csg(*server, "--load", "colour", *secret)
    assert states_of(loaded) == ["READY"], loaded.stderr
    refused(csg(*server, "--load", "nothing", *secret), 4, "does not load nothing")
    refused(csg(*server, "--load", "../x", *secret), 2, "invalid model name")


def test_instances_share_the_cores(explicit):
    """5 cores, 2 instances: 2 threads each."""
    root, _ = explicit
    log = (root / "repository" / ".csg-serve.log").read_text()
    for instance in ("colour_0_0", "colour_0_1"):
        assert f"{instance}: one of 2 instances, 2 threads" in log


@pytest.mark.parametrize("file", ["prometheus-adapter.yaml", "grafana-dashboard.json"])
def test_the_autoscaler_and_the_dashboard_of_docs_deploy_find_what_they_ask_for(explicit, file):
    """Metrics and their labels; those of GPUs where there is one."""
    _, state = explicit
    metrics = urllib.request.urlopen(f"http://{state['metrics']}/metrics").read().decode()
    asked_for = set(re.findall(r"\bnv_\w+", (DEPLOY / file).read_text()))
    assert "nv_inference_queue_duration_us" in asked_for
    for name in asked_for:
        if not has_gpu() and name.startswith("nv_gpu_"):
            assert name in GPU_METRICS
        elif name.startswith("nv_inference_"):
            assert re.search(rf'^{name}{{model="colour",(reason="\w+",)?version="\d"}} \d', metrics, re.M), name
        else:
            assert re.search(rf"^{name}(?:{{.*}})? \d", metrics, re.M), name


@pytest.mark.slow
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
        write_unloadable_bundle(tmp_path / "broken", bundle)
        refused(csg(*deploy, tmp_path / "broken"), 4, "colour version 21 does not load: .*NoSuchOperator", "stays live")
        assert csg(*deploy, "--rollback", "--version", 1).returncode == 0
        seen = len(answered)
        while len(answered) < seen + 20:
            time.sleep(0.01)
    versions = [number for number, _, _ in answered if number]
    assert [versions[0], versions[-1]] == ["1", "1"]
    assert set(versions) == {"1", "10", "20"}
    assert len(versions) < len(answered), "csg's own client was there too"
