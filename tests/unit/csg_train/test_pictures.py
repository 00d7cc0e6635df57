"""The pictures that a run has when it ends."""

import io

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from csg.datasets.segmentation import read_segmentation_dataset
from csg.provenance import ClassificationEvaluation
from csg_train.pictures import run_pictures as all_pictures
from csg_train.pictures.curves import run_curves_figure
from csg_train.pictures.grids import Cell, Grid, grid_figure
from csg_train.pictures.mistakes import mistakes_grid
from csg_train.pictures.plots import figure_png
from csg_train.pictures.scenes import COUNTED, UNCOUNTED, WRONG, Scenes
from csg_train.recipe import load_recipe
from csg_train.tasks import TASKS, Measurement, predicting
from csg_train.training.command import train
from csg_train.training.run_folder import Run
from tests.helpers.cli import csg
from tests.helpers.small_runs import noisy_images, settings, tiny_recipe

LONG = "a class whose name never ends and goes on and on " * 3


@pytest.fixture
def images(tmp_path):
    return noisy_images(tmp_path / "train"), noisy_images(tmp_path / "real", seed=1)


def test_a_run_has_its_pictures_and_says_where(with_pictures, images, tmp_path):
    sources = ("--data", images[0], "--real-data", images[1])
    done = csg("train", "cls", *sources, *settings(), "--out", tmp_path / "run")
    assert f"pictures in {tmp_path / 'run' / 'pictures'}" in done.stderr
    found = {file.stem: Image.open(file).size for file in (tmp_path / "run" / "pictures").iterdir()}
    assert found.keys() == {"samples", "curves", "confusion", "mistakes"}
    board = EventAccumulator(str(tmp_path / "run"), {"images": 0}).Reload()
    assert {tag: (image.width, image.height) for tag in board.Tags()["images"] for image in board.Images(tag)} == found


def test_the_same_run_has_the_same_pictures(with_pictures, images, tmp_path):
    runs = [Run(tmp_path / name) for name in ("one", "two")]
    for run in runs:
        train(tiny_recipe(*images), run)
    files = [{file.name: file.read_bytes() for file in run.pictures.iterdir()} for run in runs]
    different = {name for name, content in files[0].items() if content != files[1][name]}
    assert files[0].keys() == files[1].keys()
    assert not different


def test_a_picture_that_cannot_be_drawn_does_not_fail_the_run(with_pictures, images, tmp_path, monkeypatch, capsys):
    def fail(*args):
        raise ValueError("no\nsuch font")

    monkeypatch.setattr(all_pictures, "samples_grid", fail)
    train(tiny_recipe(*images), Run(tmp_path / "run"))
    assert Run(tmp_path / "run").finished
    assert not (tmp_path / "run" / "pictures" / "samples.png").exists()
    assert "warning: the picture samples of the run can't be drawn: no such font" in capsys.readouterr().err


def test_a_run_without_a_folder_for_pictures_ends_as_well(with_pictures, images, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pictures").write_text("a file")
    train(tiny_recipe(*images), Run(tmp_path / "run"))
    assert Run(tmp_path / "run").finished
    assert "warning: not all pictures of the run are there" in capsys.readouterr().err


def test_mistakes_are_the_most_confident_ones(images):
    recipe = tiny_recipe(*images)
    real = TASKS["cls"].read_synthetic(recipe)
    measurement = Measurement(
        ClassificationEvaluation(dataset="real", images=4, accuracy=0.25, mean_class_accuracy=0.25),
        np.eye(2, dtype=int),
        np.zeros((0, 0)),
        true=np.array([0, 0, 1, 1]),
        predicted=np.array([0, 1, 0, 0]),
        confidences=np.array([0.99, 0.6, 0.7, 0.9]),
        indices=np.array([0, 1, 6, 7]),
    )
    (row,) = mistakes_grid(real, measurement, recipe).rows
    assert [cell.caption for cell in row] == ["90% cat\ntrue: dog", "70% cat\ntrue: dog", "60% dog\ntrue: cat"]


def test_scenes_show_image_labels_prediction_and_wrong_pixels():
    recipe = load_recipe("digit-scenes", {"model.weights": "none"})
    images = read_segmentation_dataset(["digit-scenes"])
    images, classes = images.subset(np.arange(3), "scenes"), images.class_spec
    student = TASKS["seg"].student(recipe, len(classes), None)
    with predicting(student) as predict:
        measurement = TASKS["seg"].measure(predict, classes, images, recipe, "cpu")
    scenes = Scenes(images, measurement, recipe, student, classes)
    shares = []
    for photo, labels, _, wrong in scenes.worst().rows:
        index = next(n for n, path in enumerate(images.paths) if path.name == photo.caption)
        matrix, pixels = measurement.matrices[index], np.asarray(wrong.image)
        assert (pixels == WRONG).all(2).sum() == matrix.sum() - matrix.trace()
        assert (pixels == COUNTED).all(2).sum() == matrix.trace()
        assert (pixels == UNCOUNTED).all(2).sum() == pixels[..., 0].size - matrix.sum()
        assert labels.image.size == photo.image.size
        shares.append(matrix.trace() / matrix.sum())
    assert shares == sorted(shares)
    assert len(scenes.spread().legend) > 1


@pytest.mark.parametrize("columns", [1, 6])
def test_no_text_of_a_grid_is_cut_off(columns):
    names = [LONG, "$x^2$ {", "Übergrößenträger", "猫", "dog", "W" * 200]
    cells = [Cell(Image.new("RGB", (40, 40)), f"97% {name}\ntrue: {name}") for name in names[:columns]]
    _inside(grid_figure(Grid(LONG, [cells, cells[:1]], ("q-view", LONG), [(name, (0, 9, 9)) for name in names])))


def test_no_text_of_the_curves_is_cut_off_and_gaps_are_allowed():
    figures = {f"loss/{LONG}{n}": 10.0**n for n in range(12)} | {"real/miou": 0.5, "lr/heads": 0.1}
    points = [(10, figures), (20, {"loss": None}), (30, {"loss": 1.0})]
    figure = run_curves_figure(points, ["miou"])
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "score in %", "learning rate"]
    assert figure.axes[0].get_yscale() == "log"
    _inside(figure)
    assert run_curves_figure([], ["miou"]) is None


def _inside(figure):
    """Everything that is drawn is within the picture."""
    width, height = Image.open(io.BytesIO(figure_png(figure))).size
    box = figure.get_tightbbox(figure.canvas.get_renderer()).transformed(figure.dpi_scale_trans)
    assert min(box.x0, box.y0) >= -1
    assert box.x1 <= width + 1
    assert box.y1 <= height + 1
