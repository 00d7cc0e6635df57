"""`csg deploy --mode`: what a server of another user can read."""

import os
import stat

import pytest

from csg_serve.repository.modes import set_modes
from tests.helpers.cli import csg, refused


@pytest.fixture
def private():
    """A umask as careful people have."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def modes(repository):
    """Permissions of the repository and all in it: of folders, and of files; the lock file excepted."""
    paths = [path for path in (repository, *repository.rglob("*")) if not path.name.endswith(".lock")]
    permissions = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    return tuple({mode for path, mode in permissions.items() if path.is_dir() == folder} for folder in (True, False))


@pytest.mark.parametrize(
    ("mode", "folders", "files"), [("644", 0o755, 0o644), ("0640", 0o750, 0o640), ("664", 0o775, 0o664)]
)
def test_everything_that_is_written_has_the_mode(bundle, repository, private, mode, folders, files):
    for command in (["deploy", bundle.path], ["deploy", bundle.path], ["deploy", "--rollback"]):
        done = csg(*command, "--repository", repository, "--mode", mode)
        assert done.returncode == 0, done.stderr
        assert modes(repository) == ({folders}, {files})
        assert os.umask(0o077) == 0o077


def test_a_repository_that_was_closed_is_opened(bundle, repository, private):
    assert csg("deploy", bundle.path, "--repository", repository).returncode == 0
    assert stat.S_IMODE((repository / "colour" / "1" / "model.onnx").stat().st_mode) == 0o600
    assert csg("deploy", bundle.path, "--repository", repository, "--mode", "644").returncode == 0
    assert modes(repository) == ({0o755}, {0o644})


@pytest.mark.parametrize("mode", ["readable", "444", "0o644", "8", "1644", "-644"])
def test_a_mode_that_is_none_is_refused_before_anything_is_written(bundle, repository, mode):
    done = csg("deploy", bundle.path, "--repository", repository, f"--mode={mode}")
    refused(done, 2, "is not the mode of a file")
    assert not repository.exists()


def test_a_shared_folder_keeps_its_group_and_links_are_left_alone(bundle, repository, tmp_path, private):
    """As a volume whose folders belong to a group (setgid)."""
    repository.mkdir()
    repository.chmod(0o2770)
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "elsewhere").chmod(0o600)
    assert csg("deploy", bundle.path, "--repository", repository, "--mode", "640").returncode == 0
    (repository / "colour" / "link").symlink_to(tmp_path / "elsewhere")
    assert csg("deploy", bundle.path, "--repository", repository, "--mode", "644").returncode == 0
    assert stat.S_IMODE(repository.stat().st_mode) == 0o2775
    assert stat.S_IMODE((repository / "colour" / "2").stat().st_mode) & 0o777 == 0o755
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_files_of_another_user_are_left_alone(tmp_path, monkeypatch):
    folder = tmp_path / "colour"
    (folder / "1").mkdir(parents=True)
    for path in (folder, folder / "1"):
        path.chmod(0o777)
    os.chown(folder / "1", 1000, 1000)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    set_modes(0o644, folder)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "1")] == [0o777, 0o755]
