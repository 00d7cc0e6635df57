"""The labelling page as people use it: in headless Chromium, by keys and by touch, in light and dark."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csg_serve.evaluate.labelling.answers import read_merged
from csg_serve.evaluate.labelling.task import AskedItem, LabellingTask
from tests.helpers.browser import CONTRASTS, needs_chromium, started
from tests.helpers.image_files import encoded
from tests.helpers.labelling import image_task, labelling
from tests.helpers.page_files import opened

pytestmark = [needs_chromium, pytest.mark.slow]
HOSTILE = (
    '<img src=x onerror="alert(1)">',
    "\N{RIGHT-TO-LEFT OVERRIDE}god",
    "كلب",
    "\N{DOG FACE}" * 9,
    "w" * 300,
    "a&amp;b",
    "'\"\\",
)
CENTRE = """image => {
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return [...context.getImageData(canvas.width >> 1, canvas.height >> 1, 1, 1).data].slice(0, 3);
}"""
SERVED = """
import sys
from pathlib import Path
from tests.helpers.labelling import image_task
from csg_serve.evaluate.labelling.open import LabellingOptions, open_labelling
options = LabellingOptions("ana", show=lambda address: print(address, flush=True))
open_labelling(Path("work"), image_task(Path("images"), 6), options)
"""


@pytest.fixture(scope="module")
def browser():
    with started() as found:
        yield found


def counted(tab, text):
    """Wait until the page says how many are done."""
    from playwright.sync_api import expect

    expect(tab.locator("#count")).to_have_text(re.compile(text), timeout=20_000)


def press(tab, *keys):
    """Press keys, each after the page has done what the one before it said."""
    for key in keys:
        tab.keyboard.press(key)
        tab.locator("main[aria-busy=false]").wait_for()


def test_a_hundred_images_by_keys_with_undo_and_a_reload(browser, tmp_path):
    task = image_task(tmp_path / "images", 100, ("dog", "cat", "bird"), None)
    with labelling(tmp_path, task) as found, opened(browser, found.address) as (tab, requests):
        for number in range(100):
            counted(tab, f"^{number} of 100, {100 - number} left")
            tab.locator(f"[alt='Image {number + 1} of 100']").wait_for()
            if number == 50:
                tab.reload()
                counted(tab, "^50 of 100")
                tab.locator("[alt='Image 51 of 100']").wait_for()
            if number in (10, 60):
                tab.keyboard.press("9")  # no class has this key
                tab.keyboard.press("Backspace" if number == 10 else "u")
                tab.locator(f"[alt='Image {number} of 100']").wait_for()
                tab.keyboard.press("3")
                tab.locator(f"[alt='Image {number + 1} of 100']").wait_for()
            tab.keyboard.press("12"[number % 2] if number != 70 else "Space")
        tab.get_by_role("heading", name="All labelled").wait_for()
        pictures = [url for url in requests if url.endswith("/whole")]
        assert len(pictures) < 110
        tab.keyboard.press("Enter")
        tab.get_by_role("heading", name="Saved").wait_for()
    expected = {number: ("dog", "cat")[number % 2] for number in range(100)} | {9: "bird", 59: "bird", 70: None}
    assert found.merged[0].labels == expected


def test_two_windows_and_two_people(browser, tmp_path):
    task = image_task(tmp_path / "images", 3)
    with (
        labelling(tmp_path, task) as ana,
        labelling(tmp_path, task, "ben") as ben,
        opened(browser, ana.address) as (first, _),
        opened(browser, ana.address) as (second, _),
        opened(browser, ben.address) as (third, _),
    ):
        for tab in (first, second, third):
            tab.locator("[alt='Image 1 of 3']").wait_for()
        first.keyboard.press("2")
        first.get_by_text("you said ⁨cat⁩, the model says ⁨dog⁩").wait_for()
        second.keyboard.press("1")
        second.get_by_text("Answered in another window already").wait_for()
        third.keyboard.press("1")
        third.get_by_text("the model agrees").wait_for()
        counted(third, "^0 of 3, 2 left|^1 of 3")
        press(third, "1", "1")
        third.get_by_role("heading", name="All labelled").wait_for()
        third.get_by_text("People gave different classes to 1").wait_for()
    merged = read_merged(tmp_path, task.labelled)
    assert merged.labels == {1: "dog", 2: "dog"}
    assert [dict(one.answers) for one in merged.disagreements] == [{"ana": "cat", "ben": "dog"}]


def test_a_server_that_is_killed_loses_nothing(browser, tmp_path):
    from tests.conftest import ROOT

    def serve():
        process = subprocess.Popen(
            [sys.executable, "-c", SERVED], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        return process, process.stdout.readline().decode().strip()

    process, address = serve()
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(address)
    tab.locator("[alt='Image 1 of 6']").wait_for()
    press(tab, "1", "2")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    tab.keyboard.press("1")
    tab.get_by_role("alert").get_by_text("start the same command again").wait_for()
    with Path("work/labels-ana.jsonl").open("ab") as file:
        file.write(b'{"item": 2, "cla')
    process, address = serve()
    tab.goto(address)
    counted(tab, "^2 of 6, 4 left")
    tab.locator("[alt='Image 3 of 6']").wait_for()
    press(tab, "1")
    tab.get_by_role("button", name="Stop").click()
    tab.get_by_role("heading", name="Saved").wait_for()
    assert process.wait(timeout=20) == 0
    process.stdout.close()
    context.close()


def test_hostile_names_are_text(browser, tmp_path):
    task = image_task(tmp_path / "images", 2, HOSTILE, HOSTILE[0])
    for number, name in enumerate(
        ('<img src=x onerror="alert(1)">.png', "\N{RIGHT-TO-LEFT OVERRIDE}gnp.\N{DOG FACE}.png")
    ):
        task.items[number].image.rename(tmp_path / "images" / name)
    task = replace(
        task, items=tuple(AskedItem(path, None, HOSTILE[0]) for path in sorted((tmp_path / "images").iterdir()))
    )
    with (
        labelling(tmp_path, task) as found,
        opened(browser, found.address, viewport={"width": 390, "height": 800}) as (tab, _),
    ):
        tab.locator("[alt='Image 1 of 2']").wait_for()
        assert tab.locator("#keys bdi").all_inner_texts() == list(HOSTILE)
        assert tab.locator("#name").inner_text() == '<img src=x onerror="alert(1)">.png'
        press(tab, "2")
        assert tab.locator("#last img, #keys img").count() == 0
        assert HOSTILE[0] in tab.locator("#last").inner_text()
        assert "\\u202e" in tab.locator("#name").inner_text()
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        press(tab, "7")
        tab.get_by_role("heading", name="All labelled").wait_for()
    assert found.merged[0].labels == {0: HOSTILE[1], 1: HOSTILE[6]}


def test_a_thousand_classes_are_typed(browser, tmp_path):
    classes = [f"{a}{b}{c} tree" for a in "abcdefghij" for b in "klmnopqrst" for c in "uvwxyzéßçñ"]
    task = image_task(tmp_path / "images", 5, classes)
    with labelling(tmp_path, task) as found, opened(browser, found.address) as (tab, _):
        tab.locator("[alt='Image 1 of 5']").wait_for()
        tab.keyboard.type("bke")  # without the accent
        assert tab.get_by_role("option").all_inner_texts() == ["1\nbké tree"]
        press(tab, "Enter")
        tab.keyboard.type("tree")
        press(tab, "3")  # the third match
        tab.keyboard.type("c")
        tab.keyboard.press("Backspace")
        press(tab, "1")  # the class before
        press(tab, "Backspace")
        assert tab.locator("[alt='Image 3 of 5']").count() == 1
        press(tab, "Space")
        tab.keyboard.press("ArrowDown")
        press(tab, "Enter")  # the one before that
        tab.keyboard.type("xxxx")
        tab.get_by_text("No class has this name").wait_for()
        tab.keyboard.press("Enter")
        tab.keyboard.press("Escape")
        counted(tab, "^4 of 5")
    assert list(found.merged[0].labels.values()) == ["bké tree", classes[2], None, "bké tree"]


def test_a_class_whose_name_is_a_key_has_that_key(browser, tmp_path):
    names = ("0", "1", " 7 ", "A", "a", "u", "dog", "2")
    task = image_task(tmp_path / "images", len(names), names, None)
    with labelling(tmp_path, task) as found, opened(browser, found.address) as (tab, _):
        for number, key in enumerate("017a3452"):
            tab.locator(f"[alt='Image {number + 1} of 8']").wait_for()
            press(tab, key)
        tab.get_by_role("heading", name="All labelled").wait_for()
    assert found.merged[0].labels == dict(enumerate(names))


def test_digits_are_typed_where_classes_have_digits(browser, tmp_path):
    task = image_task(tmp_path / "images", 2, [f"limit {number}" for number in range(50)])
    with labelling(tmp_path, task) as found, opened(browser, found.address) as (tab, _):
        tab.locator("[alt='Image 1 of 2']").wait_for()
        tab.keyboard.type("limit 42")
        press(tab, "Enter")
    assert found.merged[0].labels == {0: "limit 42"}


def test_one_class_later_and_images_that_cannot_be_read(browser, tmp_path):
    task = image_task(tmp_path / "images", 4, ("dog",))
    task.items[0].image.write_bytes(b"hello")
    with labelling(tmp_path, task) as found, opened(browser, found.address) as (tab, _):
        tab.get_by_role("alert").get_by_text("not an image file").wait_for()
        tab.locator("[alt='Image 2 of 4']").wait_for()
        counted(tab, "3 left")
        press(tab, "ArrowRight", "1", "1")
        assert tab.locator("[alt='Image 2 of 4']").count() == 1
        press(tab, "1")
        tab.get_by_text("1 can't be read.").wait_for()
    assert found.merged[0].labels == {1: "dog", 2: "dog", 3: "dog"}


@pytest.mark.parametrize("size", [(1, 1), (5000, 3), (3, 5000), (6000, 4000)])
def test_images_of_every_size_fit(browser, tmp_path, size):
    task = image_task(tmp_path / "images", 1)
    task.items[0].image.write_bytes(encoded(Image.new("RGB", size, "red"), "PNG"))
    with labelling(tmp_path, task) as found, opened(browser, found.address) as (tab, _):
        tab.locator("[alt='Image 1 of 1']").wait_for()
        box = tab.locator("#whole").bounding_box()
        assert box["height"] >= 20
        assert box["y"] + box["height"] <= 844
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_point_is_magnified_and_marked(browser, tmp_path):
    pixels = np.full((300, 400, 3), 90, np.uint8)
    pixels[220, 310] = (255, 0, 0)
    (tmp_path / "scene.png").write_bytes(encoded(Image.fromarray(pixels)))
    task = LabellingTask("scenes", ("road", "sky"), (AskedItem(tmp_path / "scene.png", (310, 220), "sky"),) * 2)
    with labelling(tmp_path, task) as found, opened(browser, found.address) as (tab, _):
        tab.get_by_role("heading", name="Which class is at the cross?").wait_for()
        sides = []
        for key in ["PageUp"] * 5 + ["PageDown"] * 5:
            sides.append(tab.locator("#window").evaluate("image => image.naturalWidth"))
            assert tab.locator("#window").evaluate(CENTRE) == [255, 0, 0]
            tab.keyboard.press(key)
        assert sides == [65, 33, 33, 33, 33, 33, 65, 129, 257, 513]
        whole, ring = tab.locator("#whole").bounding_box(), tab.locator("#ring").bounding_box()
        for axis, side, place in (("x", "width", 310.5 / 400), ("y", "height", 220.5 / 300)):
            assert abs(ring[axis] + ring[side] / 2 - (whole[axis] + place * whole[side])) < 1
        press(tab, "1")
        tab.get_by_text("The point before: you said ⁨road⁩, the model says ⁨sky⁩").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_used_by_touch_and_read_by_everyone(browser, tmp_path, scheme):
    task = image_task(tmp_path / "images", 3)
    phone = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
    with labelling(tmp_path, task) as found, opened(browser, found.address, color_scheme=scheme, **phone) as (tab, _):
        tab.locator("[alt='Image 1 of 3']").wait_for()
        tab.get_by_role("button", name="dog").tap()
        tab.get_by_text("the model agrees").wait_for()
        tab.locator("[alt='Image 2 of 3']").wait_for()
        for selector in ("#count", "#last", "button:not([hidden])", ".class bdi", "figcaption", "h1", "h2"):
            assert min(tab.evaluate(CONTRASTS, selector)) > 4.5, selector
        visible = "[...document.querySelectorAll('button')].filter(one => one.checkVisibility())"
        assert tab.evaluate(f"Math.min(...{visible}.map(one => one.getBoundingClientRect().height))") >= 44
        tab.get_by_role("button", name="cat").tap()
        tab.get_by_text("the model says").wait_for()
        assert min(tab.evaluate(CONTRASTS, "#last")) > 4.5
        tab.get_by_role("button", name="Undo").tap()
        tab.locator("[alt='Image 2 of 3']").wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert tab.get_by_role("progressbar", name="Labelled").count() == 1
    assert found.merged[0].labels == {0: "dog"}
