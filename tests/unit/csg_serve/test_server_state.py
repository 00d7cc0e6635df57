"""The record of a repository's server: written and read whole, or not at all."""

import json

import pytest

from csg_serve.server.state import STATE, ServerState, read_state, running_server, write_state

RUNNING = ServerState(
    pid=1,
    token=f"csg-{16 * 'a'}-",
    http="127.0.0.1:8000",
    grpc="127.0.0.1:8001",
    metrics="127.0.0.1:8002",
    control="poll",
    drain_s=30,
)


def test_a_record_comes_back_as_it_was(tmp_path):
    write_state(tmp_path, RUNNING)
    assert read_state(tmp_path) == RUNNING
    assert json.loads((tmp_path / STATE).read_text())["schema_version"] == 1


def test_a_server_that_has_ended_does_not_run(tmp_path):
    """Process 1 lives, but is not the server: its command line has no token."""
    write_state(tmp_path, RUNNING)
    assert running_server(tmp_path) is None


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"token": "*"},
        {"token": ""},
        {"pid": "one"},
        {"control": "none"},
        {"grpc": None},
        {"x": 1},
    ],
)
def test_a_record_of_another_kind_is_no_server(tmp_path, change):
    (tmp_path / STATE).write_text(json.dumps({**RUNNING.model_dump(), **change}))
    assert read_state(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_record_is_no_server(tmp_path, content):
    (tmp_path / STATE).write_bytes(content)
    assert read_state(tmp_path) is None
