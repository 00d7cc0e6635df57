"""Deployment without a server: configuration, versions, and that nothing half-written is ever served."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest

import csg.images
import csg_serve.repository.deploy
import csg_serve.repository.versions
import csg_serve.triton.deploy_options
from csg.bundle import Bundle, write_bundle
from csg.card import parse_card
from csg.errors import InputError, UsageError, VerificationError
from csg.files import atomic_write
from csg_serve.repository.deploy import deploy, deploy_command, roll_back
from csg_serve.repository.encoded_model import CSG_FILES
from csg_serve.triton.deploy_options import DEFAULTS, DeployOptions
from tests.helpers.repositories import planned, served_config
from tests.helpers.tiny_bundle import write_echo_bundle


def content(folder):
    return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file() and "lock" not in f.name}


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
    assert served_config(repository, "shades_encoded").input[0].name == "encoded"
    assert served_config(repository, "shades_encoded").parameters["csg_encoded_for"].string_value == "shades"
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
    assert served_config(repository, "shades_encoded").max_batch_size == 5


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
    assert list(served_config(repository).version_policy.specific.versions) == [3]
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
    assert served_config(repository, "plain").backend == "onnxruntime"


def test_a_plan_is_deployed_where_the_bundle_has_one(bundle, repository, tmp_path):
    with pytest.raises(InputError, match="holds no TensorRT plan"):
        deploy(bundle, repository, None, "tensorrt")
    models = {"model.onnx": bundle.model.read_bytes(), "model.plan": b"a plan"}
    deploy(write_bundle(tmp_path / "planned", planned(bundle.card), models), repository, None, "tensorrt")
    config = served_config(repository)
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
