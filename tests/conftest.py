"""What all tests share: an empty folder to run in, pretrained weights, and runs that are trained once a session.

Run on several workers, a session has one folder for all of them: what is costly is made by the first worker that needs
it, and the others wait for it (`once`). Tests of one file stay on one worker, and so do those of a folder in
`ONE_SERVER`.
"""

import fcntl
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores; read when torch and NumPy are imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from hypothesis import settings

from tests.helpers.checkout import listing

ROOT = Path(__file__).resolve().parent.parent
ONE_SERVER = ("tests/server/client/", "tests/faults/server/")  # the tests of such a folder share their servers
SHARED = ROOT.parent / "shared" / "data"  # real images, where there are some

LONGEST = (
    *("tests/faults/test_cluster.py", "tests/faults/test_damaged_files.py", "tests/road/test_road.py"),
    *("tests/road/test_notebook.py", "tests/road/test_encoders.py", "tests/unit/csg_train/test_compare.py"),
    *("tests/unit/csg_export/test_export.py", "tests/server/test_verification.py", "tests/faults/test_stages.py"),
)
"""Files whose tests take minutes. They start first: the last file of a session is waited for by one worker alone."""

signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background job, and its children, ignore it
settings.register_profile("quick", max_examples=25, deadline=None)
settings.register_profile("slow", max_examples=100, deadline=None)
settings.load_profile("quick")


def pytest_sessionstart(session):
    if not hasattr(session.config, "workerinput"):
        session.config.stash[LISTING] = listing(ROOT)


def pytest_sessionfinish(session):
    """Fail a session that leaves files in the checkout; the main process looks, its workers do not."""
    if not hasattr(session.config, "workerinput"):
        left = sorted(listing(ROOT) - session.config.stash[LISTING])
        if left:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            session.config.stash[LEFT] = left


def pytest_terminal_summary(terminalreporter, config):
    for path in config.stash.get(LEFT, ()):
        terminalreporter.write_line(f"error: the tests left {path} in the checkout; write to tmp_path", red=True)


LISTING, LEFT = pytest.StashKey(), pytest.StashKey()


def pytest_collection_modifyitems(items):
    order = {path: number for number, path in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a file on one worker, and those of a folder whose tests share a server."""
    from xdist.scheduler import LoadScopeScheduling

    class ByServer(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.partition("::")[0]
            return next((folder for folder in ONE_SERVER if path.startswith(folder)), path)

    return ByServer(config, log)


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """`once(name, make)`: the path that `make(path)` fills, in the first worker that asks; the others wait for it."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent

    def path_of(name, make):
        with (shared / f"{name}.made").open("a+") as made:
            fcntl.flock(made, fcntl.LOCK_EX)
            made.seek(0)
            if not made.read():
                shutil.rmtree(shared / name, ignore_errors=True)  # what a failed attempt left
                make(shared / name)
                made.write("yes")
        return shared / name

    return path_of


@pytest.fixture(scope="session", autouse=True)
def cache(once, tmp_path_factory):
    """Generated data goes to a folder of the session, in this process and in those it starts.

    The server's environment and the runtime of pages are those of the user's cache, where they are downloaded once.
    """
    from csg.files import cache_dir

    prepared = [*sorted(cache_dir().glob("server-*")), *sorted(cache_dir().glob("onnxruntime-web-*"))]

    def make(folder):
        folder.mkdir()
        for one in prepared:
            (folder / one.name).symlink_to(one)

    folder = once("cache", make)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CSG_CACHE", str(folder))
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))  # for fixtures of a session or a module
        yield folder


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """Relative paths are the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def weights(once):
    """The ImageNet weights of MobileNetV2, downloaded on first use."""
    from csg_train.models.weights import pull

    once("weights", lambda _: pull("mobilenet_v2"))
    return pull("mobilenet_v2")


@pytest.fixture(scope="session")
def real_digits():
    from csg.datasets.classification import read_classification_dataset

    return read_classification_dataset(["digits"])


SMALL = {
    "data.count": 200,
    "data.resize": 32,
    "data.size": 32,
    "optim.batch": 16,
    "optim.epochs": 1,
    "optim.lr_backbone": 3e-3,
    "optim.lr_heads": 1.2e-2,
    "model.freeze_batch_norm": True,  # eight steps are too few to estimate running statistics
    "precision": "fp32",
}


@pytest.fixture(scope="session")
def small_recipe():
    """A recipe that trains in seconds; takes changes by dotted name."""
    from csg_train.recipe import load_recipe

    return lambda **changes: load_recipe("digits", SMALL | {k.replace("__", "."): v for k, v in changes.items()})


@pytest.fixture(scope="session")
def trained(weights, small_recipe, once):
    """A finished run of csg on the digits. Not to be written to."""
    from csg_train.training.command import train
    from csg_train.training.run_folder import Run

    return Run(once("trained", lambda path: train(small_recipe(optim__max_steps=8), Run(path))))


@pytest.fixture(scope="session")
def segmented(weights, once):
    """A finished run of a segmenter on the digit scenes, after two steps; 24 real ones. Not to be written to."""
    from csg.datasets import digit_scenes
    from csg_train.recipe import load_recipe
    from csg_train.training.command import train
    from csg_train.training.run_folder import Run

    def write_scenes(folder):
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(digit_scenes, "SCENES", 24)
            digit_scenes.write_real_scenes(folder)

    real = {"data.real": [str(once("real-scenes", write_scenes))], "data.real_labels": "digit-scenes"}
    changes = {"data.count": 100, "optim.max_steps": 2, "optim.batch": 4, "method": "none", "precision": "fp32"}
    recipe = load_recipe("digit-scenes", changes | real)
    return Run(once("segmented", lambda path: train(recipe, Run(path))))


@pytest.fixture(scope="session")
def exported(trained, once):
    """`exported(precision)`: the bundle that `csg export` makes of `trained`. Not to be written to."""
    from csg.bundle import read_bundle
    from tests.helpers.cli import csg

    def bundle(precision):
        def make(path):
            done = csg("export", trained.path, "--precision", precision, "--out", path, "--json")
            assert done.returncode == 0, done.stderr
            assert set(json.loads(done.stdout)) == {"bundle", "precision", "format", "bytes", "parity"}

        return read_bundle(once(f"exported-{precision}", make))

    return bundle


@pytest.fixture(scope="session")
def tls(tmp_path_factory):
    """PEM files: ca, cert and key of a server at 127.0.0.1, client-cert and client-key."""
    from tests.helpers.certificates import issue_certificates

    return issue_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def colour_repository(tmp_path):
    """A repository with the model colour, as cheap to load as can be."""
    from tests.helpers.served import deploy
    from tests.helpers.tiny_bundle import write_colour_bundle

    bundle = write_colour_bundle(tmp_path / "bundle")
    deploy(bundle.path, tmp_path / "repository", "--no-encoded", "--no-warm-up", "--instances", 1)
    return tmp_path / "repository"
