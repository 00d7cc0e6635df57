"""Every file that a command reads, damaged in every way: an answer, or one line and exit code 2 to 5.

Nothing half-written stays, and no control character of a file reaches the terminal. tests/faults/test_fuzz.py does the
same to images, cards and configurations byte by byte.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from csg.files import sha256
from csg_train.compare.command import Comparison
from csg_train.compare.panels import keep_panel
from csg_train.compare.plan import keep_plan
from csg_train.compare.predictions import keep_predictions
from csg_train.compare.results import figures_of, new_result
from csg_train.methods.spec import parse_method
from csg_train.recipe import load_recipe
from csg_train.tasks import TASKS
from csg_train.training.command import with_absolute_paths
from csg_train.training.run_folder import Run
from tests.helpers.certificates import issue_certificates
from tests.helpers.cli import csg
from tests.helpers.damage import CONTENTS, PLACES, damage, leaves, replaced, snapshot
from tests.helpers.evaluations import LABELS
from tests.helpers.served import deploy
from tests.helpers.small_server import in_a_process
from tests.helpers.tiny_bundle import COLOURS, write_colour_bundle

SETTINGS = (
    *("data.size=32", "data.resize=32", "optim.batch=2", "model.weights=none", "optim.max_steps=3", "data.workers=0"),
    *("precision=fp32", "model.backbone=mobilenet_v2"),
)
SET = [word for setting in SETTINGS for word in ("--set", setting)]
SHARE = 20  # of the damages, one in so many is tried on each reader in the quick suite
TRAINS = 8  # so many times fewer are tried on a reader that goes on training, which takes a second each


@dataclass(frozen=True)
class Reader:
    """A command that reads a file."""

    file: str
    """The file, in the folder that `whole` makes."""
    command: tuple[str, ...]
    """The command, run in that folder; SERVER is the address of a server."""

    @property
    def kinds(self):
        """The damages to try; a comparison without results is no damage: it trains."""
        return [kind for kind in (*CONTENTS, *PLACES) if (self.file, kind) != ("comparison/comparison.json", "missing")]

    @property
    def name(self):
        return f"{self.file} by {' '.join(self.command[:2])}"


PLAIN = ("--method", "none", "--set", "model.weights=none", "--out", "new")
EMBED = ("embed", "run", "--out", "e.npz", "--json")
RESUME = ("train", "cls", "--resume", "--out", "unfinished", "--json")
COMPARE = ("compare", "cls", "--out", "comparison", "--no-tune", "--seeds", "1", "--method", "none", "--json")
COMPARE = (*COMPARE, "--data", "data", "--real-data", "data", *SET)
INSPECT, DEPLOY = ("export", "inspect", "bundle", "--json"), ("deploy", "bundle", "--repository", "new", "--json")
EVALUATE = ("evaluate", "--server", "SERVER", "--resume", "--out", "evaluation", "--json")
MODELS = ("models", "--server", "127.0.0.1:1", "--json")
PRINT = ("serve", "--print-command", "--repository", "repository", "--json")
READERS = [
    Reader("recipe.yaml", ("train", "cls", "--recipe", "recipe.yaml", "--data", "nowhere", "--out", "new")),
    Reader("data/list.txt", ("evaluate", "--server", "SERVER", "--data", "data/list.txt", "--out", "new", "--json")),
    Reader("labels.yaml", ("train", "seg", "--data", "scenes", "--set", "data.labels=labels.yaml", *PLAIN)),
    *(Reader(f"run/{name}", EMBED) for name in ("recipe.yaml", "environment.json", "result.json", "metrics.jsonl")),
    Reader("run/student.safetensors", EMBED),
    Reader("run/result.json", ("train", "cls", "--resume", "--out", "run", "--json")),
    *(Reader(f"unfinished/{name}", RESUME) for name in ("recipe.yaml", "environment.json", "metrics.jsonl")),
    Reader("unfinished/checkpoints/step-00000003.safetensors", RESUME),
    *(Reader(f"comparison/{name}", COMPARE) for name in ("plan.json", "comparison.json", "panels/none.npz")),
    *(Reader(f"bundle/{name}", INSPECT) for name in ("card.json", "model.onnx", "labels.txt", "SHA256SUMS")),
    *(Reader(f"bundle/{name}", DEPLOY) for name in ("card.json", "model.onnx", "labels.txt", "SHA256SUMS")),
    *(Reader(f"evaluation/{name}", EVALUATE) for name in ("evaluation.json", "journal.jsonl")),
    Reader("finished/result.json", ("evaluate", "--server", "SERVER", "--resume", "--out", "finished", "--json")),
    Reader("repository/colour/config.pbtxt", ("deploy", "--rollback", "--repository", "repository", "--json")),
    Reader("repository/colour/config.pbtxt", ("deploy", "bundle", "--repository", "repository", "--json")),
    Reader("repository/.csg-serve.json", ("serve", "--stop", "--repository", "repository")),
    Reader("secret", (*MODELS, "--secret-file", "secret")),
    Reader("secret", (*PRINT, "--secret-file", "secret")),
    Reader("tls/ca.pem", (*MODELS, "--tls-ca", "tls/ca.pem")),
    Reader("tls/client-key.pem", (*MODELS, "--tls-cert", "tls/client-cert.pem", "--tls-key", "tls/client-key.pem")),
    *(
        Reader(f"tls/{name}.pem", (*PRINT, "--tls-cert", "tls/cert.pem", "--tls-key", "tls/key.pem"))
        for name in ("cert", "key")
    ),
]


@pytest.fixture(scope="module")
def server():
    with in_a_process() as address:
        yield address


@pytest.fixture(scope="module")
def whole(tmp_path_factory, server):
    """A folder with one of every file that a command reads, and every command of READERS has succeeded in it."""
    folder = tmp_path_factory.mktemp("whole")
    noise = np.random.default_rng(0)
    for number, colour in enumerate(COLOURS):
        (folder / "data" / colour).mkdir(parents=True)
        for shade in range(2):
            pixels = noise.integers(0, 100, (32, 32, 3), dtype=np.uint8)
            pixels[..., number] += np.uint8(100)
            Image.fromarray(pixels).save(folder / "data" / colour / f"{shade}.png")
    lines = [f"{colour}/{shade}.png {number}\n" for number, colour in enumerate(COLOURS) for shade in range(2)]
    (folder / "data" / "list.txt").write_text("".join(lines))
    (folder / "labels.yaml").write_text(LABELS)
    (folder / "scenes").mkdir()
    (folder / "secret").write_text("only-for-the-operators\n")
    (folder / "tls").mkdir()
    issue_certificates(folder / "tls")
    (folder / "data" / "list.txt").rename(folder / "list")
    _train(folder)
    _compare(folder)
    (folder / "list").rename(folder / "data" / "list.txt")
    bundle = write_colour_bundle(folder / "bundle")
    for _ in range(2):
        deploy(bundle.path, folder / "repository", "--no-encoded")
    state = {"pid": 1, "token": f"csg-{'0' * 16}-", "http": "127.0.0.1:1", "grpc": "127.0.0.1:1"}
    state |= {"metrics": "127.0.0.1:1", "control": "poll", "drain_s": 1}
    (folder / "repository" / ".csg-serve.json").write_text(json.dumps(state))
    _evaluate(folder, server)
    return folder


def _train(folder):
    ask = ("train", "cls", *SET, "--method", "none", "--data", "data", "--real-data", "data", "--out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "drop_checkpoints", lambda run: None)
        done = csg(*ask, "unfinished", cwd=folder)
    assert done.returncode == 0, done.stderr
    shutil.copytree(folder / "unfinished", folder / "run")
    for name in ("result.json", "student.safetensors"):
        (folder / "unfinished" / name).unlink()
    (folder / "recipe.yaml").write_bytes((folder / "run" / "recipe.yaml").read_bytes())


def _compare(folder):
    """A comparison of one method with one run, without the minute that its processes take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        changes = dict(setting.split("=") for setting in SETTINGS)
        changes = {
            name: value if name.startswith(("model", "precision")) else int(value) for name, value in changes.items()
        }
        base = load_recipe("digits", changes | {"data.train": ["data"], "data.real": ["data"]})
        base, spec = with_absolute_paths(base), parse_method("none")
        images = TASKS["cls"].read_synthetic(base)
        base = keep_plan(folder / "comparison", base, False, images.fingerprint())
        recipe = base.model_copy(update={"method": "none"})
        run = Run(folder / "run")
        method = new_result(spec, recipe.model_copy(update={"methods": {"none": {}}}), [], {})
        keep_predictions(folder / "comparison", spec.label, run)
        comparison = Comparison(folder / "comparison", base, images, "")
        comparison.write([method.model_copy(update={"runs": (figures_of(run),)})])
        keep_panel(folder / "comparison", spec.file_name, spec.label, run)
    done = csg(*COMPARE, cwd=folder)
    assert done.returncode == 0, done.stderr


