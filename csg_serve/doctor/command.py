"""`csg doctor`: the report."""

from __future__ import annotations

from csg.console import print_json, show_key_values, show_line
from csg.errors import InputError, printable
from csg_serve.doctor.hardware import hardware
from csg_serve.doctor.report import ReportPart
from csg_serve.doctor.software import extras, software
from csg_serve.doctor.surroundings import caches, surroundings
from csg_serve.doctor.triton import servers, triton

PARTS = (software, extras, hardware, triton, servers, caches, surroundings)


def doctor_command(as_json: bool) -> None:
    """Print what was found, and what is wrong.

    Raises:
        InputError: something that csg needs is wrong.
    """
    parts = [part() for part in PARTS]
    problems = [problem for part in parts for problem in part.problems]
    if as_json:
        _print_json(parts)
    else:
        for part in parts:
            show_key_values(part.title, part.facts)
        for problem in problems:
            show_line(f"wrong: {problem.what}; {problem.advice}")
    if problems:
        more = f", and {len(problems) - 1} more" if problems[1:] else ""
        raise InputError(f"{problems[0].what}{more}", problems[0].advice)
    if not as_json:
        show_line("nothing is wrong")


def _print_json(parts: list[ReportPart]) -> None:
    facts = {part.title: {name: printable(value) for name, value in part.facts.items()} for part in parts}
    problems = [{"what": problem.what, "do": problem.advice} for part in parts for problem in part.problems]
    print_json({**facts, "problems": problems})
