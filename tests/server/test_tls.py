"""A polling server that speaks TLS with clients whose certificate it knows."""

import time

import pytest
import tritonclient.grpc as triton
import trustme
from tritonclient.utils import InferenceServerException

from csg_serve.server.state import SECRET
from tests.helpers.certificates import encrypted_client
from tests.helpers.cli import csg
from tests.helpers.load import under_load
from tests.helpers.served import serving

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def encrypted(bundle, tls, tmp_path_factory):
    """A polling server that speaks TLS with clients whose certificate it knows."""
    repository = tmp_path_factory.mktemp("encrypted") / "repository"
    assert csg("deploy", bundle.path, "--repository", repository).returncode == 0
    options = ("--tls-cert", tls["cert"], "--tls-key", tls["key"], "--tls-client-ca", tls["ca"])
    with serving(repository, *options) as state:
        yield repository, state


def test_only_clients_with_a_certificate_are_served(encrypted, tls, tmp_path):
    _, state = encrypted
    assert encrypted_client(state["grpc"], tls).is_model_ready("colour")
    stranger = trustme.CA()
    stranger.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = stranger.issue_cert("a-client")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    for client in (
        triton.InferenceServerClient(state["grpc"]),
        encrypted_client(state["grpc"], tls, private_key=None, certificate_chain=None),
        encrypted_client(state["grpc"], tls, private_key=tmp_path / "key.pem", certificate_chain=tmp_path / "cert.pem"),
        encrypted_client(state["grpc"], tls, root_certificates=tmp_path / "ca.pem"),
    ):
        with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
            client.is_server_live(client_timeout=20)


@pytest.mark.slow
def test_polling_a_new_version_goes_live_under_load_without_a_failed_request(encrypted, bundle, tls):
    repository, state = encrypted
    deploy = ("deploy", bundle.path, "--repository", repository)
    with under_load(encrypted_client(state["grpc"], tls), state) as answered:
        for _ in range(2):
            assert f"live at {state['grpc']}" in csg(*deploy).stderr
        while answered[-1][0] != "3":
            time.sleep(0.01)
    assert {number for number, _, _ in answered} == {"1", "2", "3"}
    for thread in {asked for _, _, asked in answered}:  # of two, the one with the older answer may note it later
        versions = [number for number, _, asked in answered if asked == thread]
        assert versions == sorted(versions)


def test_a_polling_server_loads_nothing_on_demand(bundle, encrypted, tls):
    repository, state = encrypted
    secret = {"triton-grpc-protocol-csg-secret": (repository / SECRET).read_text()}
    with pytest.raises(InferenceServerException, match="polling"):
        encrypted_client(state["grpc"], tls).unload_model("colour", headers=secret)
