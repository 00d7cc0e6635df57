"""TensorRT's timings: kept by builds that run at the same time. TensorRT itself needs a GPU; a small twin stands in."""

import multiprocessing
from pathlib import Path

import pytest

from csg_export.timing_cache import load_timings, save_timings


class Timings:
    """TensorRT's ITimingCache, of lines of text."""

    def __init__(self, content):
        self.lines = set(content.decode().split())

    def combine(self, other, ignore_mismatch):
        self.lines |= other.lines
        return True

    def serialize(self):
        return "\n".join(sorted(self.lines)).encode()


class Config:
    """TensorRT's IBuilderConfig."""

    def create_timing_cache(self, content):
        return Timings(content) if b"other version" not in content else None

    def set_timing_cache(self, timings, ignore_mismatch):
        self.timings = timings
        return True

    def get_timing_cache(self):
        return self.timings


def build(file, *layers):
    """What a build does with the file; returns the timings that it started from."""
    config = Config()
    load_timings(config, file)
    started = set(config.timings.lines)
    config.timings.lines.update(layers)
    save_timings(config, file)
    return started


def test_a_build_starts_from_the_timings_of_those_before(tmp_path):
    file = tmp_path / "cache" / "gpu.timings"
    assert build(file, "a") == set()
    assert build(file, "b") == {"a"}
    assert build(file) == {"a", "b"}


def test_two_builds_at_once_keep_the_timings_of_both(tmp_path):
    file, first, second = tmp_path / "gpu.timings", Config(), Config()
    load_timings(first, file)
    load_timings(second, file)
    first.timings.lines.add("a")
    second.timings.lines.add("b")
    save_timings(first, file)
    save_timings(second, file)
    assert build(file) == {"a", "b"}


def test_many_processes_lose_no_timing(tmp_path):
    file = tmp_path / "gpu.timings"
    fresh = multiprocessing.get_context("forkserver")  # its processes have no threads, locks or signal handlers of ours
    processes = [fresh.Process(target=build, args=(file, f"layer-{number}")) for number in range(40)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert build(file) == {f"layer-{number}" for number in range(40)}


@pytest.mark.parametrize("change", [lambda b: b"", lambda b: b[:-1], lambda b: b"x" * 99, lambda b: b + b"x"])
def test_a_damaged_file_is_ignored_with_one_line_and_replaced(tmp_path, change, capsys):
    file = tmp_path / "gpu.timings"
    build(file, "a")
    file.write_bytes(change(file.read_bytes()))
    assert build(file, "b") == set()
    assert capsys.readouterr().err.splitlines() == [f"TensorRT's timings {file} are not used: the file is damaged"]
    assert build(file) == {"b"}


def test_timings_that_the_library_refuses_are_ignored(tmp_path, capsys):
    build(tmp_path / "gpu.timings", "other version")
    assert build(tmp_path / "gpu.timings") == set()
    assert "not used" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_costs_no_engine(capsys):
    build(Path("/proc/nothing/gpu.timings"), "a")
    assert "timings are not kept" in capsys.readouterr().err
