"""Deployment without a server: configuration, versions, and that nothing half-written is ever served."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

import csg.images
import csg_serve.repository.deploy
import csg_serve.repository.versions
import csg_serve.triton.deploy_options
from csg.bundle import Bundle, write_bundle
from csg.card import Engine, parse_card
from csg.errors import InputError, UsageError, VerificationError
from csg.files import atomic_write
from csg_serve.repository.deploy import deploy, deploy_command, roll_back
from csg_serve.repository.encoded_model import CSG_FILES
from csg_serve.triton.config import CARD_PARAMETER, config_text, encoded_config, model_config, repository_flags
from csg_serve.triton.deploy_options import DEFAULTS, DeployOptions, on_this_machine
from tests.helpers.tiny_bundle import tiny_card, write_colour_bundle, write_echo_bundle


@pytest.fixture
def bundle(tmp_path):
    return write_colour_bundle(tmp_path / "bundles" / "colour")


@pytest.fixture
def repository(tmp_path):
    return tmp_path / "model_repository"


def served(repository, name="colour"):
    """The configuration in the repository."""
    return text_format.Parse((repository / name / "config.pbtxt").read_text(), ModelConfig())


def content(folder):
    return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file() and "lock" not in f.name}


@pytest.mark.parametrize(
    ("backend", "kind"), [("python", ModelInstanceGroup.KIND_MODEL), ("onnxruntime", ModelInstanceGroup.KIND_AUTO)]
)
def test_the_configuration_is_tritons_own_message_and_carries_the_card(backend, kind):
    config = model_config(tiny_card(), "shades", 3, backend)
    assert text_format.Parse(config_text(config), ModelConfig()) == config
    assert (config.name, config.backend, config.instance_group[0].kind) == ("shades", backend, kind)
    assert (config.input[0].name, list(config.input[0].dims)) == ("image", [32, 32, 3])
    assert ModelConfig.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number[
        config.input[0].data_type
    ].name == ("TYPE_UINT8")
    assert list(config.output[0].dims) == [3]
    assert list(config.version_policy.specific.versions) == [3]
    assert parse_card(config.parameters[CARD_PARAMETER].string_value, "here") == tiny_card()


def planned(card, largest=16):
    """The card of a bundle with a TensorRT plan."""
    profile = ((1, 32, 32, 3), (4, 32, 32, 3), (largest, 32, 32, 3))
    engine = Engine(library="tensorrt", version="10", target=("a GPU",), profile=profile)
    return card.model_copy(update={"engine": engine, "format": "tensorrt"})


def test_the_defaults_are_these():
    config = model_config(tiny_card(), "colour", 1, "onnxruntime")
    assert (config.max_batch_size, config.dynamic_batching.max_queue_delay_microseconds) == (32, 100)
    assert [sample.batch_size for sample in config.model_warmup] == [1, 32]
    assert config.model_warmup[0].inputs["image"].dims == [32, 32, 3]
    assert (len(config.instance_group), config.instance_group[0].count) == (1, 1)
    assert not config.dynamic_batching.preferred_batch_size
    assert not config.dynamic_batching.HasField("default_queue_policy")
    assert not config.HasField("response_cache")
    assert not config.HasField("optimization")
    assert not config.instance_group[0].HasField("rate_limiter")


def test_a_cpu_gets_two_instances_and_batches_of_an_image_a_core(monkeypatch):
    monkeypatch.setattr(csg_serve.triton.deploy_options, "available_cores", lambda: 6)
    monkeypatch.setattr(csg_serve.triton.deploy_options, "has_gpu", lambda: False)

    def chosen(backend="python", card=None, **given):
        options = on_this_machine(DeployOptions(**given), card or tiny_card(), backend)
        return options.instances, options.preferred_batch

    assert chosen() == (2, (6,))
    assert chosen(max_batch=4) == (2, (4,))
    assert chosen(instances=3, preferred_batch=(2,)) == (3, (2,))
    assert chosen("onnxruntime") == (None, ())
    assert chosen(card=tiny_card().model_copy(update={"runtime": "openvino", "compute_type": "bf16"})) == (2, (6,))
    monkeypatch.setattr(csg_serve.triton.deploy_options, "has_gpu", lambda: True)
    assert chosen() == (None, ())
    assert chosen(device="cpu") == (2, (6,))


def test_every_option_has_its_field():
    options = DeployOptions(
        max_batch=8,
        preferred_batch=(8, 4),
        queue_delay_ms=2,
        queue_size=100,
        timeout_ms=0.5,
        instances=3,
        device="gpu",
        warm_up=False,
        response_cache=True,
        rate_limit=("memory:2", "cores:1"),
        priority=3,
        accelerator="tensorrt",
        engine_cache="/engines/",
    )
    card = tiny_card().model_copy(update={"compute_type": "fp16"})
    options.check(card, "onnxruntime")
    config = model_config(card, "colour", 1, "onnxruntime", options)
    assert text_format.Parse(config_text(config), ModelConfig()) == config
    batching, group = config.dynamic_batching, config.instance_group[0]
    assert (config.max_batch_size, list(batching.preferred_batch_size)) == (8, [4, 8])
    assert batching.max_queue_delay_microseconds == 2000
    policy = batching.default_queue_policy
    assert (policy.max_queue_size, policy.default_timeout_microseconds, policy.allow_timeout_override) == (
        100,
        500,
        True,
    )
    assert policy.timeout_action == type(policy).REJECT
    assert (group.kind, group.count, group.rate_limiter.priority) == (ModelInstanceGroup.KIND_GPU, 3, 3)
    assert [(one.name, one.count) for one in group.rate_limiter.resources] == [("memory", 2), ("cores", 1)]
    assert not config.model_warmup
    assert config.response_cache.enable
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    parameters = dict(accelerator.parameters)
    assert accelerator.name == "tensorrt"
    assert parameters.pop("trt_engine_cache_path").startswith("/engines/csg-colour-")
    assert parameters == {
        "precision_mode": "FP16",
        "trt_engine_cache_enable": "true",
        "trt_profile_min_shapes": "image:1x32x32x3",
        "trt_profile_opt_shapes": "image:8x32x32x3",
        "trt_profile_max_shapes": "image:8x32x32x3",
    }
    beside = encoded_config(card, "colour", 1, options)
    assert beside.dynamic_batching == batching
    assert not beside.HasField("response_cache"), "after a way back its answers would be another version's"


def test_engines_of_another_model_are_not_taken():
    """ONNX Runtime does not notice other weights."""
    first, second = (tiny_card().model_copy(update={"precision_note": note}) for note in ("one", "two"))
    options = DeployOptions(accelerator="tensorrt")
    paths = {
        model_config(card, "colour", 1, "onnxruntime", options)
        .optimization.execution_accelerators.gpu_execution_accelerator[0]
        .parameters["trt_engine_cache_path"]
        for card in (first, second)
    }
    assert len(paths) == 2


@pytest.mark.parametrize(
    ("backend", "device", "kind"),
    [
        ("python", "auto", ModelInstanceGroup.KIND_MODEL),
        ("python", "cpu", ModelInstanceGroup.KIND_CPU),
        ("onnxruntime", "auto", ModelInstanceGroup.KIND_AUTO),
        ("onnxruntime", "gpu", ModelInstanceGroup.KIND_GPU),
        ("tensorrt", "auto", ModelInstanceGroup.KIND_GPU),
    ],
)
def test_devices(backend, device, kind):
    config = model_config(tiny_card(), "colour", 1, backend, DeployOptions(device=device))
    assert config.instance_group[0].kind == kind


@pytest.mark.parametrize(
    ("backend", "options", "says"),
    [
        ("tensorrt", DeployOptions(max_batch=17), "--max-batch 17 is above the plan's largest, 16"),
        ("tensorrt", DeployOptions(preferred_batch=(4, 64)), "--preferred-batch 64 is above the largest batch, 16"),
        ("python", DeployOptions(accelerator="tensorrt"), "is the onnxruntime backend's, not python's"),
        ("tensorrt", DeployOptions(device="cpu"), "TensorRT runs on no CPU"),
        ("onnxruntime", DeployOptions(device="cpu", accelerator="tensorrt"), "TensorRT runs on no CPU"),
        ("python", DeployOptions(rate_limit=("cores",)), "--rate-limit cores is no resource:count"),
        ("python", DeployOptions(rate_limit=("cores:0",)), "--rate-limit cores:0 is no resource:count"),
        ("python", DeployOptions(priority=1), "--priority is the rate limiter's"),
    ],
)
def test_options_that_do_not_fit_are_named(bundle, repository, backend, options, says):
    with pytest.raises(UsageError, match=says):
        deploy(Bundle(bundle.path, planned(bundle.card)), repository, None, backend, options=options)
    assert not repository.exists()


def test_a_bf16_bundle_stays_on_the_cpu():
    card = tiny_card().model_copy(update={"runtime": "openvino", "compute_type": "bf16"})
    with pytest.raises(UsageError, match="OpenVINO, on a CPU"):
        DeployOptions(device="gpu").check(card, "python")


def test_the_server_is_started_with_what_the_models_need(bundle, repository, tmp_path):
    (tmp_path / "triton" / "caches").mkdir(parents=True)
    executable = tmp_path / "triton" / "bin" / "tritonserver"
    deploy(bundle, repository)
    assert repository_flags(repository, executable) == []
    deploy(bundle, repository, options=DeployOptions(response_cache=True, rate_limit=("cores:1",)))
    flags = repository_flags(repository, executable)
    assert flags == [
        "--cache-config=local,size=67108864",
        f"--cache-directory={tmp_path}/triton/caches",
        "--rate-limit=execution_count",
    ]


def test_earlier_versions_go_but_not_the_served_one(bundle, repository):
    for _ in range(4):
        deploy(bundle, repository)
    roll_back(repository, None, 1)
    deploy(bundle, repository, options=DeployOptions(keep=2))
    assert sorted(f.name for f in (repository / "colour").glob("[0-9]*")) == ["1", "3", "4", "5"]
    deploy(bundle, repository, options=DeployOptions(keep=1))
    assert sorted(f.name for f in (repository / "colour").glob("[0-9]*")) == ["5", "6"]


def test_what_image_files_are_prepared_with_is_whole():
    """csg.images and all of csg that it imports, and nothing else, goes into the repository."""
    check = "import sys, csg.images; print(*sorted(m for m in sys.modules if m.partition('.')[0] == 'csg'))"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()
    names = {"csg/__init__.py" if name == "csg" else f"{name.replace('.', '/')}.py" for name in found}
    assert names == {f"csg/{file}" for file in CSG_FILES}


def test_the_model_of_image_files_knows_this_version_and_the_one_before(bundle, repository, tmp_path):
    other = write_echo_bundle(tmp_path / "echo")
    beside = repository / "shades_encoded"
    deploy(bundle, repository, "shades")
    assert served(repository, "shades_encoded").input[0].name == "encoded"
    assert served(repository, "shades_encoded").parameters["csg_encoded_for"].string_value == "shades"
    deploy(other, repository, "shades", options=DeployOptions(max_batch=5))
    deploy(bundle, repository, "shades", "onnxruntime")
    assert sorted(f.name for f in beside.glob("[0-9]*")) == ["2", "3"]
    assert sorted(f.name for f in (beside / "3").glob("[0-9]*")) == ["2", "3"]
    told = {version: json.loads((beside / "3" / version / "served.json").read_text()) for version in "23"}
    assert (told["2"]["max_batch_size"], told["3"]["max_batch_size"]) == (5, 8)
    assert parse_card(json.dumps(told["2"]["card"]), "here") == other.card
    assert (beside / "3" / "2" / "csg" / "images.py").read_bytes() == Path(csg.images.__file__).read_bytes()
    assert roll_back(repository, "shades", 2).encoded == "shades_encoded"
    assert sorted(f.name for f in (beside / "2").glob("[0-9]*")) == ["2", "3"]
    assert served(repository, "shades_encoded").max_batch_size == 5


def test_the_model_of_image_files_goes_and_comes_with_its_versions(bundle, repository):
    deploy(bundle, repository)
    assert deploy(bundle, repository, options=DeployOptions(encoded=False)).encoded is None
    assert not (repository / "colour_encoded").exists()
    assert roll_back(repository, None, None).encoded == "colour_encoded"
    assert (repository / "colour_encoded" / "1").is_dir()
    assert roll_back(repository, None, 2).encoded is None
    assert not (repository / "colour_encoded").exists()


def test_a_model_of_that_name_from_elsewhere_is_left_alone(bundle, repository, tmp_path):
    card = bundle.card.model_copy(update={"name": "colour_encoded"})
    deploy(Bundle(bundle.path, card), repository)
    before = content(repository)
    with pytest.raises(InputError, match=r"colour_encoded was not written by csg for colour; .*--no-encoded"):
        deploy(bundle, repository)
    assert content(repository) == before
    deploy(bundle, repository, options=DeployOptions(encoded=False))
    after = content(repository)
    assert {name: after[name] for name in before} == before


def test_versions_count_up_and_the_newest_is_named(bundle, repository):
    versions = [deploy(bundle, repository, None, "python").version for _ in range(3)]
    assert versions == [1, 2, 3]
    assert list(served(repository).version_policy.specific.versions) == [3]
    assert (repository / "colour" / "labels.txt").read_text().split() == ["red", "green", "blue"]
    scripts = files("csg_serve.python_backend")
    for version in versions:
        folder = repository / "colour" / str(version)
        assert (folder / "model.onnx").read_bytes() == bundle.model.read_bytes()
        for script in ("model.py", "scheduling.py", "sessions.py"):
            assert (folder / script).read_bytes() == scripts.joinpath(script).read_bytes()


def test_the_onnxruntime_backend_gets_no_script(bundle, repository):
    deploy(bundle, repository, "plain", "onnxruntime")
    assert sorted(f.name for f in (repository / "plain" / "1").iterdir()) == ["config.pbtxt", "model.onnx", "preparing"]
    assert served(repository, "plain").backend == "onnxruntime"


def test_a_plan_is_deployed_where_the_bundle_has_one(bundle, repository, tmp_path):
    with pytest.raises(InputError, match="holds no TensorRT plan"):
        deploy(bundle, repository, None, "tensorrt")
    models = {"model.onnx": bundle.model.read_bytes(), "model.plan": b"a plan"}
    deploy(write_bundle(tmp_path / "planned", planned(bundle.card), models), repository, None, "tensorrt")
    config = served(repository)
    assert (config.platform, config.backend) == ("tensorrt_plan", "tensorrt")
    assert (config.default_model_filename, config.max_batch_size) == ("model.plan", 16)
    assert sorted(f.name for f in (repository / "colour" / "1").iterdir()) == [
        "config.pbtxt",
        "model.plan",
        "preparing",
    ]


def test_an_earlier_version_can_be_served_again(bundle, repository, tmp_path):
    other = write_echo_bundle(tmp_path / "echo")
    deploy(bundle, repository, "shades", "python")
    first = content(repository)
    assert deploy(other, repository, "shades", "python", version=7).version == 7
    deploy(bundle, repository, "shades", "onnxruntime")
    back = roll_back(repository, None, None)
    assert (back.model, back.version, back.backend) == ("shades", 7, "python")
    assert len((repository / "shades" / "labels.txt").read_text().split()) == len(other.card.classes)
    assert roll_back(repository, "shades", 1).version == 1
    after = content(repository)
    assert {name: after[name] for name in first} == first
    assert roll_back(repository, "shades", 8).version == 8, "forward again"


def test_what_can_not_be_rolled_back_is_said(bundle, repository):
    with pytest.raises(InputError, match="no model"):
        roll_back(repository, None, None)
    deploy(bundle, repository, None, "python")
    for version, says in ((None, "no version before 1"), (5, "no version 5; it has 1")):
        with pytest.raises(InputError, match=says):
            roll_back(repository, None, version)
    with pytest.raises(InputError, match="has a version 1 already"):
        deploy(bundle, repository, None, "python", version=1)
    with pytest.raises(InputError, match="no model other"):
        roll_back(repository, "other", None)
    deploy(bundle, repository, "second", "python")
    with pytest.raises(UsageError, match="several models: colour, second"):
        roll_back(repository, None, None)


def test_deployments_side_by_side_get_versions_of_their_own(bundle, repository):
    with ThreadPoolExecutor(4) as pool:
        deployed = list(pool.map(lambda _: deploy(bundle, repository, None, "python"), range(8)))
    assert sorted(one.version for one in deployed) == list(range(1, 9))


def test_a_tampered_bundle_is_refused(bundle, repository):
    bundle.model.write_bytes(bundle.model.read_bytes() + b" ")
    with pytest.raises(VerificationError, match=r"model\.onnx does not match its SHA-256"):
        deploy_command(bundle.path, repository, None, "auto", None, DEFAULTS, False)
    assert not repository.exists()


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-x", "x" * 101, "a\nb"])
def test_a_name_that_is_no_plain_name_never_becomes_a_path(bundle, repository, name):
    with pytest.raises(UsageError, match="no plain name"):
        deploy(bundle, repository, name, "python")
    assert not repository.exists()


@pytest.mark.parametrize("config", [None, "name: 'colour'", "not protobuf"])
def test_a_model_from_elsewhere_is_left_alone(bundle, repository, config):
    (repository / "colour" / "1").mkdir(parents=True)
    if config:
        (repository / "colour" / "config.pbtxt").write_text(config)
    before = content(repository)
    with pytest.raises(InputError, match="was not written by csg"):
        deploy(bundle, repository, None, "python")
    assert content(repository) == before


@pytest.mark.parametrize(
    ("broken", "first"),
    [
        *(
            ("_fill", True),
            ("_fill", False),
            ("write_scripts", True),
            ("write_scripts", False),
            ("atomic_write", False),
        ),
    ],
)
def test_a_deployment_that_breaks_off_leaves_what_was_served(bundle, repository, monkeypatch, broken, first):
    if not first:
        deploy(bundle, repository, None, "python")
    before = content(repository)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    def full_for_the_tensor_model(path, content):
        return atomic_write(path, content) if path.parent.name == "colour_encoded" else full()

    monkeypatch.setattr(csg_serve.repository.deploy, broken, full)
    if broken == "atomic_write":
        monkeypatch.setattr(csg_serve.repository.versions, broken, full_for_the_tensor_model)
    with pytest.raises(InputError, match="No space left"):
        deploy(bundle, repository, None, "python")
    after = content(repository)
    if broken == "atomic_write":  # nothing can be put back either: <name>_encoded goes on with what is served
        before.pop(Path("colour_encoded/config.pbtxt"))
        assert (repository / "colour_encoded" / "2" / "1" / "served.json").exists()
    assert {name: after[name] for name in before} == before
    assert first is not (repository / "colour").exists()
    assert first is not (repository / "colour_encoded").exists()
    monkeypatch.undo()
    left = list((repository / "colour").glob("[0-9]*"))
    assert deploy(bundle, repository, None, "python").version == len(left) + 1
    assert not [f for f in repository.rglob(".*") if f.is_dir()]


def test_what_a_killed_deployment_left_aside_is_removed(bundle, repository):
    deploy(bundle, repository, None, "python")
    for remains in (repository / ".colour.abc", repository / "colour" / ".2.abc", repository / "colour_encoded/.1.a"):
        shutil.copytree(repository / "colour" / "1", remains)
    assert deploy(bundle, repository, None, "python").version == 2
    assert sorted(f.name for f in repository.iterdir() if f.is_dir()) == ["colour", "colour_encoded"]
    assert sorted(f.name for f in (repository / "colour").iterdir() if f.is_dir()) == ["1", "2"]


def test_a_folder_that_is_no_bundle_is_named(tmp_path, repository):
    with pytest.raises(InputError, match="elsewhere"):
        deploy_command(tmp_path / "elsewhere", repository, None, "auto", None, DEFAULTS, False)
    assert not repository.exists()
