"""The model that takes image files, in the repository."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import csg.images
from csg.bundle import Bundle
from csg.card import parse_card
from csg.errors import InputError
from csg_serve.repository.deploy import deploy
from csg_serve.repository.encoded_model import CSG_FILES
from csg_serve.repository.rollback import roll_back
from csg_serve.triton.deploy_options import DeployOptions
from tests.helpers.repositories import content, served_config
from tests.helpers.tiny_bundle import write_echo_bundle


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
    deploy(bundle, repository, "shades", options=DeployOptions(backend="onnxruntime"))
    assert sorted(f.name for f in beside.glob("[0-9]*")) == ["2", "3"]
    assert sorted(f.name for f in (beside / "3").glob("[0-9]*")) == ["2", "3"]
    told = {version: json.loads((beside / "3" / version / "served.json").read_text()) for version in "23"}
    assert (told["2"]["max_batch_size"], told["3"]["max_batch_size"]) == (5, 8)
    assert parse_card(json.dumps(told["2"]["card"]), "here") == other.card
    assert (beside / "3" / "2" / "csg" / "images.py").read_bytes() == Path(csg.images.__file__).read_bytes()
    assert roll_back(repository, "shades", 2).encoded == "shades_encoded"
    assert sorted(f.name for f in (beside / "2").glob("[0-9]*")) == ["2", "3"]
    assert served_config(repository, "shades_encoded").max_batch_size == 5


def test_formats_are_kept_with_the_version(bundle, repository):
    deploy(bundle, repository)
    deploy(bundle, repository, options=DeployOptions(formats="PNG, gif,png"))
    files = [repository / "colour" / version / "preprocessing" / "served.json" for version in "12"]
    assert [json.loads(file.read_text())["formats"] for file in files] == [["JPEG", "PNG", "WEBP"], ["PNG", "GIF"]]


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
