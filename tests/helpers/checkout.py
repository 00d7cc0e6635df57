"""What lies in the checkout, so that a session of tests can show that it left nothing there."""

import os
from pathlib import Path


def listing(root):
    """Every file and folder below `root`, but for hidden ones (.git, .venv, caches of tools) and compiled modules."""
    found = set()
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        if not folder.endswith(".egg-info"):
            found |= {Path(folder, name).relative_to(root) for name in (*folders, *files) if not name.startswith(".")}
    return found
