"""A folder of static files, shown in this machine's browser until Ctrl-C."""

from __future__ import annotations

import threading
import webbrowser
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from csg.console import log


class _PageFiles(SimpleHTTPRequestHandler):
    """Static files, with the types that browsers insist on whatever this machine's own table says."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".json": "application/json",
        ".svg": "image/svg+xml",
    }

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: a page has twenty files."""


def page_server(folder: Path) -> ThreadingHTTPServer:
    """A web server of a folder on a free port of 127.0.0.1; `serve_forever` starts it."""
    return ThreadingHTTPServer(("127.0.0.1", 0), partial(_PageFiles, directory=str(folder)))


def show_page(folder: Path) -> None:
    """Open the page in the browser, and serve it until Ctrl-C."""
    with page_server(folder) as server:
        address = f"http://127.0.0.1:{server.server_port}/"
        log(f"the page is at {address} until Ctrl-C")
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()  # it may wait for the browser
        with suppress(KeyboardInterrupt):
            server.serve_forever()
