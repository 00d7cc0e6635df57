"""Two servers for the tests of the client: one without any protection, one with TLS over gRPC and a secret."""

import pytest
import trustme
from PIL import Image

from csg.bundle import read_bundle
from csg_serve.repository.deploy import deploy
from csg_serve.triton.deploy_options import DeployOptions
from tests.helpers.client import SECRET
from tests.helpers.plain_triton import triton
from tests.helpers.tiny_bundle import COLOURS, write_colour_bundle, write_echo_bundle, write_scene_bundle


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    """Images, certificates, and two repositories with the same models colour and scenes, but different models echo.

    The second one takes fewer images per request.
    """
    root = tmp_path_factory.mktemp("client")
    for name, side in (("one", 4), ("two", 5)):
        write_colour_bundle(root / name / "colour")
        write_scene_bundle(root / name / "scenes")
        write_echo_bundle(root / name / "echo", side=side)
        for model in ("colour", "scenes", "echo"):
            largest = 4 if (name, model) == ("two", "colour") else None
            options = DeployOptions(max_batch=largest, encoded=False, instances=1)
            deploy(read_bundle(root / name / model), root / f"repository-{name}", options=options)
    for number, colour in enumerate(COLOURS):
        (root / "colours" / colour).mkdir(parents=True)
        for again in range(10):
            Image.new("RGB", (60 + again, 50), colour).save(root / "colours" / colour / f"{number}-{again}.png")
    ca, other = trustme.CA(), trustme.CA()
    for name, authority in (("ca", ca), ("other-ca", other)):
        authority.cert_pem.write_to_path(root / f"{name}.pem")
    for name, issued in (("server", ca.issue_cert("127.0.0.1")), ("client", ca.issue_cert("client@csg"))):
        issued.private_key_pem.write_to_path(root / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(root / f"{name}.pem")
    (root / "secret").write_text(f"{SECRET}\n")
    return root


@pytest.fixture(scope="package")
def plain(folder):
    """HTTP and gRPC address of a server without any protection."""
    with triton(folder / "repository-one") as addresses:
        yield addresses


@pytest.fixture(scope="package")
def guarded(folder):
    """HTTP and gRPC address of a server with TLS both ways over gRPC, and a secret."""
    guard = f"model-repository,shared-memory,statistics:csg-secret={SECRET}"
    with triton(
        folder / "repository-two",
        "--grpc-use-ssl-mutual=true",
        f"--grpc-server-cert={folder / 'server.pem'}",
        f"--grpc-server-key={folder / 'server.key'}",
        f"--grpc-root-cert={folder / 'ca.pem'}",
        f"--grpc-restricted-protocol={guard}",
        f"--http-restricted-api={guard}",
    ) as addresses:
        yield addresses


@pytest.fixture
def certificates(folder):
    return {"tls_ca": folder / "ca.pem", "tls_cert": folder / "client.pem", "tls_key": folder / "client.key"}


@pytest.fixture
def images(folder):
    """Thirty images, and the class of each."""
    paths = sorted((folder / "colours").rglob("*.png"), key=lambda path: path.name.rpartition("-")[2])
    return paths, [COLOURS.index(path.parent.name) for path in paths]
