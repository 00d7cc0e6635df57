"""Help: commands in the order of their use, few options, and examples that are correct."""

import shlex

import pytest
import typer.main

import csg_cli

ROOT = typer.main.get_command(csg_cli.app)


def commands(command=ROOT, path=("csg",)):
    """Each command by what a user types, `csg export` (without the group's inner name `run`) included."""
    yield " ".join(word for word in path if word != "run"), command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


LEAVES = {path: command for path, command in commands() if not hasattr(command, "commands")}
GROUPS = {path: command for path, command in commands() if hasattr(command, "commands") and path != "csg export"}


def help_of(path, capsys):
    with pytest.raises(SystemExit):
        ROOT([*path.split()[1:], "--help"], prog_name="csg")
    return capsys.readouterr().out


def test_commands_are_listed_in_the_order_of_their_use(capsys):
    text = help_of("csg", capsys)
    listed = [line.split()[1] for line in text.splitlines() if line.startswith("│ ") and line[2] not in " -"]
    assert listed == [
        *("train", "compare", "runs", "embed", "export", "push"),
        *("deploy", "serve", "evaluate", "predict", "page", "bench"),
        *("models", "config", "weights", "data", "doctor", "demo"),
    ]


@pytest.mark.parametrize("path", LEAVES | GROUPS)
def test_each_help_ends_with_two_examples_that_the_command_accepts(path, capsys):
    _, _, end = help_of(path, capsys).partition("Examples:")
    lines = [line.strip() for line in end.splitlines() if line.strip()]
    assert len(lines) == 2, end
    for line in lines:
        assert line.startswith("$ "), line
        words = shlex.split(line.removeprefix("$ ").rpartition("&& ")[2])
        command = max((p for p in LEAVES if " ".join(words).startswith(p)), key=len)
        arguments = words[len(command.split()) :]
        if "--help" not in arguments:
            LEAVES[command].make_context(command, arguments)  # raises if an option or a value is unknown


def test_commands_have_few_options():
    """Settings without an option of their own are given with --set."""
    options = {path: len(command.params) for path, command in LEAVES.items()}
    assert all(number <= 17 for path, number in options.items() if path.startswith(("csg train", "csg compare")))
    assert max(options.values()) <= 27, options
