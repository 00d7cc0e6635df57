"""Which processes of the Python backend the watchdog takes for dead, and which models it loads again."""

from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from csg_serve.server.answer_watch import AnswerWatch
from csg_serve.server.deployments import deploying, is_being_deployed
from csg_serve.server.state import ServerState
from csg_serve.server.stubs import LOAD_S, Stubs
from csg_serve.verify.verify import Verification

TOKEN = "csg-0123-"


@dataclass
class Process:
    pid: int
    started: float
    instance: str = "colour_0_0"
    model: str = "colour"
    dead: bool = False

    def cmdline(self):
        if self.dead:
            raise psutil.ZombieProcess(self.pid)
        script = f"/repository/{self.model}/1/model.py"
        return ["/backends/stub", script, f"{TOKEN}{self.pid}", "1048576", "99", self.instance, "DEFAULT"]

    def create_time(self):
        return self.started


class Server:
    def __init__(self):
        self.processes = []

    def children(self):
        return self.processes


def watching(*of_looks, stubs=None):
    """The models whose processes are found dead, look by look."""
    stubs = stubs or Stubs(Server(), TOKEN)
    found = []
    for stubs.server.processes in map(list, of_looks):
        found.append(sorted(script.parent.parent.name for script in stubs.died()))
    return found


def dead(process):
    return Process(process.pid, process.started, process.instance, process.model, dead=True)


A, B = Process(10, 100.0), Process(11, 100.01, "colour_0_1")
OTHER = Process(12, 100.02, "faces_0_0", "faces")
NEW_A, NEW_B = Process(20, 200.0), Process(21, 200.01, "colour_0_1")


def test_a_process_that_died_is_found_beside_the_other_instances():
    assert watching([A, B, OTHER], [A, dead(B), OTHER], [A, dead(B), OTHER]) == [[], [], ["colour"]]
    assert watching([A, OTHER], [dead(A), dead(OTHER)], [dead(A), dead(OTHER)]) == [[], [], ["colour", "faces"]]


def test_one_that_triton_collects_is_not():
    assert watching([A, B], [A, dead(B)], [A], [A]) == [[], [], [], []]


def test_one_that_was_replaced_is_not():
    """Triton ends the processes of the earlier load itself, and may take seconds to collect them on a busy machine."""
    old = dead(A), dead(B)
    assert watching([A, B], [A, B, NEW_A, NEW_B], [*old, NEW_A, NEW_B], [*old, NEW_A, NEW_B]) == [[], [], [], []]


def test_one_of_the_new_load_is_found_beside_those_of_the_earlier():
    ends = [dead(A), dead(B), NEW_A, dead(NEW_B)]
    assert watching([A, B, NEW_A, NEW_B], ends, ends) == [[], [], ["colour"]]


def test_one_that_asked_for_the_configuration_is_none():
    asking = Process(9, 99.0, "colour")
    assert watching([asking, A], [dead(asking), A], [dead(asking), A]) == [[], [], []]


def test_one_that_was_never_seen_alive_is_none():
    assert watching([dead(A), B], [dead(A), B]) == [[], []]


def test_a_number_that_is_used_again_is_another_process():
    again = Process(10, 300.0, "faces_0_0", "faces")
    assert watching([A, B], [B], [again, B], [dead(again), B], [dead(again), B])[-1] == ["faces"]


SCRIPT = Path("/repository/colour/1/model.py")


def test_a_second_death_waits_for_the_load():
    """The load replaces all processes of the version; one that dies in it is no reason for another one."""
    stubs = Stubs(Server(), TOKEN)
    assert watching([A, B], [A, dead(B)], [A, dead(B)], stubs=stubs)[-1] == ["colour"]
    stubs.loads_again(SCRIPT)
    both = [dead(A), dead(B)]
    assert watching(both, both, stubs=stubs) == [[], []]
    assert watching([*both, NEW_A, NEW_B], [*both, NEW_A, dead(NEW_B)], stubs=stubs) == [[], []]
    assert watching([*both, NEW_A, dead(NEW_B)], stubs=stubs) == [["colour"]]


def test_a_load_that_never_ends_does_not_hide_a_death(monkeypatch):
    now = [150.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stubs = Stubs(Server(), TOKEN)
    watching([A, B], [A, dead(B)], [A, dead(B)], stubs=stubs)
    stubs.loads_again(SCRIPT)
    assert watching([dead(A), dead(B)], [dead(A), dead(B)], stubs=stubs) == [[], []]
    now[0] += LOAD_S
    assert watching([dead(A), dead(B)], stubs=stubs) == [["colour"]]


def test_a_load_that_failed_does_not_hide_a_death():
    stubs = Stubs(Server(), TOKEN)
    watching([A, B], [A, dead(B)], [A, dead(B)], stubs=stubs)
    stubs.loads_again(SCRIPT)
    stubs.load_failed(SCRIPT)
    assert watching([A, dead(B)], [A, dead(B)], stubs=stubs) == [[], []]
    assert watching([dead(A), dead(B)], [dead(A), dead(B)], stubs=stubs) == [[], ["colour"]]


@pytest.fixture
def watch(tmp_path):
    """An `AnswerWatch` of a server whose two models answer wrongly."""
    state = ServerState(
        pid=1, token="csg-" + 16 * "0" + "-", http="h:1", grpc="h:2", metrics="h:3", control="explicit", drain_s=1
    )
    watch = AnswerWatch(tmp_path, state)
    found = [Verification(model, 1, "wrong", "zeros") for model in ("colour", "faces")]
    watch._ask = lambda: found

    def look():
        """The models of the findings of one look."""
        watch._due = 0
        watch.look()
        watch._asked.result()
        return [(one.found.model, one.act) for one in watch.look()]

    return look


def test_a_model_that_is_being_deployed_is_left_to_its_deployment(watch, tmp_path):
    """Loaded again while its deployment removes it, its load would never end, nor any later call for it."""
    with deploying(tmp_path, "colour"):
        assert [watch(), watch()] == [[("faces", "load again")], [("faces", "take out")]]
    assert [watch(), watch()] == [[("colour", "load again")], [("colour", "take out")]]


@pytest.mark.parametrize("model", ["colour", "colour_encoded"])
def test_a_deployment_is_seen_while_it_lasts(model, tmp_path):
    assert not is_being_deployed(tmp_path, model)
    with deploying(tmp_path, "colour"):
        assert is_being_deployed(tmp_path, model)
        assert not is_being_deployed(tmp_path, "colours")
    assert not is_being_deployed(tmp_path, model)
