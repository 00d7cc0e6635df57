"""Trainings of these tests draw no pictures, which take longer than a small training; test_pictures.py draws them."""

import pytest

from csg_train.training import trainer
from csg_train.training.pictures import keep_pictures


@pytest.fixture(scope="package", autouse=True)
def no_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "keep_pictures", lambda *args, **named: {})
        yield


@pytest.fixture
def with_pictures(monkeypatch):
    """Runs have their pictures again."""
    monkeypatch.setattr(trainer, "keep_pictures", keep_pictures)
