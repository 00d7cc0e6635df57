"""docs/deploy: valid by the published schemas, and the same server that `csg serve --print-command` names."""

import copy
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from csg_serve.server.flags import CONTAINER_PORTS, NO_TELEMETRY, container_flags
from csg_serve.server.options import ServerOptions
from csg_serve.server.print_command import IMAGE

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "docs" / "deploy"
DOCUMENTS = {
    name: list(yaml.safe_load_all((FOLDER / name).read_text()))
    for name in ("claim.yaml", "deliver.yaml", "kubernetes.yaml")
}
RESOURCES = [resource for documents in DOCUMENTS.values() for resource in documents]
SERVICE = yaml.safe_load((FOLDER / "kserve.yaml").read_text())
VERSIONS = ("1.30", kubernetes_validate.latest_version())  # 1.30: the first with a preStop that sleeps
CORES = 4
OPTIONS = ServerOptions(address="0.0.0.0", threads=CORES)

# What KServe's PredictorSpec and ModelSpec have beside a pod's and a container's fields (kserve 0.21 on PyPI)
PREDICTOR = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout", "model"}
MODEL = {"modelFormat", "runtime", "protocolVersion", "storageUri"}


def kind(name):
    (found,) = (one for one in RESOURCES if one["kind"] == name)
    return found


def pod(name):
    """A pod's specification, and its only container."""
    specification = kind(name)["spec"]["template"]["spec"]
    (container,) = specification["containers"]
    return specification, container


def compose(name):
    return yaml.safe_load((FOLDER / name).read_text())["services"]["triton"]


def check_compose(file):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource["kind"])
def test_kubernetes_takes_every_resource(resource, version):
    named = copy.deepcopy(resource)
    named["metadata"].setdefault("name", "generated")
    kubernetes_validate.validate(named, version, strict=True)
    named["spec"]["unheardOf"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="unheardOf"):
        kubernetes_validate.validate(named, version, strict=True)


