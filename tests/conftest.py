"""Shared pieces: pretrained weights, a small synthetic set, a trained run; each made once a session."""

import os
import signal
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"  # real images, where there are some

signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background job, and its children, ignore it
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Generated data goes to a folder of the session's own, in this process and in those it starts."""
    folder = tmp_path_factory.mktemp("cache")
    old = os.environ.get("CSG_CACHE")
    os.environ["CSG_CACHE"] = str(folder)
    yield folder
    if old is None:
        del os.environ["CSG_CACHE"]
    else:
        os.environ["CSG_CACHE"] = old


@pytest.fixture(scope="session")
def weights():
    """The ImageNet weights of MobileNetV2, from the network the first time."""
    from csg_train.models.weights import pull

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
    "model.freeze_batch_norm": True,  # eight steps leave its running statistics good for nothing
    "precision": "fp32",
}


@pytest.fixture(scope="session")
def small_recipe():
    """A recipe that trains in seconds; takes changes by dotted name."""
    from csg_train.recipe.schema import load_recipe

    return lambda **changes: load_recipe("digits", SMALL | {k.replace("__", "."): v for k, v in changes.items()}, [])


@pytest.fixture(scope="session")
def trained(weights, small_recipe, tmp_path_factory):
    """A finished csg run."""
    from csg_train.training.command import train
    from csg_train.training.run_folder import Run

    run = Run(tmp_path_factory.mktemp("runs") / "cls" / "small")
    train(small_recipe(optim__max_steps=8), run)
    return run
