"""`csg compare cls` and `csg embed`: what they write, what they do not do twice, and what they refuse."""

import itertools
import json
import re
import shutil
import sys
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from csg.errors import CsgError, InputError, UsageError
from csg.locks import locked
from csg_train.compare import runs
from csg_train.compare.charts import Row, scores_figure
from csg_train.compare.figures import Panel, circle_figure, confusion_figure
from csg_train.compare.intervals import Estimate
from csg_train.compare.panels import draw_panels, read_panel
from csg_train.compare.plan import keep_plan
from csg_train.compare.predictions import differences, sampled_methods
from csg_train.compare.results import Trial, new_comparison, read_results
from csg_train.compare.table import write_table
from csg_train.compare.tuning import best_trial, candidates, choose, recipe_for, trial_settings, tuning_rule
from csg_train.energy import hyperspherical_energy
from csg_train.methods import METHODS
from csg_train.methods.spec import parse_method
from csg_train.pictures.palette import colour, marker
from csg_train.pictures.plots import label_lines, save_figure
from csg_train.training.embed import embed_command
from csg_train.training.run_folder import Run
from tests.helpers.cli import csg, refused
from tests.helpers.small_runs import noisy_images

SMALL = ["data.size=32", "data.resize=32", "optim.batch=4", "optim.max_steps=4", "data.workers=0"]


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    """Runs are trained in this process, which saves the seconds of imports; tests/faults has them in their own."""

    def train_here(command, errors=None):
        done = csg(*command[3:])  # behind `python -m csg`
        print(done.stderr, file=sys.stderr)
        if done.returncode:
            raise CsgError("a run failed", done.stderr)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "in_a_process", train_here)
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return [noisy_images(folder / name, 9, seed=seed) for seed, name in enumerate(("data", "real", "real_train"))]


@pytest.fixture(scope="module")
def compare(images, weights):
    words = ["--data", images[0], "--real-data", images[1], *(word for name in SMALL for word in ("--set", name))]

    def command(folder, *more, every=2):
        return csg("compare", "cls", "--out", folder, *more, *words, "--set", f"evaluate_every={every}")

    return command


