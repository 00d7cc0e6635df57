"""The command lines of docs/deploy, run with the tritonserver of this machine under a container's conditions."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from csg_serve.triton.launcher import write_launcher
from tests.helpers.cli import csg
from tests.helpers.container import Conditions, container, python_folders
from tests.helpers.served import SECRET
from tests.helpers.tiny_bundle import write_colour_bundle
from tests.server.test_serve_options import SLOW_CONFIG

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "deploy"

# Where this machine differs from the images: its tritonserver has the Python backend only, and its Python is elsewhere.
BACKEND = {"onnxruntime": "python"}
PATH = f"/opt/tritonserver/bin:{sys.prefix}/bin:/usr/bin:/bin"

RUNTIME_ARGS = ["tritonserver", "--model-store=/mnt/models", "--grpc-port=9000", "--http-port=8080"]
RUNTIME_ARGS += ["--allow-grpc=true", "--allow-http=true"]  # of KServe's runtime kserve-tritonserver

SLOW_MODEL = """
import time
from pathlib import Path
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        Path("/tmp/at-work").touch()
        time.sleep(3)
        images = [pb_utils.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("image", image)]) for image in images]
"""
SLOW_REQUEST = json.dumps({"inputs": [{"name": "image", "shape": [1], "datatype": "UINT8", "data": [7]}]})


def can_unshare():
    words = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "true"]
    return os.geteuid() == 0 and shutil.which("setpriv") and subprocess.run(words, capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.skipif(not can_unshare(), reason="needs root and namespaces"),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Folders of an image: /opt/tritonserver, and those that are where this machine has them."""
    opt = tmp_path_factory.mktemp("image") / "opt"
    write_launcher(opt)
    cache = Path(os.environ["CSG_CACHE"])
    servers = [entry for entry in cache.glob("server-*") if (entry / "bin/python").exists()]
    pythons = {(server / "bin/python").resolve().parents[1] for server in servers}
    linked = {server.resolve() for server in servers if server.is_symlink()}
    return opt, (*{*python_folders(), *pythons}, cache, *linked, ROOT)


def conditions(image, mounts, variables=None, **options):
    opt, folders = image
    environment = {"PATH": PATH, "PYTHONPATH": str(ROOT), "CSG_CACHE": os.environ["CSG_CACHE"]} | (variables or {})
    return Conditions(mounts | {"/opt/tritonserver": opt}, folders, environment, **options)


def run_job(image, tmp_path):
    """Deliver a private bundle into a new claim, as deliver.yaml does; returns the claim's folder."""
    (document,) = yaml.safe_load_all((FOLDER / "deliver.yaml").read_text())
    (job,) = document["spec"]["template"]["spec"]["containers"]
    before = os.umask(0o077)
    bundle = write_colour_bundle(tmp_path / "bundle").path
    os.umask(before)
    claim = tmp_path / "claim"
    (claim / "lost+found").mkdir(parents=True)
    (claim / "lost+found").chmod(0o700)
    for path in (claim, bundle, *bundle.rglob("*")):
        os.chown(path, 1000, 1000)  # fsGroup of the Job, and --chown of Dockerfile.bundle
    (models,) = (mount for mount in job["volumeMounts"] if mount["name"] == "models")
    mounts = {models["mountPath"]: claim, "/bundle": bundle}
    command = [*job["command"], *(BACKEND.get(word, word) for word in job["args"])]
    with container(conditions(image, mounts, writable=(models["mountPath"],)), command, tmp_path) as running:
        assert running.wait(120) == 0, running.log
    return claim


def server(name):
    """Command, environment, mount path of the repository, size of /dev/shm in MiB, and probe of a file's server."""
    documents = list(yaml.safe_load_all((FOLDER / name).read_text()))
    if name == "compose.yaml":
        triton = documents[0]["services"]["triton"]
        command = [re.sub(r"\$\{CSG_SECRET:[^}]*\}", SECRET, word) for word in triton["command"]]
        probe = ["sh", "-c", triton["healthcheck"]["test"][1].replace("$$", "$")]
        assert triton["shm_size"] == "1g"
        return command, triton["environment"], triton["volumes"][0]["target"], 1024, probe
    if name == "kserve.yaml":
        specification = documents[0]["spec"]["predictor"]
        triton, target = specification["model"], "/mnt/models"
        command = [*RUNTIME_ARGS, *triton["args"]]
    else:
        (deployment,) = (one for one in documents if one["kind"] == "Deployment")
        specification = deployment["spec"]["template"]["spec"]
        (triton,) = specification["containers"]
        command, target = [*triton["command"], *triton["args"]], "/models"
    variables = {one["name"]: one.get("value", SECRET) for one in triton["env"]}
    command = [word.replace("$(CSG_SECRET)", SECRET) for word in command]
    (shm,) = (volume["emptyDir"] for volume in specification["volumes"] if volume["name"] == "shm")
    assert shm == {"medium": "Memory", "sizeLimit": "1Gi"}
    return command, variables, target, 1024, triton["readinessProbe"]["exec"]["command"]


