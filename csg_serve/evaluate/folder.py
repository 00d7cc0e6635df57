"""The folder of an evaluation: create one, or find the one to resume.

evaluation.json  the model and the images; written first
journal.jsonl    one record per image, written as soon as its answer arrives
result.json      the figures, as `--json` prints them; written last, so a folder without it is unfinished
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from csg.console import log
from csg.errors import InputError, UsageError
from csg.files import atomic_write, validate_name
from csg.records import Record
from csg_serve.evaluate.journal import JOURNAL, Journal
from csg_serve.evaluate.records import ClassificationResult, EvaluationSpec, SegmentationResult

EVALUATIONS = Path("evaluations")
SPEC, RESULT = "evaluation.json", "result.json"


def create_folder(spec: EvaluationSpec, out: Path | None) -> Path:
    """Create the folder of a new evaluation: `out`, or the next free one in evaluations/.

    Raises:
        UsageError: `out` holds an evaluation already, or the model's name can't be the name of a folder.
        InputError: the folder can't be created.
    """
    try:
        folder = out or _next_free(f"{validate_name(spec.model, 'model name')}-{spec.version}")
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / SPEC).exists():
            raise UsageError(
                f"{folder} holds an evaluation already", "continue it with --resume, or choose another folder"
            )
        atomic_write(folder / SPEC, _json(spec))
    except OSError as error:
        raise InputError(f"{error.filename} can't be written: {error.strerror}", "choose a folder with --out") from None
    return folder


def find_folder(out: Path | None, given: Mapping[str, object]) -> tuple[Path, EvaluationSpec]:
    """The evaluation at `out`, or the newest unfinished one in evaluations/, and its specification.

    Args:
        out: folder of the evaluation, None for the newest unfinished one.
        given: fields of the specification that the user gave again; None means not given.

    Raises:
        InputError: there is no such evaluation, or it is damaged.
        UsageError: the one at `out` differs from what was given.
    """
    wanted = {name: value for name, value in given.items() if value is not None}
    if out:
        spec = read_spec(out)
        for name, value in wanted.items():
            if (recorded := getattr(spec, name)) != value:
                text = ", ".join(recorded) if isinstance(recorded, tuple) else recorded
                raise UsageError(f"{out} was started with --{name} {text}", f"leave out --{name}, or --resume")
        return out, spec
    found = sorted(EVALUATIONS.glob(f"[!.]*/{SPEC}"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for folder in (file.parent for file in found if not (file.parent / RESULT).exists()):
        spec = read_spec(folder)
        if all(getattr(spec, name) == value for name, value in wanted.items()):
            return folder, spec
    matching = " with these options" if wanted else ""
    raise InputError(
        f"there is no unfinished evaluation{matching} in {EVALUATIONS}/",
        "leave out --resume, or name a folder by --out",
    )


def read_spec(folder: Path) -> EvaluationSpec:
    """The specification of the evaluation in a folder.

    Raises:
        InputError: the folder holds no evaluation, or its specification is damaged.
    """
    try:
        return EvaluationSpec.model_validate_json((folder / SPEC).read_bytes())
    except (OSError, ValidationError):
        raise InputError(
            f"{folder} holds no evaluation: {SPEC} is missing or damaged", "name another folder, or leave out --resume"
        ) from None


def check_same(folder: Path, recorded: EvaluationSpec, current: EvaluationSpec) -> None:
    """Check that an evaluation can be resumed with the model and the images that are there now.

    Raises:
        InputError: the served model or the images differ from those the evaluation started with.
    """
    if (recorded.version, recorded.card) != (current.version, current.card):
        found = "another model" if recorded.version == current.version else f"version {current.version}"
        raise InputError(
            f"{folder} measures version {recorded.version} of {recorded.model}, but the server has {found}",
            "serve that version again (csg deploy --rollback), or start a new evaluation without --resume",
        )
    if recorded != current:
        raise InputError(
            f"the images of {recorded.dataset} have changed since {folder} was started",
            "start a new evaluation without --resume",
        )


@contextmanager
def open_journal(folder: Path, images: int) -> Iterator[Journal]:
    """The journal of a folder. On an error, log how to resume, or remove a folder in which nothing was recorded."""
    journal = Journal(folder, images)
    try:
        yield journal
    except BaseException:
        if journal.done:
            log(
                f"{journal.done} of {images} images are recorded; continue with "
                f"`csg evaluate --resume --out {folder}` and the server's address"
            )
        elif not any(file.name not in (SPEC, JOURNAL) for file in folder.iterdir()):
            for name in (SPEC, JOURNAL):
                (folder / name).unlink()
            folder.rmdir()
        raise
    finally:
        journal.close()


def write_result(result: ClassificationResult | SegmentationResult) -> None:
    """Write result.json, which marks the evaluation as finished."""
    atomic_write(result.folder / RESULT, _json(result))


def _next_free(stem: str) -> Path:
    number = 1
    while True:
        try:
            (EVALUATIONS / f"{stem}-{number}").mkdir(parents=True)
            return EVALUATIONS / f"{stem}-{number}"
        except FileExistsError:
            number += 1


def _json(record: Record) -> bytes:
    return record.model_dump_json(indent=2).encode() + b"\n"
