"""The server of the labelling page: on this machine alone, and only for who has the address.

The address holds a random token, without which every path is unknown. Requests must name this machine as their host:
a page elsewhere whose name is made to lead here (DNS rebinding) is refused. The browser names items and classes by
their numbers; no path of a file comes from it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import Field, ValidationError

from csg.errors import CsgError
from csg.records import Record
from csg_serve.evaluate.labelling.item_pictures import WINDOWS, EncodedPicture, ItemPictures
from csg_serve.evaluate.labelling.session import LabellingSession

STATIC = Path(__file__).parent / "static"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HOSTS = frozenset({"127.0.0.1", "localhost"})
"""What a request may name as its host, with any port: the port of a tunnel (`ssh -L`) is another one."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
MAX_BODY = 1024
"""Maximum size of a request in bytes."""
ENDING_S = 60.0
"""Seconds after the last answer in which it can be taken back, before the server ends by itself."""
SHUTDOWN_S = 1.0
"""Seconds that running requests have at the end."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _About(Record):
    """A request about an item."""

    item: Annotated[int, Field(ge=0)]
    """Number of the item."""


class _Given(_About):
    """A request with an answer."""

    label: Annotated[int, Field(ge=0)] | None
    """Number of the class; None: can't tell."""


_GivenT = TypeVar("_GivenT", bound=_About)


class LabellingServer:
    """Answers the requests of the page.

    Args:
        session: the person's session.

    Attributes:
        stopped: set when the person is done.
    """

    def __init__(self, session: LabellingSession):
        self.session, self.token, self.stopped = session, secrets.token_urlsafe(16), asyncio.Event()
        self._pictures = ItemPictures(session.task.items)
        self._ending: asyncio.TimerHandle | None = None
        self._files = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in KINDS}

    def application(self) -> web.Application:
        """The web application."""
        app = web.Application(middlewares=[self._guarded], client_max_size=MAX_BODY)
        item = r"/{token}/items/{item:\d{1,9}}"
        app.add_routes(
            [
                web.get("/{token}/", self._file),
                web.get(r"/{token}/{name:[a-z_]+\.[a-z]+}", self._file),
                web.get("/{token}/task", self._task),
                web.get("/{token}/state", self._state),
                web.get(item, self._item),
                web.get(item + "/whole", self._whole),
                web.get(item + r"/window/{window:\d}", self._window),
                web.post("/{token}/answer", self._answer),
                web.post("/{token}/later", self._later),
                web.post("/{token}/undo", self._undo),
                web.post("/{token}/stop", self._stop),
            ]
        )
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse who does not have the token, or asks through another name; every answer has HEADERS."""
        try:
            if not _names_this_machine(request):
                raise web.HTTPForbidden(text="this page is for this machine alone")
            if not secrets.compare_digest(request.match_info.get("token", "").encode(), self.token.encode()):
                raise web.HTTPNotFound
            response = await handler(request)
        except web.HTTPException as refused:
            refused.headers.update(HEADERS)
            raise
        except CsgError as error:
            response = web.json_response({"problem": str(error)}, status=500)
        response.headers.update(HEADERS)
        return response

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        if name not in self._files:
            raise web.HTTPNotFound
        return web.Response(body=self._files[name], content_type=KINDS[Path(name).suffix], charset="utf-8")

    async def _task(self, _: web.Request) -> web.Response:
        task = self.session.task
        return web.json_response({"title": task.title, "classes": task.classes, "windows": WINDOWS})

    async def _state(self, _: web.Request) -> web.Response:
        return self._progress()

    async def _item(self, request: web.Request) -> web.Response:
        """What the page must know of an item before it shows it; the model's answer is not part of it."""
        item = self._number(request)
        try:
            size = (await self._pictures.of(item)).size
        except CsgError as error:
            self.session.unreadable[item] = str(error)
            return web.json_response({"problem": str(error)})
        name, point = self.session.name(item), self.session.task.items[item].point
        return web.json_response({"name": name, "width": size[0], "height": size[1], "point": point})

    async def _whole(self, request: web.Request) -> web.Response:
        return _picture((await self._pictures.of(self._number(request))).whole)

    async def _window(self, request: web.Request) -> web.Response:
        windows = (await self._pictures.of(self._number(request))).windows
        window = int(request.match_info["window"])
        if window >= len(windows):
            raise web.HTTPNotFound
        return _picture(windows[window])

    async def _answer(self, request: web.Request) -> web.Response:
        """Keep an answer, unless another window of the same person was quicker; only now the model's answer is told."""
        given, session = await _body(request, _Given), self.session
        classes = session.task.classes
        if given.item >= len(session.task.items) or (given.label or 0) >= len(classes):
            raise web.HTTPNotFound
        if given.item in session.file.labels:
            return self._progress(twice=given.item)
        label = None if given.label is None else classes[given.label]
        session.answer(given.item, label)
        return self._progress(given=label, suggestion=session.task.items[given.item].suggestion)

    async def _later(self, request: web.Request) -> web.Response:
        item = (await _body(request, _About)).item
        if item in self.session.open_items():
            self.session.put_off(item)
        return self._progress()

    async def _undo(self, _: web.Request) -> web.Response:
        return self._progress(undone=self.session.undo())

    async def _stop(self, _: web.Request) -> web.Response:
        self.stopped.set()
        return self._progress()

    def _progress(self, **more: object) -> web.Response:
        """The state after a request. When nothing is left, the server ends soon."""
        if self._ending:
            self._ending.cancel()
        complete = self.session.is_complete
        if complete:
            self._ending = asyncio.get_running_loop().call_later(ENDING_S, self.stopped.set)
        return web.json_response({**self.session.state(), "complete": complete, **more})

    def _number(self, request: web.Request) -> int:
        item = int(request.match_info["item"])
        if item >= len(self.session.task.items):
            raise web.HTTPNotFound
        return item


def _names_this_machine(request: web.Request) -> bool:
    """Whether a request names this machine, and comes from no page of another origin."""
    try:
        host = urlsplit(f"//{request.headers.get('Host', '')}").hostname
    except ValueError:
        return False
    origin = request.headers.get("Origin")
    return host in HOSTS and origin in (None, f"http://{request.headers['Host']}")


async def _body(request: web.Request, kind: type[_GivenT]) -> _GivenT:
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError:
        raise web.HTTPBadRequest(text="no such request") from None


def _picture(picture: EncodedPicture) -> web.Response:
    return web.Response(body=picture.content, content_type=picture.kind)


@asynccontextmanager
async def running(server: LabellingServer) -> AsyncIterator[str]:
    """Yields the address of a server that runs on a free port of 127.0.0.1."""
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/{server.token}/"
    finally:
        await runner.cleanup()
