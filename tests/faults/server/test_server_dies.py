"""A server that is killed in the middle of an evaluation, and a new one at its addresses."""

import json
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import psutil
import pytest
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.helpers.cli import FREE_PORTS, csg, csg_process
from tests.helpers.evaluations import evaluating, figures
from tests.helpers.served import processes_of
from tests.helpers.small_disk import right
from tests.server.test_evaluate import TIMES

pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_an_evaluation_lives_through_the_death_of_its_server(colour_repository, tmp_path):
    """kill -9 in the middle, a new server at the same addresses: no image is lost, none counts twice, figures stay."""
    colours, count = ("red", "green", "blue"), 4000
    for colour in colours:
        (tmp_path / colour).mkdir()
        Image.new("RGB", (300, 300), colour).save(tmp_path / colour / "a.png")
        Image.new("RGB", (40, 40), (90, 91, 89)).save(tmp_path / colour / "b.png")
    lines = (f"{colours[n % 3]}/{'ab'[n % 10 == 0]}.png {n % 3}" for n in range(count))
    (tmp_path / "list.txt").write_text("\n".join(lines))
    serve = ("serve", "--detach", "--json", "--repository", colour_repository)
    state = json.loads(csg_process(*serve, *FREE_PORTS).stdout)
    command = [sys.executable, "-m", "csg", "evaluate", "--json", "--server", state["grpc"], "--data"]
    evaluating = subprocess.Popen(
        [*command, str(tmp_path / "list.txt")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while json.loads(csg("models", "--server", state["grpc"], "--json").stdout)["models"][0]["images"] < count / 8:
            assert evaluating.poll() is None
        for process in processes_of(colour_repository):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        ports = [word for name in ("http", "grpc", "metrics") for word in (f"--{name}-port", state[name].split(":")[1])]
        again = csg_process(*serve, *ports)
        assert again.returncode == 0, again.stderr
        out, err = evaluating.communicate(timeout=120)
        whole = csg(*command[3:], tmp_path / "list.txt").stdout
    finally:
        evaluating.kill()
        csg("serve", "--stop", "--repository", colour_repository)
    assert evaluating.returncode == 0, err
    assert "retrying for" in err
    disturbed, undisturbed = ({k: v for k, v in json.loads(one).items() if k not in TIMES} for one in (out, whole))
    assert disturbed == undisturbed
    assert (disturbed["images"], 0.9 < disturbed["accuracy"] < 0.95) == (count, True)


def test_sigterm_under_load_and_a_new_server(served, lists, undisturbed, tmp_path):
    """What was under way is answered, the rest waits for the next server: no image is lost, none counts twice."""
    with evaluating(served, lists / "good.txt", tmp_path / "one") as client:
        code, words = served.end()
        assert client.poll() is None
        assert (code, "Traceback" in words) == (0, False), words
        served.start()
        out, said = client.communicate(timeout=180)
    assert client.returncode == 0, said
    assert figures(out) == undisturbed
    places = Counter(json.loads(line).get("index") for line in (tmp_path / "one" / "journal.jsonl").open())
    assert places.pop(None) == 1
    assert places == Counter(range(9500))


def processes_of_model(served, name):
    return [
        process
        for process in psutil.Process(served.state["pid"]).children()
        if process.status() != psutil.STATUS_ZOMBIE and f"/{name}/" in " ".join(process.cmdline())
    ]


def test_the_process_of_a_model_is_killed(served, lists, undisturbed, tmp_path):
    """Triton would fail each request from then on; csg serve has the model loaded again, and the evaluation goes on."""
    with evaluating(served, lists / "good.txt", tmp_path / "one") as client:
        process, *_ = processes_of_model(served, "colour")
        process.kill()
        assert client.poll() is None
        out, said = client.communicate(timeout=180)
    log = (served.repository / ".csg-serve.log").read_text()
    assert client.returncode == 0, f"{said}\nthe server's log ends with\n{log[-8000:]}"
    assert figures(out) == undisturbed
    assert "csg: the process of colour version" in log
    process, *_ = processes_of_model(served, "colour_encoded")
    process.kill()
    deadline = time.monotonic() + 120
    while "csg: the process of colour_encoded version" not in log:
        assert time.monotonic() < deadline
        time.sleep(0.2)
        log = (served.repository / ".csg-serve.log").read_text()
    while True:
        try:
            assert all(right(served) for _ in range(5))
            break
        except InferenceServerException:
            assert time.monotonic() < deadline
