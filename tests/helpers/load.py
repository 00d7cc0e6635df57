"""Requests without a pause, while a test changes the server."""

import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

import numpy as np
import tritonclient.grpc as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from csg.errors import CsgError


@contextmanager
def under_load(client, state, model="colour", predicts=None):
    """Requests without a pause, over two threads; none may fail, and the server calls itself ready all the time.

    Yields the answers so far: version (None of `predicts`), class, and the thread that asked.
    predicts: csg's own client, over another thread.
    """
    answered, failed, done = [], [], threading.Event()
    image = triton.InferInput("image", [1, 32, 32, 3], "UINT8")
    image.set_data_from_numpy(np.full((1, 32, 32, 3), (250, 9, 3), np.uint8))

    def ask():
        while not done.is_set():
            try:
                answer = client.infer(model, [image])
                version = answer.get_response().model_version
                answered.append((version, answer.as_numpy("logits").argmax(), threading.get_ident()))
            except InferenceServerException as error:
                failed.append(str(error))

    def predict():
        red = Image.new("RGB", (40, 40), (250, 9, 3))
        while predicts and not done.is_set():
            try:
                answered.append((None, int(predicts.predict([red])[0].probabilities.argmax()), threading.get_ident()))
            except CsgError as error:
                failed.append(str(error))

    def probe():
        while not done.is_set():
            try:
                urllib.request.urlopen(f"http://{state['http']}/v2/health/ready", timeout=10)
            except OSError as error:
                failed.append(f"readiness: {error}")

    threads = [threading.Thread(target=one) for one in (ask, ask, predict, probe)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failed
    assert {best for _, best, _ in answered} == {0}
