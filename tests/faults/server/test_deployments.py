"""A disk that is full, and deployments at once."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from csg_serve.client.client import Client
from tests.helpers.cli import csg, csg_process, refused
from tests.helpers.small_disk import content, right

pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_a_disk_that_is_full_at_a_deployment(served):
    """At ever other places on the way: what was there is there, byte for byte, and answers; until there is room."""
    if not served.mounted:
        pytest.skip("no disk can be mounted here")
    before, filler, refusals = content(served.repository), served.root / "disk" / "filler", 0
    deploy = ("deploy", served.bundle, "--repository", served.repository)
    for free in range(0, 800 * 1024, 48 * 1024):
        with filler.open("wb") as file:
            left = os.statvfs(file.fileno())
            os.posix_fallocate(file.fileno(), 0, left.f_bavail * left.f_frsize - free)
        done = csg(*deploy)
        filler.unlink()
        if done.returncode == 0:
            break
        refused(done, 3, "No space left on device; nothing was deployed")
        refusals += 1
        found, hidden = content(served.repository)
        assert {name: found[name] for name in before[0]} == before[0]
        assert hidden == before[1]
        assert right(served)
    assert refusals >= 3
    assert done.returncode == 0, "with as much room as it needs"
    assert Client(served.grpc, "colour").card().name == "colour"
    assert right(served)


def test_deployments_at_once(served):
    """Of one model and of another, in processes of their own: all land, and the later one of the same is served."""
    names = ["colour", "colour", "other"]

    def deploy(name):
        options = ("--name", name, "--repository", served.repository, "--json")
        return csg_process("deploy", served.bundle, *options, *(() if name == "colour" else ("--no-encoded",)))

    with ThreadPoolExecutor(len(names)) as pool:
        done = list(pool.map(deploy, names))
    assert [one.returncode for one in done] == [0] * len(names), [one.stderr for one in done]
    deployed = [(json.loads(one.stdout)["model"], json.loads(one.stdout)["version"]) for one in done]
    newest = max(version for model, version in deployed if model == "colour")
    assert len(set(deployed)) == len(names)
    shown = json.loads(csg("models", "--server", served.grpc, "--json").stdout)["models"]
    ready = {(one["model"], one["version"]) for one in shown if one["state"] == "READY"}
    assert ready == {("colour", newest), ("colour_encoded", newest), ("other", 1)}
    assert not content(served.repository)[1]
    assert right(served)
