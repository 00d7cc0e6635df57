"""A page in headless Chromium without a network: any request and any message in its console is an error."""

import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: apt-get install chromium)")

HEADINGS = [
    "Accuracy by class", "Confusion matrix", "Calibration", "Most confident errors", "Latency", "Model card", "Method",
]  # fmt: skip
SCENE_HEADINGS = ["IoU by class", "Confusion matrix", "Examples", *HEADINGS[4:]]

LUMINANCE = """
const alpha = c => { const [r, g, b, a = 1] = c.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
const over = (top, under) => top.slice(0, 3).map((v, i) => v * top[3] + under[i] * (1 - top[3]));
const luminance = rgb => rgb.map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
"""
CONTRASTS = (
    """selector => {"""
    + LUMINANCE
    + """
  return [...document.querySelectorAll(selector)].map(one => {
    const layers = [];
    for (let e = one; e; e = e.parentElement) layers.unshift(alpha(getComputedStyle(e).backgroundColor));
    const behind = layers.reduce((under, top) => over(top, under), [255, 255, 255]);
    const [a, b] = [luminance(behind), luminance(over(alpha(getComputedStyle(one).color), behind))];
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  });
}"""
)


@contextmanager
def started(more=()):
    """A browser, with more arguments than the usual ones."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *more])
        yield browser
        browser.close()


@contextmanager
def opened(browser, page, width=1280, scheme="light"):
    """The page, for playwright's `evaluate` and `locator`."""
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)
    tab, wrong = context.new_page(), []
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda request: wrong.append(request.url))
    tab.goto(page.as_uri())
    yield tab
    context.close()
    assert [text for text in wrong if text != page.as_uri() and not text.startswith("data:")] == []


def check_page(tab, headings, pictures):
    """What holds for every report: sections, complete pictures, bars of the right length, no horizontal scrolling."""
    assert tab.locator("h2").all_inner_texts() == headings
    assert tab.locator("h1").count() == 1
    natural = tab.evaluate("[...document.images].map(image => [image.naturalWidth, image.alt])")
    assert len(natural) == pictures
    assert all(width > 0 and alt for width, alt in natural)
    targets = tab.evaluate("[...document.querySelectorAll('nav a')].map(a => !!document.querySelector(a.hash))")
    assert targets
    assert all(targets)
    bars = tab.evaluate(
        "[...document.querySelectorAll('.bar')].filter(bar => bar.checkVisibility()).map(bar =>"
        " [bar.getBoundingClientRect().width / bar.parentElement.getBoundingClientRect().width, +bar.dataset.share])"
    )
    assert bars
    assert all(abs(width - share) < 0.005 for width, share in bars)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for selector in ("p", "td:not(.nil)", "th", "dt", "dd", "figcaption", "a"):
        assert min(tab.evaluate(CONTRASTS, selector), default=21) > 4.5, selector
