"""`csg config`: every setting with type, range, unit, default and a sentence; and the JSON Schema of recipes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rich.padding import Padding
from rich.text import Text

from csg.console import log, print_json, show_line, stdout
from csg.did_you_mean import closest
from csg.errors import UsageError
from csg_train.methods import METHODS
from csg_train.methods.spec import METHOD_SYNONYMS
from csg_train.recipe.catalogue import RECIPES, Setting, all_settings, usable_methods
from csg_train.recipe.json_schema import recipe_schema
from csg_train.recipe.suggest import SYNONYMS


def list_command(word: str, as_json: bool) -> None:
    """Print the settings that `matching` finds.

    On a terminal the sentence is below the name; otherwise each setting is one line, for grep.

    Raises:
        UsageError: there is no such setting.
    """
    for name in METHODS.keys() - set(usable_methods()):
        log(f"left out: method {name}, whose package can't be imported; `csg train cls --method {name}` says why")
    found = matching(word)
    if as_json:
        print_json({"settings": [dataclasses.asdict(setting) for setting in found]})
    elif stdout.is_terminal:
        _show(found)
    else:
        for setting in found:
            show_line(f"{_heading(setting)}  {setting.description}")


def schema_command() -> None:
    """Print the JSON Schema of recipes."""
    print_json(recipe_schema())


def matching(word: str) -> list[Setting]:
    """The settings that have a word in their names or are called by it elsewhere; if none are, those described by it.

    Args:
        word: the beginning of a part of a name, in any case; empty: all settings.

    Raises:
        UsageError: there is none.

    Example:
        >>> [setting.name for setting in matching("lr")]
        ['optim.lr_backbone', 'optim.lr_heads']
    """
    settings, wanted = all_settings(), word.lower().replace("-", "_")
    named = [one for one in settings if _has(wanted, one) or _means(wanted, one)]
    if found := named or [one for one in settings if word.lower() in one.description.lower()]:
        return found
    near = closest(word, dict.fromkeys(part for one in settings for part in (one.name, *one.name.split("."))))
    hint = f"did you mean {near}?" if near else "`csg config` lists all settings"
    raise UsageError(f"no setting has {word} in its name or description", hint)


def _has(word: str, setting: Setting) -> bool:
    """Whether a part of the name begins with the word: `lr` is no part of `simclr`."""
    name = setting.name.lower().replace("-", "_")
    return any(name.startswith(word, start) for start in range(len(name)) if start == 0 or name[start - 1] in "._")


def _means(word: str, setting: Setting) -> bool:
    *_, last = setting.name.split(".")
    return setting.name in SYNONYMS.get(word, ()) or (
        setting.name.startswith("methods.") and METHOD_SYNONYMS.get(word) == last
    )


def _heading(setting: Setting) -> str:
    task = f" ({setting.tasks[0]})" if len(setting.tasks) < len(RECIPES) else ""
    return f"{setting.name}{task} = {setting.default_text}  {setting.values}"


def _show(settings: Sequence[Setting]) -> None:
    for setting in settings:
        stdout.print(Text(_heading(setting)), style="bold", soft_wrap=False)
        stdout.print(Padding(Text(setting.description), (0, 0, 0, 4)), soft_wrap=False)