@pytest.fixture(scope="module")
def compared(compare, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparisons") / "small"
    words = ("--method", "none", "--method", "csg:apool=false", "--real-train", images[2], "--json")
    done = compare(folder, "--seeds", "2", "--no-tune", *words)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.mark.slow
def test_table_and_json_are_the_runs_own_figures(compared):
    folder, done = compared
    result = json.loads(done.stdout)
    assert result == json.loads((folder / "comparison.json").read_text())
    assert [method["label"] for method in result["methods"]] == ["none", "csg:apool=false"]
    assert [(row["method"], row["seed"]) for row in result["rows"]] == [
        (method, seed) for method in ("none", "csg:apool=false") for seed in (0, 1)
    ]
    figures = {"method", "seed", "accuracy", "mean_class_accuracy", "hse", "nuclear_norm", "step_ms", "peak_mb"}
    assert figures | {"mirrored", "best_on_real"} == result["rows"][0].keys()
    for method, name in zip(result["methods"], ("none", "csg-apool-false"), strict=True):
        own = [Run(folder / "runs" / f"{name}-{seed}").result() for seed in (0, 1)]
        accuracies = [run.real.accuracy for run in own]
        summary = read_results(folder, "cls")[method["label"]]
        assert summary.mean("accuracy") == pytest.approx(np.mean(accuracies))
        assert summary.deviation("accuracy") == pytest.approx(np.std(accuracies, ddof=1))
        assert summary.mean("E_2") == pytest.approx(np.mean([run.energy.E_2 for run in own]))
        cell = f"{100 * np.mean(accuracies):.1f} ± {100 * np.std(accuracies, ddof=1):.1f}"
        assert cell in (folder / "table.md").read_text()
    assert Run(folder / "runs" / "csg-apool-false-1").recipe().methods["csg"]["apool"] is False
    assert "Tuning: none" in (folder / "table.md").read_text()


@pytest.mark.slow
def test_the_oracle_is_a_column_of_its_own(compared):
    folder, done = compared
    table = (folder / "table.md").read_text()
    assert "| mirrored % | best on real, chosen on the real set % |" in table.replace("   ", " ").replace("  ", " ")
    assert "chosen on the images that it is measured on" in table
    assert "last weights" not in table, "they are the student"
    for method in json.loads(done.stdout)["methods"]:
        for run in method["runs"]:
            scores = dict(run["curve"])
            assert scores.keys() == {2, 4}
            assert run["scores"]["mean_class_accuracy"] == scores[4]
            assert run["best_on_real"]["scores"]["mean_class_accuracy"] == max(scores.values())


@pytest.mark.slow
def test_a_difference_is_paired_over_seeds_and_images(compared):
    folder, done = compared
    (found,) = json.loads(done.stdout)["differences"]
    means = [
        np.mean([run["scores"]["mean_class_accuracy"] for run in m["runs"]]) for m in json.loads(done.stdout)["methods"]
    ]
    assert (found["label"], found["reference"], found["seeds"], found["images"]) == ("csg:apool=false", "none", 2, 18)
    assert found["mean"] == pytest.approx(means[1] - means[0])
    assert found["low"] <= found["mean"] <= found["high"]
    assert (
        f"- csg:apool=false - none: {100 * found['mean']:+.1f} points, 95 % interval"
        in (folder / "table.md").read_text()
    )
    for name in ("none-0", "none-1", "csg-apool-false-0", "csg-apool-false-1"):
        with (
            np.load(folder / "predictions" / f"{name}.npz") as kept,
            np.load(folder / "runs" / name / "predictions.npz") as own,
        ):
            assert np.array_equal(kept["student"], own["student"])
            assert np.array_equal(kept["labels"], own["labels"])


@pytest.mark.slow
def test_predictions_of_another_run_or_damaged_ones_are_one_line(compared, tmp_path):
    folder = shutil.copytree(compared[0], tmp_path / "copy")
    methods, file = list(read_results(folder, "cls").values()), folder / "predictions" / "none-0.npz"
    with np.load(file) as arrays:
        np.savez(file, labels=arrays["labels"], student=arrays["labels"])
    with pytest.raises(InputError, match=r"none-0\.npz does not belong to the run"):
        differences(sampled_methods(folder, methods))
    for content in (b"", b"PK", b"\x93NUMPY"):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"none-0\.npz is damaged"):
            differences(sampled_methods(folder, methods))
    file.unlink()
    assert [found.seeds for found in differences(sampled_methods(folder, methods))] == [1]
    assert differences(sampled_methods(folder, methods))[0].verdict == "not settled"


@pytest.mark.slow
def test_the_untouched_encoder_and_one_that_saw_real_images_have_panels(compared, compare, images, tmp_path):
    folder, _ = compared
    untouched, classes = read_panel(folder / "panels" / "_imagenet.npz", None)
    assert (untouched.name, untouched.score, untouched.confusion) == ("ImageNet, untouched", None, None)
    assert classes == ("cat", "dog")
    assert len(untouched.angles) == 18
    trained, _ = read_panel(folder / "panels" / "_real_train.npz", None)
    own = Run(folder / "runs" / "real_train")
    assert own.recipe().data.train == (str(images[2]),)
    assert own.result().steps == 4
    assert trained.score == own.result().real.mean_class_accuracy
    table = (folder / "table.md").read_text()
    assert "has seen real images: mean class accuracy" in table
    first, second, third = untouched.energies
    assert f"untouched ImageNet encoder has E_0 {first:.3f}, E_1 {second:.3f}, E_2 {third:.3f} on the real" in table
    assert "real_train" not in compared[1].stdout
    done = compare(tmp_path / "x", "--no-tune", "--method", "none", "--real-train", images[1])
    refused(done, 2, "18 images of --real-train", "among those that are measured on")


