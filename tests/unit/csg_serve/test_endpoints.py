"""Addresses of servers."""

import socket

import pytest

from csg.errors import UsageError
from csg_serve.client import address
from csg_serve.client.address import parse_address
from csg_serve.client.endpoints import Servers


def test_addresses():
    forms = ("grpc://[::1]:8001", "localhost:8001", "http://127.0.0.2:8000/", "grpcs://10.0.0.1:1", "HTTPS://a.b:443")
    found = Servers(forms).addresses
    assert [address.authority for address in found] == [
        "[::1]:8001",
        "localhost:8001",
        "127.0.0.2:8000",
        "10.0.0.1:1",
        "a.b:443",
    ]
    assert [address.http for address in found] == [False, False, True, False, True]
    assert [address.tls for address in found] == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://a", "http://a:80"),
        ("https://a/", "https://a:443"),
        ("https://a/b", "https://a:443/b"),
        ("https://a:8443/b/c-1.x_~/", "https://a:8443/b/c-1.x_~"),
        ("http://[::1]/b", "http://[::1]:80/b"),
    ],
)
def test_http_addresses_may_have_a_path_and_no_port(text, url):
    assert parse_address(text).url == url


def test_one_server_under_two_texts_is_one():
    assert len(Servers(("a:1", "grpc://a:1", "http://a", "http://a:80/", "http://a/b", "http://a/b/")).addresses) == 3


NONSENSE = (
    "localhost",
    "localhost:0",
    "localhost:65536",
    "ftp://a:1",
    "a b:1",
    "",
    "grpcs://a",
    "http://",
    "http://:1",
)
ODD = (
    "http://[::g]:1",
    "[1]:1",
    "http://a\x1b:1",
    "http://a\\b:1",
    "http://a%00:1",
    "a:\u0661",
    "http:///b",
    "a:1\n",
    "http://a/\n",
    "a..b:1",
    ".:1",
)
PATHS = ("/a//b", "/..", "/a/../b", "/./a", "/a%2fb", "/a b", "/\u00e9", "/a\\b", "/a;b")


@pytest.mark.parametrize("text", NONSENSE + ODD)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UsageError, match="is not a server address"):
        parse_address(text)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_of_odd_characters_is_refused(path):
    with pytest.raises(UsageError, match="of a server address can't be used; its parts may hold letters"):
        parse_address(f"https://a{path}")


@pytest.mark.parametrize("text", ["a:1/b", "grpc://a:1/b/", "grpcs://a:1/.."])
def test_grpc_has_no_path(text):
    with pytest.raises(UsageError, match=r"has a path, and gRPC has none; give HOST:PORT, or http://HOST:PORT/PATH"):
        parse_address(text)


@pytest.mark.parametrize("text", ["https://me:pass@a/b", "me:pass@a:1", "https://a/b?key=pass", "http://a:1#pass"])
def test_what_may_be_secret_in_an_address_is_refused_and_not_shown(text):
    with pytest.raises(UsageError, match=r"user name or a password|a query or a fragment") as refused:
        parse_address(text)
    assert "pass;" not in str(refused.value).replace("password;", "")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("LocalHost.", True),
        ("a.localhost", True),
        ("127.9.8.7", True),
        ("127.1", True),
        ("0x7f000001", True),
        ("0.0.0.0", True),
        ("[::1]", True),
        ("[::ffff:127.0.0.1]", True),
        (socket.gethostname(), True),
        ("My-Alias", True),
        ("six", True),
        ("my-alias.example.com", False),
        ("elsewhere", False),
        ("commented", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("[fe80::1]", False),
        ("[::ffff:10.0.0.1]", False),
    ],
)
def test_addresses_of_this_machine(host, local, tmp_path, monkeypatch):
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.1.1 my-alias # commented\n::1 six\n10.0.0.9 elsewhere\n\n# 127.0.0.1 commented\n")
    monkeypatch.setattr(address, "HOSTS", hosts)
    assert parse_address(f"{host}:1").local is local
