"""What is at an address may be no Triton, or may not answer: one line and exit code 4. No proxy to this machine."""

import socket
import ssl
import threading
from contextlib import ExitStack, contextmanager

import grpc
import pytest
import trustme

from tests.helpers.cli import csg, refused
from tests.helpers.raw_grpc import raw_grpc
from tests.helpers.small_server import in_a_process
from tests.helpers.web_server import answering, reply

PAGE = b"<html><h1>403 Forbidden</h1>\n" + 3000 * b"x" + b"</html>"
ANSWERS = {
    "a JSON API": (200, b'{"detail": "Not Found"}'),
    "a JSON API that refuses": (401, b'{"detail": "\x1b[31mwho?"}'),
    "a JSON API with an error that is no text": (400, b'{"error": {"code": 3}}'),
    "a login page": (200, b"<html>log in</html>"),
    "a page that forbids": (403, PAGE),
    "a proxy that wants a password": (407, PAGE),
    "a server with too many clients": (429, PAGE),
    "a broken server": (500, b"oops"),
    "an ingress without a server": (502, PAGE),
    "a redirection": (302, b""),
    "no content": (204, b""),
    "an empty answer": (200, b""),
    "bytes": (200, bytes(range(256))),
    "a list": (200, b"[1, 2]"),
    "a number": (200, b"3"),
    "null": (200, b"null"),
    "deep brackets": (200, b"[" * 100_000),
    "statistics without numbers": (200, b'{"model_stats": NaN}'),
    "statistics with another type": (200, b'{"model_stats": [{"name": 5, "version": "1"}]}'),
    "statistics with a version that is none": (200, b'{"model_stats": [{"name": "a", "version": "-1"}]}'),
    "statistics given twice": (200, b'{"model_stats": [], "model_stats": 3}'),
}
COMMANDS = (
    ("models",),
    ("evaluate", "--data", "nowhere"),
    ("predict", "nothing.png"),
    ("bench", "--concurrency", "1"),
)
HTTP2_PREFACE = b"\0\0\0\4\0\0\0\0\0"


@contextmanager
def listener(banner, context=None):
    """The port of a server that says something, closes, and knows nothing of HTTP; None: it says nothing, ever."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def answer():
            while True:
                try:
                    connection = stack.enter_context(server.accept()[0])
                except OSError:  # closed
                    return
                try:
                    if context:
                        connection = stack.enter_context(context.wrap_socket(connection, server_side=True))
                    if banner is not None:
                        connection.sendall(banner)
                        connection.shutdown(socket.SHUT_WR)
                except OSError:  # no TLS, or gone
                    connection.close()

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def server():
    with in_a_process() as address:
        yield address


def is_refused(address, *options):
    for command in COMMANDS:
        done = csg(*command, "--server", address, *options)
        refused(done, 4, "no Triton answers at")
        assert "\x1b" not in done.stderr
        assert len(done.stderr) < 700


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_web_server_is_no_triton(kind):
    with answering(reply(*ANSWERS[kind])) as server:
        is_refused(f"http://127.0.0.1:{server.server_port}")


@pytest.mark.parametrize("kind", ["a login page", "an empty answer"])
def test_a_web_server_is_no_grpc(kind):
    with answering(reply(*ANSWERS[kind])) as server:
        is_refused(f"127.0.0.1:{server.server_port}")


@pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"\0" * 100, HTTP2_PREFACE])
@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_server_of_another_protocol_is_no_triton(banner, scheme):
    with listener(banner) as port:
        is_refused(f"{scheme}127.0.0.1:{port}")


def _fails(code, detail):
    return lambda _, context: context.abort(code, detail)


def _bomb(_, context):
    context.set_compression(grpc.Compression.Gzip)
    return bytes(2**26)


RAW = {
    "bytes": lambda *_: b"\xff" * 50,
    "text that is not UTF-8": lambda *_: b"\x0a\x06\x0a\x02\xff\xfe\x12\x00",
    "a large answer": lambda *_: bytes(2**25),
    "an answer that is compressed well": _bomb,
    "another service": _fails(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"),
    "a service that refuses": _fails(grpc.StatusCode.UNAUTHENTICATED, "\x1b[31mno token\n" + 3000 * "x"),
}


@pytest.mark.parametrize("kind", RAW)
def test_another_grpc_server_is_no_triton(kind):
    with raw_grpc(RAW[kind]) as port:
        is_refused(f"127.0.0.1:{port}")


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_tls_is_not_taken_for_none_nor_none_for_tls(scheme, server, tmp_path):
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with listener(b"HTTP/1.1 200 OK\r\n\r\n", context) as port:
        is_refused(f"{scheme}://127.0.0.1:{port}")
    is_refused(f"{scheme}s://{server}", "--tls-ca", tmp_path / "ca.pem")


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
    with answering(reply(200, b'{"model_stats": []}')) as web:
        address = f"http://localhost:{web.server_port}"
        refused(csg("predict", "nothing.png", "--server", address), 4, "has no csg model")
