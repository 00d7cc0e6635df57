"""The choices of the Python backend's scheduling: sessions, cores and chunks."""

import fcntl
import threading
import time

import numpy as np
import pytest

from csg.errors import UsageError
from csg_serve.python_backend.scheduling import (
    SESSION_TUNING,
    Instance,
    Scheduler,
    SessionOptions,
    best_chunk,
    split_batch,
)
from csg_serve.server.tuning import (
    ALL_TUNING,
    CHRT,
    check_tuning,
    scheduling_command,
)


class Library:
    """Opens sessions that record the batches they compute; a session's output is the first pixel of each image."""

    def __init__(self, work=lambda images: None):
        self.opened, self.computed, self.work = [], [], work

    def open(self, options):
        self.opened.append(options)

        def run(images):
            self.computed.append((options, len(images)))
            self.work(images)
            return [images[:, 0, 0, 0].astype(np.float32)]

        return run


@pytest.fixture
def graph(tmp_path):
    (tmp_path / "model.onnx").touch()
    return tmp_path / "model.onnx"


def scheduler(library, graph, tuning="on", share=2, **changes):
    settings = {"image_shape": (2, 2, 3), "max_batch": 8, "cores": 4, "share": share} | changes
    made = Scheduler(library.open, Instance(graph, **settings), tuning, lambda line: None)
    library.computed.clear()
    return made


def images(count):
    return np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1) * np.ones((1, 2, 2, 3), np.uint8)


@pytest.mark.parametrize("tuning", ["on", "off", *SESSION_TUNING])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_every_way_gives_the_same_answers_in_order(graph, tuning, count):
    (outputs,) = scheduler(Library(), graph, tuning)(images(count))
    assert outputs.tolist() == list(range(count))


def test_a_lone_client_is_served_on_all_cores(graph):
    library = Library()
    alone = scheduler(library, graph)
    alone(images(1))
    alone(images(3))
    assert library.computed == [(SessionOptions(threads=4, spinning=True), count) for count in (1, 3)]


def test_a_full_batch_of_a_lone_client_is_shared_out_among_all_cores(graph):
    library = Library()
    scheduler(library, graph, "side-by-side,wide-session")(images(8))
    assert library.computed == 4 * [(SessionOptions(threads=1, streams=4), 2)]


def test_beside_another_instance_at_work_it_takes_its_share_of_the_cores(graph):
    library = Library()
    beside = scheduler(library, graph)
    with graph.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        beside(images(1))
        beside(images(8))
    assert library.computed == [(SessionOptions(threads=1, streams=4), count) for count in (1, 4, 4)]
    assert beside.runs == {"with 2 of 4 cores": 2}


def test_an_instance_waits_while_another_computes_on_all_cores(graph):
    started, finish, order = threading.Event(), threading.Event(), []

    def work(_):
        started.set()
        finish.wait(10)
        order.append("first")

    slow, library = Library(), Library(lambda _: order.append("second"))
    first, second = scheduler(slow, graph), scheduler(library, graph)
    order.clear()
    slow.work = work
    threads = [threading.Thread(target=one, args=[images(1)]) for one in (first, second)]
    threads[0].start()
    assert started.wait(10)
    threads[1].start()
    threads[1].join(0.2)
    finish.set()
    for thread in threads:
        thread.join()
    assert order == ["first", "second"]
    assert library.computed == [(SessionOptions(threads=1, streams=4), 1)]


def test_the_chunk_size_with_the_least_work_is_taken(graph):
    """An image costs a busy loop of 2 ms, and each run 2 ms more when it has more than two images."""

    def work(images):
        end = time.process_time() + 2e-3 * (len(images) + 4 * (len(images) > 2) + 1)
        while time.process_time() < end:
            pass

    lines = []
    instance = Instance(graph, image_shape=(2, 2, 3), max_batch=8, cores=1, share=1)
    assert best_chunk(Library(work).open, instance, lines.append) == 2
    assert "images in a chunk: 2" in lines[0]


def test_a_model_of_free_image_size_has_one_session(graph):
    library = Library()
    scheduler(library, graph, image_shape=(-1, -1, 3))
    assert library.opened == [SessionOptions(threads=2, spinning=False)]


@pytest.mark.parametrize(("threads", "largest", "sizes"), [(2, 8, [4, 3]), (2, 2, [2, 2, 2, 1]), (8, 4, 7 * [1])])
def test_a_batch_is_split_into_chunks_for_every_thread(threads, largest, sizes):
    assert [len(chunk) for chunk in split_batch(images(7), threads, largest)] == sizes


def test_settings_that_are_off_leave_one_session_with_a_share_of_the_cores(graph):
    library = Library()
    scheduler(library, graph, "off")(images(8))
    assert library.opened == [SessionOptions(threads=2)]
    assert library.computed == [(SessionOptions(threads=2), 8)]


def test_one_switch_for_all_tuning():
    assert scheduling_command("on") == scheduling_command("trial,batch-policy") == CHRT
    assert scheduling_command("off") == scheduling_command("trial") == []


def test_an_unknown_tuning_setting_is_refused():
    for text in ("on", "off", ",".join(ALL_TUNING)):
        assert check_tuning(text) == text
    for text in ("", "fast", "trial,fast", "on,off"):
        with pytest.raises(UsageError, match=r"unknown setting .*comma-separated list of batch-policy"):
            check_tuning(text)
