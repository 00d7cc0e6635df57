"""A server on a small disk, where one can be mounted."""

import json
import signal
import subprocess

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput

from csg_serve.client.client import Client
from tests.helpers.broken_images import GOOD
from tests.helpers.cli import FREE_PORTS, csg
from tests.helpers.served import deploy, start_in_foreground
from tests.helpers.tiny_bundle import COLOURS, write_colour_bundle

DISK = 16 * 2**20


class Served:
    """A repository on a small disk of its own, where one may be mounted, and `csg serve` in the foreground on it."""

    def __init__(self, root):
        self.root, self.repository, self.bundle = root, root / "disk" / "repository", root / "bundle"
        self.ports = FREE_PORTS
        (root / "disk").mkdir()
        self.mounted = not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", root / "disk"], stderr=subprocess.DEVNULL
        ).returncode
        write_colour_bundle(self.bundle)
        deploy(self.bundle, self.repository)

    def start(self):
        self.process = start_in_foreground(self.repository, "--drain-seconds", 3, *self.ports)
        self.state = json.loads((self.repository / ".csg-serve.json").read_text())
        self.grpc, self.http = self.state["grpc"], self.state["http"]
        self.ports = [w for n in ("http", "grpc", "metrics") for w in (f"--{n}-port", self.state[n].split(":")[1])]

    def end(self):
        """SIGTERM: the exit code, and what was said."""
        self.process.send_signal(signal.SIGTERM)
        _, words = self.process.communicate(timeout=60)
        return self.process.returncode, words

    def remove(self):
        if self.process.poll() is None:
            self.end()
        csg("serve", "--stop", "--repository", self.repository)
        if self.mounted:
            subprocess.run(["umount", "--lazy", self.root / "disk"], check=True)


def right(served):
    """Whether pixels and files are answered, and rightly."""
    answers = Client(served.grpc, "colour").predict(GOOD)
    with InferenceServerClient(served.grpc) as client:
        tensor = InferInput("encoded", [3, 1], "BYTES")
        tensor.set_data_from_numpy(np.array(GOOD, np.object_)[:, None])
        logits = client.infer("colour_encoded", [tensor], client_timeout=60).as_numpy("logits")
    return [answer.label for answer in answers] == [*COLOURS] and logits.argmax(1).tolist() == [0, 1, 2]


def content(folder):
    """Every file but those of `csg serve` and of the lock, and the folders without one."""
    files = {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file() and ".csg" not in f.name}
    return files, {f.relative_to(folder) for f in folder.rglob(".*") if f.is_dir()}
