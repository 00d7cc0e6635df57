"""Golden answers through a connection: who lies is found out, who has too much to do is not taken for a liar."""

import asyncio

import grpc
import numpy as np
import pytest

from csg.errors import ServerError, VerificationError
from csg_serve.client.connection import connected
from csg_serve.client.endpoints import Servers
from csg_serve.verify.verify import Effort, check, verify_server
from tests.helpers.cli import csg, refused
from tests.helpers.small_server import SmallServer, in_a_process, running
from tests.helpers.tiny_bundle import graph_golden, tiny_card, write_colour_bundle


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    bundle = write_colour_bundle(tmp_path_factory.mktemp("golden") / "bundle")
    return graph_golden(tiny_card(), bundle.model.read_bytes())


def means(pixels):
    return pixels.mean((1, 2), dtype=np.float32)


class Late:
    """The answer to the request before."""

    def __init__(self):
        self.before = np.zeros((1, 3), np.float32)

    def __call__(self, pixels):
        answer, self.before = self.before, means(pixels)
        return np.resize(answer, (len(pixels), 3))


LIES = {
    "zeros": lambda pixels: means(pixels) * 0,
    "a constant": lambda pixels: np.tile(np.array([127, 126, 128], np.float32), (len(pixels), 1)),
    "shifted by a class": lambda pixels: np.roll(means(pixels), 1, 1),
    "not a number": lambda pixels: means(pixels) * np.float32(np.nan),
    "infinite": lambda pixels: means(pixels) + np.float32(np.inf),
    "swapped channels": lambda pixels: means(pixels[..., ::-1]),
    "the answer before": Late(),
    "right for one image only": lambda pixels: means(pixels) * (len(pixels) == 1),
    "wrong for the largest batch": lambda pixels: means(pixels) * (len(pixels) < 4),
    "the images of a batch mixed up": lambda pixels: means(pixels)[::-1],
    "the first of a batch for all": lambda pixels: np.tile(means(pixels)[:1], (len(pixels), 1)),
    "another number of classes": lambda pixels: np.concatenate([means(pixels)] * 2, 1),
    "fewer answers than images": lambda pixels: means(pixels)[:1],
    "a little off": lambda pixels: means(pixels) + np.float32(2e-3),
}


def ask(server, effort=None):
    async def verified():
        async with running(server):
            servers = Servers((server.address,))
            async with connected(servers.addresses[0], servers) as transport:
                return await verify_server(transport, servers.addresses[0], effort=effort or Effort())

    (found,) = asyncio.run(verified())
    return found


def test_a_model_that_is_right_is_verified(golden):
    server = SmallServer()
    assert ask(server).state == "no golden answers"
    server.golden = golden
    found = ask(server)
    assert (found.model, found.version, found.state, found.reason) == ("colour", 1, "verified", "")
    check([found])
    assert ask(server, Effort(quick=True)).state == "verified"


@pytest.mark.parametrize("lie", LIES)
def test_a_model_that_lies_is_found_out(golden, lie):
    server = SmallServer()
    server.golden, server.logits = golden, LIES[lie]
    found = ask(server)
    assert found.state == "wrong", found
    with pytest.raises(VerificationError, match=f"colour version 1 answers wrongly: .*{found.reason[:20]}"):
        check([found])


def test_a_queue_that_is_full_is_no_lie(golden):
    server = SmallServer()
    server.golden = golden
    server.failures = [(grpc.StatusCode.UNAVAILABLE, "[request id: 1] Exceeds maximum queue size")]
    assert ask(server).state == "busy"
    server.failures = [(grpc.StatusCode.UNAVAILABLE, "Request timeout expired")]
    assert ask(server).state == "busy"


def test_late_is_busy_while_others_are_answered_and_no_answer_otherwise(golden):
    class Busy(SmallServer):
        async def ModelInfer(self, request, context):
            self.answered += 1  # of another client
            return await super().ModelInfer(request, context)

    for kind, state in ((Busy, "busy"), (SmallServer, "no answer")):
        server = kind()
        server.golden, server.delay_s = golden, 5
        assert ask(server, Effort(quick=True, deadline_s=0.3)).state == state


def test_a_process_that_died_gives_no_answer(golden):
    server = SmallServer()
    server.golden = golden
    server.failures = [(grpc.StatusCode.INTERNAL, "Stub process 'colour_0_0' is not healthy.")]
    found = ask(server)
    assert found.state == "no answer"
    with pytest.raises(ServerError, match="colour version 1 does not answer: Stub process"):
        check([found])


def test_a_switch_in_between_is_no_lie(golden, monkeypatch):
    monkeypatch.setattr("csg_serve.verify.verify.SWITCH_S", 0)

    class Switching(SmallServer):
        def logits(self, pixels):
            if self.versions == [1, 2]:
                self.versions = [2]
                return pixels.mean((1, 2), dtype=np.float32) + 9
            return super().logits(pixels)

    server = Switching(versions=[1, 2])
    server.golden = golden
    assert (ask(server).state, server.versions) == ("verified", [2])


def test_the_command_on_servers_that_have_none():
    with in_a_process() as address:
        done = csg("models", "--verify", "--server", address)
        assert (done.returncode, "no golden answers" in done.stdout) == (0, True)
        refused(csg("models", "--verify", "--model", "other", "--server", address), 4, "no model other of csg")
        refused(csg("models", "--model", "other", "--server", address), 2, "--verify")
        refused(csg("models", "--verify", "--load", "colour", "--server", address), 2, "combined")
    refused(csg("models", "--verify", "--server", address), 4, "no Triton answers")
