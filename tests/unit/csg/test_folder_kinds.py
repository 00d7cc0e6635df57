"""A folder of another kind than the command needs: one line says what it is."""

import pytest

from tests.helpers.cli import csg, refused
from tests.helpers.tiny_bundle import write_colour_bundle


@pytest.fixture
def folders(tmp_path):
    write_colour_bundle(tmp_path / "bundle")
    for kind, file in (("run", "recipe.yaml"), ("comparison", "plan.json"), ("evaluation", "evaluation.json")):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / file).write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("export", "nothere"), "there is no folder nothere; check the path"),
        (("export", "file"), "file is a file, not the folder of a run"),
        (("export", "empty"), "empty is not a run; it has no recipe.yaml"),
        (("export", "bundle"), "bundle is a bundle, not a run; deploy it with `csg deploy bundle`"),
        (("export", "comparison"), "comparison is a comparison, not a run; its runs are in comparison/runs/"),
        (("embed", "evaluation"), "evaluation is an evaluation, not a run"),
        (("train", "cls", "--resume", "--out", "bundle"), "bundle is a bundle, not a run"),
        (("deploy", "nothere"), "there is no folder nothere"),
        (("deploy", "run"), "run is a run, not a bundle; export it with `csg export run`"),
        (("deploy", "empty"), "empty is not a bundle; it has no card.json"),
        (("export", "inspect", "file"), "file is a file, not the folder of a bundle"),
    ],
)
def test_a_wrong_folder_is_called_by_its_kind(folders, args, says):
    refused(csg(*args), 3, says)


def test_the_usage_line_of_export_is_what_a_user_types():
    assert "Usage: csg export [OPTIONS] [run]" in csg("export", "--help").stdout
    done = csg("export", "--nothing")
    assert done.returncode == 2
    assert "Try 'csg export -h' for help" in done.stderr
