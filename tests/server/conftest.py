"""What the tests with a real Triton share."""

import pytest

from tests.helpers.tiny_bundle import write_colour_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A classifier of solid colours."""
    return write_colour_bundle(tmp_path_factory.mktemp("bundles") / "colour")
