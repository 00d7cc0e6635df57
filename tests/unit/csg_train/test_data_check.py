"""`csg data check` says what data are, and whether a training takes them."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from csg.datasets.kinds import task_of
from tests.helpers.cli import csg, refused
from tests.helpers.image_files import encoded, noise
from tests.helpers.mask_files import save_image, write_gta5


@pytest.fixture
def folders(tmp_path):
    """Folders a, b and real: four images of cat and dog each."""
    for root in ("a", "b", "real"):
        for name in ("cat", "dog"):
            (tmp_path / root / name).mkdir(parents=True)
            for number in range(4):
                (tmp_path / root / name / f"{number}.png").write_bytes(encoded(noise()))
    return tmp_path


def check(*options):
    done = csg("data", "check", *options, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_counts_sizes_and_formats(folders):
    Image.new("L", (5, 9)).save(folders / "a" / "dog" / "grey.png")
    result, _ = check("a", "b", "--real-data", "real")
    assert (result["task"], result["refused"], result["leaks"]["count"]) == ("cls", None, 0)
    training = result["training"]
    assert training["classes"] == {"cat": [4, 4], "dog": [5, 4]}
    assert training["sources"] == [{"name": "a", "images": 9}, {"name": "b", "images": 8}]
    assert training["sizes"] == {"37 x 23": 16, "5 x 9": 1}
    assert training["formats"] == {"PNG RGB": 16, "PNG L": 1}
    assert result["real"]["classes"] == {"cat": [4], "dog": [4]}


def test_the_tables_have_the_counts(folders):
    done = csg("data", "check", "a", "b", "--real-data", "real")
    assert done.returncode == 0, done.stderr
    assert "a + b (training)" in done.stdout
    assert "37 x 23 (16)" in done.stdout
    assert "training 1" in done.stdout
    assert done.stderr.endswith("samples are in data-check.png\n")


def test_files_that_were_passed_over_are_shown(folders):
    (folders / "a" / "cat" / "notes.txt").write_text("x")
    result, _ = check("a")
    assert any("1 .txt" in note for note in result["training"]["notes"])
    assert "1 .txt" in csg("data", "check", "a").stdout


def test_of_many_sizes_the_range_is_shown(folders):
    for side in range(50, 60):
        Image.new("RGB", (side, 9)).save(folders / "a" / "cat" / f"{side}.png")
    shown = csg("data", "check", "a").stdout
    assert "11 from 50 x 9 to 37 x 23, most often 37 x 23 (8)" in shown


def test_the_fingerprint_is_that_of_a_run(folders):
    from csg.datasets.classification import read_classification_dataset

    result, _ = check("a")
    assert result["training"]["fingerprint"] == read_classification_dataset(["a"]).fingerprint()


def test_duplicates_within_between_and_with_another_class(folders):
    shutil.copy("a/cat/0.png", "a/cat/again.png")
    shutil.copy("a/cat/1.png", "a/dog/cat.png")
    shutil.copy("a/dog/1.png", "b/dog/again.png")
    found, err = check("a", "b")
    duplicates = found["training"]["duplicates"]
    assert (duplicates["count"], duplicates["other_label"], duplicates["between_sources"]) == (3, 1, 1)
    assert duplicates["first"][0] == ["a/cat/1.png", "a/dog/cat.png"]
    assert (
        "warning: a + b has the same image with different classes, 1 times, such as a/cat/1.png and a/dog/cat.png"
        in err
    )


def test_a_leak_is_said_loudly(folders):
    shutil.copy("a/cat/0.png", "real/cat/leak.png")
    found, err = check("a", "--real-data", "real")
    assert found["leaks"] == found["training"]["duplicates"] | {
        "count": 1,
        "first": [["a/cat/0.png", "real/cat/leak.png"]],
    }
    assert "warning: LEAK: training images are among the real images (1)" in err


def test_damaged_images_are_refused_as_a_training_would(folders):
    (folders / "a/cat/0.png").write_text("no image")
    content = (folders / "a/dog/1.png").read_bytes()
    (folders / "a/dog/1.png").write_bytes(content[: len(content) // 2])
    done = csg("data", "check", "a")
    assert done.returncode == 3
    assert "a training refuses these data: 2 of 8 images of a can't be used: the first because image" in done.stderr
    assert "a/dog/1.png can't be read" in done.stderr
    assert "can't be used" in done.stdout  # the tables are printed all the same
    assert (folders / "data-check.png").is_file()


def test_data_that_cannot_be_listed_are_refused(tmp_path):
    refused(csg("data", "check", tmp_path / "none"), 3, "none does not exist")
    (tmp_path / "a").mkdir()
    refused(csg("data", "check", tmp_path / "a"), 3, "class folders")


def test_hostile_names_are_shown(folders):
    (folders / "a/cat/0.png").rename(os.fsdecode(b"a/cat/caf\xe9.png"))
    (folders / "a/cat/1.png").rename("a/cat/[red]\x1b[31m.png")
    for file in (folders / "a/cat").iterdir():
        shutil.copy(file, "real/cat")
    (folders / "a/dog").rename("a/[bold]dog")
    (folders / "real/dog").rename("real/[bold]dog")
    found, err = check("a", "--real-data", "real")
    assert "\x1b" not in err
    assert "[bold]dog" in found["training"]["classes"]
    assert ["a/cat/caf\\xe9.png", "real/cat/caf\\xe9.png"] in found["leaks"]["first"]
    done = csg("data", "check", "a", "--real-data", "real")
    assert "\x1b" not in done.stdout
    assert "[bold]dog" in done.stdout


def test_values_of_masks_have_classes_and_shares(tmp_path):
    for number, values in enumerate(([7, 7, 8, 0], [7, 7, 7, 7])):
        save_image(tmp_path / "d" / "images" / f"{number}.png", np.zeros((2, 2, 3), np.uint8))
        save_image(tmp_path / "d" / "labels" / f"{number}.png", np.array(values, np.uint8).reshape(2, 2))
    found, _ = check("d", "--labels", "cityscapes19")
    training = found["training"]
    rows = [(row["value"], row["kind"], row["class_name"], row["share"], row["masks"]) for row in training["values"]]
    assert (found["task"], training["label_set"], training["ignored"]) == ("seg", "cityscapes19", 0.125)
    assert rows[:2] == [(7, "class", "road", 0.75, 2), (8, "class", "sidewalk", 0.125, 1)]
    assert rows[2] == (None, "class", "building", 0, 0)
    assert rows[-1] == (0, "ignored", None, 0.125, 1)
    assert sum(row["share"] for row in training["values"]) == 1


def test_masks_that_do_not_fit_are_refused(tmp_path):
    folder = write_gta5(tmp_path / "d")
    Image.new("L", (61, 40), 7).save(folder / "labels" / "00002.png")
    done = csg("data", "check", folder, "--labels", "cityscapes19")
    assert done.returncode == 3
    assert "00002.png has 61 x 40 pixels, its image 60 x 40" in done.stderr


def test_masks_that_are_ignored_are_refused(tmp_path):
    save_image(tmp_path / "d" / "images" / "0.png", np.zeros((4, 4, 3), np.uint8))
    save_image(tmp_path / "d" / "labels" / "0.png", np.zeros((4, 4), np.uint8))
    done = csg("data", "check", tmp_path / "d", "--labels", "cityscapes19")
    assert done.returncode == 3
    assert "not one pixel of the masks of d counts" in done.stderr


def test_the_picture_has_images_of_both_sets(tmp_path):
    colours = {"a": (200, 30, 40), "real": (10, 220, 90)}
    for root, colour in colours.items():
        for name in ("cat", "dog"):
            save_image(tmp_path / root / name / "0.png", np.full((20, 20, 3), colour, np.uint8))
    result, _ = check("a", "--real-data", "real", "--out", "pictures/both.png")
    assert result["picture"] == "pictures/both.png"
    with Image.open("pictures/both.png") as picture:
        drawn = {colour for _, colour in picture.getcolors(1 << 24)}
    assert drawn >= set(colours.values())


def test_the_picture_of_scenes_has_the_colours_of_the_classes(tmp_path):
    from csg.datasets.label_sets import read_label_set

    check(write_gta5(tmp_path / "d"), "--labels", "cityscapes19", "--out", "scenes.png")
    with Image.open("scenes.png") as picture:
        drawn = {colour for _, colour in picture.getcolors(1 << 24)}
    assert drawn >= set(read_label_set("cityscapes19").colours)


def test_the_kind_of_a_source(folders):
    write_gta5(folders / "scenes")
    (folders / "cls.txt").write_text("a/cat/0.png 0\na/dog/0.png 1\n")
    (folders / "seg.txt").write_text("scenes/images/00001.png scenes/labels/00001.png\n")
    (folders / "leftImg8bit" / "val").mkdir(parents=True)
    kinds = {"a": "cls", "digits": "cls", "cls.txt": "cls", "nowhere": "cls"}
    kinds |= {"scenes": "seg", "digit-scenes": "seg", "seg.txt": "seg", ".": "seg", "leftImg8bit/val": "seg"}
    assert {source: task_of(source) for source in kinds} == kinds
