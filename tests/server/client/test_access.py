"""The client with TLS, with secrets, and with several servers."""

import asyncio
import json
import ssl

import numpy as np
import pytest

from csg.errors import InputError, ServerError, UsageError
from csg_serve import Client, open_model, stream
from csg_serve.client.endpoints import Servers
from tests.helpers.cli import csg, refused
from tests.helpers.client import SECRET, classes_of, relayed
from tests.helpers.tiny_bundle import COLOURS
from tests.helpers.web_server import answering, forwarding

pytestmark = pytest.mark.server


def test_several_servers_have_the_same_model(plain, guarded, folder):
    data = ("--data", folder / "colours", "--json")
    two = ("--server", plain[1], "--server", f"http://{guarded[0]}")
    report = csg("evaluate", *two, "--model", "colour", *data)
    assert report.returncode == 0, report.stderr
    assert (json.loads(report.stdout)["images"], json.loads(report.stdout)["accuracy"]) == (30, 1.0)
    with pytest.raises(ServerError, match=rf"echo at {plain[1]} and echo at .*{guarded[0]} are not the same model"):
        Client([plain[1], f"http://{guarded[0]}"], "echo").card()


def test_tls_both_ways(guarded, folder, images, certificates):
    address = guarded[1]
    paths, classes = images
    ca, cert, key = certificates.values()
    files = ("--tls-ca", ca, "--tls-cert", cert, "--tls-key", key)
    done = csg("predict", *paths[:3], "--server", address, "--model", "colour", *files, "--json")
    assert done.returncode == 0, done.stderr
    assert [one["class"] for one in json.loads(done.stdout)["predictions"]] == [COLOURS[n] for n in classes[:3]]
    refused(csg("predict", paths[0], "--server", address), 4, f"no Triton answers at {address}", "--tls-ca")
    for wrong, kind, message in (
        (
            {"tls_cert": None, "tls_key": None},
            ServerError,
            "no Triton answers at .*--tls-cert with --tls-key",
        ),
        ({"tls_ca": folder / "other-ca.pem"}, ServerError, "CERTIFICATE_VERIFY_FAILED.*check --tls-ca"),
        ({"tls_key": None}, UsageError, "needs its key; give both --tls-cert and --tls-key"),
        ({"tls_ca": folder / "none.pem"}, InputError, r"can't use .*none\.pem for TLS: No such file"),
        ({"tls_key": ca}, InputError, r"can't use .*client\.pem with .*ca\.pem"),
    ):
        with pytest.raises(kind, match=message):
            Client(address, "colour", **{**certificates, **wrong}).card()
    with pytest.raises(UsageError, match="address without TLS"):
        Client(f"grpc://{address}", **certificates).card()


def test_https_in_front_of_http(plain, folder, images):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")

    async def run(ca):
        async with relayed(plain[0], ssl=context) as relay:
            servers = Servers((f"https://127.0.0.1:{relay.port}",), tls_ca=folder / ca)
            async with open_model(servers, "colour") as served:
                return await classes_of(stream(served, images[0]))

    assert asyncio.run(run("ca.pem")) == images[1]
    with pytest.raises(ServerError, match=r"(?i)certificate.*check --tls-ca"):
        asyncio.run(run("other-ca.pem"))


def test_commands_work_below_the_path_of_an_ingress(plain, folder, images):
    with answering(forwarding(plain[0], "/team/models")) as ingress:
        server = ("--server", f"http://127.0.0.1:{ingress.server_port}/team/models/", "--json")
        done = csg("evaluate", *server, "--model", "colour", "--data", folder / "colours")
        assert json.loads(done.stdout)["accuracy"] == 1.0, done.stderr
        done = csg("predict", images[0][0], *server, "--model", "colour")
        assert json.loads(done.stdout)["predictions"][0]["class"] == COLOURS[images[1][0]]
        done = csg("models", *server)
        assert {one["model"] for one in json.loads(done.stdout)["models"]} == {"colour", "scenes", "echo"}
        assert all(path.startswith("/team/models/v2/") for path, _ in ingress.requests)
        refused(csg("models", "--server", f"http://127.0.0.1:{ingress.server_port}"), 4, "no Triton answers at .*404")


def test_a_secret_is_needed_only_for_the_list_of_models(guarded, folder, images, certificates):
    """Tensors go inline without it, here larger than gRPC's default limit, and through shared memory with it."""
    address, paths = guarded[1], images[0]
    pixels = np.random.default_rng(0).integers(0, 256, (2200, 2000, 3), dtype=np.uint8)
    clients = [Client(address, "scenes", **certificates, secret=secret) for secret in (None, "wrong", SECRET)]
    for made in (*clients, Client(f"http://{guarded[0]}", "scenes")):
        with made as client:
            np.testing.assert_array_equal(client.predict(pixels).mask, pixels.argmax(2))
    with pytest.raises(UsageError, match=r"only with its secret; name a model with --model, or give .* secret"):
        Client(address, **certificates).predict(paths)
    with pytest.raises(ServerError, match="no model nothing ready"):
        Client(address, "nothing", **certificates).predict(paths)
    with pytest.raises(UsageError, match="several csg models: colour, echo, scenes"):
        Client(address, **certificates, secret=SECRET).predict(paths)


def test_models_lists_each_server(plain, guarded, folder):
    command = ("models", "--server", plain[1], "--server", f"http://{guarded[0]}")
    refused(csg(*command), 4, f"the server at http://{guarded[0]} refuses", "--secret-file")
    done = csg(*command, "--secret-file", folder / "secret", "--json")
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout)["models"]
    assert all(one["images"] >= one["requests"] > 0 for one in states if one["model"] == "colour")
    found = {(one["server"], one["model"], one["state"]) for one in states}
    assert found == {
        (address, model, "READY")
        for address in (plain[1], f"http://{guarded[0]}")
        for model in ("colour", "scenes", "echo")
    }
