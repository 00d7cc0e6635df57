"""Names from outside on a terminal: shown as text, whatever they hold."""

import io

import pytest
from rich.console import Console

from csg import console

NAMES = ["[red]x[/red]", "[/red]", "\x1b[31mred", "caf\udce9", "a\nb", "\u202egpj.exe", "[link=http://x]y", "\x9b31m"]
SHOWN = [
    "[red]x[/red]",
    "[/red]",
    "\\x1b[31mred",
    "caf\\xe9",
    "a\\nb",
    "\\u202egpj.exe",
    "[link=http://x]y",
    "\\x9b31m",
]


@pytest.mark.parametrize(("name", "shown"), list(zip(NAMES, SHOWN, strict=True)))
def test_a_name_is_text_in_every_kind_of_output(monkeypatch, name, shown):
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="")
    terminal = Console(file=stream, force_terminal=True, width=200, highlight=False, color_system=None)
    monkeypatch.setattr(console, "stdout", terminal)
    monkeypatch.setattr(console, "stderr", terminal)
    console.log(name)
    console.show_line(name)
    console.show_table(name, ["name"], [[name]])
    console.show_key_values(name, {name: name})
    with console.progress_bar(name, 1) as advance:
        advance(1)
    stream.flush()
    text = stream.buffer.getvalue().decode()
    assert text.count(shown) >= 7
    assert "\x1b[31m" not in text
    assert "\x9b" not in text


COLUMNS = ("model", "version", "state", "images", "batches", "requests", "failed", "queue ms", "compute ms")
ROW = ("digits-csg_encoded", "12", "READY", "12000", "1000", "11000", "0", "1.23", "4.56")


def test_a_table_in_a_pipe_is_as_wide_as_its_content(capsys):
    console.show_table("models", COLUMNS, [ROW])
    console.show_key_values("facts", {"note": "word " * 100})
    lines = capsys.readouterr().out.splitlines()
    assert any(all(word in line for word in ROW) for line in lines)
    assert any("word " * 99 in line for line in lines)


@pytest.mark.parametrize("width", [80, 100])
def test_a_narrow_terminal_folds_a_table_and_cuts_nothing(monkeypatch, width):
    stream = io.StringIO()
    terminal = Console(file=stream, force_terminal=True, width=width, highlight=False, color_system=None)
    monkeypatch.setattr(console, "stdout", terminal)
    console.show_table("models", COLUMNS, [ROW])
    text = stream.getvalue()
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    assert {"version", "batches", "requests", "failed", *ROW[1:]} <= set(text.split())
    assert "".join(word for word in text.split() if word not in ROW[1:]).endswith(ROW[0])