def _evaluate(folder, server):
    done = csg("evaluate", "--server", server, "--data", "data", "--out", "evaluation", cwd=folder)
    assert done.returncode == 0, done.stderr
    shutil.copytree(folder / "evaluation", folder / "finished")
    (folder / "evaluation" / "result.json").unlink()
    lines = (folder / "evaluation" / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "evaluation" / "journal.jsonl").write_text("".join(lines[:-2]))


def problem(reader, whole, server, folder, spoil):
    """What is wrong with the way in which a command takes a damaged file; None if nothing is."""
    words = [server if word == "SERVER" else word for word in reader.command]
    needed = {word.partition("/")[0] for word in (reader.file, *words, "run" if "comparison" in words else "")}
    folder.mkdir()
    for entry in whole.iterdir():
        if entry.name in needed:
            copy = shutil.copytree if entry.is_dir() else shutil.copyfile
            copy(entry, folder / entry.name, **({"copy_function": _copy} if entry.is_dir() else {}))
    try:
        spoil(folder / reader.file)
        if reader.file.startswith("bundle/") and not reader.file.endswith("SUMS"):
            _sign(folder / "bundle")
        before = snapshot(folder)
        done = csg(*words, cwd=folder)
        return _complaint(done) or (done.returncode and _changes(before, snapshot(folder), reader)) or None
    finally:
        shutil.rmtree(folder)


