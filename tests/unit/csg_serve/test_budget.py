"""`csg evaluate --budget`: a list of images to label, and estimates from the labels that are there."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from csg_serve.evaluate.budget.ask import window_shares
from tests.helpers.cli import csg, refused
from tests.helpers.tiny_bundle import COLOURS, write_colour_bundle, write_scene_bundle, write_worse_bundle

RGB = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture
def photos(tmp_path):
    """Twenty images of each colour, each a little different, without labels."""
    for name in COLOURS:
        for number in range(20):
            colour = tuple(max(0, value - number) for value in RGB[name])
            (tmp_path / "photos").mkdir(exist_ok=True)
            Image.new("RGB", (12, 10), colour).save(tmp_path / f"photos/{name}-{number}.png")
    return tmp_path / "photos"


def budget(*args):
    return csg("evaluate", *args, "--no-label")


def label(folder, count, person="ana", answer=None):
    """Answer the first items of a plan with the colour in the file's name."""
    plan = json.loads((folder / "label-plan.json").read_text())
    lines = []
    for number, item in enumerate(plan["items"][:count]):
        name = plan["images"][item["image"]]["image"].rsplit("/", 1)[1].split("-")[0]
        line = {"item": number, "class": answer or name, "at": "2026-01-31T09:30:00Z"}
        lines.append(json.dumps(line) + "\n")
    (folder / f"labels-{person}.jsonl").write_text("".join(lines))


@pytest.fixture
def plan(tmp_path, photos):
    write_colour_bundle(tmp_path / "bundle")
    done = budget(tmp_path / "bundle", "--data", photos, "--budget", 12, "--out", tmp_path / "plan")
    assert done.returncode == 0, done.stderr
    return tmp_path / "plan"


def test_without_labels_there_is_a_list_and_no_figure(plan):
    result = json.loads((plan / "estimate.json").read_text())
    assert (result["scores"], result["labelled"], result["budget"]) == ({}, 0, 12)
    assert len({item["image"] for item in json.loads((plan / "label-plan.json").read_text())["items"]}) == 12


def test_a_short_list_has_images_of_every_answer(plan):
    items = json.loads((plan / "label-plan.json").read_text())["items"]
    counts = Counter(one["predicted"] for one in items)
    assert (len(counts), min(counts.values())) >= (3, 3)


def test_ten_labels_give_scores_with_intervals_and_a_page(plan):
    label(plan, 12)
    done = budget("bundle", "--budget", 12, "--out", plan, "--json", "--report")
    result = json.loads(done.stdout)
    assert result["labelled"] == 12
    for score in ("accuracy", "mean_class_accuracy"):
        low, high = result["scores"][score]["interval"]
        assert 0.6 < low < high == pytest.approx(1)
    assert result["more_to_halve"] > 0
    assert "12 labels" in (plan / "report.html").read_text()


def test_fewer_than_ten_labels_give_none(plan):
    label(plan, 9)
    result = json.loads(budget("bundle", "--budget", 12, "--out", plan, "--json").stdout)
    assert (result["scores"], result["labelled"], result["more_to_halve"]) == ({}, 9, None)


def test_a_larger_budget_continues_the_list(plan):
    before = json.loads((plan / "label-plan.json").read_text())["items"]
    assert budget("bundle", "--budget", 30, "--out", plan).returncode == 0
    after = json.loads((plan / "label-plan.json").read_text())["items"]
    assert [one["candidate"] for one in after[:12]] == [one["candidate"] for one in before]
    assert len(after) == 30


def test_labels_for_all_give_the_accuracy_itself(plan):
    budget("bundle", "--budget", 1000, "--out", plan)
    label(plan, 60)
    result = json.loads(budget("bundle", "--budget", 60, "--out", plan, "--json", "--half-width", 0.02).stdout)
    assert result["scores"]["accuracy"] == {"value": 1, "interval": [1, 1], "half_width": 0}
    assert (result["reached"], result["more_to_halve"]) == (True, 0)


def test_people_who_differ_are_listed_and_their_item_is_open(plan):
    label(plan, 12)
    label(plan, 11, "ben", "red")
    result = json.loads(budget("bundle", "--budget", 12, "--out", plan, "--json").stdout)
    first = result["disagreements"][0]
    assert set(first["answers"]) == {"ana", "ben"}
    assert first["settled"] is None
    assert result["labelled"] == first["item"]


