"""The code of a documentation page, for tests that take its steps."""

import re
import shlex

from tests.conftest import ROOT


def blocks(page, language):
    """The fenced blocks of a page in docs/, in order, of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.M | re.S)


def commands(page):
    """The csg commands of a page, each as a list of arguments without `csg`."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("csg ")]
