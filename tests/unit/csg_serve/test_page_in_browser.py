"""The page as people use it: in headless Chromium, by mouse, keyboard, clipboard and camera, in light and dark."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.helpers.browser import CONTRASTS, needs_chromium, started
from tests.helpers.page_files import give, opened, page_of, served
from tests.helpers.tiny_bundle import (
    write_colour_bundle,
    write_scene_bundle,
    write_unloadable_bundle,
    write_wrong_bundle,
)

pytestmark = needs_chromium
HOSTILE = '<img src=x onerror="alert(1)">'
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
DROP = """([name, base64]) => {
  const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0)), data = new DataTransfer();
  data.items.add(new File([bytes], 'dropped.png', { type: 'image/png' }));
  const event = name === 'paste' ? new ClipboardEvent(name, { clipboardData: data, bubbles: true })
    : new DragEvent(name, { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""
PIXEL = """(canvas, x) => {
  const copy = new OffscreenCanvas(1, 1), context = copy.getContext('2d');
  context.drawImage(canvas, -x, -20);
  return [...context.getImageData(0, 0, 1, 1).data];
}"""


@pytest.fixture(scope="module")
def browser():
    with started(CAMERA) as found:
        yield found


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page with a classifier and a segmenter."""
    folder = tmp_path_factory.mktemp("page")
    bundles = write_colour_bundle(folder / "a"), write_scene_bundle(folder / "b")
    with served(page_of(folder / "page", *bundles)) as found:
        yield found


def picture(*colours):
    """Stripes of colours, as a PNG file."""
    image = Image.new("RGB", (24 * len(colours), 40))
    for place, colour in enumerate(colours):
        image.paste(colour, (24 * place, 0, 24 * place + 24, 40))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def ready(tab):
    from playwright.sync_api import expect

    expect(tab.locator(".note")).not_to_have_count(0)
    expect(tab.locator(".note", has_text="Loading")).to_have_count(0, timeout=60_000)
    return tab.locator(".note").all_inner_texts()


def test_both_models_answer_and_nothing_leaves_the_browser(browser, address):
    with opened(browser, address) as (tab, requests):
        assert ready(tab) == ["Ready. Its answers to 2 test images agree with PyTorch's."] * 2
        loaded = len(requests)
        tab.context.set_offline(True)
        give(tab, **{HOSTILE: picture("blue", "lime", "lime")})
        give(tab, red=picture("red"))
        classes, scene = tab.locator(".panel").all()
        assert classes.locator(".best").inner_text().startswith("red 100.0 %")
        assert scene.locator(".legend").inner_text().split() == ["red", "100.0", "%"]
        tab.get_by_role("button", name=HOSTILE).click()
        assert classes.locator(".bars tbody th").all_inner_texts() == ["green", "blue", "red"]
        assert scene.locator(".legend li").all_inner_texts() == ["green\n66.7 %", "blue\n33.3 %"]
        assert tab.locator("figcaption").inner_text() == HOSTILE
        assert tab.locator("[role=status]").inner_text().startswith(f"{HOSTILE}. colour: green ")
        assert {url for url in requests[loaded:] if not url.startswith("blob:")} == set()


@pytest.mark.slow
def test_the_mask_lies_over_the_image(browser, address):
    with opened(browser, address) as (tab, _):
        ready(tab)
        give(tab, scene=picture("blue", "lime"))
        layers = tab.locator(".layers canvas")
        photo, mask = layers.nth(0).bounding_box(), layers.nth(1).bounding_box()
        assert photo == mask
        assert layers.nth(1).evaluate(PIXEL, 10) == [0, 0, 255, 255]
        assert layers.nth(1).evaluate(PIXEL, 30) == [0, 255, 0, 255]
        slider = tab.get_by_label("Opacity of the colours")
        slider.press("Home")
        assert layers.nth(1).evaluate("canvas => getComputedStyle(canvas).opacity") == "0"
        give(tab, again=picture("red"))
        assert slider.input_value() == "0"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["paste", "drop"])
def test_images_are_dropped_and_pasted(browser, address, way):
    import base64

    with opened(browser, address) as (tab, _):
        ready(tab)
        tab.evaluate(DROP, [way, base64.b64encode(picture("blue")).decode()])
        tab.get_by_text("dropped.png", exact=True).first.wait_for()
        tab.locator(".best", has_text="blue").wait_for()


@pytest.mark.slow
def test_the_camera_starts_on_a_click_and_stops(browser, address):
    with opened(browser, address, permissions=["camera"]) as (tab, _):
        ready(tab)
        assert not tab.evaluate("document.getElementById('video').srcObject")
        tab.get_by_role("button", name="Use the camera").click()
        tab.get_by_role("button", name="Take a photo").click()
        tab.locator(".best").wait_for()
        track = tab.evaluate_handle("document.getElementById('video').srcObject.getTracks()[0]")
        tab.get_by_role("button", name="Stop the camera").click()
        assert track.evaluate("track => track.readyState") == "ended"
        assert tab.get_by_role("button", name="Choose images").is_visible()


@pytest.mark.slow
def test_what_is_no_image_is_said(browser, address):
    with opened(browser, address) as (tab, _):
        ready(tab)
        give(tab, **{"notes.jpg": b"only words", "cut.png": picture("red")[:60], "scan.tif": b"II*\0rest"})
        for name, reason in (("notes", "not an image"), ("cut", "damaged"), ("scan", "TIFF files can't be decoded")):
            tab.get_by_role("button", name=name).click()
            tab.locator(".body", has_text=reason).first.wait_for()
        give(tab, good=picture("red"))
        assert "red" in tab.locator(".best").inner_text()


@pytest.mark.slow
def test_models_that_do_not_work_here_are_said(browser, tmp_path):
    """One answers otherwise than PyTorch, one can't be loaded: the third is of use nevertheless."""
    good = write_colour_bundle(tmp_path / "good")
    wrong = write_wrong_bundle(tmp_path / "wrong")
    page = page_of(tmp_path / "page", good, wrong, write_unloadable_bundle(tmp_path / "unloadable", good))
    with served(page) as address, opened(browser, address) as (tab, _):
        notes = ready(tab)
        assert notes[0].startswith("Ready.")
        assert notes[1].startswith("In this browser its answers differ from PyTorch's.")
        assert notes[2].startswith("It can't be used:")
        give(tab, red=picture("red"))
        assert [body.split()[0] for body in tab.locator(".body").all_inner_texts()] == ["red", "blue", "No"]


def test_the_policy_holds_in_every_thread(browser, address):
    """Neither the page nor the thread of a model reaches another server, or runs a text as code."""
    elsewhere = address.replace("127.0.0.1", "localhost")
    attempt = f"fetch('{elsewhere}page.json').then(() => 'sent', () => 'refused')"
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(address)
    ready(tab)
    assert tab.evaluate(attempt) == "refused"
    assert [worker.evaluate(attempt) for worker in tab.workers] == ["refused"] * 2
    code = "new Promise(say => setTimeout(() => { try { say(eval('1')) } catch { say('refused') } }))"
    assert tab.evaluate(code) == "refused"
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize("width, scheme", [(1280, "light"), (1280, "dark"), (360, "light")])
def test_it_is_readable_everywhere(browser, tmp_path, width, scheme):
    first, second = write_colour_bundle(tmp_path / ("long-" * 20)), write_colour_bundle(tmp_path / "b", side=48)
    viewport = {"width": width, "height": 800}
    page = page_of(tmp_path / "page", first, second)
    with served(page) as address, opened(browser, address, viewport=viewport, color_scheme=scheme) as (tab, _):
        ready(tab)
        give(tab, **{"name " * 30: picture("red", "blue"), "b": picture("red")})
        for details in tab.locator("#cards summary").all():
            details.click()
        assert "one of 3: red, green, blue." in tab.locator("#cards").inner_text()
        assert "It has not been measured on real images." in tab.locator("#cards").inner_text()
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for selector in (
            "h1",
            "h2",
            "p",
            "button",
            "td:not([aria-hidden])",
            "th",
            "dt",
            "dd",
            "figcaption",
            "a",
            "summary",
        ):
            assert min(tab.evaluate(CONTRASTS, selector), default=21) > 4.5, selector


@pytest.mark.slow
def test_it_is_used_by_keyboard_and_screen_reader(browser, address):
    with opened(browser, address) as (tab, _):
        ready(tab)
        give(tab, one=picture("red"), two=picture("blue"))
        assert tab.evaluate("document.documentElement.lang") == "en"
        reached = []
        for _ in range(7):
            tab.keyboard.press("Tab")
            reached.append(tab.evaluate("document.activeElement.innerText || document.activeElement.type"))
        assert [text.split("\n")[0] for text in reached[:4]] == ["Choose images", "Use the camera", "two", "one"]
        tab.get_by_role("button", name="one").focus()
        tab.keyboard.press("Enter")
        assert tab.get_by_role("button", name="one", pressed=True).count() == 1
        for role, name in (
            ("region", "Your images"), ("region", "colour"), ("region", "scenes"), ("region", "Model cards"),
            ("img", "The image one"), ("img", "The classes of scenes over the image: red"), ("list", "Images"),
            ("table", "Most probable classes"), ("slider", "Opacity of the colours"), ("status", ""), ("main", ""),
        ):  # fmt: skip
            assert tab.get_by_role(role, name=name).count() >= 1, (role, name)


@pytest.mark.slow
def test_answers_are_those_of_python(browser, address):
    """Classes and label maps of noisy photos, through the preparation and the runtime of the browser."""
    made = np.random.default_rng(0)
    with opened(browser, address) as (tab, _):
        ready(tab)
        for number in range(20):
            image = Image.fromarray(made.integers(0, 256, (37, 53, 3), np.uint8))
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            give(tab, **{f"image {number}": buffer.getvalue()})
            counts = np.bincount(np.asarray(image).argmax(2).ravel(), minlength=3) / (37 * 53)
            expected = [f"{100 * share:.1f} %" for share in sorted(counts, reverse=True)]
            assert tab.locator(".legend .share").all_inner_texts() == expected
