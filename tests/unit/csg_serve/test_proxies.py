"""The proxies of the environment: for gRPC to other machines, and named in errors without their passwords."""

import os
import socket

import pytest

from csg_serve.client.address import parse_address
from csg_serve.client.proxies import EXCEPTIONS, PROXIES, proxy_of
from tests.helpers.cli import csg, refused

PROXY = "http://me:hunter2@proxy:3128"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in (*PROXIES, *EXCEPTIONS, *map(str.upper, PROXIES), "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def proxy(monkeypatch, text="gpu-box:8001", **variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return proxy_of(parse_address(text))


@pytest.mark.parametrize("variable", PROXIES)
def test_the_variables_of_grpc(variable, monkeypatch):
    assert proxy(monkeypatch, **{variable: PROXY}) == "http://proxy:3128"


def test_the_first_variable_counts(monkeypatch):
    assert proxy(monkeypatch, grpc_proxy="", http_proxy=PROXY) is None
    assert proxy(monkeypatch, grpc_proxy="http://other:1") == "http://other:1"


@pytest.mark.parametrize(
    "value", ["proxy:3128", "socks5://proxy:1", "https://proxy:1", "http://", "http://[", "http://me:hunter2@", "x"]
)
def test_what_grpc_takes_for_no_proxy(value, monkeypatch):
    assert proxy(monkeypatch, http_proxy=value) is None


@pytest.mark.parametrize("text", ["http://gpu-box:1", "https://gpu-box/a", "localhost:1", "127.1:1", "[::1]:1"])
def test_addresses_without_a_proxy(text, monkeypatch):
    assert proxy(monkeypatch, text, http_proxy=PROXY) is None


@pytest.mark.parametrize(
    ("listed", "text", "used"),
    [
        ("gpu-box", "gpu-box:1", False),
        ("other, GPU-Box ,", "gpu-box:1", False),
        (".example.com", "a.example.com:1", False),
        ("*.example.com", "a.example.com:1", False),
        ("*", "gpu-box:1", False),
        ("10.0.0.0/8", "10.1.2.3:1", False),
        ("10.1.2.3", "10.1.2.3:1", False),
        ("fe80::/10", "[fe80::1]:1", False),
        ("", "gpu-box:1", True),
        (",", "gpu-box:1", True),
        ("other", "gpu-box:1", True),
        ("11.0.0.0/8", "10.1.2.3:1", True),
        ("10.0.0.0/99", "10.1.2.3:1", True),
    ],
)
def test_no_proxy(listed, text, used, monkeypatch):
    for name in EXCEPTIONS[1:]:
        monkeypatch.delenv("no_proxy", raising=False)
        assert (proxy(monkeypatch, text, http_proxy=PROXY, **{name: listed}) is not None) is used


def test_a_proxy_on_the_way_is_named_and_its_password_is_not(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    monkeypatch.setitem(os.environ, "http_proxy", f"http://me:hunter2@127.0.0.1:{port}")
    done = csg("models", "--server", "gpu-box.example.com:8001")
    refused(
        done,
        4,
        rf"no Triton answers at gpu-box\.example\.com:8001 through the proxy http://127\.0\.0\.1:{port}: ",
        r"; set no_proxy=gpu-box\.example\.com if the server needs no proxy",
    )
    assert "hunter2" not in done.stderr
