"""ONNX Runtime for browsers, which the page runs models with: two files of npm's package onnxruntime-web.

The wheel of a release has them (`make wheel`). Elsewhere they are downloaded once, into csg's cache. Whatever the way,
they are used only if their SHA-256 is the one that stands here.

Example:
    python -m csg_serve.page.runtime    # puts them into the package, for a wheel
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import os
import tarfile
import urllib.request
from pathlib import Path

from csg.console import log
from csg.errors import InputError, VerificationError, one_line
from csg.files import atomic_directory, cache_dir, sha256

VERSION = "1.30.0"
"""Version of onnxruntime-web; its licence is MIT, static/onnxruntime-licence.txt."""
FOLDER = f"onnxruntime-web-{VERSION}"
"""Name of the folder of the two files, in the package, in the cache and in a page."""
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""SHA-512 of the package in base64, as npm states it."""
FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""SHA-256 of the files: the build for WebAssembly alone, without WebGPU."""
REGISTRY = "https://registry.npmjs.org"
"""Where the package is, unless NPM_CONFIG_REGISTRY names a mirror."""
MAX_BYTES = 2**26
"""Maximum size of the package; it has 33 MB."""
TIMEOUT_S = 30.0
"""Seconds that the registry may stay silent."""
PACKAGED = Path(__file__).parent / FOLDER


def runtime_folder() -> Path:
    """The folder that holds the files, downloaded if need be.

    Raises:
        InputError: they can't be downloaded.
        VerificationError: what was downloaded, or is in the cache, is not what it should be.
    """
    if PACKAGED.is_dir():
        return _checked(PACKAGED)
    folder = cache_dir() / FOLDER
    if not folder.is_dir():
        _download(folder)
    return _checked(folder)


def _checked(folder: Path) -> Path:
    for name, wanted in FILES.items():
        if not (folder / name).is_file() or sha256(folder / name) != wanted:
            raise VerificationError(
                f"{folder / name} is not the file of {FOLDER}", f"remove {folder}; it is downloaded again"
            )
    return folder


def _download(folder: Path) -> None:
    registry = os.environ.get("NPM_CONFIG_REGISTRY", REGISTRY).rstrip("/")
    url = f"{registry}/onnxruntime-web/-/{FOLDER}.tgz"
    log(f"downloading {url}, 33 MB, once")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            content = answer.read(MAX_BYTES)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise InputError(
            f"{url} can't be downloaded: {one_line(error)}",
            f"set NPM_CONFIG_REGISTRY to a mirror, or copy {folder} from a machine that has it",
        ) from None
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != INTEGRITY:
        raise VerificationError(f"{url} does not have the SHA-512 of {FOLDER}", "check the registry and the proxy")
    _unpack(content, folder)


def _unpack(content: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(content)) as package, atomic_directory(folder, shared=True) as temporary:
        for name in FILES:
            file = package.extractfile(f"package/dist/{name}")
            assert file
            (temporary / name).write_bytes(file.read())


if __name__ == "__main__":
    if not PACKAGED.is_dir():
        _download(PACKAGED)
    log(f"{_checked(PACKAGED)} is in the package")
