"""The client over HTTP, against small web servers: prefixes, redirects, answers without end."""

import itertools
import json
import time
import zlib

import pytest
from PIL import Image

import csg_serve.client.find_model
import csg_serve.client.transport
from csg.errors import ServerError
from csg_serve import Client
from csg_serve.client.http_transport import HttpTransport
from tests.helpers.cli import csg
from tests.helpers.small_http import CONFIG, STATISTICS, colour, infer_reply, json_reply
from tests.helpers.tiny_bundle import COLOURS
from tests.helpers.web_server import answering, reply

IMAGES = [Image.new("RGB", (40, 40), colour) for colour in COLOURS]
SECRET = "not-for-everyone"
MIB = 2**20


def client(server, path="", **options):
    return Client(f"http://127.0.0.1:{server.server_port}{path}", **options)


def classes(server, path=""):
    return [COLOURS.index(answer.label) for answer in client(server, path).predict(IMAGES)]


def fails(answer, match):
    with answering(answer) as server, pytest.raises(ServerError, match=match) as failed:
        client(server).predict(IMAGES)
    assert len(str(failed.value)) < 700
    return server


@pytest.mark.parametrize("prefix", ["", "/models", "/a/b-1/~me_.x"])
def test_a_model_is_found_and_asked_below_a_prefix(prefix):
    with answering(colour(prefix)) as server:
        for path in (prefix, f"{prefix}/"):
            assert classes(server, path) == [0, 1, 2]
        assert {path for path, _ in server.requests} >= {f"{prefix}{STATISTICS}", f"{prefix}{CONFIG}"}


def test_another_prefix_is_no_triton():
    with (
        answering(colour("/models")) as server,
        pytest.raises(ServerError, match=r"no Triton answers at .*: not found"),
    ):
        classes(server, "/model")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status):
    with answering(reply(body=b"{}")) as other:
        there = f"http://me:password@localhost:{other.server_port}/there?token=abc"
        with answering(reply(status, location=there)) as server:
            match = rf"it redirects to http://localhost:{other.server_port}/there; no redirect is followed"
            with pytest.raises(ServerError, match=match) as failed:
                client(server, secret=SECRET).predict(IMAGES)
            assert server.requests[0][1]["csg-secret"] == SECRET
        assert not other.requests
    assert "password" not in str(failed.value)
    assert "abc" not in str(failed.value)


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("/v2/models/stats", "/v2/models/stats"),
        ("", "another address"),
        ("http://[", "another address"),
        ("https://127.0.0.1:1/\x7f", r"https://127.0.0.1:1/\\x7f"),
        ("//b/c", "//b/c"),
        ("x" * 5000, "x" * 200),
    ],
)
def test_a_redirect_to_anywhere_is_one_line(location, shown):
    assert len(fails(reply(302, location=location), f"it redirects to {shown}").requests) == 1


def test_a_redirected_request_is_not_sent_again():
    infer = reply(307, location="http://localhost:1/v2")
    server = fails(colour(infer=lambda *_: infer), "did not answer: it redirects to http://localhost:1/v2")
    assert sum(path.endswith("/infer") for path, _ in server.requests) == 1


def endless(head, chunk):
    """An answer that goes on until the client hangs up; counts what was sent."""

    def answer(handler):
        handler.wfile.write(head)
        for _ in itertools.count():
            handler.wfile.write(chunk)
            sent.append(len(chunk))

    sent = []
    return answer, sent


HEAD = b"HTTP/1.1 200 OK\r\n"
ENDLESS = {
    "chunks": (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"10000\r\n" + 65536 * b" " + b"\r\n"),
    "a body": (HEAD + b"\r\n", 65536 * b" "),
    "a body that was announced": (HEAD + b"content-length: 10000000000\r\n\r\n", 65536 * b" "),
    "an error": (b"HTTP/1.1 500 no\r\n\r\n", 65536 * b" "),
    "headers": (HEAD, b"a: b\r\n" * 10000),
    "a header": (HEAD + b"a: ", 65536 * b"b"),
    "a status": (b"HTTP/1.1 200 ", 65536 * b"b"),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_answer_without_end_ends(kind):
    answer, sent = endless(*ENDLESS[kind])
    fails(answer, "no Triton answers at")
    assert sum(sent) < 40 * MIB


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_ingress_whose_server_is_away_is_asked_again(status):
    pages = [reply(status, 2**20 * b"x"), reply(status, b"?", content_encoding="gzip")]
    with answering(colour(infer=lambda *said: pages.pop() if pages else infer_reply(*said))) as server:
        assert classes(server) == [0, 1, 2]
    assert not pages


def test_an_inference_without_end_ends():
    answer, sent = endless(*ENDLESS["chunks"])
    fails(colour(infer=lambda *_: answer), "did not answer: the answer is larger than")
    assert sum(sent) < 20 * MIB


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "x"])
def test_a_compressed_answer_is_refused(encoding):
    fails(reply(200, zlib.compress(bytes(64 * MIB)), content_encoding=encoding), "the answer is compressed")


