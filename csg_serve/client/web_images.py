"""Images at http:// and https:// addresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp

from csg import __version__
from csg.errors import InputError, one_line
from csg_serve.client.address import is_this_machine
from csg_serve.client.named_image import NamedImage, no_image

MAX_DOWNLOAD = 2**28
"""Maximum size of a downloaded image in bytes, after decompression."""
TIMEOUT_S = 60.0
"""Seconds in which an image has to arrive."""
MAX_REDIRECTS = 5
HINT = "check the address, and download it first if it needs a login"


@asynccontextmanager
async def web_session() -> AsyncIterator[Callable[[str], Coroutine[Any, Any, NamedImage]]]:
    """Yields the function that downloads the image at an address; it raises nothing, and the errors are in its result.

    Redirects are followed to http(s) only, no cookie is kept, and the proxies of the environment are used, except for
    this machine.
    """
    async with _session(proxies=True) as through_proxies, _session(proxies=False) as direct:

        async def fetch(address: str) -> NamedImage:
            name = without_password(address)
            try:
                session = direct if is_this_machine(_host(address)) else through_proxies
                return NamedImage(name, _stem(address), await _download(session, address))
            except InputError as error:
                return no_image(name, InputError(f"image {name} can't be read: {error.message}", error.hint))

        yield fetch


def _session(proxies: bool) -> aiohttp.ClientSession:
    headers = {"User-Agent": f"csg/{__version__}", "Accept": "image/*,*/*;q=0.5"}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    return aiohttp.ClientSession(
        headers=headers, timeout=timeout, trust_env=proxies, cookie_jar=aiohttp.DummyCookieJar()
    )


async def _download(session: aiohttp.ClientSession, address: str) -> bytes:
    content = bytearray()
    try:
        async with session.get(address, max_redirects=MAX_REDIRECTS) as response:
            if response.status != 200:
                raise InputError(f"HTTP status {response.status}", HINT)
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > MAX_DOWNLOAD:
                    raise InputError(f"it has more than {MAX_DOWNLOAD} bytes", "download it, and name the file")
    except TimeoutError:
        raise InputError(f"it did not arrive within {TIMEOUT_S:g} s", HINT) from None
    except aiohttp.TooManyRedirects:
        raise InputError(f"it redirects more than {MAX_REDIRECTS} times", HINT) from None
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
        raise InputError("the address, or one that it redirects to, is not one of http(s)", HINT) from None
    except (aiohttp.ClientError, asyncio.IncompleteReadError, ValueError, OSError) as error:
        raise InputError(one_line(error), HINT) from None
    return bytes(content)


def without_password(address: str) -> str:
    """The address without user and password.

    Example:
        >>> without_password("https://me:secret@example.com/a.jpg")
        'https://example.com/a.jpg'
    """
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _stem(address: str) -> str:
    """The name of the file at an address, without its ending."""
    try:
        return PurePosixPath(unquote(urlsplit(address).path).replace("\0", "")).stem or "image"
    except ValueError:
        return "image"
