"""What is at an address may be no Triton, or may not answer: one line and exit code 4. No proxy to this machine."""

import http.server
import socket
import threading
from contextlib import ExitStack, contextmanager

import pytest

from csg_serve.client.endpoints import Servers
from tests.helpers.cli import csg, refused
from tests.helpers.small_server import in_a_process

PAGE = b"<html><h1>403 Forbidden</h1>\n" + 3000 * b"x" + b"</html>"
ANSWERS = {
    "a JSON API": (200, b'{"detail": "Not Found"}'),
    "a JSON API that refuses": (401, b'{"detail": "\x1b[31mwho?"}'),
    "a login page": (200, b"<html>log in</html>"),
    "a page that forbids": (403, PAGE),
    "a redirection": (302, b""),
    "a broken server": (500, b"oops"),
    "an empty answer": (200, b""),
    "bytes": (200, bytes(range(256))),
    "a list": (200, b"[1, 2]"),
    "a number": (200, b"3"),
    "deep brackets": (200, b"[" * 100_000),
    "statistics without numbers": (200, b'{"model_stats": NaN}'),
    "statistics with another type": (200, b'{"model_stats": [{"name": 5, "version": "1"}]}'),
    "statistics with a version that is none": (200, b'{"model_stats": [{"name": "a", "version": "-1"}]}'),
}
COMMANDS = (("models",), ("evaluate", "--data", "nowhere"), ("predict", "nothing.png"))


@contextmanager
def web_server(status, body):
    """The port of a web server that gives every request this answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextmanager
def listener(banner):
    """The port of a server that says something, closes, and knows nothing of HTTP; None: it says nothing, ever."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def answer():
            while True:
                try:
                    connection = stack.enter_context(server.accept()[0])
                except OSError:  # closed
                    return
                if banner is not None:
                    connection.sendall(banner)
                    connection.shutdown(socket.SHUT_WR)

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def server():
    with in_a_process() as address:
        yield address


def is_refused(address):
    for command in COMMANDS:
        done = csg(*command, "--server", address)
        refused(done, 4, "no Triton answers at")
        assert "\x1b" not in done.stderr
        assert len(done.stderr) < 700


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_web_server_is_no_triton(kind):
    with web_server(*ANSWERS[kind]) as port:
        is_refused(f"http://127.0.0.1:{port}")
        is_refused(f"127.0.0.1:{port}")


@pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"\0" * 100])
def test_a_server_of_another_protocol_is_no_triton(banner):
    with listener(banner) as port:
        is_refused(f"http://127.0.0.1:{port}")
        is_refused(f"127.0.0.1:{port}")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_server_that_never_answers_ends_a_command(scheme):
    with listener(None) as port:
        refused(csg("models", "--server", f"{scheme}127.0.0.1:{port}"), 4, "no Triton answers at")


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(variable, server, monkeypatch):
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    port = server.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost"):
        done = csg("predict", "nothing.png", "--server", f"{host}:{port}")
        refused(done, 3, "nothing.png does not exist")
    with web_server(200, b'{"model_stats": []}') as port:
        refused(csg("predict", "nothing.png", "--server", f"http://localhost:{port}"), 4, "has no csg model")


@pytest.mark.parametrize(
    ("address", "local"),
    [
        *(
            ("localhost:1", True),
            ("LocalHost:1", True),
            ("127.9.8.7:1", True),
            ("[::1]:1", True),
            ("a.localhost:1", True),
        ),
        *(("10.0.0.1:1", False), ("gpu-box:1", False), ("localhost.example.com:1", False), ("[fe80::1]:1", False)),
    ],
)
def test_addresses_of_this_machine(address, local):
    assert Servers((address,)).addresses[0].local is local