def test_another_graph_than_that_of_the_list_is_refused(plan):
    write_worse_bundle(plan.parent / "other")
    refused(budget(plan.parent / "other", "--budget", 12, "--out", plan), 3, "another graph|colour of")


@pytest.mark.parametrize("line", ['{"item": 0, "class": "pink", "at": "2026-01-31T09:30:00Z"}', '{"item": 99'])
def test_labels_of_unknown_classes_and_damaged_lines_are_refused_with_their_line(plan, line):
    label(plan, 2)
    with (plan / "labels-ana.jsonl").open("a") as file:
        file.write(line + "\n")
    refused(budget("bundle", "--budget", 12, "--out", plan), 3, "labels-ana.jsonl.* line 3")


def test_an_image_that_has_changed_is_refused(plan):
    item = json.loads((plan / "label-plan.json").read_text())
    Image.new("RGB", (5, 5)).save(item["images"][item["items"][0]["image"]]["image"])
    refused(budget("bundle", "--budget", 12, "--out", plan), 3, "has changed")


def test_damaged_candidates_are_refused(plan):
    (plan / "candidates.npz").write_bytes(b"PK")
    refused(budget("bundle", "--budget", 12, "--out", plan), 3, "candidates.npz")


def test_duplicates_are_left_out_and_unreadable_images_counted(tmp_path, photos):
    write_colour_bundle(tmp_path / "bundle")
    (photos / "twin.png").write_bytes((photos / "red-0.png").read_bytes())
    (photos / "broken.png").write_bytes(b"no image")
    words = ("bundle", "--data", photos, "--budget", 10, "--out", "plan")
    refused(budget(*words), 3, "broken.png", "--on-unreadable skip")
    result = json.loads(budget(*words, "--on-unreadable", "skip", "--json").stdout)
    assert (result["images"], result["duplicates"], result["unreadable"]) == (60, 1, 1)


def test_options_of_labelled_images_are_refused(tmp_path, photos):
    write_colour_bundle(tmp_path / "bundle")
    refused(budget("bundle", "--data", photos, "--budget", 10, "--mirrored"), 2, "--mirrored")
    refused(budget("bundle", "--budget", 10), 2, "--data")
    refused(csg("evaluate", "bundle", "--half-width", 0.02), 2, "--budget")


def test_of_scenes_points_are_asked_and_give_the_pixel_accuracy(tmp_path):
    write_scene_bundle(tmp_path / "scenes")
    (tmp_path / "photos/images").mkdir(parents=True)
    (tmp_path / "photos/labels").mkdir()
    pixels = np.zeros((24, 30, 3), np.uint8)
    pixels[:12, :, 0], pixels[12:, :15, 1], pixels[12:, 15:, 2] = 255, 255, 255
    for number in range(3):
        pixels[0, number] = 9
        Image.fromarray(pixels).save(tmp_path / f"photos/images/{number}.png")
    assert budget("scenes", "--data", "photos", "--budget", 20, "--out", "plan").returncode == 0
    plan = json.loads((tmp_path / "plan/label-plan.json").read_text())
    lines = []
    for number, item in enumerate(plan["items"]):
        x, y = item["point"]
        name = COLOURS[int(pixels[y, x].argmax())]
        lines.append(json.dumps({"item": number, "class": name, "at": "2026-01-31T09:30:00Z"}) + "\n")
    (tmp_path / "plan/labels-me.jsonl").write_text("".join(lines))
    result = json.loads(budget("scenes", "--budget", 20, "--out", "plan", "--json").stdout)
    assert result["images"] == 3
    assert result["scores"]["pixel_accuracy"]["interval"][1] == pytest.approx(1)
    assert result["scores"]["miou"]["value"] > 0.8


def test_shares_of_a_window_are_those_of_its_pixels():
    label_map = np.random.default_rng(0).integers(0, 3, (9, 14)).astype(np.uint8)
    found = window_shares(label_map, 3, (np.array([0, 7]), np.array([4, 8])), 0.3)
    inside = [label_map[2:7, :3], label_map[6:9, 5:10]]
    assert found == pytest.approx(np.array([np.bincount(one.ravel(), minlength=3) / one.size for one in inside]))
