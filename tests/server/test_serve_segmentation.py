"""Segmenters behind a real Triton: label maps, scores and pictures, whole and in tiles, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from csg.datasets.segmentation import read_segmentation_dataset
from csg.metrics import PixelConfusion
from tests.helpers.cli import csg, refused
from tests.helpers.evaluations import LABELS
from tests.helpers.served import deploy, serving
from tests.helpers.tiny_bundle import write_colour_bundle, write_scene_bundle

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of noise whose masks are correct except for one, and a repository with three models."""
    root, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / "data" / kind).mkdir(parents=True)
    (root / "data" / "labels.yaml").write_text(LABELS)
    for number in range(6):
        pixels = rng.integers(0, 256, (50 + 30 * number, 70, 3), dtype=np.uint8)
        labels = pixels.argmax(2).astype(np.uint8)
        if number == 3:
            labels[:20] = 2
        labels[-3:] = 9
        Image.fromarray(pixels).save(root / "data" / "images" / f"{number}.png")
        Image.fromarray(labels).save(root / "data" / "labels" / f"{number}.png")
    for name, side in (("scenes", None), ("fixed", 64)):
        write_scene_bundle(root / "bundles" / name, name, side)
    write_colour_bundle(root / "bundles" / "colour")
    for name in ("scenes", "fixed", "colour"):
        deploy(root / "bundles" / name, root / "repository", "--no-encoded", "--instances", 1)
    return root


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder / "repository") as state:
        yield state["grpc"]


def expected(folder):
    scenes, counts = read_segmentation_dataset([folder / "data"]), PixelConfusion(3)
    for place in range(len(scenes)):
        image, labels = scenes.load(place)
        counts.add(labels, np.asarray(image).argmax(2).astype(np.uint8))
    return counts.scores()


@pytest.mark.parametrize("tile", [None, 64])
def test_scores_are_those_of_the_pixels(folder, server, tile, tmp_path):
    more = ("--tile", tile) if tile else ()
    done = csg(
        "evaluate", "--server", server, "--model", "scenes", "--data", folder / "data", "--json", *more, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    report, scores = json.loads(done.stdout), expected(folder)
    keys = ["model", "version", "images", "skipped", "miou", "pixel_accuracy", "per_class", "images_per_s"]
    assert set(keys) <= report.keys()
    assert (report["images"], report["skipped"]) == (6, 0)
    assert report["miou"] == pytest.approx(scores.miou)
    assert 0.9 < report["miou"] < 1
    assert report["pixel_accuracy"] == pytest.approx(scores.pixel_accuracy)
    assert report["per_class"]["green"] == pytest.approx(scores.per_class[1])
    assert [p.split("/")[-1] for p in report["pictures"]] == ["best.png", "median.png", "worst.png"]
    with Image.open(tmp_path / "evaluations" / "scenes-1-1" / "worst.png") as picture:
        assert picture.size == (3 * 70, 50 + 30 * 3), "image, prediction and labels of scene 3"


def test_a_model_of_fixed_size_takes_tiles_of_that_size(folder, server):
    ask = ("evaluate", "--server", server, "--model", "fixed", "--data", folder / "data", "--json")
    whole, tiled = csg(*ask), csg(*ask, "--tile", 64)
    assert whole.returncode == tiled.returncode == 0, whole.stderr + tiled.stderr
    assert json.loads(tiled.stdout)["miou"] == pytest.approx(expected(folder).miou)
    assert json.loads(whole.stdout)["miou"] < json.loads(tiled.stdout)["miou"], (
        "noise does not survive being made smaller"
    )
    refused(csg(*ask, "--tile", 72), 2, "64 x 64", "--tile 72")


def test_the_table(folder, server, tmp_path):
    done = csg("evaluate", "--server", server, "--model", "scenes", "--data", folder / "data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in ("green", "mIoU", "pixel accuracy", "best.png"):
        assert text in done.stdout


def test_predictions_are_masks_with_a_palette(folder, server, tmp_path):
    images = [folder / "data" / "images" / f"{number}.png" for number in (0, 1)]
    ask = ("predict", *images, images[0], "--server", server, "--model", "scenes", "--json")
    done = csg(*ask, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    predictions = json.loads(done.stdout)["predictions"]
    assert [p["mask"] for p in predictions] == [
        f"predictions/{n}-mask{again}.png" for n, again in ((0, ""), (1, ""), (0, "-2"))
    ]
    for path, prediction in zip(images, predictions, strict=False):
        with Image.open(tmp_path / prediction["mask"]) as mask, Image.open(path) as image:
            assert np.array_equal(np.asarray(mask), np.asarray(image).argmax(2))
            assert mask.getpalette()[:9] == [255, 0, 0, 0, 255, 0, 0, 0, 255]
        assert sum(prediction["classes"].values()) == pytest.approx(1)
        assert (tmp_path / prediction["overlay"]).is_file()


def test_unreadable_images_and_invalid_options_are_refused(folder, server, tmp_path):
    data = tmp_path / "data"
    for kind in ("images", "labels"):
        (data / kind).mkdir(parents=True)
        for number in (0, 1):
            (data / kind / f"{number}.png").write_bytes((folder / "data" / kind / f"{number}.png").read_bytes())
    (data / "labels.yaml").write_text(LABELS)
    (data / "images" / "1.png").write_bytes(b"broken")
    ask = ("evaluate", "--server", server, "--data", data)
    refused(csg(*ask, "--model", "scenes"), 3, r"images/1\.png", "--on-unreadable skip")
    done = csg(*ask, "--model", "scenes", "--on-unreadable", "skip", "--json")
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["images"], json.loads(done.stdout)["skipped"]) == (1, 1)
    refused(csg(*ask, "--model", "scenes", "--tile", "70"), 2, "multiples of 8")
    refused(csg(*ask, "--model", "colour", "--tile", "64"), 2, "colour is not a segmenter")
    refused(
        csg("predict", data / "images" / "0.png", "--server", server, "--model", "colour", "--tile", "64"),
        2,
        "segmenter",
    )
    (data / "labels.yaml").unlink()
    refused(csg(*ask, "--model", "scenes", "--labels", "camvid11"), 3, "the classes of rgb and camvid11 differ")
