"""Certificates of a test's own authority, and clients of Triton that show them."""

import tritonclient.grpc as triton
import trustme


def issue_certificates(folder):
    """Write PEM files into a folder: of an authority, a server at 127.0.0.1 and a client.

    Returns:
        dict: their paths: ca, cert, key, client-cert, client-key.
    """
    authority, files = trustme.CA(), {"ca": folder / "ca.pem"}
    authority.cert_pem.write_to_path(files["ca"])
    for name, issued in (("", authority.issue_cert("127.0.0.1")), ("client-", authority.issue_cert("a-client"))):
        files[f"{name}cert"], files[f"{name}key"] = folder / f"{name}cert.pem", folder / f"{name}key.pem"
        issued.cert_chain_pems[0].write_to_path(files[f"{name}cert"])
        issued.private_key_pem.write_to_path(files[f"{name}key"])
    return files


def encrypted_client(address, tls, **files):
    """Triton's gRPC client with the certificates of `issue_certificates`; `files` replaces some, or leaves them out."""
    files = {
        "root_certificates": tls["ca"],
        "private_key": tls["client-key"],
        "certificate_chain": tls["client-cert"],
    } | files
    return triton.InferenceServerClient(address, ssl=True, **{name: file and str(file) for name, file in files.items()})
