"""A bundle of every precision has the same figures in this process as through a real Triton."""

import pytest

from csg_export.export import export
from csg_export.options import ExportOptions
from tests.helpers.evaluations import check_same_figures
from tests.helpers.noise_sets import students, write_noise
from tests.helpers.served import deploy, serving

pytestmark = [pytest.mark.server, pytest.mark.slow]

NAMES = ("cls-int8", "cls-bf16", "cls-fp16", "seg-int8", "seg-fp16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise, a bundle for each of NAMES, and a repository with them."""
    root = tmp_path_factory.mktemp("bundles")
    for task, (source, _) in students().items():
        write_noise(root / "noise" / task, source.task)
        for name in (name for name in NAMES if name.startswith(task)):
            export(source, ExportOptions(name.partition("-")[2], tolerance=1), root / name)
            deploy(root / name, root / "repository", "--no-encoded", "--instances", 1, "--name", name)
    return root


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder / "repository") as state:
        yield state["grpc"]


@pytest.mark.parametrize("name", NAMES)
def test_figures_and_answers_are_those_of_the_server(folder, server, name):
    check_same_figures(folder / name, server, folder / "noise" / name.partition("-")[0])
