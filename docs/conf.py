"""Sphinx: Markdown pages (MyST), the API from docstrings, and reference pages generated before each build."""

from __future__ import annotations

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

os.environ["TYPER_USE_RICH"] = "0"  # plain help texts

import csg  # noqa: E402

project = "csg"
author = "csg maintainers"
copyright = "csg maintainers, Apache-2.0"
version = release = csg.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "generate_reference",
]
exclude_patterns = ["_build"]
default_role = "code"

myst_heading_anchors = 3
myst_links_external_new_tab = True
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_mock_imports = ["mlflow", "ray", "trackio", "triton_python_backend_utils", "wandb"]
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": "model_config"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"csg {release}"
html_theme_options = {"navigation_with_keys": True}


def setup(app):
    """The tables that `csg compare` writes have no title; a page needs one."""
    app.connect("source-read", add_title)


def add_title(app, page, source):
    """Name the comparison above its table."""
    if page.startswith("results/") and page.endswith("/table"):
        source[0] = f"---\norphan: true\n---\n\n# Comparison {page.split('/')[1]}\n\n{source[0]}"
