"""What `csg models` counts: what clients asked, without Triton's warm-up."""

import json

import numpy as np
import pytest

from csg_serve.client.client import Client
from tests.helpers.cli import csg
from tests.helpers.plain_triton import triton
from tests.helpers.served import deploy
from tests.helpers.tiny_bundle import write_colour_bundle


@pytest.mark.server
@pytest.mark.slow
def test_a_warm_up_is_no_traffic(tmp_path):
    """Of two instances, each with a warm-up of 1 and of 32 images; nobody else asks a plain Triton."""
    bundle, repository = write_colour_bundle(tmp_path / "bundle"), tmp_path / "repository"
    deploy(bundle.path, repository, "--no-encoded", "--instances", 2)
    with triton(repository) as (http, grpc):

        def counted(address):
            (entry,) = json.loads(csg("models", "--server", address, "--json").stdout)["models"]
            assert entry["warm_up_images"] == 66
            return [entry[name] for name in ("images", "requests", "executions")]

        assert counted(grpc) == counted(f"http://{http}") == [0, 0, 0]
        with Client(grpc) as client:
            for _ in range(3):
                list(client.predict([np.zeros((40, 40, 3), np.uint8)]))
        assert counted(grpc) == [3, 3, 3]
