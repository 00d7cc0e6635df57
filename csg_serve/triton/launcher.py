"""The tritonserver of this machine in the layout of NVIDIA's image, for images of one's own.

    python -m csg_serve.triton.launcher /opt/tritonserver

<folder>/bin/tritonserver       starts it with the environment that it needs
<folder>/backends, caches       links to its backends and caches, where Triton looks for them
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from csg_serve.triton.executable import find_triton


def write_launcher(folder: Path) -> Path:
    """Write the launcher of the tritonserver that `find_triton` finds, and the links beside it.

    Args:
        folder: where; /opt/tritonserver in an image, so that Triton finds its backends by itself.

    Returns:
        The launcher.

    Raises:
        ServerError: there is no tritonserver.
    """
    triton = find_triton()
    variables = [f"{name}={value}" for name, value in triton.environment.items() if os.environ.get(name) != value]
    launcher = folder / "bin" / "tritonserver"
    launcher.parent.mkdir(parents=True)
    words = ["exec", "env", *map(shlex.quote, [*variables, str(triton.executable)]), '"$@"']
    launcher.write_text(f"#!/bin/sh\n{' '.join(words)}\n")
    launcher.chmod(0o755)
    home = triton.executable.parent.parent
    for name, target in {"backends": triton.backends, "caches": home / "caches"}.items():
        if target and target.is_dir():
            (folder / name).symlink_to(target)
    return launcher


if __name__ == "__main__":
    print(write_launcher(Path(sys.argv[1])))
