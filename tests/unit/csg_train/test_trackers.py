"""Trackers: what they are told, and that none of them ends or holds up a training."""

import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from csg.errors import InputError, UsageError
from csg_train.training import trackers
from csg_train.training.command import train
from csg_train.training.run_folder import Run
from csg_train.training.trackers import background
from csg_train.training.trackers.background import without_secrets
from csg_train.training.trackers.tracking import tracking
from tests.helpers.small_runs import noisy_images, stopped_run, tiny_recipe

PICTURE = Image.fromarray(np.zeros((4, 5, 3), np.uint8))


class Kept:
    """A tracker that keeps what it is told, in a list of the class."""

    told: list = []  # noqa: RUF012

    def __init__(self, run):
        self.id = run.id or "first"
        self.told.append(("open", run.id, dict(run.settings)))

    def figures(self, step, values):
        self.told.append(("figures", step, values))

    def images(self, step, images):
        self.told.append(("images", step, list(images)))

    def results(self, step, values):
        self.told.append(("results", step, values))

    def close(self, finished):
        self.told.append(("close", finished))


class Failing(Kept):
    """A tracker whose server goes away after the start."""

    def figures(self, step, values):
        raise ConnectionError("no route to http://me:secret@host/")


class Hanging(Kept):
    """A tracker whose server never answers again."""

    end: threading.Event

    def figures(self, step, values):
        self.end.wait(60)


class Refusing(Kept):
    """A tracker without a server from the start."""

    def __init__(self, run):
        raise ConnectionError("no route to http://host/?api_key=abc")


class Leaving(Kept):
    """A library that ends the process if nobody is logged in."""

    def __init__(self, run):
        raise SystemExit("log in first")


@pytest.fixture
def images(tmp_path):
    return noisy_images(tmp_path / "data"), noisy_images(tmp_path / "real", seed=1)


@pytest.fixture
def named(monkeypatch):
    """Makes the trackers of this file known by name."""
    Kept.told, Hanging.end = [], threading.Event()
    for kind in (Kept, Failing, Hanging, Refusing, Leaving):
        monkeypatch.setitem(trackers.TRACKERS, kind.__name__, f"{__name__}:{kind.__name__}")


def test_a_tracker_is_told_settings_figures_and_results(images, named, tmp_path):
    result = train(tiny_recipe(*images, evaluate_every=3), Run(tmp_path / "run"), ["Kept"])
    kinds = [told[0] for told in Kept.told]
    assert (kinds[0], kinds[-1]) == ("open", "close")
    assert Kept.told[0][2]["optim.batch"] == 4
    assert Kept.told[0][2]["data.train"] == str(images[0])
    figures = {(step, name) for kind, step, values in Kept.told[1:-1] if kind == "figures" for name in values}
    assert {(3, "real/accuracy"), (6, "real/accuracy"), (6, "loss"), (6, "lr/heads")} < figures
    (last,) = [values for kind, _, values in Kept.told[1:-1] if kind == "results"]
    assert last["result/accuracy"] == result.real.accuracy
    assert Kept.told[-1] == ("close", True)


