"""A model that loads, is fast and answers wrongly: no command calls it live, and what was live stays live."""

import json
import re
import time

import pytest
from PIL import Image

from csg_serve.client.client import Client
from csg_serve.repository import encoded_model
from csg_serve.triton.failures import why_failed
from tests.helpers.cli import FREE_PORTS, csg, csg_process, refused
from tests.helpers.image_files import encoded
from tests.helpers.lying_backend import LIES, lying
from tests.helpers.served import deploy, processes_of, serving
from tests.helpers.tiny_bundle import write_colour_bundle
from tests.server.test_encoded import answer

pytestmark = pytest.mark.server

RED = Image.new("RGB", (40, 40), (250, 9, 3))
QUICK = ("--no-warm-up", "--instances", 1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_colour_bundle(tmp_path_factory.mktemp("bundles") / "colour")


@pytest.fixture(scope="module")
def flag(tmp_path_factory):
    path = tmp_path_factory.mktemp("flag") / "lie"
    path.touch()
    return path


@pytest.fixture(scope="module", params=["explicit", pytest.param("poll", marks=pytest.mark.slow)])
def server(request, bundle, tmp_path_factory):
    """A server with the model colour and its twin; its repository and addresses."""
    repository = tmp_path_factory.mktemp(request.param) / "repository"
    deploy(bundle.path, repository, *QUICK)
    with serving(repository, "--control", request.param) as state:
        yield repository, state


def is_right(state, version):
    """Whether both models answer for red images, and the tensor model as this version."""
    from tritonclient.grpc import InferenceServerClient

    with InferenceServerClient(state["grpc"]) as client:
        by_file = answer(client, [encoded(RED)], "colour_encoded")["logits"].argmax()
        ready = client.is_model_ready("colour", str(version))
    return (Client(state["grpc"], "colour").predict(RED).label, by_file, ready) == ("red", 0, True)


@pytest.mark.parametrize("lie", ["zeros", pytest.param("the answer before", marks=pytest.mark.slow)])
def test_a_version_that_lies_is_undone(server, bundle, flag, lie):
    repository, state = server
    with lying(LIES[lie], flag):
        done = csg("deploy", bundle.path, "--repository", repository, *QUICK)
    refused(done, 5, "colour version .* answers wrongly", "previous version stays live")
    assert is_right(state, 1)
    version = max(int(folder.name) for folder in (repository / "colour").glob("[0-9]*"))
    assert "answers wrongly" in why_failed(repository / "colour", version)


@pytest.mark.slow
def test_a_new_model_that_lies_is_removed(server, bundle, flag):
    repository, state = server
    with lying("means * 0", flag):
        done = csg("deploy", bundle.path, "--name", "fresh", "--repository", repository, *QUICK)
    refused(done, 5, "fresh version 1 answers wrongly")
    assert not list(repository.glob("fresh*"))
    deadline = time.monotonic() + 120
    while "fresh" in csg("models", "--verify", "--server", state["grpc"]).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_a_twin_with_another_preprocessing_is_undone(server, bundle, monkeypatch):
    """The tensor model is right; image files get their channels swapped."""
    repository, state = server
    write = encoded_model.write_preprocessing

    def swapped(folder, *arguments, **options):
        write(folder, *arguments, **options)
        images = folder / "csg" / "images.py"
        images.write_text(images.read_text() + "\n_load = load\n\n\ndef load(*a):\n    return _load(*a)[..., ::-1]\n")

    monkeypatch.setattr("csg_serve.repository.deploy.write_preprocessing", swapped)
    done = csg("deploy", bundle.path, "--repository", repository, *QUICK)
    refused(done, 5, "colour_encoded version .* answers wrongly")
    assert is_right(state, 1)


@pytest.mark.slow
def test_a_server_whose_model_lies_does_not_start_and_the_rollback_passes_it_over(bundle, flag, tmp_path):
    repository = tmp_path / "repository"
    deploy(bundle.path, repository, *QUICK)
    with lying("np.roll(means, 1, 1)", flag):
        deploy(bundle.path, repository, *QUICK)
    done = csg_process("serve", "--detach", "--repository", repository, *FREE_PORTS)
    refused(done, 5, "colour version 2 answers wrongly: a logit of noise")
    assert not processes_of(repository)
    deploy(bundle.path, repository, *QUICK)
    done = csg("deploy", "--rollback", "--repository", repository, "--json")
    assert (done.returncode, json.loads(done.stdout)["version"]) == (0, 1), done.stderr


@pytest.mark.slow
def test_models_verify_says_who_lies(server, bundle, flag):
    repository, state = server
    flag.unlink()
    with lying("means[:, ::-1]", flag):
        deploy(bundle.path, repository, *QUICK)
    try:
        for address in (state["grpc"], f"http://{state['http']}"):
            done = csg("models", "--verify", "--json", "--server", address)
            assert {one["state"] for one in json.loads(done.stdout)["models"]} == {"verified"}
            flag.touch()
            done = csg("models", "--verify", "--json", "--server", address)
            assert done.returncode == 5
            assert {one["state"] for one in json.loads(done.stdout)["models"]} == {"wrong"}
            flag.unlink()
    finally:
        flag.touch()
        csg("deploy", "--rollback", "--repository", repository)
    assert is_right(state, 1)


@pytest.mark.slow
@pytest.mark.parametrize("control", ["poll", "explicit"])
def test_the_watchdog_finds_models_that_begin_to_lie(bundle, tmp_path, control):
    """They are loaded again. One that still lies is taken out: its requests fail then."""
    repository = tmp_path / "repository"
    for name, heals in (("colour", True), ("lost", False)):
        with lying("np.roll(means, 1, 1)", tmp_path / name, heals=heals):
            deploy(bundle.path, repository, "--name", name, *QUICK)
    with serving(repository, "--control", control) as state:
        for name in ("colour", "lost"):
            (tmp_path / name).touch()
        log = repository / ".csg-serve.log"
        deadline = time.monotonic() + 120
        for said in ("colour .*answers as PyTorch again", "unloading lost|lost is taken out"):
            while not re.search(f"csg: .*({said})", log.read_text()):
                assert time.monotonic() < deadline, said
                time.sleep(0.5)
        text = log.read_text()
        for name in ("colour", "lost"):
            assert text.index(f"{name} version 1 answers wrongly") < text.index(f"csg: loading {name} again")
        assert is_right(state, 1)
        done = csg("models", "--verify", "--model", "lost", "--server", state["grpc"])
        refused(done, 4, "lost") if control == "explicit" else None
        assert done.returncode == 4
        time.sleep(3)
        assert "died; loading" not in log.read_text()
