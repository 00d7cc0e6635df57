"""Options of `csg serve`: what is refused before anything starts."""

import pytest

from csg.errors import InputError, UsageError
from csg_serve.server.options import ServerOptions, check_address, check_tls, control_secret, read_secret


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


def test_only_loopback_does_without_a_secret():
    assert not ServerOptions().exposed
    assert not ServerOptions(address="127.0.0.2").restricted
    assert ServerOptions(address="0.0.0.0").restricted
    assert ServerOptions(address="10.1.2.3").restricted
    assert control_secret(ServerOptions()) is None
    assert len({control_secret(ServerOptions(address="0.0.0.0")) for _ in range(9)}) == 9
