"""A labelling session that runs in a thread of the test, and tasks for it."""

import json
import queue
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from csg_serve.evaluate.labelling.open import LabellingOptions, open_labelling
from csg_serve.evaluate.labelling.task import AskedItem, LabellingTask
from tests.helpers.image_files import encoded, noise


@dataclass
class Labelling:
    """An open session."""

    address: str
    merged: list = field(default_factory=list)
    """What it returned, when it has ended."""

    def ask(self, path, body=None, **headers):
        """Status and content of an answer of its server; a body is sent as JSON."""
        content = None if body is None else json.dumps(body).encode()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.address + path, content, {"content-type": "application/json"} | headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as found:
                return found.status, found.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()

    def json(self, path, body=None):
        """The JSON of an answer."""
        return json.loads(self.ask(path, body)[1])


@contextmanager
def labelling(folder, task, person="ana", enough=None):
    """A session that is stopped at the end, unless it has ended by itself."""
    addresses = queue.Queue()
    found = Labelling("")
    options = LabellingOptions(person, enough, addresses.put)
    thread = threading.Thread(target=lambda: found.merged.append(open_labelling(folder, task, options)), daemon=True)
    thread.start()
    found.address = addresses.get(timeout=30)
    try:
        yield found
    finally:
        with suppress(OSError):
            found.ask("stop", {})
        thread.join(timeout=30)
        assert found.merged, "the session has not ended"


def image_task(folder, count, classes=("dog", "cat"), suggestion="dog"):
    """A task of small images."""
    folder.mkdir(exist_ok=True)
    items = []
    for number in range(count):
        path = Path(folder, f"{number}.png")
        path.write_bytes(encoded(noise()))
        items.append(AskedItem(path, None, suggestion))
    return LabellingTask("pets", tuple(classes), tuple(items))
