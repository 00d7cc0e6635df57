"""A bundle and a repository for tests of deployment, without a server."""

import pytest

from tests.helpers.tiny_bundle import write_colour_bundle


@pytest.fixture
def bundle(tmp_path):
    return write_colour_bundle(tmp_path / "bundles" / "colour")


@pytest.fixture
def repository(tmp_path):
    return tmp_path / "model_repository"
