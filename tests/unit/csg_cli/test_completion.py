"""What a shell completes, asked as bash, zsh and fish ask."""

import json
import os
import subprocess
import sys

import pytest

from tests.helpers.cli import CSG, csg

PLUGIN = """
from csg_train.methods.base import Method
class Mine(Method): ...
"""


def asking(line, shell="bash"):
    """The variables with which a shell asks for the last word of a command line; bash breaks words at : and =."""
    if shell != "bash":
        return {"_CSG_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line} | (
            {"_TYPER_COMPLETE_FISH_ACTION": "get-args"} if shell == "fish" else {}
        )
    words = line.replace(r"\ ", "\0").replace("=", " = ").replace(":", " : ").split(" ")
    words = [word.replace("\0", r"\ ") for number, word in enumerate(words) if word or number == len(words) - 1]
    if line.endswith(("=", ":")):
        words.pop()
    return {"_CSG_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}


@pytest.fixture
def complete(monkeypatch, tmp_path):
    """Asks for the end of a command line, in an empty folder."""

    def ask(line, shell="bash"):
        with monkeypatch.context() as variables:
            for name, value in asking(line, shell).items():
                variables.setenv(name, value)
            done = csg(cwd=tmp_path)
        assert not done.stderr
        return done.stdout.splitlines()

    return ask


PASTA = ["augment.pasta_alpha=", "augment.pasta_beta=", "augment.pasta_k="]
LINES = [
    ("csg ev", ["evaluate"]),
    ("csg train cls --method a", ["asg", "asg-l2o"]),
    ("csg compare seg --method none --method c", ["csg"]),
    ("csg train cls --recipe dig", ["digit-scenes", "digits"]),
    ("csg train cls --backbone mob", ["mobilenet_v2", "mobilenet_v2_ibn_a", "mobilenet_v2_ibn_b"]),
    ("csg train cls --precision ", ["auto", "bf16", "fp16", "fp32"]),
    ("csg train cls --set optim.m", ["optim.momentum=", "optim.max_steps="]),
    ("csg train cls --set augment.", ["augment.pasta=", "augment.operations=", "augment.magnitude=", *PASTA]),
    ("csg train seg --set augment.", ["augment.pasta=", "augment.scale=", "augment.flip=", "augment.jitter=", *PASTA]),
    ("csg train cls --set method.t", ["method.temperature=", "method.train_heads="]),
    ("csg train cls --method l2 --set method.", ["method.weight=", "method.fisher=", "method.images="]),
    ("csg train cls --set methods.si.", ["methods.si.weight=", "methods.si.xi=", "methods.si.anchor="]),
    ("csg export --precision ", ["fp32", "fp16", "bf16", "int8"]),
    ("csg evaluate --labels c", ["camvid11", "cityscapes16", "cityscapes19"]),
    ("csg weights pull resnet34", ["resnet34", "resnet34_ibn_a", "resnet34_ibn_b"]),
    ("csg config di", ["diff"]),
    ("csg config optim.lr", ["optim.lr_backbone", "optim.lr_heads"]),
    ("csg config show --recipe p", ["pacs"]),
    ("csg export in", ["inspect"]),
]


@pytest.mark.parametrize(("line", "words"), LINES)
def test_values_complete(line, words, complete):
    assert complete(line) == words
    assert [value.partition("\t")[0] for value in complete(line, "fish")] == words


def test_bash_gets_what_follows_its_last_break(complete):
    assert complete("csg train cls --method csg:tem") == ["temperature="]
    assert complete("csg train cls --method csg:temperature=0.1:q") == ["queue="]
    assert complete("csg train cls --recipe=dig") == ["digit-scenes", "digits"]
    assert complete("csg train cls --set precision=") == ["auto", "bf16", "fp16", "fp32"]
    assert complete("csg train cls --set data.jpeg_scaling=t") == ["true"]


def test_zsh_and_fish_get_whole_values(complete):
    assert complete("csg train cls --method csg:tem", "fish") == ["csg:temperature="]
    (zsh,) = complete("csg train cls --method csg:tem", "zsh")
    assert r'"csg\\:temperature="' in zsh
    assert complete("csg train cls --recipe=dig", "fish") == ["digit-scenes", "digits"]


def test_runs_and_bundles_complete_with_spaces_and_colons(complete, tmp_path):
    for name in ("plain", "my run", "a:b", "it's $5"):
        (tmp_path / "runs" / "cls" / name).mkdir(parents=True)
        (tmp_path / "runs" / "cls" / name / "recipe.yaml").touch()
    (tmp_path / "bundles" / "my model").mkdir(parents=True)
    (tmp_path / "bundles" / "my model" / "card.json").touch()
    assert complete("csg export runs/cls/m") == [r"runs/cls/my\ run"]
    assert complete(r"csg export runs/cls/my\ r") == [r"runs/cls/my\ run"]
    assert complete("csg embed runs/cls/a:") == ["b"]
    assert complete("csg embed runs/cls/i") == [r"runs/cls/it\'s\ \$5"]
    assert complete("csg embed runs/cls/m", "fish") == ["runs/cls/my run"]
    assert '"runs/cls/my run"' in "".join(complete("csg embed runs/cls/m", "zsh"))
    assert complete("csg config diff digits runs/cls/p") == ["runs/cls/plain"]
    assert complete("csg deploy bund") == [r"bundles/my\ model"]
    assert complete("csg export inspect b") == [r"bundles/my\ model"]
    assert complete("csg embed no/such") == []


def test_bash_itself_inserts_the_values(tmp_path):
    """What typer's function for bash does with the words of a command line."""
    (tmp_path / "runs" / "cls" / "my run").mkdir(parents=True)
    (tmp_path / "runs" / "cls" / "my run" / "recipe.yaml").touch()
    words = ["csg", "export", "runs/cls/m"]
    code = f"""
        csg() {{ {sys.executable} -m csg "$@"; }}; export -f csg
        COMP_WORDS=({" ".join(words)}); COMP_CWORD=2; IFS=$'\n'
        COMPREPLY=($(COMP_WORDS="${{COMP_WORDS[*]}}" COMP_CWORD=$COMP_CWORD _CSG_COMPLETE=complete_bash csg))
        printf '%s\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("runs/cls/my\\ run\n", "")


def test_completion_is_silent_and_imports_no_torch(tmp_path):
    """Whatever is asked; a broken package of a method, a missing folder and half a line are no reason to speak."""
    code = (
        "import atexit, json, sys; from csg_cli import main;"
        "atexit.register(lambda: open('modules', 'w').write(json.dumps(sorted(sys.modules)))); main()"
    )
    settings = [line for line, _ in LINES if "--set" in line][:3]
    for line in (*settings, "csg embed ", "csg deploy 'b", "csg nothing ", "csg train cls --method zzz:"):
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | asking(line), cwd=tmp_path, capture_output=True, text=True
        )
        assert not done.stderr, line
        modules = json.loads((tmp_path / "modules").read_text())
        assert not {"torch", "onnx", "tritonclient", "numpy"} & set(modules), line


def test_a_method_of_another_package_completes(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    package = tmp_path / "mine-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[csg.methods]\nmine = mine:Mine\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | asking("csg train cls --method mi") | {"PYTHONPATH": path}
    done = subprocess.run(CSG, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["miro", "mine"]


def test_the_precisions_are_those_that_can_be_exported(complete):
    from csg_export.precisions import PRECISIONS

    assert complete("csg export --precision ") == list(PRECISIONS)
