"""What the control API sends, and to whom."""

import pytest

from csg_serve.server.control import repository_index
from csg_serve.server.state import SECRET
from tests.helpers.web_server import answering, reply


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_secret_is_not_sent_where_a_redirect_points(status, tmp_path):
    (tmp_path / SECRET).write_text("not-for-everyone")
    (tmp_path / SECRET).chmod(0o600)
    with answering(reply(body=b"[]")) as other:
        there = f"http://localhost:{other.server_port}/v2/repository/index"
        with answering(reply(status, location=there)) as server:
            assert repository_index(tmp_path, f"127.0.0.1:{server.server_port}") == []
            assert server.requests[0][1]["csg-secret"] == "not-for-everyone"
        assert not other.requests


def test_what_is_no_json_is_no_index(tmp_path):
    with answering(reply(body=b"<html>")) as server:
        assert repository_index(tmp_path, f"127.0.0.1:{server.server_port}") == []
