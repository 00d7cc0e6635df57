"""The folder of an evaluation: create one, or find the one to resume.

evaluation.json  the model and the images; written first
journal.jsonl    one record per image, written as soon as its answer arrives
result.json      the figures, as `--json` prints them; written last, so a folder without it is unfinished
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from csg.console import log
from csg.errors import InputError, UsageError
from csg.files import atomic_write, validate_name
from csg.locks import locked, new_folder
from csg.records import Record
from csg_serve.evaluate.journal import JOURNAL, Journal
from csg_serve.evaluate.records import AnswerRecord, ClassificationResult, EvaluationSpec, SegmentationResult

EVALUATIONS = Path("evaluations")
SPEC, RESULT = "evaluation.json", "result.json"
PLACES = ("data", "labels", "bundle")
"""Fields of the specification that say where the images and the bundle are: they may move, and the fingerprint and the
card tell whether they are the same."""


@contextmanager
def new_evaluation(spec: EvaluationSpec, out: Path | None, fits: Callable[[AnswerRecord], bool]) -> Iterator[Journal]:
    """Create the folder of an evaluation, `out` or the next free one in evaluations/, and open its journal.

    The folder is removed if the block fails before an image or a pixel was counted.

    Args:
        spec: the model and the images.
        out: the folder.
        fits: as `Journal` takes it.

    Raises:
        UsageError: `out` holds an evaluation already, or the model's name can't be the name of a folder.
    """
    if out and (out / SPEC).exists():
        raise UsageError(f"{out} holds an evaluation already", "continue it with --resume, or choose another folder")
    stem = f"{validate_name(spec.model, 'model name')}-{spec.version or 'bundle'}"
    with new_folder(out, EVALUATIONS, stem) as folder:
        atomic_write(folder / SPEC, _json(spec))
        with _journal(folder, spec, fits) as journal:
            try:
                yield journal
            except BaseException:
                if not journal.counted:
                    for name in (SPEC, JOURNAL):
                        (folder / name).unlink(missing_ok=True)
                raise


@contextmanager
def resumed_evaluation(folder: Path, spec: EvaluationSpec, fits: Callable[[AnswerRecord], bool]) -> Iterator[Journal]:
    """Open the journal of an evaluation, and record where its images are now.

    Args:
        folder: folder of the evaluation.
        spec: the model and the images as they are now.
        fits: as `Journal` takes it.

    Raises:
        UsageError: another process is working in the folder.
        InputError: the model or the images differ from those it started with; a file of it is damaged.
    """
    with locked(folder):
        recorded = read_spec(folder)
        check_same(folder, recorded, spec)
        if recorded != spec:
            atomic_write(folder / SPEC, _json(spec))
        with _journal(folder, spec, fits) as journal:
            log(f"resuming {folder}: {journal.done} of {spec.images} images are recorded")
            yield journal


def find_folder(out: Path | None, given: Mapping[str, object]) -> tuple[Path, EvaluationSpec]:
    """The evaluation at `out`, or the newest unfinished one in evaluations/, and its specification.

    Args:
        out: folder of the evaluation, None for the newest unfinished one.
        given: fields of the specification that the user gave again; None means not given. Those of `PLACES` choose
            between several unfinished evaluations, and may name the new place of moved images.

    Raises:
        InputError: there is no such evaluation, or it is damaged.
        UsageError: the one at `out` differs from what was given.
    """
    wanted = {name: value for name, value in given.items() if value is not None}
    fixed = {name: value for name, value in wanted.items() if name not in PLACES}
    if out:
        spec = read_spec(out)
        for name, value in fixed.items():
            if (recorded := getattr(spec, name)) != value:
                how = f"with --{name} {recorded}" if recorded else f"without --{name}"
                raise UsageError(f"{out} was started {how}", f"leave out --{name}, or --resume")
        return out, spec
    found = sorted(EVALUATIONS.glob(f"[!.]*/{SPEC}"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    unfinished = [file.parent for file in found if not (file.parent / RESULT).exists()]
    specs = [(folder, read_spec(folder)) for folder in unfinished]
    if "bundle" in wanted:
        specs = [(folder, spec) for folder, spec in specs if spec.bundle]
    for same in (wanted, fixed):
        for folder, spec in specs:
            if all(getattr(spec, name) == value for name, value in same.items()):
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
            f"{folder} holds no evaluation: {SPEC} is missing or damaged", "name the folder of an evaluation"
        ) from None


def check_same(folder: Path, recorded: EvaluationSpec, current: EvaluationSpec) -> None:
    """Check that an evaluation can be resumed with the model and the images that are there now.

    Raises:
        InputError: the served model or the images differ from those the evaluation started with.
    """
    if (recorded.version, recorded.card) != (current.version, current.card):
        raise _other_model(folder, recorded, current)
    if (recorded.images, recorded.fingerprint) != (current.images, current.fingerprint):
        raise InputError(
            f"the images of {current.dataset} are not those that {folder} was started with",
            "name their place with --data, or start a new evaluation without --resume",
        )


def _other_model(folder: Path, recorded: EvaluationSpec, current: EvaluationSpec) -> InputError:
    new = "start a new evaluation without --resume"
    if recorded.bundle or current.bundle:
        first, now = (one.bundle or f"{one.title} of a server" for one in (recorded, current))
        what = "another model than before" if first == now else now
        return InputError(f"{folder} measures {first}, but the model is {what}", f"name the first again, or {new}")
    found = "another model" if recorded.version == current.version else f"version {current.version}"
    return InputError(
        f"{folder} measures version {recorded.version} of {recorded.model}, but the server has {found}",
        f"serve that version again (csg deploy --rollback), or {new}",
    )


@contextmanager
def _journal(folder: Path, spec: EvaluationSpec, fits: Callable[[AnswerRecord], bool]) -> Iterator[Journal]:
    """The journal of a folder. On an error, log how to resume, if something was counted."""
    journal = Journal(folder, spec.images, fits)
    try:
        yield journal
    except BaseException:
        if journal.counted:
            how = f"`csg evaluate --resume --out {folder}`" + ("" if spec.bundle else " and the server's address")
            log(f"{journal.done} of {spec.images} images are recorded; continue with {how}")
        raise
    finally:
        journal.close()


def write_result(result: ClassificationResult | SegmentationResult) -> None:
    """Write result.json, which marks the evaluation as finished."""
    atomic_write(result.folder / RESULT, _json(result))


def _json(record: Record) -> bytes:
    return record.model_dump_json(indent=2).encode() + b"\n"
