"""The targets of tests/faults/test_fuzz.py under atheris, a coverage-guided fuzzer, for a given time.

    python -m benchmarks.fuzz [--minutes 2] [--target image] [--out FOLDER]

The targets of tests/helpers/fuzz_targets.py share the time: the image decoder, card.json, config.pbtxt and a bundle's
folder. Each runs in its own process, which ends when an input raises an unexpected error, takes more than 10 s or 2
GiB, or touches a file outside its folder. Printed is the number of inputs tried. An input that fails is written to
FOLDER, and the exit code is 1. `python -m benchmarks.fuzz --target image FILE` tries such a file again.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT_S, LIMIT_MB, MAX_BYTES = 10, 2048, 4096
WATCHED = ["csg", "csg_serve", "PIL"]
"""Packages whose branches guide the fuzzer."""


def fuzz(target: str, arguments: list[str]) -> None:
    """Run one target in this process with libFuzzer's arguments. It ends the process."""
    import atheris

    with atheris.instrument_imports(include=WATCHED):
        from tests.helpers.fuzz_targets import TARGETS
    dictionary = Path(arguments[0], "words") if Path(arguments[0]).is_dir() else None
    options = [f"-dict={dictionary}"] if dictionary and dictionary.exists() else []
    atheris.Setup([sys.argv[0], *arguments[1:], *options, *corpus(arguments[0])], TARGETS[target])
    atheris.Fuzz()


def corpus(path: str) -> list[str]:
    """The folder of initial inputs, or a file to try again."""
    return [str(Path(path, "corpus"))] if Path(path).is_dir() else [path]


def prepare(target: str, folder: Path) -> None:
    """Write the initial inputs of a target, and a dictionary of the words in them."""
    from tests.helpers.fuzz_targets import HOSTILE, seeds

    (folder / "corpus").mkdir(parents=True)
    whole = seeds(target)
    for number, seed in enumerate(whole):
        (folder / "corpus" / str(number)).write_bytes(seed)
    words = (
        {word for seed in whole for word in re.findall(rb'"?\w{3,}"?', seed)} if target in ("card", "config") else set()
    )
    lines = (
        '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in sorted({*words, *HOSTILE}) if len(word) < 64
    )
    (folder / "words").write_text("\n".join(lines))


def attempt(target: str, seconds: float, out: Path) -> tuple[int, list[Path]]:
    """Fuzz a target for some seconds; returns the number of inputs tried and the files of those that failed."""
    from tests.helpers.fuzz_targets import SHARED

    out.mkdir(parents=True, exist_ok=True)
    before = set(out.iterdir())
    with tempfile.TemporaryDirectory(prefix="csg-fuzz-", dir=SHARED) as scratch:  # the worker can't clean up
        folder = Path(scratch, target)
        prepare(target, folder)
        limits = [f"-timeout={LIMIT_S}", f"-rss_limit_mb={LIMIT_MB}", f"-max_len={MAX_BYTES}"]
        stop = [f"-max_total_time={round(seconds)}", "-print_final_stats=1", f"-artifact_prefix={out}/{target}-"]
        command = [sys.executable, "-m", "benchmarks.fuzz", "--worker", target, str(folder), *limits, *stop]
        environment = os.environ | {"CSG_FUZZ": scratch}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = done.stdout.decode(errors="replace")
    tried = re.search(r"stat::number_of_executed_units:\s*(\d+)", output) or re.search(r"Done (\d+) runs", output)
    found = sorted(set(out.iterdir()) - before)
    if found or done.returncode or not tried:
        print("\n".join(output.splitlines()[-40:]), file=sys.stderr)
    if not tried:
        raise SystemExit(f"{target}: the fuzzer did not run to its end (exit code {done.returncode})")
    return int(tried[1]), found


def main() -> None:
    """Fuzz, and print the results."""
    if sys.argv[1:2] == ["--worker"]:
        fuzz(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path, help="an input to try again, with --target")
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--target", choices=("image", "card", "config", "bundle"))
    parser.add_argument("--out", type=Path, default=Path("fuzz-finds"))
    arguments = parser.parse_args()
    targets = [arguments.target] if arguments.target else ["image", "card", "config", "bundle"]
    if arguments.file:
        from tests.helpers.fuzz_targets import TARGETS

        TARGETS[targets[0]](arguments.file.read_bytes())
        return
    finds: list[Path] = []
    for target in targets:
        tried, found = attempt(target, 60 * arguments.minutes / len(targets), arguments.out.resolve())
        finds += found
        print(f"{target:8} {tried:>9,} inputs, {len(found) or 'nothing'} found", flush=True)
    for find in finds:
        print(find)
    sys.exit(bool(finds))


if __name__ == "__main__":
    main()
