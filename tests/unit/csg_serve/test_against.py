"""`csg evaluate --against`: what two models answer to the same images, and what a script may require."""

import asyncio
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from csg.errors import InputError, UsageError, VerificationError
from csg_serve.client.endpoints import Servers
from csg_serve.evaluate.against import Against, check_requirement, compare_answers, show_against
from csg_serve.evaluate.command import evaluate
from csg_serve.evaluate.recorded_answers import recorded_answers
from csg_serve.evaluate.records import ClassificationResult, SegmentationAnswer, Skipped
from csg_serve.evaluate.session import EvaluateOptions
from tests.helpers.browser import HEADINGS, check_page, needs_chromium, opened, started
from tests.helpers.cli import csg, refused
from tests.helpers.evaluations import SESSION, make_answer, make_spec
from tests.helpers.image_files import colour_folders
from tests.helpers.small_server import SmallServer, running
from tests.helpers.tiny_bundle import COLOURS, tiny_card, write_colour_bundle, write_worse_bundle

PATHS = [Path(f"{index}.png") for index in range(1000)]


class Reversed(SmallServer):
    """A model that lists its classes the other way round and takes bright red for blue."""

    def __init__(self):
        super().__init__(tiny_card().model_copy(update={"classes": COLOURS[::-1]}), versions=(2,))

    def logits(self, pixels):
        found = super().logits(pixels)[:, ::-1].copy()
        bright = pixels[..., 0].mean((1, 2)) > 250
        found[bright] = found[bright][:, [2, 1, 0]]
        return found


@pytest.fixture
def data(tmp_path):
    """Ten images a colour; of the red ones eight are bright."""

    def colour(name, number):
        return tuple((255 if number < 8 else 200) * (name == one) for one in COLOURS)

    return str(colour_folders(tmp_path / "data", 10, colour))


def evaluated(server, **options):
    async def run():
        async with running(server):
            return await evaluate(EvaluateOptions(source=Servers((server.address,)), **options))

    return asyncio.run(run())


def answers(folder, pairs, classes=("a", "b", "c")):
    """The answers of an evaluation: true and predicted class of each image, or None for a skipped one."""
    records = [SESSION]
    for index, pair in enumerate(pairs):
        skipped = Skipped(index=index, elapsed_s=0, reason="broken")
        records.append(make_answer(index, *pair, confidence=0.3 + index / 10000) if pair else skipped)
    return recorded_answers(Path(folder), make_spec(len(pairs)), classes, records)


def compared(a, b, **requirement):
    return compare_answers(answers("a", a), answers("b", b), PATHS, Against("a", **requirement))


def test_models_with_another_order_of_classes_are_compared_image_by_image(data, capsys):
    first, _ = evaluated(SmallServer(), data=(data,))
    report, page = evaluated(Reversed(), data=(data,), against=Against(str(first.folder)), report=True)
    found = report.against
    assert (found.paired.images, found.paired.differing, found.left_out) == (30, 8, 0)
    assert (found.paired.only_a_right, found.paired.only_b_right) == (8, 0)
    assert found.paired.differences["accuracy"].difference == pytest.approx(-8 / 30)
    assert found.paired.p_value == pytest.approx(2 / 2**8)
    assert found.verdicts == {"mean_class_accuracy": "worse", "accuracy": "worse"}
    assert {(one.true, one.a, one.b) for one in found.only_a} == {("red", "red", "blue")}
    assert {Path(one.image).name for one in found.only_a} == {f"{image}.png" for image in range(8)}
    assert ClassificationResult.model_validate_json((report.folder / "result.json").read_bytes()).against == found
    written = page.read_text()
    assert "Against colour version 1" in written
    assert written.count('alt="red/') == 8 + 8  # the comparison, and the most confident errors
    show_against(found)
    assert (
        "8 images differ, 0 right here alone, 8 right there alone, McNemar's exact p = 0.0078"
        in capsys.readouterr().out
    )


@needs_chromium
def test_the_page_shows_the_comparison_on_a_desk_and_on_a_phone(data):
    first, _ = evaluated(SmallServer(), data=(data,))
    _, page = evaluated(Reversed(), data=(data,), against=Against(str(first.folder)), report=True)
    with started() as browser:
        for width, scheme in ((1280, "light"), (390, "dark")):
            with opened(browser, page.resolve(), width, scheme) as tab:
                check_page(tab, ["Against colour version 1", *HEADINGS], 8 + 8)
                assert "+" not in tab.locator("#against tbody tr").first.locator("td").nth(2).inner_text()


def test_an_evaluation_against_itself_differs_by_nothing(data):
    first, _ = evaluated(SmallServer(), data=(data,))
    report, _ = evaluated(SmallServer(), data=(data,), against=Against(str(first.folder), "not-worse"))
    assert report.against.paired.differing == 0
    assert report.against.requirement.met
    check_requirement(report.against, "colour")
    with pytest.raises(UsageError, match="would be compared with itself"):
        evaluated(SmallServer(), resume=True, out=first.folder, against=Against(str(first.folder)))
    again, _ = evaluated(SmallServer(), resume=True, out=first.folder, against=Against(str(report.folder), "better"))
    with pytest.raises(
        VerificationError,
        match=r"colour is not shown to be better than colour version 1 in evaluations/colour-1-2:",
    ):
        check_requirement(again.against, "colour")


