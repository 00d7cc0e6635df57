"""Deployment without a server: configuration, versions, and that nothing half-written is ever served."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

import csg_serve.repository
from csg.bundle import write_bundle
from csg.card import Engine, parse_card
from csg.errors import InputError, PromiseError, UsageError
from csg_serve.config import CARD_PARAMETER, config_text, model_config
from csg_serve.options import DEFAULTS
from csg_serve.repository import deploy, deploy_command, roll_back
from tests.tiny_bundle import tiny_card, write_colour_bundle, write_echo_bundle


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


def test_versions_count_up_and_the_newest_is_named(bundle, repository):
    versions = [deploy(bundle, repository, None, "python").version for _ in range(3)]
    assert versions == [1, 2, 3]
    assert list(served(repository).version_policy.specific.versions) == [3]
    assert (repository / "colour" / "labels.txt").read_text().split() == ["red", "green", "blue"]
    script = files("csg_serve.python_backend").joinpath("model.py").read_bytes()
    for version in versions:
        folder = repository / "colour" / str(version)
        assert (folder / "model.onnx").read_bytes() == bundle.model.read_bytes()
        assert (folder / "model.py").read_bytes() == script


def test_the_onnxruntime_backend_gets_no_script(bundle, repository):
    deploy(bundle, repository, "plain", "onnxruntime")
    assert sorted(f.name for f in (repository / "plain" / "1").iterdir()) == ["config.pbtxt", "model.onnx", "preparing"]
    assert served(repository, "plain").backend == "onnxruntime"


def test_a_plan_is_deployed_where_the_bundle_has_one(bundle, repository, tmp_path):
    with pytest.raises(InputError, match="holds no TensorRT plan"):
        deploy(bundle, repository, None, "tensorrt")
    engine = Engine(
        library="tensorrt", version="10", target=("a GPU",), profile=((1, 32, 32, 3), (4, 32, 32, 3), (16, 32, 32, 3))
    )
    card = bundle.card.model_copy(update={"engine": engine, "format": "tensorrt"})
    planned = write_bundle(
        tmp_path / "planned", card, {"model.onnx": bundle.model.read_bytes(), "model.plan": b"a plan"}
    )
    deploy(planned, repository, None, "tensorrt")
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
    with pytest.raises(PromiseError, match=r"model\.onnx does not match its SHA-256"):
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
        *(("_fill", True), ("_fill", False), ("write_script", True), ("write_script", False), ("write_bytes", False)),
        *(("write_encoded", True), ("write_encoded", False)),
    ],
)
def test_a_deployment_that_breaks_off_leaves_what_was_served(bundle, repository, monkeypatch, broken, first):
    if not first:
        deploy(bundle, repository, None, "python")
    before = content(repository)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csg_serve.repository, broken, full)
    with pytest.raises(InputError, match="No space left"):
        deploy(bundle, repository, None, "python")
    after = content(repository)
    if (
        broken == "write_bytes"
    ):  # nothing can be put back either: <name>_encoded goes on with the version that is served
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
