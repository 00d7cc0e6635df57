"""What lies in a repository and is no model is named once and passed over."""

import json
import shutil

import pytest

from tests.helpers.cli import FREE_PORTS, csg, csg_process, refused

STRAY_FOLDERS = ("lost+found", "old", ".git", "my model", "a;b", "naïve", "colour.bak")


@pytest.fixture
def littered(colour_repository):
    """A repository with the model colour, and with what else people and programs leave in a folder."""
    for name in STRAY_FOLDERS:
        (colour_repository / name).mkdir(mode=0o700)
    for name in (".DS_Store", "notes.txt", "README.md"):
        (colour_repository / name).write_text("no model")
    (colour_repository / "without" / "1").mkdir(parents=True)
    shutil.copy(colour_repository / "colour" / "1" / "model.onnx", colour_repository / "without" / "1")
    shutil.copytree(colour_repository / "colour", colour_repository / "copied")
    (colour_repository / "linked").symlink_to("colour")
    return colour_repository


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("control", ["poll", "explicit"])
def test_strays_are_named_once_and_passed_over(littered, tmp_path, control):
    started = csg_process("serve", "--detach", "--json", "--repository", littered, *FREE_PORTS, "--control", control)
    assert started.returncode == 0, started.stderr
    try:
        (said,) = [line for line in started.stderr.splitlines() if "passed over" in line]
        strays = {*STRAY_FOLDERS, ".DS_Store", "notes.txt", "without", "copied", "linked"}
        assert set(said.partition("of that name: ")[2].split(", ")) == strays
        listed = csg("models", "--server", json.loads(started.stdout)["grpc"], "--json")
        assert listed.returncode == 0, listed.stderr
        assert "passed over" in listed.stderr
        assert '"model": "colour"' in listed.stdout
        assert '"lost+found"' not in listed.stdout
        deployed = csg("deploy", tmp_path / "bundle", "--repository", littered, "--no-encoded", "--no-warm-up")
        assert "live at" in deployed.stderr
        (littered / "dangling").symlink_to("/nowhere")
        refused(csg("deploy", tmp_path / "bundle", "--repository", littered, "--no-encoded"), 4, "dangling", "remove")
    finally:
        assert csg("serve", "--stop", "--repository", littered).returncode == 0
    printed = csg("serve", "--print-command", "--repository", littered, "--json")
    assert printed.returncode == 0, printed.stderr


@pytest.mark.slow
@pytest.mark.server
def test_a_model_whose_configuration_is_broken_is_an_error_and_strays_are_none(littered):
    (littered / "broken").mkdir()
    (littered / "broken" / "config.pbtxt").write_text("no: configuration {")
    done = csg_process("serve", "--detach", "--repository", littered, *FREE_PORTS)
    refused(done, 4, "model broken does not load")


@pytest.mark.parametrize("target", ["/nowhere", "dangling"])
def test_a_link_that_leads_nowhere_is_refused_at_once(littered, target):
    """Triton would read no model of the repository."""
    (littered / "dangling").symlink_to(target)
    refused(csg("serve", "--repository", littered), 3, "dangling", "remove it, or repair the link")


def test_a_repository_of_strays_alone_holds_no_model(tmp_path):
    for name in ("lost+found", ".git", "empty"):
        (tmp_path / "repository" / name).mkdir(parents=True)
    (tmp_path / "repository" / "notes.txt").touch()
    refused(csg("serve", "--repository", tmp_path / "repository"), 3, "no model in", "csg deploy")
    refused(csg("serve", "--repository", tmp_path / "nowhere"), 3, "no model in", "csg deploy")
    refused(csg("serve", "--repository", tmp_path / "repository" / "notes.txt"), 3, "no model in", "csg deploy")