@pytest.mark.slow
def test_files_of_version_1_are_read(compared, tmp_path):
    folder = shutil.copytree(compared[0], tmp_path / "copy")
    file = folder / "comparison.json"
    tree = json.loads(file.read_text())
    del tree["differences"]
    for run in (run for method in tree["methods"] for run in method["runs"]):
        for name in ("torch", "rule", "mirrored", "last", "best_on_real", "curve"):
            del run[name]
    file.write_text(json.dumps(tree | {"version": 1}))
    assert all(method.mean("best_on_real") is None for method in read_results(folder, "cls").values())


@pytest.mark.slow
def test_a_run_that_was_trained_beforehand_is_taken_as_it_is(compared, compare, tmp_path):
    """Its folder is all that the comparison's folder holds, and it was trained with another number of loaders."""
    folder = tmp_path / "copy"
    run = shutil.copytree(compared[0] / "runs" / "none-0", folder / "runs" / "none-0")
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("workers: 0", "workers: 1"))
    done = compare(folder, "--seeds", 1, "--no-tune", "--method", "none", "--json")
    assert done.returncode == 0, done.stderr
    assert "step 4" not in done.stderr
    assert json.loads(done.stdout)["rows"] == json.loads(compared[1].stdout)["rows"][:1]


@pytest.mark.slow
def test_different_machines_are_named_below_the_table(compared, small_recipe, tmp_path):
    none, other = read_results(compared[0], "cls").values()
    runs = (other.runs[0].model_copy(update={"device": "Another GPU", "torch": "9.9"}), *other.runs[1:])
    for methods, words in (([none, other], False), ([none, other.model_copy(update={"runs": runs})], True)):
        write_table(tmp_path, small_recipe(), new_comparison(small_recipe(), "", methods, []))
        table = (tmp_path / "table.md").read_text()
        assert ("The runs were made with different devices" in table) is words
        assert ("and versions of torch" in table) is words