def test_compose_takes_the_files(tmp_path):
    for name in ("compose.yaml", "compose.cpu.yaml"):
        done = check_compose(FOLDER / name)
        assert done.returncode == 0, done.stdout
    broken = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    broken["services"]["triton"]["port"] = ["8000"]
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(broken))
    assert "'port' was unexpected" in check_compose(tmp_path / "compose.yaml").stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_what_kserve_takes_of_a_pod_is_a_pods(version):
    """An InferenceService's predictor is a pod's specification, its model a container, each with more fields."""
    assert (SERVICE["apiVersion"], SERVICE["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert (set(SERVICE), set(SERVICE["spec"])) == ({"apiVersion", "kind", "metadata", "spec"}, {"predictor"})
    predictor = SERVICE["spec"]["predictor"]
    model = predictor["model"]
    container = {key: value for key, value in model.items() if key not in MODEL} | {"name": "kserve-container"}
    specification = {key: value for key, value in predictor.items() if key not in PREDICTOR}
    specification["containers"] = [container]
    resource = {"apiVersion": "v1", "kind": "Pod", "metadata": SERVICE["metadata"], "spec": specification}
    kubernetes_validate.validate(resource, version, strict=True)
    assert set(model) >= MODEL
    assert (model["modelFormat"], model["runtime"]) == ({"name": "triton"}, "kserve-tritonserver")


def test_every_file_starts_what_the_command_line_prints():
    triton, (_, container), model = compose("compose.yaml"), pod("Deployment"), SERVICE["spec"]["predictor"]["model"]
    assert {triton["image"], container["image"], model["image"]} == {IMAGE}
    flags = container_flags(OPTIONS, "$(CSG_SECRET)")
    assert (container["command"], container["args"]) == (["tritonserver"], flags)
    composed = [flag.replace("$(CSG_SECRET)", "${CSG_SECRET:?see compose.yaml}") for flag in flags]
    assert triton["command"] == ["tritonserver", *composed]
    of_the_runtime = re.compile("--(model-repository|(http|grpc|metrics)-port)=")
    assert model["args"] == [flag for flag in flags if not of_the_runtime.match(flag)]


def test_every_file_gives_the_server_the_cores_that_it_counts():
    triton = compose("compose.yaml")
    assert (triton["cpus"], triton["environment"]) == (CORES, {"CSG_THREADS": str(CORES)})
    for container in (pod("Deployment")[1], SERVICE["spec"]["predictor"]["model"]):
        *plain, secret = container["env"]
        assert {one["name"]: one["value"] for one in plain} == {"CSG_THREADS": str(CORES)}
        assert secret["valueFrom"]["secretKeyRef"] == {"name": "csg-control", "key": "secret"}
        assert {of["cpu"] for of in container["resources"].values()} == {str(CORES)}
    arguments = pod("Job")[1]["args"]
    assert arguments[arguments.index("--instances") + 1] == str(CORES)
    assert f"--device cpu --instances {CORES} " in (FOLDER / "compose.yaml").read_text()


def test_http_stays_inside_and_the_other_endpoints_are_published():
    open_ports = {name: port for name, port in CONTAINER_PORTS.items() if name != "http"}
    assert [port.split(":") for port in compose("compose.yaml")["ports"]] == [
        ["127.0.0.1", str(port), str(port)] for port in open_ports.values()
    ]
    assert {port["name"]: port["containerPort"] for port in pod("Deployment")[1]["ports"]} == open_ports
    assert {port["name"]: port["port"] for port in kind("Service")["spec"]["ports"]} == open_ports


def test_a_server_gets_the_time_to_finish_its_requests():
    assert compose("compose.yaml")["stop_grace_period"] == f"{OPTIONS.drain_s + 5}s"
    predictor = SERVICE["spec"]["predictor"]
    for specification, container in (pod("Deployment"), (predictor, predictor["model"])):
        patience = specification["terminationGracePeriodSeconds"]
        assert patience >= container["lifecycle"]["preStop"]["sleep"]["seconds"] + OPTIONS.drain_s + 5


def test_containers_run_without_privileges():
    demanded = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    model = SERVICE["spec"]["predictor"]["model"]
    for container in (pod("Deployment")[1], pod("Job")[1], model):
        assert container["securityContext"].items() >= demanded.items()
    user = {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    for context in (
        pod("Deployment")[0]["securityContext"],
        pod("Job")[0]["securityContext"],
        model["securityContext"],
    ):
        assert context.items() >= user.items()
    triton = compose("compose.yaml")
    assert (triton["user"], triton["read_only"], triton["cap_drop"]) == ("1000:1000", True, ["ALL"])


def test_the_parts_in_kubernetes_find_each_other():
    deployment, scaler = kind("Deployment"), kind("HorizontalPodAutoscaler")["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    monitor = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text())["spec"]
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        kind("Service")["spec"]["selector"],
        kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        monitor["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert not labels.items() & pod("Job")[0].get("labels", {}).items()
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"]}
    assert scaler["scaleTargetRef"] == target
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert [one["pods"]["metric"]["name"] for one in scaler["metrics"]] == [rule["name"]["as"]]
    ports = {port["name"] for port in pod("Deployment")[1]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} <= ports
    rules = kind("NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for rule in rules for port in rule["ports"]} == ports


def test_what_is_delivered_is_what_the_servers_mount():
    """One layout of the claim: the repository is a folder in it, beside the lost+found of its file system."""
    claim = kind("PersistentVolumeClaim")["metadata"]["name"]
    for name in ("Deployment", "Job"):
        volumes = [volume for volume in pod(name)[0]["volumes"] if "persistentVolumeClaim" in volume]
        assert [volume["persistentVolumeClaim"]["claimName"] for volume in volumes] == [claim]
    arguments = pod("Job")[1]["args"]
    mount = pod("Job")[1]["volumeMounts"][0]["mountPath"]
    folder = Path(arguments[arguments.index("--repository") + 1]).relative_to(mount)
    models = pod("Deployment")[1]["volumeMounts"][0]
    assert (models["subPath"], models["readOnly"], folder.parent) == (str(folder), True, Path())
    assert SERVICE["spec"]["predictor"]["model"]["storageUri"] == f"pvc://{claim}/{folder}"


def dockerfile(name):
    """The instructions of a Dockerfile: name and argument, continuation lines joined."""
    text = (FOLDER / name).read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in lines.splitlines() if line.strip()]


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cpu"])
def test_an_image_is_built_of_the_checkout_and_runs_as_a_user(name):
    instructions = dockerfile(name)
    known = {"ARG", "FROM", "RUN", "ENV", "ENTRYPOINT", "USER", "CMD"}
    assert {instruction for instruction, _ in instructions} <= known
    assert ("USER", "1000:1000") in instructions
    assert {("ENV", f"{name}={value}") for name, value in NO_TELEMETRY.items()} <= set(instructions)
    (installed,) = (argument for instruction, argument in instructions if "pip install" in argument)
    for instruction, argument in instructions:
        if instruction == "ARG":
            variable, _, default = argument.partition("=")
            installed = installed.replace(f"${{{variable}}}", default.strip('"'))
    assert '"/csg[serve]"' in installed
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "serve" in project["optional-dependencies"]
    needed = {re.split(r"[<>=\[]", requirement)[0]: requirement for requirement in project["dependencies"]}
    for package in re.findall(r'"((?:numpy|pillow|pydantic)[^"]*)"', installed):
        wanted = needed[re.split("[<>=]", package)[0]]
        assert package.startswith(wanted), f"{package} is not what pyproject.toml wants: {wanted}"


def test_the_context_of_an_image_holds_what_pyproject_packages():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name for name in project["tool"]["setuptools"]["packages"]["find"]["include"] if "." not in name}
    files = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert {line[1:] for line in lines if line.startswith("!")} == packages | files
    assert "*" in lines


def test_compose_builds_the_images_that_it_starts():
    for name, tag, file in (
        ("compose.yaml", IMAGE, "Dockerfile"),
        ("compose.cpu.yaml", "csg-triton:cpu", "Dockerfile.cpu"),
    ):
        triton = compose(name)
        context = FOLDER / triton["build"]["context"]
        assert triton["image"] == tag
        assert context.resolve() == ROOT
        assert (context / triton["build"]["dockerfile"]).resolve() == FOLDER / file
        assert f"docker build --file docs/deploy/{file} --tag {tag} ." in (FOLDER / file).read_text()
    assert compose("compose.cpu.yaml").keys() == {"extends", "image", "build"}
    assert compose("compose.cpu.yaml")["extends"] == {"file": "compose.yaml", "service": "triton"}
    assert ("FROM", "csg-triton:cpu") in dockerfile("Dockerfile.bundle")


def test_the_dashboard_has_a_query_in_every_panel():
    dashboard = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert all(target["expr"] for panel in panels for target in panel["targets"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
