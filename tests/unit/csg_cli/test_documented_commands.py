"""Every csg command line and option that the documentation shows exists."""

import re
import shlex
from pathlib import Path

import typer

from csg_cli import app

ROOT = Path(__file__).parents[3]
NOT_OURS = {"_build", "generated", "deploy"}  # built pages; docs/deploy shows options of docker and kubectl
PAGES = [p for p in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")] if not NOT_OURS & {*p.parts}]
BLOCK = re.compile(r"^```.*?^```|^(?: {4}.*\n)+", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`csg ([^`\n]+)`")
COMMAND = re.compile(r"^(?:\$ |.* -m )?csg (.+)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
OTHERS = set(
    "--data-binary --fail --gpus --local-dir --logdir --nproc-per-node --pid --shm-size --ulimit".split()  # noqa: SIM905
)
"""Options of other programs: curl, docker, hf, tensorboard, torchrun, chrt."""
BENCHMARKS = re.compile(r"\bbenchmarks\.\w+[^`\n]*")

COMMANDS = typer.main.get_command(app).commands


def shown_in_blocks(text):
    """What follows `csg` in each command line of a block of code."""
    blocks = "\n".join(block.group() for block in BLOCK.finditer(text)).replace("\\\n", " ")
    parts = (part.strip() for line in blocks.splitlines() for part in line.split("&&"))
    lines = (found[1].partition(" > ")[0] for part in parts if (found := COMMAND.match(part)))
    return [line for line in lines if "..." not in line and line.split()[0] in COMMANDS]


def inert(command):
    """The command with callbacks that do nothing."""
    for child in getattr(command, "commands", {}).values():
        inert(child)
    if not hasattr(command, "commands"):
        command.callback = lambda **_: None
    return command


def options_of(command):
    """The options of a command and of those below it."""
    names = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return names.union({"--help"}, *(options_of(child) for child in getattr(command, "commands", {}).values()))


def named(words):
    """The command that the words start with."""
    command = COMMANDS[words[0]]
    return command.commands[words[1]] if words[1:] and words[1] in getattr(command, "commands", {}) else command


def test_documented_commands_parse():
    lines = {(page, line) for page in PAGES for line in shown_in_blocks(page.read_text())}
    assert len(lines) > 50
    problems = []
    for page, line in sorted(lines):
        try:
            root = inert(typer.main.get_command(app))
            root.main(shlex.split(line, comments=True), prog_name="csg", standalone_mode=False)
        except Exception as error:
            problems.append(f"{page.relative_to(ROOT)}: csg {line}: {error}")
    assert not problems, "\n".join(problems)


def test_mentioned_commands_have_these_options():
    mentions = {(page, line) for page in PAGES for line in INLINE.findall(BLOCK.sub("", page.read_text()))}
    mentions = {(page, line) for page, line in mentions if not line.startswith("-")}
    assert len(mentions) > 30
    for page, line in sorted(mentions):
        assert line.split()[0] in COMMANDS, f"{page.name}: csg {line}"
        unknown = set(OPTION.findall(line)) - options_of(named(line.split()))
        assert not unknown, f"{page.name}: csg {line}: {unknown}"


def test_mentioned_options_exist():
    known = options_of(typer.main.get_command(app)) | OTHERS
    texts = {page.name: BENCHMARKS.sub("", page.read_text()) for page in PAGES}
    unknown = {name: set(OPTION.findall(text)) - known for name, text in texts.items()}
    assert {name: options for name, options in unknown.items() if options} == {}
