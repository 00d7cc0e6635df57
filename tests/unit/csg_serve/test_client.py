"""The clients, against a small server: in scripts, loops and threads; through replaced models, restarts and Ctrl-C."""

import asyncio
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

import csg_serve.client.pool
from csg.errors import InputError, ServerError, UsageError
from csg_serve import AsyncClient, Client
from tests.helpers.small_server import SmallServer, in_a_thread
from tests.helpers.tiny_bundle import COLOURS, tiny_card

IMAGES = [Image.new("RGB", (40, 40), colour) for colour in COLOURS]
RED = IMAGES[0]
OTHER_CARD = tiny_card().model_copy(update={"classes": ("cherry", "lime", "sea")})


@pytest.fixture
def server():
    server = SmallServer()
    with in_a_thread(server) as server.run:
        yield server


@pytest.fixture
def client(server):
    with Client(server.address) as client:
        yield client


def labels(answers):
    return [answer.label for answer in answers]


def test_one_image_gives_one_answer_and_several_give_a_list(client, tmp_path):
    file = tmp_path / "red.png"
    RED.save(file)
    for one in (file, str(file), file.read_bytes(), bytearray(file.read_bytes()), RED, np.asarray(RED)):
        assert client.predict(one).label == "red"
    for several in (tmp_path, f"{tmp_path}/*.png", [file], (one for one in [RED]), {str(file)}):
        assert labels(client.predict(several)) == ["red"]
    assert labels(client.predict([str(file), file.read_bytes(), IMAGES[2], np.asarray(IMAGES[1])])) == [
        *("red", "red", "blue", "green")
    ]
    assert client.predict([]) == []
    assert client.card().classes == COLOURS


def test_an_image_that_can_not_be_read_is_named(client, tmp_path):
    with pytest.raises(InputError, match=r"no\.png does not exist; check the path"):
        client.predict(tmp_path / "no.png")
    with pytest.raises(InputError, match="image number 2 can't be read"):
        client.predict([RED, b"broken"])
    found = []
    with pytest.raises(InputError, match="image number 2 can't be read"):
        found += [found.append(answer) for answer in client.predict_iter([RED, b"broken"])]
    assert labels(found) == ["red"], "what came before is there"
    assert client.predict(RED).label == "red"


def test_answers_are_iterated_and_an_unfinished_iteration_leaves_nothing_behind(client):
    answers = client.predict_iter(IMAGES * 100)
    assert [next(answers).label for _ in range(3)] == [*COLOURS]
    answers.close()
    assert labels(client.predict_iter(RED)) == ["red"]


def test_both_work_inside_a_running_loop_and_tasks_share_a_connection(client, server):
    async def run():
        assert client.predict(RED).label == "red", "as in a notebook"
        async with AsyncClient(server.address) as other:
            found = await asyncio.gather(*(other.predict(image) for image in IMAGES * 5))
            assert (await other.card()).classes == COLOURS
            return labels(found), [answer.label async for answer in other.predict_iter(IMAGES)]

    assert asyncio.run(run()) == ([*COLOURS] * 5, [*COLOURS])


def test_an_asynchronous_client_belongs_to_one_loop(server):
    client = AsyncClient(server.address)

    async def use_and_close():
        async with client:
            await client.predict(RED)

    asyncio.run(use_and_close())
    with pytest.raises(UsageError, match="belongs to another event loop; make one in each loop, or use Client"):
        asyncio.run(client.predict(RED))


