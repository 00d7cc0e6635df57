"""A page of `csg page` in headless Chromium, on a web server of this machine; a request elsewhere is an error."""

import base64
import json
import threading
from contextlib import contextmanager

import numpy as np

from csg_serve.page.show import page_server

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
def opened(browser, address, width=1280, scheme="light"):
    """The page in a tab, with the list of its requests: all to its own server, nothing in its console."""
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    tab, wrong, requests = context.new_page(), [], []
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    context.on("request", lambda request: requests.append(request.url))
    tab.goto(address)
    yield tab, requests
    context.close()
    assert wrong == []
    assert [url for url in requests if not url.startswith((address, f"blob:{address}"))] == []


def prepared(tab, content, spec):
    """The pixels that the page prepares from an image file: uint8 (H, W, 3), and the size of the image in them."""
    found = tab.evaluate(PREPARE, [base64.b64encode(content).decode(), json.loads(spec.model_dump_json())])
    pixels = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8)
    return pixels.reshape(found["height"], found["width"], 3), tuple(found["scaled"])