def wait_until_ready(running, probe):
    deadline = time.monotonic() + 120
    while (done := running.execute(*probe)).returncode != 0:
        assert running.process.poll() is None, running.log
        assert time.monotonic() < deadline, done.stdout + done.stderr + running.log
        time.sleep(0.5)


def kill_a_process_of(running, model):
    """Kill one of a model's processes, as the kernel does when memory is short."""
    stubs = [child for child in running.main.children() if f"/{model}/" in " ".join(child.cmdline())]
    stubs[0].kill()
    while stubs[0].status() != "zombie":
        time.sleep(0.05)


@contextlib.contextmanager
def cluster(name, image, tmp_path):
    """A ready pod of a file, with a model that the Job delivered and a slow one; yields it and its probe."""
    command, variables, target, shm, probe = server(name)
    repository = run_job(image, tmp_path) / "model_repository"
    (repository / "slow" / "1").mkdir(parents=True)
    (repository / "slow" / "1" / "model.py").write_text(SLOW_MODEL)
    (repository / "slow" / "config.pbtxt").write_text(SLOW_CONFIG)
    (tmp_path / "server").mkdir()
    pod = conditions(image, {target: repository}, variables, shm_mib=shm)
    with container(pod, command, tmp_path / "server") as running:
        wait_until_ready(running, probe)
        for forbidden in ("/x", f"{target}/x", "/usr/x", "/etc/x"):
            assert running.execute("touch", forbidden).returncode != 0
        assert running.execute("grep", "--count", "^Cap[a-zA-Z]*:.0*$", "/proc/1/status").stdout == "5\n"
        yield running, probe


def test_compose_serves_a_private_users_repository_and_restarts_after_a_death(image, bundle, tmp_path):
    """compose.cpu.yaml has the command of compose.yaml."""
    command, variables, target, shm, probe = server("compose.yaml")
    repository = tmp_path / "model_repository"
    before = os.umask(0o077)
    done = csg("deploy", bundle.path, "--repository", repository, "--backend", "python", "--mode", "644")
    os.umask(before)
    assert done.returncode == 0, done.stderr
    with container(conditions(image, {target: repository}, variables, shm_mib=shm), command, tmp_path) as running:
        wait_until_ready(running, probe)
        assert listening(running) == {"open": {8001, 8002}, "loopback": {8000}}
        listed = running.execute("python3", "-m", "csg", "models", "--server", "127.0.0.1:8001", "--json")
        assert {entry["model"] for entry in json.loads(listed.stdout)["models"]} >= {"colour"}, listed.stderr
        kill_a_process_of(running, "colour_encoded")
        assert running.execute(*probe).returncode == 1
        assert running.wait(60) == 0  # `restart: unless-stopped` starts it again


def test_kubernetes_serves_what_the_job_delivered_and_lets_requests_finish(image, tmp_path):
    with cluster("kubernetes.yaml", image, tmp_path) as (running, _):
        assert listening(running) == {"open": {8001, 8002}, "loopback": {8000}}
        url = "http://127.0.0.1:8000/v2/models/slow/infer"
        request = running.start("curl", "--fail", "--silent", "--data", SLOW_REQUEST, url)
        while running.execute("test", "-e", "/tmp/at-work").returncode:
            time.sleep(0.05)
        running.main.terminate()
        answer, _ = request.communicate(timeout=60)
        assert json.loads(answer)["outputs"][0]["data"] == [7]
        assert running.wait(60) == 0


def test_kserve_serves_what_the_job_delivered_and_notices_a_dead_process(image, tmp_path):
    with cluster("kserve.yaml", image, tmp_path) as (running, probe):
        assert listening(running) == {"open": {9000, 8002}, "loopback": {8080}}
        kill_a_process_of(running, "colour_encoded")
        done = running.execute(*probe)
        assert (done.returncode, "1 processes of models are dead" in done.stdout) == (5, True)


def listening(running):
    """Ports at which the container's processes listen, for all and on loopback."""
    sockets = running.execute("ss", "--tcp", "--listening", "--numeric", "--no-header").stdout.splitlines()
    pairs = [line.split()[3].rsplit(":", 1) for line in sockets]
    local = {int(port) for host, port in pairs if host == "127.0.0.1"}
    return {"open": {int(port) for _, port in pairs} - local, "loopback": local}