def test_a_resumed_run_goes_on_under_the_same_name_unasked(images, named, tmp_path):
    recipe = tiny_recipe(*images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.helpers.small_runs.train", lambda recipe, run: train(recipe, run, ["Kept"]))
        run = stopped_run(tmp_path / "run", recipe)
    assert Kept.told[-1] == ("close", False)
    train(recipe, run)
    assert [told[1] for told in Kept.told if told[0] == "open"] == [None, "first"]
    assert Kept.told[-1] == ("close", True)


@pytest.mark.parametrize("name", ["Failing", "Hanging"])
def test_a_tracker_that_fails_or_hangs_is_said_once_and_changes_nothing(images, named, tmp_path, capsys, name):
    recipe = tiny_recipe(images[0], optim__steps=2)
    train(recipe, Run(tmp_path / "alone"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(background, "CLOSING_S", 0.2)
        train(recipe, Run(tmp_path / "run"), [name, "Kept"])
    Hanging.end.set()
    said = capsys.readouterr().err
    assert said.count("the training goes on: no route to http://...@host/") == (name == "Failing")
    assert said.count("updates were not written") == 1
    assert "secret" not in said
    assert [told for told in Kept.told if told[0] == "close"]
    one, other = ((tmp_path / run / "student.safetensors").read_bytes() for run in ("alone", "run"))
    assert one == other


@pytest.mark.parametrize(
    ("name", "words"), [("Refusing", r"http://host/\?api_key=\.\.\."), ("Leaving", "log in first")]
)
def test_a_tracker_that_cannot_be_opened_ends_a_run_before_its_first_step(images, named, tmp_path, name, words):
    with pytest.raises(InputError, match=rf"tracker {name} can't be opened: .*{words}"):
        train(tiny_recipe(*images), Run(tmp_path / "run"), ["Kept", name])
    assert not (tmp_path / "run").exists()
    assert Kept.told[-1] == ("close", False)


def test_one_that_cannot_be_opened_any_more_does_not_keep_a_run_from_being_resumed(images, named, tmp_path, capsys):
    recipe = tiny_recipe(*images)
    run = stopped_run(tmp_path / "run", recipe)
    for name in ("Refusing", "uninstalled"):
        run.write("trackers.json", f'{{"version": 1, "ids": {{"{name}": "first"}}}}')
        with tracking(run, recipe, ()):
            pass
    said = capsys.readouterr().err
    assert "warning: tracker Refusing can't be opened" in said
    assert "warning: there is no tracker 'uninstalled'" in said
    with pytest.raises(InputError, match="Refusing"), tracking(run, recipe, ["Refusing"]):
        pass


@pytest.mark.parametrize("name", ["mflow", "", "Kept"])
def test_an_unknown_tracker_is_refused(name):
    with pytest.raises(UsageError, match="there is no tracker"):
        trackers.check_trackers([name])


def test_tensorboard_has_figures_images_and_settings(images, tmp_path):
    run, recipe = Run(tmp_path / "run"), tiny_recipe(*images)
    with tracking(run, recipe, ()) as opened:
        opened.figures(10, {"loss": 0.5})
        opened.images(10, {"worst": PICTURE})
    events = EventAccumulator(str(run.path)).Reload()
    assert [(found.step, found.value) for found in events.Scalars("loss")] == [(10, 0.5)]
    assert (events.Images("worst")[0].width, events.Images("worst")[0].height) == (5, 4)
    data = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(data).session_start_info.hparams
    assert settings["optim.batch"].number_value == 4
    assert settings["method"].string_value == "none"


@contextmanager
def mlflow_store(path, patch):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow-skinny")
    patch.setenv("MLFLOW_TRACKING_URI", path.as_uri())
    patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    yield mlflow.MlflowClient(path.as_uri())


@pytest.mark.slow
def test_mlflow_keeps_a_run_and_continues_it(images, tmp_path, monkeypatch):
    with mlflow_store(tmp_path / "store", monkeypatch) as client:
        recipe = tiny_recipe(*images, evaluate_every=2)
        monkeypatch.setattr("tests.helpers.small_runs.train", lambda recipe, run: train(recipe, run, ["mlflow"]))
        run = stopped_run(tmp_path / "run", recipe)
        (found,) = client.search_runs([client.get_experiment_by_name("csg").experiment_id])
        assert found.info.status == "KILLED"
        result = train(recipe, run)
        (found,) = client.search_runs([found.info.experiment_id])
        assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
        assert found.data.params["optim.batch"] == "4"
        assert found.data.metrics["result/accuracy"] == result.real.accuracy
        history = client.get_metric_history(found.info.run_id, "real/accuracy")
        assert {point.step for point in history} == {2, 4, 6}
        with tracking(run, recipe, ()) as opened:
            opened.images(6, {"worst": PICTURE})
        assert [file.path for file in client.list_artifacts(found.info.run_id, "images")] == ["images/worst.png"]
        with Image.open(Path(client.download_artifacts(found.info.run_id, "images/worst.png"))) as kept:
            assert kept.size == (5, 4)


@pytest.mark.parametrize(
    "text",
    ["http://me:pass@host/x", "https://host/?write_token=pass", "wandb: api_key=pass refused", "x?Password=pass&y=1"],
)
def test_warnings_hold_no_secrets(text):
    assert "pass" not in without_secrets(text).lower().replace("password", "")