@pytest.mark.slow
def test_the_figures_are_pictures(compared):
    folder, _ = compared
    for name in ("circle.png", "confusion.png", "scores.png", "curves.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(2**20)) > 20


@pytest.mark.slow
def test_again_it_makes_only_what_is_missing(compare, compared, tmp_path):
    """What is finished is not made again even where the runs themselves are gone, as in a fresh checkout."""
    _, done = compared
    folder = shutil.copytree(compared[0], tmp_path / "copy")
    before = json.loads(done.stdout)
    picture = (folder / "circle.png").read_bytes()
    shutil.rmtree(folder / "runs")
    before_scores = (folder / "scores.png").read_bytes(), (folder / "curves.png").read_bytes()
    again = compare(folder, "--seeds", "2", "--no-tune", "--method", "none", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == before, "rows of earlier calls stay"
    assert not (folder / "runs").exists()
    assert (folder / "circle.png").read_bytes() == picture
    assert ((folder / "scores.png").read_bytes(), (folder / "curves.png").read_bytes()) == before_scores
    more = compare(folder, "--seeds", "3", "--no-tune", "--method", "none", "--json")
    assert more.returncode == 0, more.stderr
    assert [path.name for path in (folder / "runs").iterdir()] == ["none-2"]
    first = json.loads(more.stdout)["methods"][0]
    assert first["runs"][:2] == before["methods"][0]["runs"]
    assert [run["seed"] for run in first["runs"]] == [0, 1, 2]
    assert str(folder) not in (folder / "plan.json").read_text() + (folder / "comparison.json").read_text()
    refused(compare(folder, "--no-tune", "--method", "none", "--epochs", "7"), 2, "another recipe")


@pytest.mark.slow
def test_tuning_looks_at_synthetic_images_only(compare, tmp_path):
    folder = tmp_path / "tuned"
    done = compare(folder, "--seeds", "1", "--method", "csg", "--json")
    assert done.returncode == 0, done.stderr
    (method,) = json.loads(done.stdout)["methods"]
    assert [t["changes"]["methods.csg.weight"] for t in method["trials"]] == pytest.approx([0.1, 0.01, 1.0])
    scores = [t["held_out"] for t in method["trials"]]
    best = int(np.argmax(scores))
    clear = scores[best] - scores[0] > (scores[best] * (1 - scores[best]) / 4) ** 0.5
    assert method["chosen"] == method["trials"][best if clear else 0]["changes"]
    for number in range(3):
        run = Run(folder / "tune" / f"csg-{number}")
        recipe, result = run.recipe(), run.result()
        assert recipe.data.real == ()
        assert recipe.optim.max_steps == 1
        assert result.real is None
        assert result.held_out.images == 4
    assert Run(folder / "runs" / "csg-0").recipe().methods["csg"]["weight"] == method["chosen"]["methods.csg.weight"]
    assert "three short runs" in (folder / "table.md").read_text()


@pytest.mark.slow
def test_a_method_that_diverges_is_named_and_holds_nothing_up(compare, tmp_path):
    folder = tmp_path / "diverging"
    words = ("--seeds", "1", "--no-tune", "--json", "--method", "l2:weight=1e30", "--method", "none")
    done = compare(folder, *words, every=0)
    assert done.returncode == 0, done.stderr
    assert "training diverged: at step 4 weights are not finite" in done.stderr
    assert "l2:weight=1e30, seed 0: training diverged" in done.stderr
    assert [row["method"] for row in json.loads(done.stdout)["rows"]] == ["none"]
    assert compare(folder, *words, every=0).stdout == done.stdout
    done = compare(tmp_path / "alone", *words[:-2], every=0)
    assert (done.returncode, done.stdout) == (3, "")
    assert "every run diverged" in done.stderr


def test_every_method_has_three_tries_of_its_own_weight(small_recipe):
    base = small_recipe()
    for name in METHODS:
        spec = parse_method(f"{name}:styles=somewhere" if name == "drpc" else name)
        recipes = [recipe_for(spec, base, changes) for changes in candidates(spec, base)]
        assert len(recipes) == 3
        assert recipes[0] == recipe_for(spec, base)
        assert len({recipe.digest() for recipe in recipes}) == 3


def test_several_sources_are_tuned_on_the_last(small_recipe):
    base = small_recipe(data__train=["a", "b"], data__real=["c"])
    changes = trial_settings(base, 1600, {"optim.lr_heads": 0.5})
    recipe = recipe_for(parse_method("none"), base, changes)
    assert (recipe.data.train, recipe.data.real, recipe.data.holdout) == (("a",), ("b",), 0.0)
    assert recipe.optim.max_steps == 25
    assert (recipe.optim.lr_heads, recipe.optim.lr_backbone) == (2.0, base.optim.lr_backbone)
    assert "all of b" in tuning_rule(base, True)


def test_the_first_value_stays_unless_another_is_better_by_more_than_a_standard_error():
    scores = {1: 0.5, 2: 0.52, 3: 0.4, 4: 0.53}
    trials = [Trial(changes={"weight": w}, held_out=score, images=400) for w, score in scores.items()]
    assert best_trial(trials[:3]) is trials[0]
    assert best_trial(trials).changes == {"weight": 4}


def test_methods_are_chosen_and_refused(small_recipe):
    base = small_recipe()
    with pytest.raises(UsageError, match="twice"):
        choose(["csg", "csg"], base)
    with pytest.raises(UsageError, match="drpc:styles="):
        choose(["drpc"], base)
    with pytest.raises(UsageError, match="tau"):
        choose(["none", "csg:tau=1"], base)
    chosen, left_out = choose(None, base)
    assert [spec.name for spec in left_out] == ["drpc"]
    labels = ["none", "none:augment=true", *list(METHODS)[1:]]
    assert [spec.label for spec in chosen] == [label for label in labels if label != "drpc"]
    assert [recipe_for(spec, base).methods["none"]["augment"] for spec in chosen[:2]] == [False, True]
    everything, none_left = choose(None, small_recipe(methods__drpc__styles="photos"))
    assert [spec.label for spec in everything] == labels
    assert not none_left


@pytest.mark.slow
def test_a_wrong_setting_of_a_method_is_one_line(compare, compared):
    folder, _ = compared
    refused(compare(folder, "--no-tune", "--method", "none:apool=false"), 2, "apool")


@pytest.mark.slow
def test_a_comparison_that_another_process_makes_is_left_alone(compare, compared, tmp_path):
    folder = shutil.copytree(compared[0], tmp_path / "copy")
    with locked(folder):
        refused(compare(folder, "--no-tune", "--method", "none"), 2, "another process is working in", "--out")


BROKEN = {
    "empty": lambda text: "",
    "cut": lambda text: text[: len(text) // 2],
    "no object": lambda text: "[]",
    "NaN": lambda text: re.sub(r'"accuracy": [0-9.]+', '"accuracy": NaN', text),
    "above one": lambda text: re.sub(r'"accuracy": [0-9.]+', '"accuracy": 7', text),
    "other scores": lambda text: text.replace("mean_class_accuracy", "miou"),
    "a seed twice": lambda text: text.replace('"seed": 1', '"seed": 0'),
    "a method twice": lambda text: text.replace("csg:apool=false", "none"),
    "words for a number": lambda text: text.replace('"chosen": {}', '"chosen": {"optim.lr_heads": "x"}'),
    "newer": lambda text: re.sub(r'"version": [12]', '"version": 3', text, count=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", BROKEN)
def test_a_damaged_comparison_is_one_line(compared, tmp_path, how):
    folder = shutil.copytree(compared[0], tmp_path / "copy")
    file = folder / "comparison.json"
    file.write_text(BROKEN[how](file.read_text()))
    with pytest.raises(InputError, match=r"comparison\.json (is|has)"):
        read_results(folder, "cls")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["empty", "cut", "no object", "newer"])
def test_a_damaged_plan_is_one_line(small_recipe, compared, tmp_path, how):
    folder = shutil.copytree(compared[0], tmp_path / "copy")
    file = folder / "plan.json"
    file.write_text(BROKEN[how](file.read_text()))
    with pytest.raises(InputError, match=r"plan\.json .*; restore it|plan\.json has format version 3"):
        keep_plan(folder, small_recipe(), False, "0")


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", None])
def test_a_damaged_panel_is_one_line(compared, tmp_path, content):
    folder = shutil.copytree(compared[0], tmp_path / "copy")
    panel = folder / "panels" / "none.npz"
    if content is None:
        with np.load(panel) as arrays:
            np.savez(panel, **dict(arrays) | {"true": arrays["true"] + 99})
    else:
        panel.write_bytes(content)
    with pytest.raises(InputError, match=r"none\.npz is damaged"):
        draw_panels(folder, ["none", "csg:apool=false"])


NAMES = ["$x", "a$b$", "\\alpha", "caf\udce9", "\u4e2d", "[red]", "a\nb", "\x1b[31m", "a%_^{", "x" * 100]


@pytest.mark.slow
def test_an_interval_in_the_chart_stays_between_0_and_100(compared):
    (method, _) = read_results(compared[0], "cls").values()
    wide = Estimate(0.5, -0.2, 1.3, 0.1)
    axis = scores_figure([Row(method, wide)], "mean_class_accuracy", "%").axes[0]
    lines = {line.get_label(): line.get_xdata() for line in axis.lines}
    assert list(lines["95 % interval"]) == [0, 100]
    assert len(scores_figure([Row(method, None)], "mean_class_accuracy", "%").axes[0].lines) == 1


def test_classes_look_different_from_one_another():
    looks = [(colour(index), marker(index)) for index in range(50)]
    assert len(set(looks)) == 50
    assert len({one for one, _ in looks[:10]}) == 10


def test_class_names_are_text_in_the_figures(tmp_path, recwarn):
    true = np.arange(20) % len(NAMES)
    panel = Panel("csg:a=$x", 0.5, np.linspace(0, 3, 20), true, np.eye(len(NAMES), dtype=int), (1.0, 2.0, 3.0))
    for draw in (circle_figure, confusion_figure):
        save_figure(draw([panel], NAMES), tmp_path / "figure.png")
    assert not recwarn.list


LABELS = ("csg", "none:model.training=lora:optim.lr_heads=0.03", "a" * 70 + ":" + "b" * 31, "$x:" * 30)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("width", [20, 40])
def test_a_long_method_is_written_in_lines_and_whole(label, width):
    lines = label_lines(label, width).replace("\\$", "$").split("\n")
    assert "".join(lines) == label
    assert all(len(line) <= width for line in lines)


def test_panels_of_long_methods_have_titles_that_are_whole_and_do_not_overlap(tmp_path):
    true, name = np.arange(20) % len(NAMES), "none:optim.average=0.25:model.training=lp-ft:optim.lr_backbone=0.0003"
    panels = [
        Panel(f"{name}{n}", 0.5, np.linspace(0, 3, 20), true, np.eye(len(NAMES), dtype=int), (1.0, 2.0, 3.0))
        for n in range(6)
    ]
    for draw in (circle_figure, confusion_figure):
        figure = draw(panels, NAMES)
        save_figure(figure, tmp_path / "figure.png")
        titles = [axis.title for axis in figure.axes]
        assert [title.get_text().replace("\n", "").split(",")[0] for title in titles] == [p.name for p in panels]
        boxes = [title.get_window_extent() for title in titles]
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
        assert all(box.y1 <= figure.bbox.y1 for box in boxes)


def test_a_strange_folder_is_left_alone(small_recipe, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="not the folder of a comparison"):
        keep_plan(tmp_path, small_recipe(), True, "0")


def test_a_comparison_on_ones_own_images_needs_real_ones(tmp_path):
    refused(csg("compare", "cls", "--data", "somewhere", "--out", tmp_path / "x"), 2, "--real-data")
    assert not (tmp_path / "x").exists()


def test_embed_writes_what_was_measured(trained, tmp_path, capsys):
    embed_command(trained.path, None, tmp_path / "x.npz", mirrored=False, as_json=True)
    result = json.loads(capsys.readouterr().out)
    with np.load(tmp_path / "x.npz") as file:
        assert file["embeddings"].shape == (1797, 1280)
        assert file["embeddings"].dtype == np.float32
        assert float((file["predicted"] == file["labels"]).mean()) == trained.result().real.accuracy
        assert tuple(file["classes"]) == trained.environment().classes
        assert len(file["paths"]) == 1797
        energy = hyperspherical_energy(file["embeddings"])
        assert energy == trained.result().energy
        assert result["energy"] == asdict(energy)
    with pytest.raises(UsageError, match="npz"):
        embed_command(trained.path, None, tmp_path / "x.txt", mirrored=False, as_json=False)


@pytest.mark.slow
def test_segmenters_are_compared_by_their_miou(weights, tmp_path):
    folder = tmp_path / "scenes"
    settings = ("data.count=60", "optim.batch=4", "optim.max_steps=2", "precision=fp32")
    words = [word for setting in settings for word in ("--set", setting)]
    done = csg("compare", "seg", "--out", folder, "--seeds", 1, "--no-tune", "--method", "none", *words, "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    own = Run(folder / "runs" / "none-0").result()
    assert (row["miou"], row["pixel_accuracy"]) == (own.real.miou, own.real.pixel_accuracy)
    assert row["hse"] == {"0": own.energy.E_0, "1": own.energy.E_1, "2": own.energy.E_2}
    assert "mIoU %" in (folder / "table.md").read_text()
    assert {"circle.png", "confusion.png"} < {path.name for path in folder.iterdir()}
