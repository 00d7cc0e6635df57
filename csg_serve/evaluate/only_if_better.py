"""`csg deploy --only-if-better`: compare a bundle with the live version before it is deployed.

Both answer in this process, whether a server runs or not: the same runtime for both, and no load on the server.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from csg.bundle import Bundle
from csg.console import log
from csg_serve.evaluate.against import Against, check_requirement, score_line
from csg_serve.evaluate.command import Report, evaluate_until_signal
from csg_serve.evaluate.session import EvaluateOptions
from csg_serve.repository.live import live_bundle


def check_better(bundle: Bundle, model_dir: Path, data: tuple[str, ...]) -> None:
    """Evaluate the live version and the bundle on the same images; their answers are kept in evaluations/.

    Args:
        bundle: what is to be deployed.
        model_dir: folder of the model in the repository.
        data: sources of the images.

    Raises:
        VerificationError: it is not shown that the bundle is better.
        InputError: the images can't be used, or the live version can't answer in this process.
    """
    found = live_bundle(model_dir)
    if found is None:
        log(f"{model_dir.name} has no version to compare with: the first one is deployed without a comparison")
        return
    version, live = found
    try:
        report = asyncio.run(_compared(bundle, live, data))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    assert report.against
    check_requirement(report.against, str(bundle.path), f"version {version} of {model_dir.name}, which stays live")
    log(f"better than version {version}: {score_line(report.against.paired, report.against.paired.main_score)}")


async def _compared(bundle: Bundle, live: Bundle, data: tuple[str, ...]) -> Report:
    first, _ = await evaluate_until_signal(EvaluateOptions(source=live, data=data))
    against = Against(str(first.folder), "better")
    second, _ = await evaluate_until_signal(EvaluateOptions(source=bundle, data=data, against=against))
    log(f"the answers are in {first.folder}/ and {second.folder}/")
    return second
