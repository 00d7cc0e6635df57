"""`csg serve --tuning`, with a real Triton: how its processes run, and which sessions compute."""

import os
import re

import psutil
import pytest
from PIL import Image

from csg.bundle import MODEL, write_bundle
from csg_serve.client.client import Client
from csg_serve.server.state import LOG
from tests.helpers.served import deploy, serving

pytestmark = [pytest.mark.server, pytest.mark.slow]

REQUESTS = 6


@pytest.mark.parametrize("tuning", ["on", "off"])
def test_one_switch_for_processes_and_sessions(bundle, tmp_path, tuning):
    """A lone client of two instances on four cores."""
    repository = tmp_path / "repository"
    golden_free = write_bundle(tmp_path / "bundle", bundle.card, {MODEL: bundle.model.read_bytes()})  # counts are exact
    deploy(golden_free.path, repository, "--no-encoded", "--no-warm-up", "--instances", 2)
    files = set((repository / "colour").rglob("*"))
    with serving(repository, "--threads", 4, "--tuning", tuning) as state:
        server = psutil.Process(state["pid"])
        stubs = server.children(recursive=True)
        assert stubs
        policies = {os.sched_getscheduler(thread.id) for process in (server, *stubs) for thread in process.threads()}
        Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
        client = Client(state["grpc"])
        for _ in range(REQUESTS):
            client.predict([tmp_path / "red.png"])
    assert set((repository / "colour").rglob("*")) == files, "a polling server would load the model again"
    log = (repository / LOG).read_text()
    batches = dict.fromkeys(("in the wide session", "with 2 of 4 cores"), 0)
    for how in batches:
        batches[how] = sum(int(count) for count in re.findall(rf"(\d+) {how}", log))
    if tuning == "on":
        assert policies == {os.SCHED_BATCH}
        assert batches == {"in the wide session": REQUESTS, "with 2 of 4 cores": 0}
        assert log.count("images in a chunk: ") == 2
    else:
        assert policies == {os.SCHED_OTHER}
        assert batches == {"in the wide session": 0, "with 2 of 4 cores": REQUESTS}
        assert "images in a chunk" not in log
