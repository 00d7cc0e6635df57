"""A page of `csg page` in headless Chromium, on a web server of this machine; a request elsewhere is an error."""

import base64
import json
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from csg.bundle import read_bundle
from csg.errors import InputError
from csg_serve.page.runtime import runtime_folder
from csg_serve.page.show import page_server
from csg_serve.page.write import write_page

PREPARE = """async ([text, spec]) => {
  const { decode } = await import('./js/decode.js'), { prepare } = await import('./js/prepare.js');
  const image = await decode(Uint8Array.from(atob(text), c => c.charCodeAt(0)), spec);
  const { pixels, width, height, scaled } = prepare(image, spec);
  image.close();
  let binary = '';
  for (let place = 0; place < pixels.length; place += 32768)
    binary += String.fromCharCode(...pixels.subarray(place, place + 32768));
  return { pixels: btoa(binary), width, height, scaled, original: image.original };
}"""


def page_of(out, *bundles):
    """The page of bundles, or of their folders; the test is skipped where its runtime can't be downloaded."""
    try:
        runtime_folder()
    except InputError as error:
        pytest.skip(str(error))
    return write_page([read_bundle(getattr(bundle, "path", bundle)) for bundle in bundles], out)


@contextmanager
def served(folder):
    """The address of a folder's web server."""
    with page_server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@contextmanager
def opened(browser, address, own=None, **options):
    """A page in a tab, with the list of its requests: all to its own server, nothing in its console.

    Args:
        browser: of `tests.helpers.browser.started`.
        address: what to open.
        own: what the address of each request starts with; None: `address`.
        options: of playwright's `new_context`.
    """
    own, wrong, requests = own or address, [], []
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 844}} | options)
    context.on("request", lambda request: requests.append(request.url))
    tab = context.new_page()
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto(address)
    yield tab, requests
    context.close()
    assert not wrong, wrong
    assert not [url for url in requests if not url.startswith((own, f"blob:{own}"))]


def prepared(tab, content, spec):
    """The pixels that the page prepares from an image file: uint8 (H, W, 3), and the size of the image in them."""
    found = tab.evaluate(PREPARE, [base64.b64encode(content).decode(), json.loads(spec.model_dump_json())])
    pixels = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8)
    return pixels.reshape(found["height"], found["width"], 3), tuple(found["scaled"])


def give(tab, **files):
    """Choose image files, bytes by name, and wait for the answers of all models."""
    from playwright.sync_api import expect

    payload = [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in files.items()]
    tab.locator("#files").set_input_files(payload)
    expect(tab.locator("#strip li")).not_to_have_count(0)
    expect(tab.locator("#answers [aria-busy=true], #strip [aria-busy=true]")).to_have_count(0, timeout=60_000)
