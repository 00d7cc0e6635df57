"""`csg serve --prepare`: create the server's environment, and start nothing."""

from __future__ import annotations

from pathlib import Path

from csg.console import print_json, show_line
from csg_serve.server.serve import end_on_signals
from csg_serve.triton.config import needs_openvino
from csg_serve.triton.executable import find_triton


def prepare_command(repository: Path, as_json: bool) -> None:
    """Run `csg serve --prepare`, so that `csg serve` starts at once, and without a network.

    Args:
        repository: need not exist; a model in it that needs OpenVINO brings OpenVINO into the environment.
        as_json: print the result as a JSON object.

    Raises:
        InputError, ServerError, OSError: as `csg_serve.triton.environment.server_environment`.
    """
    end_on_signals()
    triton = find_triton(needs_openvino(repository))
    if as_json:
        print_json({"tritonserver": str(triton.executable)})
    else:
        show_line(f"`csg serve` starts {triton.executable}")
