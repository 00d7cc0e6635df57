"""A server's life from the command line: where it can't start, and that nothing stays behind."""

import json
import signal
import socket

import pytest

from tests.helpers.cli import FREE_PORTS, csg, csg_process, refused
from tests.helpers.served import processes_of, start_in_foreground

pytestmark = pytest.mark.server


def test_no_server_there():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    refused(csg("evaluate", "--server", address), 4, f"no Triton answers at {address}", "csg serve")
    for nonsense in ("localhost", "localhost:0", "ftp://localhost:8001", "a b:1"):
        refused(csg("evaluate", "--server", nonsense), 2, "is not a server address", "HOST:PORT")


def test_a_port_in_use_is_named(colour_repository):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = csg("serve", "--repository", colour_repository, *FREE_PORTS[:2], "--grpc-port", port, *FREE_PORTS[4:])
    refused(done, 4, f"can't use grpc port {port}", "--grpc-port 0")
    assert not processes_of(colour_repository)


@pytest.mark.slow
def test_a_model_that_does_not_load_gives_its_reason_and_no_process_stays(colour_repository):
    (colour_repository / "colour" / "1" / "model.onnx").write_bytes(b"this is no graph")
    done = csg_process("serve", "--detach", "--repository", colour_repository, *FREE_PORTS)
    refused(done, 4, "model colour does not load: .*(onnx|protobuf|Protobuf)")
    assert not processes_of(colour_repository)
    assert not (colour_repository / ".csg-serve.json").exists()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 0, marks=pytest.mark.slow)]
)
def test_a_server_in_the_foreground_ends_with_its_command(colour_repository, number, code):
    """And a model without a card is none of ours."""
    config = colour_repository / "colour" / "config.pbtxt"
    config.write_text(config.read_text().replace("csg_card", "other_card"))
    process = start_in_foreground(colour_repository, *FREE_PORTS)
    try:
        address = json.loads((colour_repository / ".csg-serve.json").read_text())["grpc"]
        refused(csg("evaluate", "--server", address), 4, "no csg model", "csg deploy")
    finally:
        process.send_signal(number)
        _, words = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in words
    assert not processes_of(colour_repository)
    assert not (colour_repository / ".csg-serve.json").exists()
