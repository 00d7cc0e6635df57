"""The labelling server: what it shows, to whom, and what it keeps."""

import io
import signal
import threading
import urllib.parse
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from csg.errors import InputError
from csg_serve.evaluate.labelling.answers import label_file, open_labels, read_labels
from csg_serve.evaluate.labelling.item_pictures import WINDOWS, picture_of
from csg_serve.evaluate.labelling.open import LabellingOptions, open_labelling
from csg_serve.evaluate.labelling.server import POLICY
from csg_serve.evaluate.labelling.session import LabellingSession
from csg_serve.evaluate.labelling.task import AskedItem
from tests.helpers.image_files import BROKEN, KINDS, encoded, turned
from tests.helpers.labelling import Labelling, image_task, labelling


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A session of five images."""
    folder = tmp_path_factory.mktemp("labelling")
    with labelling(folder, image_task(folder / "images", 5)) as found:
        yield found


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "169.254.1.1", "[::1", "127.0.0.2:80"])
def test_a_request_must_name_this_machine(small, host):
    assert small.ask("", Host=host)[0] == 403
    assert small.ask("undo", {}, Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1:1"])
def test_a_tunnel_may_have_another_port(small, host):
    assert small.ask("", Host=host)[0] == 200
    assert small.ask("undo", {}, Host=host, Origin=f"http://{host}")[0] == 200


def test_another_origin_is_refused(small):
    assert small.ask("undo", {}, Origin="http://evil.example")[0] == 403
    assert small.ask("undo", {}, Origin="null")[0] == 403


def test_nobody_gets_anything_without_the_token(small):
    home = urllib.parse.urljoin(small.address, "/")
    for token in (
        "",
        "x/",
        "%00/",
        small.address.split("/")[-2][:-1] + "/",
        small.address.split("/")[-2].swapcase() + "/",
    ):
        for path in ("", "state", "main.js", "items/0", "items/0/whole"):
            assert replace(small, address=home + token).ask(path)[0] == 404


@pytest.mark.parametrize(
    "path",
    ["../state", "..%2fserver.py", "server.py", "%2e%2e/%2e%2e/answers.py", "/etc/passwd", "items/5", "items/-1",
     "items/x", "items/0/window/0", "items/99999999999999999999", "items/0/whole/..", "index.html.bak"],
)  # fmt: skip
def test_no_path_comes_from_the_browser(small, path):
    assert small.ask(path)[0] in (404, 405)


@pytest.mark.parametrize(
    "body", [{}, {"item": 0}, {"item": "0", "label": []}, {"item": 0, "label": -1}, {"item": 0, "label": 0, "x": 1}, []]
)
def test_a_wrong_answer_is_refused(small, body):
    assert small.ask("answer", body)[0] == 400


def test_numbers_that_do_not_exist_are_refused(small):
    assert small.ask("answer", {"item": 5, "label": 0})[0] == 404
    assert small.ask("answer", {"item": 0, "label": 2})[0] == 404
    assert small.ask("answer", {"item": 0, "label": 0}, content_type="text/plain")[0] == 415
    assert small.ask("answer", {"item": 0, "label": 0, "more": "x" * 2000})[0] == 413
    assert small.json("state")["own"] == 0


def test_every_answer_has_the_policy(small):
    import http.client

    parts = urllib.parse.urlsplit(small.address)
    for path in ("", "main.js", "nothing", "items/0/whole"):
        connection = http.client.HTTPConnection(parts.netloc)
        connection.request("GET", parts.path + path)
        headers = connection.getresponse().headers
        assert (headers["Content-Security-Policy"], headers["Cache-Control"]) == (POLICY, "no-store")
        connection.close()


def test_the_model_s_answer_is_told_after_the_person_s(small):
    before = [small.ask(path)[1] for path in ("state", "items/0", "items/4")]
    assert not [text for text in before if b"dog" in text or b"suggestion" in text]
    found = small.json("answer", {"item": 0, "label": 1})
    assert (found["given"], found["suggestion"], found["next"][0]) == ("cat", "dog", 1)
    assert small.json("undo", {})["undone"] == 0


def test_two_windows_do_not_answer_twice(small):
    small.json("answer", {"item": 0, "label": 1})
    again = small.json("answer", {"item": 0, "label": 0})
    assert (again["twice"], again["own"]) == (0, 1)
    small.json("undo", {})


def test_a_session_ends_when_it_is_stopped_and_goes_on_later(tmp_path):
    task = image_task(tmp_path / "images", 4)
    with labelling(tmp_path, task) as found:
        found.json("answer", {"item": 0, "label": 0})
        found.json("later", {"item": 1})
        assert found.json("answer", {"item": 2, "label": None})["next"] == [3, 1]
    assert found.merged[0].labels == {0: "dog", 2: None}
    with labelling(tmp_path, task) as found:
        assert found.json("state")["next"] == [1, 3]
        found.json("answer", {"item": 3, "label": 0})
        assert found.json("answer", {"item": 1, "label": 1})["complete"]
        assert found.json("undo", {})["next"] == [1]
        found.json("answer", {"item": 1, "label": 0})
    assert found.merged[0].labels == {0: "dog", 1: "dog", 2: None, 3: "dog"}
    assert open_labelling(tmp_path, task, LabellingOptions("ana", show=None)) == found.merged[0]


def test_an_image_that_cannot_be_read_is_passed_over_and_said(tmp_path):
    task = image_task(tmp_path / "images", 3)
    task.items[0].image.write_bytes(b"hello")
    task.items[2].image.unlink()
    with labelling(tmp_path, task) as found:
        assert "not an image file" in found.json("items/0")["problem"]
        assert found.ask("items/0/whole")[0] == 500
        assert "does not exist" in found.json("items/2")["problem"]
        state = found.json("answer", {"item": 1, "label": 0})
        assert (state["complete"], state["left"], len(state["unreadable"])) == (True, 0, 2)
    assert found.merged[0].labels == {1: "dog"}


def test_it_ends_when_the_labels_are_enough(tmp_path):
    def enough(merged):
        return "2 labels" if len(merged.labels) == 2 else None

    with labelling(tmp_path, image_task(tmp_path / "images", 5), enough=enough) as found:
        assert not found.json("answer", {"item": 0, "label": 0})["complete"]
        state = found.json("answer", {"item": 1, "label": 0})
        assert (state["complete"], state["enough"]) == (True, "2 labels")
        assert not found.json("undo", {})["complete"]


def test_it_ends_by_itself_after_the_last_answer(tmp_path, monkeypatch):
    monkeypatch.setattr("csg_serve.evaluate.labelling.server.ENDING_S", 0.01)
    task, given = image_task(tmp_path / "images", 1), []

    def answer(address):
        given.append(threading.Thread(target=lambda: Labelling(address).json("answer", {"item": 0, "label": 0})))
        given[0].start()

    assert open_labelling(tmp_path, task, LabellingOptions("ana", show=answer)).labels == {0: "dog"}
    given[0].join()


def test_a_third_person_is_asked_what_two_disagree_on(tmp_path):
    task = image_task(tmp_path / "images", 3)
    for person, labels in (("ana", ["dog", "dog", None]), ("ben", ["dog", "cat", "cat"])):
        with open_labels(tmp_path, person, task.labelled) as file:
            for item, label in enumerate(labels):
                file.answer(item, label)
    with open_labels(tmp_path, "cleo", task.labelled) as file:
        session = LabellingSession(file, task)
        assert session.open_items() == [1]
        session.answer(1, "cat")
        assert session.is_complete
        assert session.merged.labels == {0: "dog", 1: "cat", 2: "cat"}


def test_what_another_person_answers_meanwhile_is_not_asked(tmp_path):
    task = image_task(tmp_path / "images", 3)
    with open_labels(tmp_path, "ana", task.labelled) as ana, open_labels(tmp_path, "ben", task.labelled) as ben:
        session = LabellingSession(ana, task)
        ben.answer(1, "cat")
        session.answer(0, "dog")
        assert session.open_items() == [2]
        assert session.undo() == 0
        assert session.open_items() == [0, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_is_shown_upright(tmp_path, kind):
    path = tmp_path / "image"
    path.write_bytes(KINDS[kind])
    picture = picture_of(AskedItem(path))
    with Image.open(io.BytesIO(picture.whole.content)) as shown:
        assert shown.size == picture.size
        assert shown.format == ("PNG" if picture.whole.kind == "image/png" else "JPEG")
        assert not shown.getexif()
    assert picture.size == ((23, 37) if "turned" in kind else Image.open(path).size)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_is_an_error(tmp_path, kind):
    path = tmp_path / "image"
    path.write_bytes(BROKEN[kind][0])
    with pytest.raises(InputError, match="image"):
        picture_of(AskedItem(path))


@pytest.mark.parametrize("point", [(0, 0), (59, 39), (30, 0), (17, 22)])
@pytest.mark.parametrize("orientation", [1, 6, 3])
def test_the_point_is_in_the_middle_of_each_window(tmp_path, point, orientation):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[point[1], point[0]] = 255
    turns = {1: None, 6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180}
    image = Image.fromarray(pixels)
    stored = image.transpose(turns[orientation]) if turns[orientation] is not None else image
    (tmp_path / "image.png").write_bytes(encoded(stored, exif=turned(orientation)))
    for side, window in zip(WINDOWS, picture_of(AskedItem(tmp_path / "image.png", point)).windows, strict=True):
        with Image.open(io.BytesIO(window.content)) as shown:
            found = np.asarray(shown)
        assert found.shape == (side, side, 3)
        assert (np.argwhere(found.min(2) == 255) == side // 2).all()
        assert found[side // 2, side // 2].tolist() == [255] * 3


def test_a_point_outside_of_its_image_is_an_error(tmp_path):
    (tmp_path / "image.png").write_bytes(KINDS["png"])
    with pytest.raises(InputError, match="37 x 23 pixels, not the point"):
        picture_of(AskedItem(tmp_path / "image.png", (37, 0)))


def test_ctrl_c_in_the_middle_keeps_what_was_answered(tmp_path):
    task = image_task(tmp_path / "images", 2)

    def interrupted(_):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    assert open_labelling(tmp_path, task, LabellingOptions("ana", show=interrupted)).labels == {}
    with open_labels(tmp_path, "ana", task.labelled) as file:
        file.answer(0, "dog")
    assert open_labelling(tmp_path, task, LabellingOptions("ana", show=interrupted)).labels == {0: "dog"}
    assert read_labels(label_file(tmp_path, "ana"), task.labelled) == {0: "dog"}
