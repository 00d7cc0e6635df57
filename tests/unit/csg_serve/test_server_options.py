"""Options of `csg serve`: what is refused before anything starts."""

from pathlib import Path

import pytest

from csg.errors import InputError, UsageError
from csg_serve.server.options import (
    LOOPBACK,
    SECRET_PATTERN,
    ServerOptions,
    TlsFiles,
    check_address,
    check_tls,
    control_secret,
    read_secret,
)


def test_what_can_not_be_served_with_is_said_before_anything_starts(tls, tmp_path):
    assert check_tls(None, None, None) is None
    for files in ((tls["cert"], None, None), (None, tls["key"], None), (None, None, tls["ca"])):
        with pytest.raises(UsageError, match="--tls-cert and --tls-key"):
            check_tls(*files)
    (tmp_path / "no.pem").write_text("no certificate")
    for files, says in (
        ((tmp_path / "missing", tls["key"], None), "can't read .*missing"),
        ((tls["cert"], tls["client-key"], None), "not a certificate and its key: KEY_VALUES_MISMATCH"),
        ((tmp_path / "no.pem", tls["key"], None), "not a certificate and its key"),
        ((tls["cert"], tls["key"], tmp_path / "no.pem"), "no.pem holds no certificate"),
    ):
        with pytest.raises(InputError, match=says):
            check_tls(*files)
    for address in ("localhost", "::1", "1.2.3", "0.0.0.0:80"):
        with pytest.raises(UsageError, match="not an IPv4 address"):
            check_address(address)
    for content in ("", "short", "two-words-of letters", "name=0123456789abcdef", "0123456789abcdef,x:y=z"):
        (tmp_path / "secret").write_text(content)
        with pytest.raises(InputError, match="holds no secret; write at least 16"):
            read_secret(tmp_path / "secret")


def test_there_always_is_a_secret_and_it_is_new_each_time():
    made = {control_secret(ServerOptions(address=address)) for address in ("127.0.0.1", "0.0.0.0") for _ in range(9)}
    assert len(made) == 18
    assert all(SECRET_PATTERN.fullmatch(secret) for secret in made)


@pytest.mark.parametrize(
    ("options", "http"),
    [
        ({}, "127.0.0.1"),
        ({"address": "127.0.0.2"}, "127.0.0.2"),
        ({"address": "0.0.0.0"}, "127.0.0.1"),
        ({"address": "10.1.2.3"}, "127.0.0.1"),
        ({"address": "10.1.2.3", "tls": TlsFiles(Path("cert"), Path("key"))}, "127.0.0.1"),
        ({"address": "0.0.0.0", "expose_http": True}, "0.0.0.0"),
        ({"expose_http": True}, "127.0.0.1"),
    ],
)
def test_http_stays_on_loopback_unless_it_is_exposed(options, http):
    hosts = ServerOptions(**options).hosts
    assert hosts == {"http": http, "grpc": options.get("address", LOOPBACK), "metrics": hosts["grpc"]}
