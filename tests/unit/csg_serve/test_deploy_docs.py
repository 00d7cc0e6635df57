"""docs/deploy: valid by the published schemas, and the same server that `csg serve --print-command` names."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from csg_serve.server.flags import CONTAINER_PORTS, container_flags
from csg_serve.server.options import ServerOptions
from csg_serve.server.print_command import IMAGE

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "deploy"
KUBERNETES = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))
VERSIONS = ("1.30", kubernetes_validate.latest_version())  # 1.30: the first with a preStop that sleeps
CORES = 4

# What KServe's PredictorSpec and ModelSpec have beside a pod's and a container's fields (kserve 0.21 on PyPI)
PREDICTOR = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout", "model"}
MODEL = {"modelFormat", "runtime", "runtimeVersion", "protocolVersion", "storageUri"}


def kind(name):
    (found,) = (one for one in KUBERNETES if one["kind"] == name)
    return found


def compose(file):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", KUBERNETES, ids=lambda resource: resource["kind"])
def test_kubernetes_takes_every_resource(resource, version):
    kubernetes_validate.validate(resource, version, strict=True)
    broken = copy.deepcopy(resource)
    broken["spec"]["unheardOf"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="unheardOf"):
        kubernetes_validate.validate(broken, version, strict=True)


def test_compose_takes_the_file(tmp_path):
    done = compose(FOLDER / "compose.yaml")
    assert done.returncode == 0, done.stdout
    broken = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    broken["services"]["triton"]["port"] = ["8000"]
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(broken))
    assert "'port' was unexpected" in compose(tmp_path / "compose.yaml").stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_what_kserve_takes_of_a_pod_is_a_pods(version):
    """An InferenceService's predictor is a pod's specification, its model a container, each with more fields."""
    service = yaml.safe_load((FOLDER / "kserve.yaml").read_text())
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert (set(service), set(service["spec"])) == ({"apiVersion", "kind", "metadata", "spec"}, {"predictor"})
    predictor = service["spec"]["predictor"]
    model = predictor["model"]
    container = {key: value for key, value in model.items() if key not in MODEL} | {"name": "kserve-container"}
    pod = {key: value for key, value in predictor.items() if key not in PREDICTOR} | {"containers": [container]}
    metadata = service["metadata"]
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}, version, strict=True
    )
    assert set(model) >= MODEL
    assert (model["modelFormat"], model["runtime"]) == ({"name": "triton"}, "kserve-tritonserver")
    assert IMAGE.endswith(f":{model['runtimeVersion']}")


def test_compose_starts_what_the_command_line_prints():
    triton = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["triton"]
    assert triton["image"] == IMAGE
    assert triton["command"] == ["tritonserver", *container_flags(ServerOptions(threads=CORES), None)]
    assert (triton["cpus"], triton["environment"]) == (CORES, {"CSG_THREADS": str(CORES)})
    assert [port.split(":") for port in triton["ports"]] == [
        ["127.0.0.1", str(port), str(port)] for port in CONTAINER_PORTS.values()
    ]
    assert triton["stop_grace_period"] == f"{ServerOptions().drain_s + 5}s"


def test_kubernetes_and_kserve_start_what_the_command_line_prints():
    exposed = ServerOptions(address="0.0.0.0", threads=CORES)
    flags = container_flags(exposed, "$(CSG_SECRET)")
    pod = kind("Deployment")["spec"]["template"]["spec"]
    (triton,) = pod["containers"]
    assert (triton["image"], triton["command"], triton["args"]) == (IMAGE, ["tritonserver"], flags)
    assert {port["name"]: port["containerPort"] for port in triton["ports"]} == CONTAINER_PORTS
    model = yaml.safe_load((FOLDER / "kserve.yaml").read_text())["spec"]["predictor"]["model"]
    of_the_runtime = re.compile("--(model-repository|(http|grpc|metrics)-(address|port))=")
    assert model["args"] == [flag for flag in flags if not of_the_runtime.match(flag)]
    for container in (triton, model):
        *plain, secret = container["env"]
        assert {one["name"]: one["value"] for one in plain} == {"CSG_THREADS": str(CORES)}
        assert secret["valueFrom"]["secretKeyRef"] == {"name": "csg-control", "key": "secret"}
        assert {of["cpu"] for of in container["resources"].values()} == {str(CORES)}
    patience = pod["terminationGracePeriodSeconds"]
    assert patience >= triton["lifecycle"]["preStop"]["sleep"]["seconds"] + exposed.drain_s + 5


def test_the_parts_in_kubernetes_find_each_other():
    deployment, scaler = kind("Deployment"), kind("HorizontalPodAutoscaler")["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        kind("Service")["spec"]["selector"],
        kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"]}
    assert scaler["scaleTargetRef"] == target
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert [one["pods"]["metric"]["name"] for one in scaler["metrics"]] == [rule["name"]["as"]]
    claim = deployment["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert claim == kind("PersistentVolumeClaim")["metadata"]["name"]
