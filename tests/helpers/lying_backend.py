"""A script of the Python backend for the model colour, whose logits are the means of the channels, that may lie."""

from contextlib import contextmanager
from unittest import mock

from csg_serve.python_backend import write_scripts

SCRIPT = """
from pathlib import Path
import numpy as np
import triton_python_backend_utils as pb_utils

FLAG, HEALS = Path({flag!r}), {heals!r}


class TritonPythonModel:
    def initialize(self, args):
        self.before = np.zeros((1, 3), np.float32)
        if HEALS:
            FLAG.unlink(missing_ok=True)

    def execute(self, requests):
        answers = []
        for request in requests:
            pixels = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
            means = pixels.mean((1, 2), dtype=np.float32)
            before, self.before = self.before, means
            logits = {lie} if FLAG.exists() else means
            tensor = pb_utils.Tensor("logits", np.ascontiguousarray(logits, np.float32))
            answers.append(pb_utils.InferenceResponse([tensor]))
        return answers
"""
LIES = {
    "zeros": "means * 0",
    "the answer before": "np.resize(before, means.shape)",
}


@contextmanager
def lying(lie, flag, heals=False):
    """Let `csg deploy` in this process write a tensor model that lies while the file `flag` exists.

    Args:
        lie: the logits, as an expression of `means`, the right ones, and `before`, those of the request before.
        flag: the file.
        heals: whether it stops lying when it is loaded the next time.
    """
    script = SCRIPT.format(lie=lie, flag=str(flag), heals=heals)

    def write(scripts, folder):
        write_scripts(scripts, folder)
        (folder / "model.py").write_text(script)

    with mock.patch("csg_serve.repository.deploy.write_scripts", write):
        yield