def test_a_slow_answer_ends_at_the_deadline(monkeypatch):
    monkeypatch.setattr(HttpTransport.call, "__kwdefaults__", {"deadline_s": 0.5})

    def drip(handler):
        handler.wfile.write(HEAD + b"content-length: 1000\r\n\r\n")
        for _ in range(200):
            handler.wfile.write(b" ")
            time.sleep(0.05)

    fails(drip, r"no Triton answers at .*: no answer within 0\.5 s")


def test_finding_a_model_ends_at_its_deadline_however_many_calls_it_takes(monkeypatch):
    monkeypatch.setattr(csg_serve.client.find_model, "FIND_S", 0.5)
    stats = {"model_stats": [{"name": f"m{number}", "version": "1"} for number in range(1000)]}

    def answer(handler):
        time.sleep(0.05)
        (json_reply(stats) if handler.path == STATISTICS else json_reply({}))(handler)

    fails(answer, r"no Triton answers at .*: its models were not found within 0\.5 s")


def test_a_server_with_more_models_than_are_read_is_refused(monkeypatch):
    monkeypatch.setattr(csg_serve.client.transport, "MAX_MODELS", 1000)
    many = {"model_stats": [{"name": f"m{number}", "version": "1"} for number in range(1001)]}
    fails(colour(statistics=json_reply(many)), "it lists 1001 models, and csg reads 1000")


def test_models_under_names_that_are_paths_are_not_for_csg():
    names = ["../../etc", "a/b", "", "\x1b[31m", "colour\n", "a" * 101]
    stats = json_reply({"model_stats": [{"name": name, "version": "1"} for name in names]})
    server = fails(colour(statistics=stats), "has no csg model")
    assert len(server.requests) == 1


def test_names_of_a_server_are_no_escape_codes():
    stats = json_reply({"model_stats": [{"name": "\x1b[31m\n\u202e" + 5000 * "a", "version": "1"}]})
    with answering(lambda handler: (json_reply([]) if "index" in handler.path else stats)(handler)) as server:
        for options in ((), ("--json",)):
            done = csg("models", "--server", f"http://127.0.0.1:{server.server_port}", *options)
            assert done.returncode == 0, done.stderr
            assert done.stdout.isascii() or options == ()
            assert not {"\x1b", "\u202e"} & set(done.stdout)


@pytest.mark.parametrize(
    "tree", ['{"model_stats": []' + 150 * ', "a": 1' + "}", '{"model_stats": [], "a": ' + 100 * "[" + 100 * "]" + "}"]
)
def test_what_nobody_asked_for_is_passed_over(tree):
    fails(reply(200, tree.encode()), "has no csg model")


WRONG = {
    "another model": {"model_name": "other"},
    "a number for a name": {"model_name": 3},
    "another version": {"model_version": "2"},
    "a version that is none": {"model_version": [1]},
    "no output": {"outputs": []},
}
WRONG_OUTPUTS = {
    "another output": {"name": "other"},
    "strings": {"datatype": "BYTES"},
    "whole numbers": {"datatype": "INT64"},
    "no type": {"datatype": "\x1b"},
    "fewer images": {"shape": [1, 3]},
    "more classes": {"shape": [3, 4]},
    "another rank": {"shape": [9]},
    "negative sides": {"shape": [-3, -3]},
    "very many axes": {"shape": [1] * 5000},
    "text for sides": {"shape": "ab"},
}


@pytest.mark.parametrize("kind", WRONG)
def test_an_answer_of_something_else_is_refused(kind):
    wrong = colour(infer=lambda said, logits: infer_reply(said | WRONG[kind], logits))
    fails(wrong, r"the server at http://\S* answers wrongly: .*; check its bundle")


@pytest.mark.parametrize("kind", WRONG_OUTPUTS)
def test_an_output_that_the_card_does_not_have_is_refused(kind):
    def infer(said, logits):
        return infer_reply(said | {"outputs": [said["outputs"][0] | WRONG_OUTPUTS[kind]]}, logits)

    fails(colour(infer=infer), "answers wrongly: colour answered 3 images with ")


def test_two_outputs_are_refused():
    wrong = colour(infer=lambda said, logits: infer_reply(said | {"outputs": 2 * said["outputs"]}, logits))
    fails(wrong, "answers wrongly")


@pytest.mark.parametrize("changed", [lambda x: x[:2], lambda x: x.astype("f8"), lambda x: x[:0]])
def test_bytes_that_do_not_fit_the_shape_are_refused(changed):
    fails(colour(infer=lambda said, logits: infer_reply(said, changed(logits))), r"answered with \d+ bytes, not 36")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_refused(value):
    def infer(said, logits):
        logits[1, 2] = value
        return infer_reply(said, logits)

    fails(colour(infer=infer), "answers wrongly: the logits of colour are not finite")


@pytest.mark.parametrize("length", ["-1", "99999999", "x", "", "1e3", "5"])
def test_a_length_that_is_none_is_no_triton(length):
    def infer(said, logits):
        return reply(200, json.dumps(said).encode() + logits.tobytes(), inference_header_content_length=length)

    fails(colour(infer=infer), "did not answer: it answers, but not as a Triton does")