def _copy(file, copy):
    """Large files, which no command changes, are links."""
    if Path(file).stat().st_size > 2**20:
        os.link(file, copy)
    else:
        shutil.copyfile(file, copy)


def _sign(bundle):
    """Sums that match, so that a damaged file is read at all."""
    sums = bundle / "SHA256SUMS"
    names = [name for name in ("card.json", "model.onnx", "labels.txt") if (bundle / name).is_file()]
    sums.unlink()
    sums.write_text("".join(f"{sha256(bundle / name)}  {name}\n" for name in names))


def _complaint(done):
    errors = [line for line in done.stderr.splitlines() if line.startswith(("error", "internal error", "Traceback"))]
    if raw := [c for c in done.stdout + done.stderr if not c.isprintable() and c != "\n"]:
        return f"prints {raw[:3]}: {done.stderr[-300:]}"
    if done.returncode == 0:
        if "--json" in done.stdout:
            json.loads(done.stdout, parse_constant=lambda name: 1 / 0)
        return f"warns as an error: {errors}" if errors else None
    if done.returncode not in (2, 3, 4, 5) or len(errors) != 1 or "; " not in errors[0] or done.stdout:
        return f"ends with {done.returncode}: {done.stderr[-600:]}{done.stdout[-300:]}"
    return f"says too much: {errors[0][:300]}" if len(errors[0]) > 1500 else None


def _changes(before, after, reader):
    resumed = reader.command[:2] == ("train", "cls") and "--resume" in reader.command
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    changed = [name for name in changed if not (resumed and ("events.out" in name or name.endswith("metrics.jsonl")))]
    return f"is refused and changes {changed}" if changed else None


def examine(reader, whole, server, folder, kinds):
    found = {kind: problem(reader, whole, server, folder, lambda file, kind=kind: damage(file, kind)) for kind in kinds}
    assert not any(found.values()), "\n".join(f"{kind}: {what}" for kind, what in found.items() if what)


def chosen(number, share):
    """One in `share` of the damages, others for the next reader; fewer for one that goes on training."""
    reader = READERS[number]
    kinds = reader.kinds[number % share :: share]
    return kinds[number % TRAINS :: TRAINS] or kinds[:1] if reader.command == RESUME else kinds


READER = pytest.mark.parametrize("number", range(len(READERS)), ids=lambda number: READERS[number].name)


@READER
def test_a_damaged_file_is_one_line(number, whole, server, tmp_path):
    """A part of the damages, another one for each reader."""
    examine(READERS[number], whole, server, tmp_path / "copy", chosen(number, SHARE))


@pytest.mark.slow
@READER
def test_a_file_damaged_in_many_ways_is_one_line(number, whole, server, tmp_path):
    """Half of the damages, the other half for the next reader."""
    examine(READERS[number], whole, server, tmp_path / "copy", chosen(number, 2))


TREES = {reader.name: reader for reader in READERS if reader.file.endswith((".json", ".jsonl", ".yaml"))}
HOSTILE = (
    *(None, True, 0, -1, 1.5, 2**64, 10**400, float("inf"), float("nan"), "", "x" * 1000, "[red]b[/blue]", "<script>"),
    *("\x1b[31m", "a\nb", "\0", "\ud800", "\u202e", "../../x", "/dev/null", [], {}, [[]], [None], {"a": {"b": []}}),
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("examples", [3, pytest.param(15, marks=pytest.mark.slow)])
def test_any_value_in_place_of_any_other_is_one_line(name, examples, whole, server, tmp_path):
    reader = TREES[name]
    examples = -(-examples // TRAINS) if reader.command == RESUME else examples
    lines = (whole / reader.file).read_text()
    lines = lines.splitlines() if reader.file.endswith(".jsonl") else [lines]
    read = yaml.safe_load if reader.file.endswith(".yaml") else json.loads
    trees = [read(line) for line in lines]
    places = [(number, place) for number, tree in enumerate(trees) for place in leaves(tree)]

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), derandomize=examples < 10)
    @given(st.sampled_from(places), st.sampled_from(HOSTILE))
    def attempt(where, value):
        number, place = where
        changed = [replaced(tree, place, value) if number == n else tree for n, tree in enumerate(trees)]
        text = "\n".join(map(json.dumps, changed)) + "\n"
        wrong = problem(reader, whole, server, tmp_path / "copy", lambda file: (file.unlink(), file.write_text(text)))
        assert not wrong, f"{place} {str(value)[:20]!r}: {wrong}"

    attempt()
