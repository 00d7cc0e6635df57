"""`csg push` against a small Hub of our own: what arrives, what is refused, and what comes back."""

import socket

import pytest

from csg.bundle import read_bundle, write_bundle
from csg_export.readme import ReadmeFacts, readme
from tests.helpers.cli import csg, refused
from tests.helpers.small_hub import TOKEN, small_hub
from tests.helpers.tiny_bundle import write_colour_bundle
from tests.unit.csg_cli.test_missing_extras import csg_without

constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra hub")


@pytest.fixture
def hub(monkeypatch):
    with small_hub() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        template = running.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


@pytest.fixture
def bundle(tmp_path):
    plain = write_colour_bundle(tmp_path / "plain")
    text = readme(plain.card, ReadmeFacts("Trained on colours"))
    return write_bundle(
        tmp_path / "bundle", plain.card, {"model.onnx": plain.model.read_bytes()}, plain.golden, readme=text
    )


def contents(bundle):
    return {file.name: file.read_bytes() for file in bundle.files}


def test_a_bundle_arrives_whole_in_one_commit_and_comes_back(hub, bundle, tmp_path):
    (bundle.path / ".gitattributes").write_text("mine")
    (bundle.path / ".cache").mkdir()
    done = csg("push", bundle.path, "--hub", "me/colour", "--private")
    assert (done.returncode, done.stdout) == (0, f"{hub.address}/me/colour\n"), done.stderr
    assert hub.private == {"me/colour"}
    (commit,) = hub.commits
    assert {line["value"]["path"] for line in commit if line["key"] != "header"} == set(contents(bundle))
    assert {k: v for k, v in hub.repositories["me/colour"].items() if k != ".gitattributes"} == contents(bundle)
    assert TOKEN not in done.stdout + done.stderr
    assert "states no licence" in done.stderr

    from huggingface_hub import snapshot_download

    snapshot_download("me/colour", local_dir=tmp_path / "back")
    assert {".gitattributes", ".cache"} <= {one.name for one in (tmp_path / "back").iterdir()}
    assert contents(read_bundle(tmp_path / "back")) == contents(bundle)
    cached = snapshot_download("me/colour", cache_dir=tmp_path / "cache")
    refused(csg("export", "inspect", cached), 3, "in the cache of Hugging Face; copy the bundle")


def test_another_bundle_takes_the_place_of_the_first(hub, bundle, tmp_path):
    old = {"model.onnx.data": b"weights", "model.onnx": b"old", "README.md": b"old", ".gitattributes": b""}
    hub.repositories["me/colour"] = old
    done = csg("push", bundle.path, "--hub", "colour", "--json")
    assert done.returncode == 0, done.stderr
    assert set(hub.repositories["me/colour"]) == {*contents(bundle), ".gitattributes"}


@pytest.mark.parametrize(
    ("refuse", "code", "said"),
    [
        ({"/api/models": 401}, 4, "does not accept the token .*hf auth login"),
        ({"/api/repos/create": 403}, 4, "does not let this account write"),
        ({"/api/models/me/colour/commit": 403}, 4, "does not let this account write"),
        ({"/api/models/me/colour/commit": 412}, 4, "has a newer commit"),
        ({"/api/models/me/colour/preupload": 400}, 4, r"answers 400: .*\*\*\*"),
        ({"/api/repos/create": 409}, 4, "has such a repository already"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub, bundle, refuse, code, said):
    hub.refuse = refuse
    done = csg("push", bundle.path, "--hub", "me/colour")
    lines = done.stderr.splitlines()
    assert done.returncode == code
    refused(type(done)(code, done.stdout, lines[-1]), code, said)
    assert TOKEN not in done.stderr
    assert not hub.commits


def test_a_repository_with_something_else_is_left_alone(hub, bundle):
    hub.repositories["me/data"] = {"train.csv": b"", "a/b.py": b"", "README.md": b""}
    refused(csg("push", bundle.path, "--hub", "me/data"), 3, "not of a bundle: a/b.py and 1 more; name another")
    hub.repositories["me/open"] = {}
    done = csg("push", bundle.path, "--hub", "me/open", "--private")
    refused(done, 2, "is public already")
    assert not hub.commits


@pytest.mark.parametrize("name", ["a/b/c", "-x/y", "me/..", "me/a b", "me/" + "x" * 100, "https://huggingface.co/me/x"])
def test_a_name_that_is_none_is_refused(bundle, name):
    refused(csg("push", bundle.path, f"--hub={name}"), 2, "is no name of a repository")


def test_a_bundle_is_verified_before_anything_is_sent(hub, bundle):
    bundle.labels.write_bytes(b"red\ngreen\nblau\n")
    refused(csg("push", bundle.path, "--hub", "me/colour"), 5, r"labels\.txt does not match")
    assert not hub.repositories


def test_without_token_or_network_it_says_so(hub, bundle, monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    done = csg("push", bundle.path, "--hub", "me/colour")
    refused(done, 4, f"http://127.0.0.1:{port} can't be reached")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    refused(csg("push", bundle.path, "--hub", "me/colour"), 3, "there is no token for Hugging Face; log in")


def test_it_needs_the_extra_hub_and_no_torch(bundle):
    refused(csg_without("huggingface_hub", "push", bundle.path, "--hub", "a/b"), 2, r"csg push needs .*\[hub\]")
    done = csg_without("torch", "push", bundle.path, "--hub", "a/b/c")
    refused(done, 2, "is no name of a repository")
