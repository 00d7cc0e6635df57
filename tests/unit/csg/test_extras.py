"""The command that adds an extra names where csg came from: PyPI's package of this name is another project."""

import json
import re
import shutil
import subprocess
import sys

import pytest

import csg
from csg.extras import SOURCES, install_command, requirement

HERE = "file:///opt/my%20wheels/csg-0.2.0-py3-none-any.whl"


@pytest.mark.parametrize(
    ("origin", "named"),
    [
        ({"url": HERE, "archive_info": {}}, "/opt/my wheels/csg-0.2.0-py3-none-any.whl[serve]"),
        ({"url": "file:///src/csg", "dir_info": {}}, "/src/csg[serve]"),
        ({"url": "https://me:secret@box/csg.whl", "archive_info": {}}, "csg[serve] @ https://box/csg.whl"),
        (
            {"url": "https://box/csg.git", "vcs_info": {"vcs": "git", "commit_id": "ab12"}},
            "csg[serve] @ git+https://box/csg.git@ab12",
        ),
        (None, "csg[serve]==0.2.0"),
    ],
)
def test_the_requirement_names_where_csg_came_from(origin, named):
    assert requirement("serve", origin, "0.2.0") == named


def test_nobody_is_told_to_install_the_package_of_that_name():
    files = [*SOURCES.glob("*.md"), *SOURCES.glob("docs/**/*.md"), *SOURCES.glob("csg*/**/*.py")]
    told = [file for file in files if re.search(r"pip install ['\"]?csg\b(?!-)", file.read_text())]
    assert files and not told


def test_a_checkout_installs_itself():
    assert install_command("serve") == f"pip install -e '{SOURCES}[serve]'"


def test_an_installed_csg_names_its_wheel(tmp_path):
    shutil.copytree(SOURCES / "csg", tmp_path / "csg", ignore=shutil.ignore_patterns("__pycache__"))
    record = tmp_path / f"csg-{csg.__version__}.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: csg\nVersion: {csg.__version__}\n")
    (record / "direct_url.json").write_text(json.dumps({"url": HERE, "archive_info": {}}))
    code = "from csg.extras import install_command; print(install_command('serve'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True)
    assert done.stdout == "pip install '/opt/my wheels/csg-0.2.0-py3-none-any.whl[serve]'\n", done.stderr
