"""`csg deploy --only-if-better`: compare a bundle with the live version before it is deployed.

Both answer in this process, whether a server runs or not: the same runtime for both, and no load on the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from csg.bundle import Bundle
from csg.console import log
from csg_serve.client.loop_thread import run_apart
from csg_serve.evaluate.against import Against, check_requirement, score_line
from csg_serve.evaluate.command import Report, evaluate, evaluate_until_signal
from csg_serve.evaluate.session import EvaluateOptions
from csg_serve.repository.live import live_bundle

Evaluating: TypeAlias = Callable[[EvaluateOptions], Awaitable[tuple[Report, Path | None]]]
"""Evaluates a model."""


def check_better(bundle: Bundle, model_dir: Path, data: tuple[str, ...], apart: bool = False) -> None:
    """Evaluate the live version and the bundle on the same images; their answers are kept in evaluations/.

    Args:
        bundle: what is to be deployed.
        model_dir: folder of the model in the repository.
        data: sources of the images.
        apart: for programs, also in a thread or where an event loop is running; else signals end it, as a command.

    Raises:
        VerificationError: it is not shown that the bundle is better.
        InputError: the images can't be used, or the live version can't answer in this process.
    """
    found = live_bundle(model_dir)
    if found is None:
        log(f"{model_dir.name} has no version to compare with: the first one is deployed without a comparison")
        return
    version, live = found
    if apart:
        report = run_apart(_compared(bundle, live, data, evaluate))
    else:
        try:
            report = asyncio.run(_compared(bundle, live, data, evaluate_until_signal))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
    assert report.against
    check_requirement(report.against, str(bundle.path), f"version {version} of {model_dir.name}, which stays live")
    log(f"better than version {version}: {score_line(report.against.paired, report.against.paired.main_score)}")


async def _compared(bundle: Bundle, live: Bundle, data: tuple[str, ...], evaluating: Evaluating) -> Report:
    first, _ = await evaluating(EvaluateOptions(source=live, data=data))
    against = Against(str(first.folder), "better")
    second, _ = await evaluating(EvaluateOptions(source=bundle, data=data, against=against))
    log(f"the answers are in {first.folder}/ and {second.folder}/")
    return second
