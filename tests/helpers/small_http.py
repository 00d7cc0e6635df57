"""The small server of `small_server`, over HTTP: for what an answer may hold that a real Triton never says."""

import json

import numpy as np
from google.protobuf import json_format

from csg_serve.triton.config import model_config
from csg_serve.triton.deploy_options import DeployOptions
from tests.helpers.tiny_bundle import tiny_card
from tests.helpers.web_server import reply

JSON_LENGTH = "Inference-Header-Content-Length"
STATISTICS, CONFIG, INFER = (
    "/v2/models/stats",
    "/v2/models/colour/versions/1/config",
    "/v2/models/colour/versions/1/infer",
)


def colour(prefix="", **changed):
    """The function for `answering` that serves the model "colour".

    Args:
        prefix: of all paths.
        changed: answers of its own for "statistics", "config", "infer"; `infer` gets the answer's JSON and logits.
    """

    def answer(handler):
        path = handler.path.removeprefix(prefix) if handler.path.startswith(prefix) else ""
        if path == STATISTICS:
            stats = {"model_stats": [{"name": "colour", "version": "1"}]}
            changed.get("statistics", json_reply(stats))(handler)
        elif path == CONFIG:
            config = model_config(tiny_card(), "colour", 1, DeployOptions(backend="python", max_batch=4))
            tree = json_format.MessageToDict(config, preserving_proto_field_name=True)
            changed.get("config", json_reply(tree))(handler)
        elif path == INFER:
            said, logits = logits_of(handler)
            changed.get("infer", infer_reply)(said, logits)(handler)
        else:
            json_reply({"error": "not found"}, 404)(handler)

    return answer


def logits_of(handler):
    """JSON and logits of the right answer: the means of the channels."""
    length = int(handler.headers[JSON_LENGTH])
    (tensor,) = json.loads(handler.body[:length])["inputs"]
    logits = np.frombuffer(handler.body[length:], np.uint8).reshape(tensor["shape"]).mean((1, 2), dtype=np.float32)
    size = {"binary_data_size": logits.nbytes}
    output = {"name": "logits", "datatype": "FP32", "shape": list(logits.shape), "parameters": size}
    return {"model_name": "colour", "model_version": "1", "outputs": [output]}, logits


def infer_reply(said, logits):
    head = json.dumps(said).encode()
    return reply(200, head + logits.tobytes(), **{JSON_LENGTH.replace("-", "_"): str(len(head))})


def json_reply(tree, status=200):
    return reply(status, json.dumps(tree).encode())
