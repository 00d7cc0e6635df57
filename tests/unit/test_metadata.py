"""What the repository says about itself: one version, valid forms and workflows, every dependency explained."""

import re
import tomllib
from pathlib import Path

import check_jsonschema
import pytest
import yaml
from click.testing import CliRunner

import csg

ROOT = Path(__file__).parents[2]
FORMS = {
    "vendor.citation-file-format": ["CITATION.cff"],
    "vendor.github-issue-forms": [".github/ISSUE_TEMPLATE/*.yml"],
    "vendor.github-workflows": [".github/workflows/*.yml"],
}


def test_one_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## \[(.+)\] - (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert (cited["version"], str(cited["date-released"])) == newest.groups()
    assert csg.__version__ == cited["version"]


@pytest.mark.parametrize("schema", FORMS)
def test_files_follow_their_schema(schema):
    files = [str(path) for pattern in FORMS[schema] for path in ROOT.glob(pattern)]
    assert files
    done = CliRunner().invoke(check_jsonschema.main, ["--builtin-schema", schema, "--force-filetype", "yaml", *files])
    assert done.exit_code == 0, done.output


def test_contributing_explains_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    names = {re.match(r"[\w.-]+", requirement).group() for requirement in wanted}
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    explained = {word.rstrip("*") for row in rows for word in re.split(r"[ ,]+", row)}
    missing = {n for n in names if n not in explained and f"{n.split('-')[0]}-" not in explained} - {"csg"}
    assert missing == set()
