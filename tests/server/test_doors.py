"""What a stranger's request can do to a server that `csg serve` started, and what its user's own clients still can."""

import asyncio
import json
import urllib.error
import urllib.request
from contextlib import AsyncExitStack

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from csg_serve.client.connection import open_model
from csg_serve.server.state import SECRET
from tests.helpers.cli import csg
from tests.helpers.client import regions
from tests.helpers.served import serving

pytestmark = pytest.mark.server

PIXELS = np.zeros((2, 32, 32, 3), np.uint8)
SCRIPT = {"parameters": {"config": '{"backend": "python"}', "file:1/model.py": "aW1wb3J0IG9zCg=="}}
REGION = {"key": "/anything", "offset": 0, "byte_size": 64}
POSTS = {
    "repository/index": {},
    "repository/models/colour/load": {},
    "repository/models/new/load": SCRIPT,
    "repository/models/colour/unload": {},
    "systemsharedmemory/region/mine/register": REGION,
    "systemsharedmemory/unregister": {},
    "cudasharedmemory/region/mine/register": {"raw_handle": {"b64": "AAAA"}, "device_id": 0, "byte_size": 64},
    "trace/setting": {"trace_level": ["TIMESTAMPS"]},
    "models/colour/trace/setting": {"trace_rate": "1"},
    "logging": {"log_verbose_level": 1},
}
CALLS = {
    "get_model_repository_index": (),
    "load_model": ("colour",),
    "unload_model": ("colour",),
    "register_system_shared_memory": ("mine", "/anything", 64),
    "unregister_system_shared_memory": (),
    "register_cuda_shared_memory": ("mine", b"AAAA", 0, 64),
    "update_trace_settings": ("colour", {"trace_rate": "1"}),
    "get_trace_settings": (),
    "update_log_settings": ({"log_verbose_level": 1},),
    "get_log_settings": (),
}


@pytest.fixture(scope="module", params=[pytest.param("poll", marks=pytest.mark.slow), "explicit"])
def opened(request, bundle, tmp_path_factory):
    """The state of a server on loopback with the defaults, in each control mode."""
    repository = tmp_path_factory.mktemp(request.param) / "repository"
    assert csg("deploy", bundle.path, "--repository", repository, "--no-encoded", "--no-warm-up").returncode == 0
    with serving(repository, "--control", request.param) as state:
        yield state


@pytest.mark.parametrize("origin", ["https://example.org", "null", None])
def test_a_web_page_can_send_no_control_call(opened, origin):
    """A POST of text/plain, as a page sends it to another site without asking: "text/plain" needs no preflight."""
    for call, body in POSTS.items():
        headers = {"Content-Type": "text/plain"} | ({"Origin": origin} if origin else {})
        post = urllib.request.Request(f"http://{opened['http']}/v2/{call}", json.dumps(body).encode(), headers)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(post)
    assert urllib.request.urlopen(f"http://{opened['http']}/v2/models/colour/ready").status == 200


@pytest.mark.parametrize("headers", [None, {"triton-grpc-protocol-csg-secret": "generated-by-somebody"}])
def test_a_stranger_can_send_no_control_call_over_grpc(opened, headers):
    client = triton.InferenceServerClient(opened["grpc"])
    for call, arguments in CALLS.items():
        with pytest.raises(InferenceServerException, match="restricted"):
            getattr(client, call)(*arguments, headers=headers)
    assert client.is_model_ready("colour")


@pytest.mark.parametrize("address", ["{grpc}", "http://{http}", "localhost:{port}"])
def test_clients_of_the_same_user_share_memory_without_being_told_the_secret(opened, address):
    server = address.format(**opened, port=opened["grpc"].rpartition(":")[2])
    assert asyncio.run(used_regions(server))
    listed = csg("models", "--server", server, "--json")
    assert [one["state"] for one in json.loads(listed.stdout)["models"]] == ["READY"], listed.stderr
    assert not listed.stderr


async def used_regions(server):
    """The regions that a request of csg's client has left at the server for the next one."""
    async with open_model(server) as served:
        await served.infer(PIXELS, (3,))
        known = await served.pool.replicas[0].transport.call("get_system_shared_memory_status")
        return {path.name for path in regions()} & set(known.regions)


@pytest.mark.slow
def test_a_client_shares_memory_again_after_a_restart_with_another_secret(colour_repository):
    async def run():
        with serving(colour_repository) as state:
            stack = AsyncExitStack()
            served = await stack.enter_async_context(open_model(state["grpc"]))
            await served.infer(PIXELS, (3,))
            before = (colour_repository / SECRET).read_text()
        ports = [f"--{name}-port={state[name].rpartition(':')[2]}" for name in ("http", "grpc", "metrics")]
        with serving(colour_repository, *ports):
            assert (colour_repository / SECRET).read_text() != before
            await served.infer(PIXELS, (3,))
            replica = served.pool.replicas[0]
            known = await replica.transport.call("get_system_shared_memory_status")
            await stack.aclose()
            return known.regions

    assert asyncio.run(run())