def test_threads_share_a_client(client):
    found = []
    threads = [threading.Thread(target=lambda: found.append(labels(client.predict(IMAGES * 20)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[*COLOURS] * 20] * 4


def test_the_new_model_answers_where_the_old_one_was_replaced(client, server):
    """Between two calls, and during one: all answers of a call are of one model, an iteration goes on."""
    assert client.predict(RED).label == "red"
    server.card, server.versions = OTHER_CARD, [2]
    assert client.predict(RED).label == "cherry"
    answers = client.predict_iter(IMAGES * 100)
    first = next(answers).label
    server.card, server.versions = tiny_card(), [3]
    rest = labels(answers)
    assert first == "cherry"
    assert len(rest) == 299
    assert rest[-3:] == [*COLOURS]


@pytest.mark.parametrize("card", [tiny_card(), OTHER_CARD])
def test_a_server_that_restarted_answers(client, server, card):
    assert client.predict(RED).label == "red"
    server.run(server.stop())
    server.card = card
    restart = threading.Timer(0.5, lambda: server.run(server.start()))
    restart.start()
    assert client.predict(RED).label == card.classes[0]
    restart.join()


def test_a_server_that_is_gone_is_an_error_and_the_client_finds_it_again(client, server, monkeypatch):
    monkeypatch.setattr(csg_serve.client.pool, "RETRY_BUDGET_S", 0.3)
    assert client.predict(RED).label == "red"
    server.run(server.stop())
    for says in ("did not answer", "no Triton answers at"):  # while it waited, and at once
        with pytest.raises(ServerError, match=says):
            client.predict(RED)
    server.run(server.start())
    for _ in range(100):  # gRPC waits a moment before it connects again
        with suppress(ServerError):
            assert client.predict(RED).label == "red"
            return
        time.sleep(0.1)
    raise AssertionError("the client does not find the server")


def test_ctrl_c_ends_a_call_and_not_the_client(client, server):
    server.delay_s = 60
    main = threading.main_thread().ident

    def interrupt():
        while not server.requests:
            time.sleep(0.01)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        client.predict(RED)
    thread.join()
    server.delay_s = 0
    assert client.predict(RED).label == "red"


def test_a_closed_client_says_so_also_to_an_iteration(server):
    with Client(server.address) as client:
        answers = client.predict_iter(IMAGES * 100)
        next(answers)
    with pytest.raises(UsageError, match="this client is closed; make another one"):
        list(answers)
    with pytest.raises(UsageError, match="this client is closed"):
        client.predict(RED)
    client.close()


def test_a_client_that_nobody_holds_ends_its_thread(server):
    before = threading.active_count()
    for _ in range(3):
        assert Client(server.address).predict(RED).label == "red"
    assert threading.active_count() == before


def test_programs_end_without_noise(server):
    code = (
        "import sys; from csg_serve import Client; from PIL import Image; client = Client(sys.argv[1]);"
        "answers = client.predict_iter([Image.new('RGB', (40, 40), 'red')] * 100); print(next(answers).label)"
    )
    done = subprocess.run([sys.executable, "-c", code, server.address], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("red\n", "", 0)


def answer_in_a_fork(client, answers):
    try:
        answers.put(client.predict(RED).label)
    except UsageError as error:
        answers.put(str(error))


def test_a_fork_says_that_grpc_does_not_survive_it(client):
    assert client.predict(RED).label == "red"
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    process = fork.Process(target=answer_in_a_fork, args=(client, answers))
    process.start()
    assert "gRPC can't be used in a fork of a process that has used it; start processes by 'spawn'" in answers.get()
    process.join()
    assert client.predict(RED).label == "red"


FORKS = """
import asyncio, gc, multiprocessing, sys
from PIL import Image
from csg_serve import open_model, stream

async def answer(address):
    async with open_model(address) as model:
        garbage = [model, model.pool.replicas[0].transport]
        garbage.append(garbage)
        return [logits async for logits in stream(model, [Image.new("RGB", (40, 40), "red")])]

gc.disable()
assert len(asyncio.run(answer(sys.argv[1]))) == 1
fork = multiprocessing.get_context("fork").Process(target=gc.collect)
fork.start()
fork.join(60)
print(fork.exitcode)
fork.kill()
"""


def test_a_fork_can_collect_what_a_client_of_its_parent_left(server):
    """As a loader process of PyTorch does: gRPC would wait there for a thread that only the parent has."""
    done = subprocess.run([sys.executable, "-c", FORKS, server.address], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("0\n", "")
