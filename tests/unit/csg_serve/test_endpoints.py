"""Addresses of servers."""

import pytest

from csg.errors import UsageError
from csg_serve.client.endpoints import Servers


def test_addresses():
    forms = ("grpc://[::1]:8001", "localhost:8001", "http://127.0.0.2:8000/", "grpcs://10.0.0.1:1", "https://a.b:443")
    found = Servers(forms).addresses
    assert [address.authority for address in found] == [
        "[::1]:8001",
        "localhost:8001",
        "127.0.0.2:8000",
        "10.0.0.1:1",
        "a.b:443",
    ]
    assert [address.local for address in found] == [True, True, True, False, False]
    assert [address.http for address in found] == [False, False, True, False, True]
    assert [address.tls for address in found] == [False, False, False, True, True]
    for nonsense in ("localhost", "localhost:0", "localhost:65536", "ftp://a:1", "a b:1", "http://a:1/b", ""):
        with pytest.raises(UsageError, match="is not a server address"):
            _ = Servers((nonsense,)).addresses
