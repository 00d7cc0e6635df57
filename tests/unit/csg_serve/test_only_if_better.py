"""`csg deploy --only-if-better`: a bundle goes live if it is shown to be better than what is live, or nothing does."""

import asyncio

import pytest

import csg as csg_package
from csg.errors import UsageError, VerificationError
from tests.helpers.cli import csg, refused
from tests.helpers.image_files import colour_folders
from tests.helpers.repositories import content
from tests.helpers.tiny_bundle import write_worse_bundle


@pytest.fixture
def data(tmp_path):
    return colour_folders(tmp_path / "data", 8)


def deployed(bundle, repository, *options):
    return csg("deploy", bundle.path, "--repository", repository, *options, cwd=repository.parent)


@pytest.fixture
def worse(tmp_path):
    return write_worse_bundle(tmp_path / "bundles" / "worse")


def test_a_better_bundle_goes_live_and_a_worse_one_leaves_everything_as_it_is(bundle, worse, repository, data):
    better = ("--only-if-better", "--data", data)
    first = deployed(worse, repository, *better)
    assert first.returncode == 0
    assert "colour has no version to compare with: the first one is deployed without a comparison" in first.stderr
    second = deployed(bundle, repository, *better)
    assert second.returncode == 0, second.stderr
    assert "better than version 1: mean class accuracy 33.33%, then 100.00%: +66.67 points (" in second.stderr
    before = content(repository)
    for candidate in (worse, bundle):  # equal is not better
        what = rf"{candidate.path} is not shown to be better than version 2 of colour, which stays live: mean class"
        refused(deployed(candidate, repository, *better), 5, what, "on 24 images")
        assert content(repository) == before
        assert sorted(f.name for f in (repository / "colour").glob("[0-9]*")) == ["1", "2"]
    assert deployed(worse, repository).returncode == 0  # without the option anything goes live


def test_images_that_cant_be_used_change_nothing(bundle, repository, data):
    deployed(bundle, repository)
    before = content(repository)
    nowhere = deployed(bundle, repository, "--only-if-better", "--data", data / "nowhere")
    refused(nowhere, 3, "nowhere does not exist")
    (data / "red" / "0.png").write_bytes(b"broken")
    refused(deployed(bundle, repository, "--only-if-better", "--data", data), 3, "red/0.png")
    assert content(repository) == before


def test_a_live_version_without_a_graph_is_compared_through_its_server(bundle, repository, data):
    deployed(bundle, repository)
    (repository / "colour" / "1" / "model.onnx").rename(repository / "colour" / "1" / "model.plan")
    done = deployed(bundle, repository, "--only-if-better", "--data", data)
    refused(done, 3, r"version 1 of colour has no model\.onnx", "csg evaluate --against")


def test_the_comparison_needs_images_and_images_a_comparison(bundle, repository):
    refused(deployed(bundle, repository, "--only-if-better"), 2, "--only-if-better needs --data")
    refused(deployed(bundle, repository, "--data", "digits"), 2, "--data needs --only-if-better")
    refused(deployed(bundle, repository, "--rollback", "--only-if-better"), 2, "can't be combined")


def test_in_python_too_also_where_an_event_loop_runs(bundle, worse, repository, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert csg_package.deploy(worse, repository, only_if_better_on=data).version == 1

    async def in_a_notebook():
        return csg_package.deploy(bundle, repository, only_if_better_on=data)

    assert asyncio.run(in_a_notebook()).version == 2
    before = content(repository)
    with pytest.raises(VerificationError, match="is not shown to be better than version 2 of colour"):
        csg_package.deploy(worse, repository, only_if_better_on=[data])
    with pytest.raises(UsageError, match="only_if_better_on names no images"):
        csg_package.deploy(worse, repository, only_if_better_on=[])
    assert content(repository) == before
