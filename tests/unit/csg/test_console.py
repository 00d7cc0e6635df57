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
