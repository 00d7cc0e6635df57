"""The commands as Python functions: what they return, what they raise, and that they work outside the main thread."""

import asyncio
import subprocess
import sys
import threading

import pytest

import csg
from csg.errors import InputError, UsageError
from csg_cli import functions
from tests.helpers.image_files import colour_folders
from tests.helpers.small_runs import TINY, noisy_images
from tests.helpers.tiny_bundle import write_colour_bundle


@pytest.fixture
def bundle(tmp_path):
    return write_colour_bundle(tmp_path / "bundle")


@pytest.fixture
def colours(tmp_path):
    return colour_folders(tmp_path / "colours", 2)


@pytest.mark.slow
def test_a_run_becomes_a_bundle_that_predicts_also_in_a_thread(tmp_path, capsys):
    found = []

    def pipeline():
        run = csg.train(data=noisy_images(tmp_path / "made"), backbone="resnet18", settings=TINY, out="run")
        bundle = csg.export(run, out="bundle")
        assert csg.embed(run, data=tmp_path / "made").embeddings.shape == (12, 512)
        found.append((run.result().steps, csg.load(bundle).predict(tmp_path / "made" / "cat" / "0.png").classes))

    thread = threading.Thread(target=pipeline)
    thread.start()
    thread.join()
    assert found == [(6, ("cat", "dog"))]
    printed = capsys.readouterr()
    assert "step 6/6" in printed.err
    assert printed.out == ""


def test_a_loaded_bundle_predicts_and_is_evaluated(bundle, colours):
    with csg.load(bundle) as model:
        assert repr(model).endswith("classification, 3 classes, fp32)")
        assert [answer.label for answer in model.predict(colours)] == ["blue", "blue", "green", "green", "red", "red"]
        result = model.evaluate(colours, report=True)
    assert (result.accuracy, result.images) == (1.0, 6)
    assert result.report.is_file()
    again = csg.evaluate(bundle.path, data=[colours], against=result.folder)
    assert again.accuracy == 1.0
    assert again.against.paired.differing == 0


def test_it_works_where_a_loop_is_running(bundle, colours):
    async def cell():
        return csg.evaluate(bundle, data=colours).accuracy, csg.load(str(bundle.path)).predict(colours)[0].label

    assert asyncio.run(cell()) == (1.0, "blue")


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda: csg.train("classification"), UsageError, "task 'classification' is not one; use cls or seg"),
        (lambda: csg.train(settings={"optim.stepz": 1}), UsageError, "no setting optim.stepz"),
        (lambda: csg.train(seed=1, settings={"seed": 2}), UsageError, "setting seed is given twice"),
        (lambda: csg.train(resume=True), InputError, "no unfinished run"),
        (lambda: csg.export("nowhere"), InputError, "there is no folder nowhere"),
        (lambda: csg.load("nowhere"), InputError, "there is no folder nowhere"),
        (lambda: csg.evaluate("nowhere", server="localhost:1"), UsageError, "two models"),
        (lambda: csg.deploy("nowhere"), InputError, "there is no folder nowhere"),
        (lambda: csg.serve("nowhere"), InputError, "no model in nowhere/"),
    ],
)
def test_what_a_command_would_print_is_raised(call, kind, says):
    with pytest.raises(kind, match=says):
        call()


def test_missing_packages_are_an_error_that_says_what_to_install(bundle):
    code = "import csg, sys; sys.modules['tritonclient'] = None; csg.load(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, bundle.path], capture_output=True, text=True)
    assert "csg.errors.UsageError: csg predict needs the module tritonclient" in done.stderr


def test_the_functions_are_listed_documented_and_imported_on_first_use():
    for name in ("train", "embed", "export", "load", "evaluate", "deploy", "serve"):
        assert name in dir(csg)
        assert getattr(csg, name) is getattr(functions, name)
        assert "Example:" in getattr(csg, name).__doc__
    heavy = "import csg, sys; dir(csg); print([n for n in ('csg_cli', 'typer', 'numpy') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True).stdout == "[]\n"
