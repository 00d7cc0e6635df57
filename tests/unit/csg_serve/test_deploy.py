"""`csg deploy` without a server: versions, and that nothing half-written is ever served."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest

import csg_serve.repository.deploy
import csg_serve.repository.versions
import csg_serve.triton.deploy_options
from csg.bundle import write_bundle
from csg.errors import InputError, UsageError, VerificationError
from csg.files import atomic_write
from csg_serve.repository.deploy import deploy, deploy_command
from csg_serve.repository.rollback import roll_back
from csg_serve.triton.deploy_options import DEFAULTS, DeployOptions
from tests.helpers.repositories import content, planned, served_config


def disk_full(*_, **__):
    raise OSError(28, "No space left on device")


def test_earlier_versions_go_but_not_the_served_one(bundle, repository):
    for _ in range(4):
        deploy(bundle, repository)
    roll_back(repository, None, 1)
    deploy(bundle, repository, options=DeployOptions(keep=2))
    assert sorted(f.name for f in (repository / "colour").glob("[0-9]*")) == ["1", "3", "4", "5"]
    deploy(bundle, repository, options=DeployOptions(keep=1))
    assert sorted(f.name for f in (repository / "colour").glob("[0-9]*")) == ["5", "6"]


def test_versions_count_up_and_the_newest_is_named(bundle, repository):
    versions = [deploy(bundle, repository).version for _ in range(3)]
    assert versions == [1, 2, 3]
    assert list(served_config(repository).version_policy.specific.versions) == [3]
    assert (repository / "colour" / "labels.txt").read_text().split() == ["red", "green", "blue"]
    scripts = files("csg_serve.python_backend")
    for version in versions:
        folder = repository / "colour" / str(version)
        assert (folder / "model.onnx").read_bytes() == bundle.model.read_bytes()
        for script in ("model.py", "scheduling.py", "sessions.py"):
            assert (folder / script).read_bytes() == scripts.joinpath(script).read_bytes()


def test_the_onnxruntime_backend_gets_no_script(bundle, repository):
    deploy(bundle, repository, "plain", options=DeployOptions(backend="onnxruntime"))
    assert sorted(f.name for f in (repository / "plain" / "1").iterdir()) == [
        "config.pbtxt",
        "model.onnx",
        "preprocessing",
    ]
    assert served_config(repository, "plain").backend == "onnxruntime"


def test_a_plan_is_deployed_where_the_bundle_has_one(bundle, repository, tmp_path):
    with pytest.raises(InputError, match="holds no TensorRT plan"):
        deploy(bundle, repository, options=DeployOptions(backend="tensorrt"))
    models = {"model.onnx": bundle.model.read_bytes(), "model.plan": b"a plan"}
    deploy(
        write_bundle(tmp_path / "planned", planned(bundle.card), models),
        repository,
        options=DeployOptions(backend="tensorrt"),
    )
    config = served_config(repository)
    assert (config.platform, config.backend) == ("tensorrt_plan", "tensorrt")
    assert (config.default_model_filename, config.max_batch_size) == ("model.plan", 16)
    assert sorted(f.name for f in (repository / "colour" / "1").iterdir()) == [
        "config.pbtxt",
        "model.plan",
        "preprocessing",
    ]


def test_deployments_side_by_side_get_versions_of_their_own(bundle, repository):
    with ThreadPoolExecutor(4) as pool:
        deployed = list(pool.map(lambda _: deploy(bundle, repository), range(8)))
    assert sorted(one.version for one in deployed) == list(range(1, 9))


def test_a_tampered_bundle_is_refused(bundle, repository):
    bundle.model.write_bytes(bundle.model.read_bytes() + b" ")
    with pytest.raises(VerificationError, match=r"model\.onnx does not match its SHA-256"):
        deploy_command(bundle.path, repository, name=None, version=None, options=DEFAULTS, as_json=False)
    assert not repository.exists()


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-x", "x" * 101, "a\nb"])
def test_a_name_that_is_no_plain_name_never_becomes_a_path(bundle, repository, name):
    with pytest.raises(UsageError, match="invalid model name"):
        deploy(bundle, repository, name)
    assert not repository.exists()


@pytest.mark.parametrize("config", [None, "name: 'colour'", "not protobuf"])
def test_a_model_from_elsewhere_is_left_alone(bundle, repository, config):
    (repository / "colour" / "1").mkdir(parents=True)
    if config:
        (repository / "colour" / "config.pbtxt").write_text(config)
    before = content(repository)
    with pytest.raises(InputError, match="was not written by csg"):
        deploy(bundle, repository)
    assert content(repository) == before


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("broken", ["_fill", "write_scripts", "write_encoded"])
def test_a_deployment_that_breaks_off_leaves_what_was_served(bundle, repository, monkeypatch, broken, first):
    if not first:
        deploy(bundle, repository)
    before = content(repository)
    monkeypatch.setattr(csg_serve.repository.deploy, broken, disk_full)
    with pytest.raises(InputError, match="No space left"):
        deploy(bundle, repository)
    after = content(repository)
    assert {name: after[name] for name in before} == before
    assert first is not (repository / "colour").exists()
    assert first is not (repository / "colour_encoded").exists()
    monkeypatch.undo()
    left = list((repository / "colour").glob("[0-9]*"))
    assert deploy(bundle, repository).version == len(left) + 1
    assert not [f for f in repository.rglob(".*") if f.is_dir()]


def test_on_a_full_disk_image_files_stay_with_the_version_that_is_served(bundle, repository, monkeypatch):
    """The switch of <name>_encoded is the last write that works, and it can't be undone: it also knows version 1."""
    deploy(bundle, repository)
    before, writes = content(repository), iter([atomic_write])
    monkeypatch.setattr(csg_serve.repository.versions, "atomic_write", lambda *a: next(writes, disk_full)(*a))
    with pytest.raises(InputError, match="No space left"):
        deploy(bundle, repository)
    after = content(repository)
    assert {name for name in before if after[name] != before[name]} == {Path("colour_encoded/config.pbtxt")}
    assert (repository / "colour_encoded" / "2" / "1" / "served.json").exists()


def test_what_a_killed_deployment_left_aside_is_removed(bundle, repository):
    deploy(bundle, repository)
    for remains in (repository / ".colour.abc", repository / "colour" / ".2.abc", repository / "colour_encoded/.1.a"):
        shutil.copytree(repository / "colour" / "1", remains)
    assert deploy(bundle, repository).version == 2
    assert sorted(f.name for f in repository.iterdir() if f.is_dir()) == ["colour", "colour_encoded"]
    assert sorted(f.name for f in (repository / "colour").iterdir() if f.is_dir()) == ["1", "2"]


def test_a_folder_that_is_no_bundle_is_named(tmp_path, repository):
    with pytest.raises(InputError, match="elsewhere"):
        deploy_command(tmp_path / "elsewhere", repository, name=None, version=None, options=DEFAULTS, as_json=False)
    assert not repository.exists()
