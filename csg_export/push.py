"""`csg push`: a bundle into a repository on Hugging Face's Hub, in one commit.

The token is the one that huggingface_hub finds (`hf auth login`, HF_TOKEN); csg neither reads nor prints it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

import csg
from csg.bundle import FILES, HUB, README, Bundle, read_bundle
from csg.console import log, print_json, show_line
from csg.errors import CsgError, InputError, ServerError, UsageError, one_line

NO_LICENCE = "\nlicense: unknown\n"
LOGIN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"
STATUS = {
    401: ("does not accept the token", LOGIN),
    403: ("does not let this account write there", "use a repository of your own, or a token that may write"),
    404: ("has no such repository for this account", "check --hub, and that the token may read it"),
    409: ("has such a repository already, or it has changed meanwhile", "push again"),
    412: ("has a newer commit in this repository than the one seen", "push again"),
    429: ("gets too many requests from this account", "wait some minutes"),
}
"""For each answer of the Hub that a user can cause what it means, and what to do."""


def push_command(path: Path, repository: str, private: bool, as_json: bool) -> None:
    """Verify a bundle and upload its files, and no others, in one commit; a new repository is created.

    Args:
        path: the bundle.
        repository: NAME, or ACCOUNT/NAME.
        private: create the repository as a private one.
        as_json: print JSON.

    Raises:
        UsageError: the name can't be one of a repository, or `private` is given for one that is public.
        InputError: the folder is no bundle, there is no token, or the repository holds something else.
        VerificationError: a file of the bundle does not match its checksum.
        ServerError: the Hub can't be reached, or refuses.
    """
    _check_name(repository)
    bundle = read_bundle(path)
    if not get_token():
        raise InputError("there is no token for Hugging Face", LOGIN)
    if NO_LICENCE in _readme(bundle):
        log("README.md states no licence for this model: `csg export --license NAME` writes one")
    hub = HfApi(library_name="csg", library_version=csg.__version__)
    with _errors_of(hub.endpoint, repository):
        name, parent, stale = _open_repository(hub, repository, private)
        adds = [CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file) for file in bundle.files]
        removed = stale - {file.name for file in bundle.files} - {README}
        deletes = [CommitOperationDelete(path_in_repo=file) for file in sorted(removed)]
        message = f"{bundle.card.name}, {bundle.card.precision}, by csg {csg.__version__}"
        commit = hub.create_commit(name, [*adds, *deletes], commit_message=message, parent_commit=parent)
    address = f"{hub.endpoint}/{name}"
    if as_json:
        files = [file.name for file in bundle.files]
        print_json({"repository": name, "address": address, "commit": commit.oid, "files": files})
    else:
        show_line(address)


def _check_name(repository: str) -> None:
    try:
        validate_repo_id(repository)
    except ValueError as error:
        raise UsageError(
            f"--hub {repository} is no name of a repository: {one_line(error, 160).rstrip('.')}", "use ACCOUNT/NAME"
        ) from None


def _readme(bundle: Bundle) -> str:
    file = bundle.path / README
    return file.read_text("utf-8", errors="replace") if file.is_file() else ""


def _open_repository(hub: HfApi, repository: str, private: bool) -> tuple[str, str | None, set[str]]:
    """Find or create the repository.

    Returns:
        Its whole name, its newest commit (None in a new one), and the files of a bundle that it holds.
    """
    name = repository if "/" in repository else f"{hub.whoami()['name']}/{repository}"
    try:
        found = hub.model_info(name)
    except RepositoryNotFoundError:
        created = hub.create_repo(name, private=private or None)
        log(f"created {hub.endpoint}/{created.repo_id}")
        return created.repo_id, None, set()
    if private and not found.private:
        raise UsageError(f"{name} is public already", "leave out --private, or name another repository")
    files = {file.rfilename for file in found.siblings or ()}
    others = sorted(file for file in files if file not in (*FILES, *HUB))
    if others:
        more = f" and {len(others) - 1} more" if others[1:] else ""
        raise InputError(f"{name} holds files that are not of a bundle: {others[0]}{more}", "name another repository")
    return name, found.sha, files & set(FILES)


@contextmanager
def _errors_of(endpoint: str, repository: str) -> Iterator[None]:
    """Turn what the Hub refuses, and a network that does not reach it, into one line."""
    try:
        yield
    except CsgError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        known, hint = STATUS.get(status, (f"answers {status}: {_said(error)}", "try again later"))
        raise ServerError(f"{endpoint} {known} ({repository})", hint) from None
    except ValueError as error:  # the Hub does not accept the metadata of README.md, or an answer is none of the Hub's
        raise ServerError(f"{endpoint} does not take the bundle: {_said(error)}", "correct README.md's head") from None
    except Exception as error:  # the HTTP library of huggingface_hub changes with its version
        raise ServerError(
            f"{endpoint} can't be reached: {_said(error)}", "check the network, proxies and HF_HUB_OFFLINE"
        ) from None


def _said(error: Any) -> str:
    """What an error says, without the token if a server repeats it."""
    text = str(getattr(error, "server_message", None) or error)
    token = get_token()
    return one_line(text.replace(token, "***") if token else text, 200)