def test_other_images_are_refused_before_any_is_sent(data, tmp_path):
    first, _ = evaluated(SmallServer(), data=(data,))
    Image.new("RGB", (9, 9), "red").save(tmp_path / "data" / "red" / "0.png")
    server = SmallServer()
    with pytest.raises(InputError, match=r"colour-1-1 is not of the same images.*a file, a label or their order"):
        evaluated(server, data=(data,), against=Against(str(first.folder)))
    (tmp_path / "data" / "red" / "0.png").unlink()
    with pytest.raises(InputError, match=r"not of the same images: 30 of .* there, 29 of"):
        evaluated(server, data=(data,), against=Against(str(first.folder)))
    assert server.requests == 0
    assert not (tmp_path / "evaluations" / "colour-1-2").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "there is no folder"),
        (lambda folder: (folder / "result.json").unlink(), r"is not finished.*--resume --out"),
        (lambda folder: (folder / "result.json").write_text("{}"), r"result\.json is missing or damaged"),
        (lambda folder: (folder / "journal.jsonl").unlink(), "journal in .* can't be read"),
        (lambda folder: (folder / "journal.jsonl").write_text("x\n"), "is damaged in line 1"),
    ],
)
def test_a_damaged_evaluation_is_refused(data, damage, message):
    first, _ = evaluated(SmallServer(), data=(data,))
    damage(first.folder)
    with pytest.raises(InputError, match=message):
        evaluated(SmallServer(), data=(data,), against=Against(str(first.folder)))


def test_two_bundles_are_both_evaluated(data, tmp_path):
    write_colour_bundle(tmp_path / "right")
    write_worse_bundle(tmp_path / "wrong")
    done = csg("evaluate", "right", "--data", data, "--against", "wrong", "--require", "better", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["against"]
    assert (found["bundle"], found["paired"]["differing"]) == (str(tmp_path / "wrong"), 20)
    assert found["verdicts"]["accuracy"] == "better"
    done = csg("evaluate", "wrong", "--data", data, "--against", "right", "--require", "not-worse")
    assert done.returncode == 5
    assert re.search(
        r"less than 1 points worse than colour .right. in evaluations/colour-bundle-3: mean class",
        done.stderr,
    )
    assert "required             not-worse: not shown" in done.stdout
    refused(csg("evaluate", "wrong", "--data", data, "--against", "nowhere"), 3, "there is no folder nowhere")
    refused(csg("evaluate", "wrong", "--data", data, "--against", data), 3, "is not an evaluation; name the folder")
    refused(csg("evaluate", "wrong", "--resume", "--against", "right"), 2, "--resume continues one evaluation")


def test_skipped_images_are_left_out_of_both():
    found = compared([(0, 0), None, (1, 1), (1, 0)], [(0, 0), (0, 0), None, (1, 1)])
    assert (found.paired.images, found.left_out, found.paired.only_b_right) == (2, 2, 1)
    with pytest.raises(InputError, match="no image was answered both here and in a"):
        compared([(0, 0), None], [None, (0, 0)])


def test_of_the_images_that_one_model_gets_right_those_with_the_surest_mistake_are_named():
    pairs = [(0, 0)] * 40
    found = compared(pairs, [(0, 1 + index % 2) for index in range(40)])
    assert [one.index for one in found.only_a] == [*range(39, 27, -1)]
    assert not found.only_b


def test_a_requirement_is_met_by_evidence_alone():
    right, wrong = (0, 0), (0, 1)
    equal = [right] * 40 + [wrong] * 60
    assert compared(equal, equal, require="not-worse").requirement.met
    assert not compared(equal, equal, require="better").requirement.met
    better = [right] * 60 + [wrong] * 40
    assert compared(equal, better, require="better").requirement.met
    assert not compared(better, equal, require="not-worse").requirement.met
    assert compared(better, equal, require="not-worse", margin=0.4).requirement.met
    few = compared([wrong] * 3, [right] * 3, require="better")
    assert not few.requirement.met
    with pytest.raises(VerificationError, match="too few images for an interval"):
        check_requirement(few, "b")
    mixed = [right, wrong] * 50, [wrong, right] * 48 + [right] * 4
    with pytest.raises(VerificationError, match=r"not shown to be less than 1 points worse.*about [\d,]+ images would"):
        check_requirement(compared(*mixed, require="not-worse"), "b")


def test_segmenters_are_compared_by_the_pixels_of_each_image():
    def scenes(folder, hits):
        records = [
            SegmentationAnswer(index=index, elapsed_s=0, latency_ms=1, cells=[0, 1, 4], pixels=[hit, 100 - hit, 50])
            for index, hit in enumerate(hits)
        ]
        return recorded_answers(Path(folder), make_spec(len(hits)), ("road", "sky"), records)

    a, b = scenes("a", [50, 60, 70, 80] * 5), scenes("b", [50, 70, 80, 70] * 5)
    found = compare_answers(a, b, PATHS, Against("a"))
    assert (found.paired.images, found.paired.differing, found.paired.p_value) == (20, 15, None)
    assert [one.index for one in found.only_a] == [3, 7, 11, 15, 19]
    assert [one.index for one in found.only_b[:5]] == [2, 6, 10, 14, 18]
    assert found.only_a[0].classes["road"] == (0.8, 0.7)
    assert found.paired.differences["pixel_accuracy"].difference == pytest.approx(5 * 10 / 20 / 150)
    with pytest.raises(InputError, match="for another task"):
        compare_answers(a, answers("b", [(0, 0)] * 20), PATHS, Against("a"))
    with pytest.raises(InputError, match="measured with other classes"):
        compare_answers(a, replace(b, classes=("road", "car")), PATHS, Against("a"))


def test_the_command_line_says_what_an_option_needs():
    refused(csg("evaluate", "--require", "better"), 2, "--require needs something to compare with")
    refused(csg("evaluate", "--against", "x", "--margin", "2"), 2, "--margin is the loss")
