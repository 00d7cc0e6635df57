"""Image files into a real Triton: every kind comes out as csg.images prepares it here, and a broken one fails alone."""

import asyncio
import json
import struct
import threading
import time
import urllib.error
import urllib.request
from contextlib import aclosing, contextmanager

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

import csg_serve.repository.encoded_model
from csg.bundle import read_bundle, write_bundle
from csg.errors import ServerError
from csg.images import decode, prepare
from csg_serve.client.connection import open_model
from csg_serve.client.endpoints import as_servers
from csg_serve.client.stream import stream
from csg_serve.repository.deploy import deploy
from csg_train.data.evaluation_batches import image_batches
from tests.helpers import served
from tests.helpers.cli import csg, refused
from tests.helpers.costly_images import COSTLY, photograph
from tests.helpers.image_files import BROKEN, KINDS, encoded, noise, turned
from tests.helpers.plain_triton import triton as plain_triton
from tests.helpers.tiny_bundle import write_echo_bundle, write_scene_bundle, write_unloadable_bundle

pytestmark = pytest.mark.server

TUNED = (
    *("--max-batch", 4, "--preferred-batch", 2, "--queue-delay", 2, "--queue-size", 50, "--timeout", 30_000),
    *("--instances", 2, "--device", "cpu", "--response-cache", "--rate-limit", "cores:1", "--priority", 2),
    *("--formats", "jpeg,gif"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A repository with echo, whose logits are the pixels it gets, and scenes, of free size."""
    root = tmp_path_factory.mktemp("encoded")
    echo = write_echo_bundle(root / "bundles" / "echo")
    scaling = echo.card.input.model_copy(update={"jpeg_scaling": True})
    card = echo.card.model_copy(update={"name": "scaling", "input": scaling})
    write_bundle(root / "bundles" / "scaling", card, {"model.onnx": echo.model.read_bytes()})
    spec = echo.card.input.model_copy(update={"resize_shorter_side": 7})
    other = echo.card.model_copy(update={"input": spec})
    closer = write_bundle(root / "bundles" / "closer", other, {"model.onnx": echo.model.read_bytes()})
    write_unloadable_bundle(root / "bundles" / "broken", closer)
    write_scene_bundle(root / "bundles" / "scenes")
    for name in ("echo", "scaling", "scenes"):
        served.deploy(root / "bundles" / name, root / "repository", "--instances", 1)
    served.deploy(echo.path, root / "repository", "--name", "tuned", *TUNED)
    return root


@pytest.fixture(scope="module")
def server(folder):
    with served.serving(folder / "repository") as state:
        yield state


@pytest.fixture(scope="module")
def ask(server):
    """Image files to a model: its outputs by name."""
    with InferenceServerClient(server["grpc"]) as client:
        yield lambda files, model="echo_encoded": answer(client, files, model)


def answer(client, files, model="echo_encoded"):
    tensor = InferInput("encoded", [len(files), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(files, np.object_)[:, None])
    result = client.infer(model, [tensor])
    names = [output.name for output in result.get_response().outputs]
    return {name: result.as_numpy(name) for name in names}


def pixels(client, model, count):
    """The same image, several times, as a tensor: the logits, which are its pixels."""
    tensor = InferInput("image", [count, 4, 4, 3], "UINT8")
    tensor.set_data_from_numpy(np.tile(np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3), (count, 1, 1, 1)))
    return client.infer(model, [tensor]).as_numpy("logits").tolist()


def expected(folder, file, bundle="echo"):
    spec = read_bundle(folder / "bundles" / bundle).card.input
    return prepare(decode(file), spec).reshape(-1).astype(np.float32)


async def logits(address, model, paths):
    async with open_model(as_servers(address), model) as served, aclosing(stream(served, paths)) as answers:
        (answer,) = [answer async for answer in answers]
        return answer


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "gif" not in kind])
def test_the_server_prepares_as_csg_images_does(folder, ask, kind):
    found = ask([KINDS[kind]])
    assert list(found) == ["logits", "error"]
    np.testing.assert_array_equal(found["logits"], expected(folder, KINDS[kind])[None])
    assert found["error"].tolist() == [[b""]]


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_fails_alone(folder, ask, kind):
    broken, reason = BROKEN[kind]
    files = [*list(KINDS.values())[:5], broken, *list(KINDS.values())[5:7]]
    found = ask(files)
    for place, file in enumerate(files):
        error = found["error"][place, 0].decode()
        if place == 5:
            assert error.startswith("image 5 can't be read")
            assert reason in error
            assert not found["logits"][5].any()
        else:
            assert not error
            np.testing.assert_array_equal(found["logits"][place], expected(folder, file))


def test_a_large_jpeg_gets_the_same_pixels_from_server_client_and_validation(folder, server, ask, tmp_path):
    """Bit for bit, at a reduced scale if the card says so; an older card's are those of the whole image."""
    for name, exif in (("a.jpg", None), ("b.jpg", turned())):
        file = tmp_path / name
        file.write_bytes(photograph(1203, 901, exif=exif or b""))
        found = {}
        for model in ("echo", "scaling"):
            found[model] = ask([file.read_bytes()], f"{model}_encoded")["logits"][0]
            sent = asyncio.run(logits(server["grpc"], model, [file]))
            ((_, batch),) = image_batches([file], read_bundle(folder / "bundles" / model).card.input)
            np.testing.assert_array_equal(found[model], sent)
            np.testing.assert_array_equal(found[model], batch[0].reshape(-1))
        whole = prepare(decode(file), read_bundle(folder / "bundles" / "echo").card.input)
        np.testing.assert_array_equal(found["echo"], whole.reshape(-1))
        assert (found["scaling"] != found["echo"]).any()


def test_files_of_other_formats_are_taken_only_if_asked_for(folder, ask):
    gif, jpeg, webp = (KINDS[kind] for kind in ("animated gif", "jpeg", "webp"))
    errors = [ask([gif, jpeg, webp], model)["error"].ravel().tolist() for model in ("echo_encoded", "tuned_encoded")]
    refusals = [
        b"GIF files are not read here, only JPEG, PNG, WEBP",
        b"WEBP files are not read here, only JPEG, GIF, PNG",
    ]
    assert errors == [
        [b"image 0 can't be read: " + refusals[0], b"", b""],
        [b"", b"", b"image 2 can't be read: " + refusals[1]],
    ]
    np.testing.assert_array_equal(ask([gif], "tuned_encoded")["logits"][0], expected(folder, gif))


def test_files_that_cost_too_much_fail_alone_and_the_server_keeps_answering(folder, ask):
    good = KINDS["jpeg"]
    for name in ("webp, 34 bytes", "bmp, 1 kB of ends of lines", "ppm, 1 MB of comments", "jpeg, 473 kB of scans"):
        found = ask([good, COSTLY[name](), good])
        assert b"image 1 can't be read" in found["error"][1, 0]
        np.testing.assert_array_equal(found["logits"][[0, 2]], [expected(folder, good)] * 2)


def test_a_request_without_any_image_is_an_error(ask):
    for files in ([b""], [broken for broken, _ in BROKEN.values()]):
        with pytest.raises(InferenceServerException, match="image 0 can't be read: not an image file") as refusal:
            ask(files)
        assert refusal.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_broken_images_of_others_do_not_matter(folder, server):
    """Requests that share a batch: each gets its own answer."""
    good = [file for kind, file in KINDS.items() if "gif" not in kind]
    files = good + [broken for broken, _ in BROKEN.values()]
    results = {}

    def send(place):
        with InferenceServerClient(server["grpc"]) as client:
            try:
                results[place] = answer(client, [files[place]])["logits"][0]
            except InferenceServerException as error:
                results[place] = error

    threads = [threading.Thread(target=send, args=[place]) for place in range(len(files))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, file in enumerate(files):
        if place < len(good):
            np.testing.assert_array_equal(results[place], expected(folder, file))
        else:
            assert "image 0 can't be read" in str(results[place].message())


def test_curl_sends_a_file_as_it_is(folder, server):
    """curl --data-binary @a.jpg: the outputs follow the JSON header in the body."""
    url = f"http://{server['http']}/v2/models/echo_encoded/infer"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
    with direct.open(urllib.request.Request(url, KINDS["jpeg"], headers)) as response:
        body, header = response.read(), int(response.headers["Inference-Header-Content-Length"])
    assert [output["name"] for output in json.loads(body[:header])["outputs"]] == ["logits", "error"]
    logits = np.frombuffer(body[header:][: 4 * 48], np.float32)
    np.testing.assert_array_equal(logits, expected(folder, KINDS["jpeg"]))
    with pytest.raises(urllib.error.HTTPError) as refusal:
        direct.open(urllib.request.Request(url, b"hello", headers))
    assert refusal.value.code == 400
    assert json.load(refusal.value)["error"] == "image 0 can't be read: not an image file"


def test_an_answer_in_json_is_json(folder, server):
    parts = b"".join(struct.pack("<I", len(file)) + file for file in (KINDS["jpeg"], b"broken"))
    tensor = {"name": "encoded", "shape": [2, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(parts)}}
    header = json.dumps({"inputs": [tensor]}).encode()
    request = urllib.request.Request(
        f"http://{server['http']}/v2/models/echo_encoded/infer",
        header + parts,
        {"Inference-Header-Content-Length": str(len(header))},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
        logits, error = json.loads(response.read(), parse_constant=pytest.fail)["outputs"]
    assert logits["data"] == [*expected(folder, KINDS["jpeg"]).tolist(), *48 * [0]]
    assert error["data"] == ["", "image 1 can't be read: not an image file"]


def test_a_segmenter_answers_with_maps_of_the_images_own_size(ask):
    for kind in ("png", "turned png", "strip"):
        pixels = np.asarray(decode(KINDS[kind]))
        found = ask([KINDS[kind]], "scenes_encoded")["label_map"]
        np.testing.assert_array_equal(found, pixels.argmax(2)[None])
    alike = [encoded(noise()) for _ in range(5)]
    found = ask([*alike, b""][-4:], "scenes_encoded")
    np.testing.assert_array_equal(found["label_map"][:3], [np.asarray(decode(one)).argmax(2) for one in alike[-3:]])
    assert (found["label_map"][3] == 255).all()
    assert "image 3 can't be read" in found["error"][3, 0].decode()
    with pytest.raises(InferenceServerException, match="different sizes"):
        ask([KINDS["png"], KINDS["strip"]], "scenes_encoded")


def test_the_server_takes_every_option(server):
    with InferenceServerClient(server["grpc"]) as client:
        config = client.get_model_config("tuned").config
        batching, (group,) = config.dynamic_batching, config.instance_group
        assert (config.max_batch_size, list(batching.preferred_batch_size)) == (4, [2])
        assert (batching.max_queue_delay_microseconds, batching.default_queue_policy.max_queue_size) == (2000, 50)
        assert (group.count, group.rate_limiter.priority, group.rate_limiter.resources[0].name) == (2, 2, "cores")
        assert [sample.batch_size for sample in config.model_warmup] == [1, 4]
        assert [pixels(client, "tuned", 3), pixels(client, "tuned", 3)] == 2 * [3 * [list(range(48))]]
        with pytest.raises(InferenceServerException, match="batch-size must be <= 4"):
            pixels(client, "tuned", 5)
        (done,) = client.get_inference_statistics("tuned").model_stats
        assert done.inference_stats.cache_hit.count >= 1


@contextmanager
def load(server, files, answers):
    """Requests to both models all the while; what fails is raised at the end."""
    stop, failed = threading.Event(), []

    def send(act):
        with InferenceServerClient(server["grpc"]) as client:
            while not stop.is_set():
                try:
                    act(client)
                except Exception as error:
                    failed.append(error)

    def tensors(client):
        assert pixels(client, "echo", 1) == [list(range(48))]

    def images(client):
        answers.append(answer(client, files)["logits"])

    threads = [threading.Thread(target=send, args=[act]) for act in (tensors, images, images)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed, [str(one) for one in failed]


@pytest.mark.slow
def test_versions_change_under_load_and_each_gets_its_own_pixels(folder, server, ask, monkeypatch):
    """No request fails, and an answer is that of one version with that version's own preprocessing."""
    files = [KINDS["jpeg"], KINDS["png"]]
    far, close = ([expected(folder, file, name).tolist() for file in files] for name in ("echo", "closer"))
    assert far != close
    repository, bundles, answers = folder / "repository", folder / "bundles", []
    served_file = repository / "echo" / "1" / "preprocessing" / "served.json"
    told = json.loads(served_file.read_text())
    del told["formats"]  # as if an older csg had deployed the first version
    served_file.write_text(json.dumps(told))
    with load(server, files, answers):
        done = csg("deploy", bundles / "closer", "--repository", repository, "--json")
        assert (done.returncode, json.loads(done.stdout)["version"]) == (0, 2), done.stderr
        assert ask(files)["logits"].tolist() == close
        refused(csg("deploy", bundles / "broken", "--repository", repository), 4, "echo version 3 does not load")
        assert ask(files)["logits"].tolist() == close
        garbage = lambda _, folder: (folder / "model.py").write_text("import nothing_at_all")  # noqa: E731
        with monkeypatch.context() as patch:
            patch.setattr(csg_serve.repository.encoded_model, "write_scripts", garbage)
            with pytest.raises(ServerError, match=r"echo_encoded version 4 does not load: .*nothing_at_all"):
                deploy(read_bundle(bundles / "echo"), repository)
        assert ask(files)["logits"].tolist() == close
        done = csg("deploy", "--rollback", "--repository", repository, "--name", "echo", "--json")
        assert (done.returncode, json.loads(done.stdout)["version"]) == (0, 1), done.stderr
        assert ask(files)["logits"].tolist() == far
    kinds = [answer.tolist() for answer in answers]
    assert all(one in (far, close) for one in kinds)
    assert far in kinds
    assert close in kinds


@pytest.mark.slow
def test_it_can_be_left_out(folder, server):
    repository = ("--repository", folder / "repository")
    assert csg("deploy", folder / "bundles" / "echo", "--name", "plain", *repository).returncode == 0
    done = csg("deploy", folder / "bundles" / "echo", "--name", "plain", "--no-encoded", *repository, "--json")
    assert json.loads(done.stdout)["encoded"] is None
    assert not (folder / "repository" / "plain_encoded").exists()
    done = csg("deploy", "--rollback", "--name", "plain", *repository, "--json")
    assert json.loads(done.stdout)["encoded"] == "plain_encoded"
    shown = json.loads(csg("models", "--server", server["grpc"], "--json").stdout)["models"]
    ready = {(one["model"], one["version"]) for one in shown if one["state"] == "READY"}
    assert {("plain", 1), ("plain_encoded", 1)} <= ready


@pytest.mark.slow
def test_a_polling_server_that_csg_does_not_know_switches_without_a_failed_request(folder, tmp_path):
    """As in a container: both models change at once, and each finds the other in either version."""
    files = [KINDS["jpeg"], KINDS["png"]]
    kinds = {name: expected(folder, files[0], name).tolist() for name in ("echo", "closer")}
    bundles, repository, answers = folder / "bundles", tmp_path / "repository", []
    served.deploy(bundles / "echo", repository, "--instances", 1)
    with (
        plain_triton(repository, "--model-control-mode=poll", "--repository-poll-secs=1") as (_, grpc),
        InferenceServerClient(grpc) as client,
        load({"grpc": grpc}, files[:1], answers),
    ):
        for name, version, *arguments in (
            ("closer", "2", bundles / "closer"),
            ("echo", "1", "--rollback"),
            ("closer", "2", "--rollback", "--version", 2),
            ("echo", "3", bundles / "echo"),
        ):
            assert csg("deploy", *arguments, "--repository", repository).returncode == 0
            while not (client.is_model_ready("echo", version) and client.is_model_ready("echo_encoded", version)):
                time.sleep(0.1)
            deadline = time.monotonic() + 120
            while answer(client, files[:1])["logits"][0].tolist() != kinds[name]:
                assert time.monotonic() < deadline, f"{name} version {version} answers with the other's pixels"
    assert {tuple(row) for one in answers for row in one.tolist()} == {tuple(kind) for kind in kinds.values()}
