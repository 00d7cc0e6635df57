"""The generated pages of docs/reference: commands from their help, settings from their models, one API page a room.

Docstrings are plain text in Google style with Markdown's code marks: `plain_docstring` makes reStructuredText of them.
"""

from __future__ import annotations

import itertools
import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from typer.testing import CliRunner

from csg_train.recipe.catalogue import Setting

ROOT = Path(__file__).parent.parent
OUT = Path(__file__).parent / "reference" / "generated"
PACKAGES = ("csg", "csg_train", "csg_export", "csg_serve")
REEXPORTING = ("csg", "csg_train.recipe")
"""Rooms whose names are those of their modules, where they are documented."""
COLUMNS = re.compile(r"^\S.*[^.\s] {2,}\S", re.MULTILINE)  # text in columns, at the margin of a docstring


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", plain_docstring, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", short_signature)
    return {"parallel_read_safe": True}


def write_pages(_: Sphinx) -> None:
    """Write every page that changed, and remove pages of modules that are gone."""
    from csg.card import ModelCard
    from csg_train.recipe.catalogue import all_settings

    pages = {"commands.md": commands_page(), "card.md": models_page("The model card", [ModelCard])}
    settings = all_settings()
    of_methods = [setting for setting in settings if setting.name.startswith("methods.")]
    pages["recipe.md"] = settings_page("Settings of a recipe", [one for one in settings if one not in of_methods])
    pages["methods.md"] = settings_page("Settings of the methods", of_methods)
    rooms = {room: room_page(room, modules) for room, modules in rooms_of_packages().items()}
    pages |= {f"{room}.md": text for room, text in rooms.items()}
    pages |= {f"{name.lower()}.md": copied(name) for name in ("CHANGELOG", "CONTRIBUTING")}
    pages["api.md"] = "\n".join(["# Python API\n", "```{toctree}", ":maxdepth: 1\n", *rooms, "```\n"])
    OUT.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        if not (OUT / name).is_file() or (OUT / name).read_text() != text:
            (OUT / name).write_text(text)
    for path in OUT.iterdir():
        if path.name not in pages:
            path.unlink()


def copied(name: str) -> str:
    """A page of the repository's root, its links made relative to the generated pages."""
    return (ROOT / f"{name}.md").read_text().replace("](docs/", "](../../")


def commands_page() -> str:
    """Every command's help, in the order of `csg --help`."""
    from csg_cli import app

    return "\n".join(["# Commands\n", *help_texts(app, typer.main.get_command(app), [])])


def help_texts(app: typer.Typer, command: Any, path: list[str]) -> Iterator[str]:
    """The help of a command, then of the commands below it."""
    shown = CliRunner().invoke(app, [*path, "--help"], prog_name="csg")
    yield f"## {' '.join(['csg', *path])}\n\n```text\n{shown.stdout.strip()}\n```\n"
    for name in command.list_commands(None) if hasattr(command, "commands") else ():
        yield from help_texts(app, command.commands[name], [*path, name])


def settings_page(title: str, settings: list[Setting]) -> str:
    """A table of each group of settings, as `csg config` lists them."""
    lines = [f"# {title}\n", "`csg config` lists them too. cls: classification; seg: segmentation.\n"]
    for group, members in itertools.groupby(settings, lambda setting: setting.name.rpartition(".")[0]):
        lines += [f"## {group or 'The run'}\n", "| setting | task | values | default | |", "|---|---|---|---|---|"]
        for one in members:
            task = one.tasks[0] if len(one.tasks) == 1 else ""
            row = (f"`{one.name}`", task, one.values, f"`{one.default_text}`", one.description)
            lines.append(f"| {' | '.join(map(cell, row))} |")
        lines.append("")
    return "\n".join(lines)


def models_page(title: str, models: list[type[BaseModel]]) -> str:
    """Tables of pydantic models, each followed by the models that its fields hold."""
    seen: dict[str, type[BaseModel]] = {}
    for model in models:
        collect(model, seen)
    return "\n".join([f"# {title}\n", *(fields(name, model) for name, model in seen.items())])


