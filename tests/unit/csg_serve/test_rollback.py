"""`csg deploy --rollback` without a server."""

import pytest

from csg.errors import InputError, UsageError
from csg_serve.repository.deploy import deploy
from csg_serve.repository.rollback import roll_back
from csg_serve.triton.deploy_options import DeployOptions
from csg_serve.triton.failures import mark_failed, why_failed
from tests.helpers.repositories import content
from tests.helpers.tiny_bundle import write_echo_bundle


def test_an_earlier_version_can_be_served_again(bundle, repository, tmp_path):
    other = write_echo_bundle(tmp_path / "echo")
    deploy(bundle, repository, "shades")
    first = content(repository)
    assert deploy(other, repository, "shades", version=7).version == 7
    deploy(bundle, repository, "shades", options=DeployOptions(backend="onnxruntime"))
    back = roll_back(repository, None, None)
    assert (back.model, back.version, back.backend) == ("shades", 7, "python")
    assert len((repository / "shades" / "labels.txt").read_text().split()) == len(other.card.classes)
    assert roll_back(repository, "shades", 1).version == 1
    after = content(repository)
    assert {name: after[name] for name in first} == first
    assert roll_back(repository, "shades", 8).version == 8, "forward again"


def test_what_can_not_be_rolled_back_is_said(bundle, repository):
    with pytest.raises(InputError, match="no model"):
        roll_back(repository, None, None)
    deploy(bundle, repository)
    for version, says in ((None, "no version before 1"), (5, "no version 5; it has 1")):
        with pytest.raises(InputError, match=says):
            roll_back(repository, None, version)
    with pytest.raises(InputError, match="already has a version 1"):
        deploy(bundle, repository, version=1)
    with pytest.raises(InputError, match="no model other"):
        roll_back(repository, "other", None)
    deploy(bundle, repository, "second")
    with pytest.raises(UsageError, match="several models: colour, second"):
        roll_back(repository, None, None)


def test_a_version_that_failed_is_passed_over(bundle, repository):
    for _ in range(4):
        deploy(bundle, repository, "shades")
    mark_failed(repository / "shades", 3, "it answers wrongly")
    assert roll_back(repository).version == 2
    with pytest.raises(InputError, match="no version before 2 that worked: lies; choose one"):
        mark_failed(repository / "shades", 1, "lies")
        roll_back(repository)
    assert roll_back(repository, version=3).version == 3, "whoever asks for it gets it"
    assert why_failed(repository / "shades", 3) == "it answers wrongly", "no server has loaded it since"


def test_a_version_that_was_rolled_back_is_not_returned_to(bundle, repository):
    """Nobody tells csg of a version that failed in a container, but it was not served before the next one."""
    for _ in range(2):
        deploy(bundle, repository, "shades")
    roll_back(repository)
    deploy(bundle, repository, "shades")
    assert roll_back(repository).version == 1


def test_an_older_repository_does_not_say_what_was_served_before(bundle, repository):
    for _ in range(3):
        deploy(bundle, repository, "shades")
    for config in repository.glob("shades/**/config.pbtxt"):
        config.write_text(config.read_text().replace("csg_before", "something_else"))
    assert [roll_back(repository).version, roll_back(repository).version] == [2, 1]


def test_a_version_served_before_may_have_been_removed(bundle, repository):
    for _ in range(2):
        deploy(bundle, repository, "shades")
    deploy(bundle, repository, "shades", options=DeployOptions(keep=1))
    assert roll_back(repository).version == 2
    with pytest.raises(InputError, match="no version before 2"):
        roll_back(repository)
