"""Bundles: written once, verified on read."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csg.bundle import newest_bundle, read_bundle, write_bundle
from csg.errors import InputError, VerificationError
from tests.helpers.tiny_bundle import write_colour_bundle


@pytest.fixture
def bundle(tmp_path):
    return write_colour_bundle(tmp_path / "bundles" / "one")


def test_a_bundle_comes_back_as_it_was_written(bundle):
    assert read_bundle(bundle.path) == bundle
    assert bundle.labels.read_text().split() == list(bundle.card.classes)
    assert newest_bundle(bundle.path.parent) == bundle.path


@pytest.mark.parametrize("name", ["card.json", "model.onnx", "labels.txt"])
def test_a_changed_file_is_refused(bundle, name):
    file = bundle.path / name
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(VerificationError, match=name):
        read_bundle(bundle.path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"0" * 64 + b"  ../../etc/passwd\n"])
def test_invalid_checksum_files_are_refused(bundle, content):
    (bundle.path / "SHA256SUMS").write_bytes(content)
    with pytest.raises(VerificationError, match=r"card\.json does not match"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("name", ["model.plan", "model.onnx.data"])
def test_a_file_without_a_checksum_is_refused(bundle, name):
    (bundle.path / name).write_bytes(b"anything")
    with pytest.raises(VerificationError, match=name):
        read_bundle(bundle.path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["card.json", "model.onnx", "labels.txt"]), st.floats(0, 1, exclude_max=True), st.integers(1, 255)
)
def test_every_changed_byte_and_every_cut_is_noticed(bundle, name, where, by):
    file = bundle.path / name
    whole = file.read_bytes()
    index = int(where * len(whole))
    for content in (whole[:index], whole[:index] + bytes([whole[index] ^ by]) + whole[index + 1 :]):
        file.write_bytes(content)
        with pytest.raises(VerificationError, match=name):
            read_bundle(bundle.path)
    file.write_bytes(whole)
    assert read_bundle(bundle.path) == bundle


@pytest.mark.parametrize("name", ["card.json", "model.onnx", "labels.txt", "SHA256SUMS"])
def test_a_missing_file_is_named(bundle, name):
    (bundle.path / name).unlink()
    with pytest.raises(InputError, match=name):
        read_bundle(bundle.path)


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "__MACOSX/", "._card.json", ".ipynb_checkpoints/"])
def test_a_file_that_the_system_added_is_named(bundle, name):
    (bundle.path / name).mkdir() if name.endswith("/") else (bundle.path / name).write_bytes(b"")
    with pytest.raises(VerificationError, match="which the operating system or another program added; remove"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("name", ["notes.txt", "model.onnx.bak", "1/"])
def test_an_added_file_is_named(bundle, name):
    (bundle.path / name).mkdir() if name.endswith("/") else (bundle.path / name).write_bytes(b"")
    with pytest.raises(VerificationError, match=f"do not belong to a bundle: {name.rstrip('/')}; remove them"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("change", [lambda t: t.replace("\n", "\r\n"), lambda t: t.replace("  ", " *"), str.rstrip])
def test_checksums_are_read_as_other_systems_write_them(bundle, change):
    sums = bundle.path / "SHA256SUMS"
    sums.write_bytes(change(sums.read_text()).encode())
    assert read_bundle(bundle.path) == bundle


def test_links_into_another_folder_are_refused_with_the_way_out(bundle):
    blob = bundle.path.parent / "blob"
    (bundle.path / "labels.txt").rename(blob)
    (bundle.path / "labels.txt").symlink_to("../blob")
    with pytest.raises(InputError, match=r"outside the bundle, as in the cache of Hugging Face; copy .* cp -rL"):
        read_bundle(bundle.path)


def test_a_bundle_is_never_written_over(bundle):
    with pytest.raises(InputError, match="exists already"):
        write_bundle(bundle.path, bundle.card, {"model.onnx": bundle.model.read_bytes()})


def test_a_readme_is_checked_only_if_the_bundle_came_with_it(bundle):
    written = write_bundle(
        bundle.path.with_name("two"), bundle.card, {"model.onnx": bundle.model.read_bytes()}, readme="# Card\n"
    )
    assert read_bundle(written.path) == written
    assert [file.name for file in written.files] == ["card.json", "model.onnx", "labels.txt", "README.md", "SHA256SUMS"]
    (written.path / "README.md").write_text("# Another\n")
    with pytest.raises(VerificationError, match=r"README\.md does not match .*remove its line"):
        read_bundle(written.path)
    (written.path / "README.md").unlink()
    with pytest.raises(InputError, match=r"README\.md is missing"):
        read_bundle(written.path)
    (bundle.path / "README.md").write_text("what the Hub's editor wrote")
    assert read_bundle(bundle.path) == bundle


def test_what_a_download_from_the_hub_adds_is_passed_over(bundle):
    (bundle.path / ".gitattributes").write_text("*.onnx filter=lfs")
    for folder in (".cache/huggingface/download", ".git"):
        (bundle.path / folder).mkdir(parents=True)
    assert read_bundle(bundle.path) == bundle
    assert {file.name for file in bundle.files}.isdisjoint({".gitattributes", ".cache", ".git"})


def test_the_hubs_cache_of_links_is_explained(bundle, tmp_path):
    snapshot = tmp_path / "snapshots" / "ab12"
    snapshot.mkdir(parents=True)
    for file in bundle.files:
        (snapshot / file.name).symlink_to(file)
    with pytest.raises(InputError, match=f"in the cache of Hugging Face; copy .* cp -rL {snapshot}"):
        read_bundle(snapshot)
