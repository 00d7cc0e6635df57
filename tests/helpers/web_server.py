"""Small web servers that give requests an answer that a test makes: what may be at an address instead of Triton."""

import http.client
import http.server
import threading
from contextlib import closing, contextmanager, suppress


class Answering(http.server.ThreadingHTTPServer):
    """Gives requests to `answer`, a function that takes the handler; keeps their paths and headers in `requests`."""

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.requests = answer, []

    def handle_error(self, *_):
        """A client that hangs up is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.requests.append((self.path, self.headers))
        with suppress(OSError):
            self.server.answer(self)

    def do_POST(self):
        self.do_GET()

    def log_message(self, *_):
        pass


@contextmanager
def answering(answer):
    """A server, listening; `answer` takes the handler of a request, and may use `reply`."""
    with Answering(answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def reply(status=200, body=b"", **headers):
    """An answer for `answering`: status, body, and headers with "_" for "-"."""

    def answer(handler):
        handler.send_response(status)
        for name, value in ({"content-length": str(len(body))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def forwarding(target, prefix):
    """The function for `answering` that passes requests below a prefix on to HOST:PORT without it, as an ingress."""

    def answer(handler):
        if not handler.path.startswith(f"{prefix}/"):
            reply(404, b"no such path")(handler)
            return
        with closing(http.client.HTTPConnection(target)) as there:
            headers = {name: value for name, value in handler.headers.items() if name.lower() != "host"}
            there.request(handler.command, handler.path.removeprefix(prefix), handler.body, headers)
            found = there.getresponse()
            names = ("Content-Type", "Inference-Header-Content-Length")
            reply(found.status, found.read(), **{n.replace("-", "_"): v for n in names if (v := found.headers[n])})(
                handler
            )

    return answer