def collect(model: type[BaseModel], seen: dict[str, type[BaseModel]]) -> None:
    """Add a model and all it holds, in the order of the fields."""
    if model.__name__ in seen:
        return
    seen[model.__name__] = model
    for field in model.model_fields.values():
        for inner in inside(field.annotation):
            collect(inner, seen)


def inside(annotation: Any) -> Iterator[type[BaseModel]]:
    """The pydantic models in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from inside(argument)


def fields(title: str, model: type[BaseModel]) -> str:
    """A model's docstring and the table of its fields."""
    head = "| setting | type | default | |\n|---|---|---|---|\n"
    rows = [
        f"| `{name}` | {cell(type_name(field.annotation))} | {default_text(field)} | {cell(field.description or '')} |"
        for name, field in model.model_fields.items()
    ]
    table = head + "\n".join(rows) if rows else "No settings."
    return f"## {title}\n\n{(model.__doc__ or '').strip()}\n\n{table}\n"


def default_text(field: Any) -> str:
    """The default as it would stand in YAML or JSON; `required` where there is none."""
    if field.is_required():
        return "required"
    default = field.default if field.default is not PydanticUndefined else field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return f"see {type(default).__name__}"
    return f"`{cell(json.dumps(default, default=str))}`"


def type_name(annotation: Any) -> str:
    """A short name of a type: `int`, `str or null`, `list[int]`, or the values it can take."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin in (typing.Union, UnionType):
        return " or ".join(type_name(one) for one in arguments)
    if origin is None:
        return getattr(annotation, "__name__", str(annotation))
    inner = ", ".join(type_name(one) for one in arguments if one is not ...)
    return f"{origin.__name__}[{inner}]"


def cell(value: Any) -> str:
    """Text that fits a cell of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def rooms_of_packages() -> dict[str, list[str]]:
    """The modules of each room: of a package itself, and of each package below it."""
    rooms: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            room = ".".join(path.parent.relative_to(ROOT).parts)
            if path.stem == "__init__":
                rooms.setdefault(room, [])
            elif path.stem != "__main__":
                rooms.setdefault(room, []).append(f"{room}.{path.stem}")
    rooms = {room: modules for room, modules in rooms.items() if modules}
    return {"csg_cli": ["csg_cli.functions"]} | rooms


def room_page(room: str, modules: list[str]) -> str:
    """A room's docstring, and its modules with their public members."""
    repeated = ["   :no-members:"] if room in REEXPORTING else []
    sections = [f"# {room}\n", "```{eval-rst}", f".. automodule:: {room}", *repeated, "```\n"]
    for module in modules:
        sections.append(f"## {module.removeprefix(f'{room}.')}\n\n```{{eval-rst}}\n.. automodule:: {module}\n```\n")
    return "\n".join(sections)


def short_signature(app: Sphinx, what: str, name: str, thing: Any, options: Any, *signature: Any) -> Any:
    """No signature for pydantic models: their fields follow, and it would repeat them with every constraint."""
    return ("", None) if isinstance(thing, type) and issubclass(thing, BaseModel) else signature


def plain_docstring(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Escape what reStructuredText would read as markup, and mark code and columns as such."""
    result = ["\\ "] if what in ("attribute", "data", "property") else []  # or napoleon reads `text: more` as a type
    code, before = False, "."
    for blank, paragraph in itertools.groupby(lines, lambda line: not line.strip()):
        block = list(paragraph)
        if blank:
            result += block
            continue
        continued = code and all(line.startswith("    ") for line in block)
        indented = all(line.startswith("    ") for line in block) and not before.startswith("    ")
        code = continued or indented or COLUMNS.search("\n".join(block)) is not None
        if code:
            result += [*([] if continued else ["::", ""]), *(f"    {line}" for line in block)]
        else:
            result += [re.sub(r"(`[^`]*`)|([*|])", escaped, line) for line in block]
        before = block[-1]
    lines[:] = result


def escaped(found: re.Match[str]) -> str:
    """Code as it is, a mark with a backslash before it."""
    return found[1] or f"\\{found[2]}"
