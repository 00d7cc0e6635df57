"""Files are read once, a file that changed is read again, and a fingerprint is that of the contents."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csg.datasets import scan, scan_cache
from csg.datasets.classification import read_classification_dataset
from csg.datasets.scan import scan_files
from csg.datasets.segmentation import read_segmentation_dataset
from csg.errors import InputError
from csg.images import decode
from tests.helpers.image_files import BROKEN, KINDS, encoded, noise, turned
from tests.helpers.mask_files import write_gta5


@pytest.fixture
def new_cache(tmp_path, monkeypatch):
    """An empty cache, in which also files are kept that were written a moment ago."""
    monkeypatch.setenv("CSG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scan, "SETTLED_NS", -(10**12))
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that are read."""
    read, names = scan._read, []

    def noted(path):
        names.append(Path(os.fsdecode(path)).name)
        return read(path)

    monkeypatch.setattr(scan, "_read", noted)
    return names


def folders(root, classes=("a", "b")):
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for image in range(2):
            (root / name / f"{number}{image}.png").write_bytes(encoded(noise()))
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_shows_the_size_that_decoding_gives(kind, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(KINDS[kind])
    (found,) = scan_files([path])
    assert (found.width, found.height) == decode(path).size
    assert found.digest == hashlib.sha256(KINDS[kind]).digest()
    assert not found.problem


@pytest.mark.parametrize("kind", ["empty", "text", "bomb", "postscript"])
def test_a_header_that_cannot_be_read_has_the_message_of_decoding(kind, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(BROKEN[kind][0])
    (found,) = scan_files([path])
    with pytest.raises(InputError) as error:
        decode(path)
    assert error.value.message == f"image {path} {found.problem}"


def test_what_is_no_file_is_named_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    names = ("pipe.png", "folder.png", "loop.png", "missing.png")
    problems = [found.problem for found in scan_files(tmp_path / name for name in names)]
    assert problems == [
        "can't be read: not a file",
        "can't be read: not a file",
        "can't be read: Too many levels of symbolic links",
        "does not exist",
    ]


def test_the_order_is_that_of_the_paths(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "CHUNK", 7)
    paths = [tmp_path / f"{number}" for number in range(40)]
    for path in paths:
        path.write_bytes(path.name.encode())
    found = [os.fsdecode(file.path) for file in scan_files([*paths, *reversed(paths)])]
    assert found == [str(path) for path in [*paths, *reversed(paths)]]


def test_a_known_file_is_not_read_again(tmp_path, new_cache, reads):
    folders(tmp_path / "d")
    first = read_classification_dataset([tmp_path / "d"]).fingerprint()
    assert len(reads) == 4
    assert read_classification_dataset([tmp_path / "d"]).fingerprint() == first
    assert len(reads) == 4


def test_a_dataset_is_scanned_once(tmp_path, reads):
    images = read_classification_dataset([folders(tmp_path / "d")])
    assert images.fingerprint() == images.fingerprint()
    assert len(reads) == 4


@pytest.mark.parametrize("keep", ["known", "just written"])
def test_another_content_of_the_same_size_and_time_is_seen(keep, tmp_path, request):
    if keep == "known":
        request.getfixturevalue("new_cache")
    file = folders(tmp_path / "d") / "a" / "00.png"
    first, status = read_classification_dataset([tmp_path / "d"]).fingerprint(), file.stat()
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert read_classification_dataset([tmp_path / "d"]).fingerprint() != first


def test_a_link_to_another_file_is_seen(tmp_path, new_cache):
    paths = [tmp_path / "one", tmp_path / "two"]
    for path in paths:
        path.write_text(path.name)
    link = tmp_path / "link"
    for path in paths:
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        (found,) = scan_files([link])
        assert found.digest == hashlib.sha256(path.name.encode()).digest()


def test_a_file_that_was_just_written_is_not_kept(tmp_path, reads, monkeypatch):
    monkeypatch.setenv("CSG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "new").write_bytes(KINDS["png"])
    for _ in range(2):
        list(scan_files([tmp_path / "new"]))
    assert reads == ["new", "new"]


def test_a_fingerprint_does_not_depend_on_the_place(tmp_path):
    first = read_classification_dataset([folders(tmp_path / "d")]).fingerprint()
    shutil.copytree(tmp_path / "d", tmp_path / "elsewhere" / "e")
    assert read_classification_dataset([tmp_path / "elsewhere" / "e"]).fingerprint() == first
    (tmp_path / "elsewhere/e/b").rename(tmp_path / "elsewhere/e/c")
    assert read_classification_dataset([tmp_path / "elsewhere" / "e"]).fingerprint() != first


def test_a_fingerprint_of_scenes_has_images_masks_and_the_meaning_of_their_values(tmp_path):
    def fingerprint(name, labels="cityscapes19"):
        return read_segmentation_dataset([tmp_path / name], labels).fingerprint()

    first = fingerprint(write_gta5(tmp_path / "d").name)
    shutil.copytree(tmp_path / "d", tmp_path / "e")
    assert fingerprint("e") == first
    mask = tmp_path / "e" / "labels" / "00002.png"
    values = np.asarray(Image.open(mask)).copy()
    values[0, 0] = 7 if values[0, 0] != 7 else 8
    Image.fromarray(values).save(mask)
    assert fingerprint("e") != first
    (tmp_path / "other.yaml").write_text(
        "name: other\nclasses: [{name: a, ids: [7], colour: [0, 0, 0]}, {name: b, ids: [8], colour: [1, 1, 1]}]\n"
    )
    assert fingerprint("d", str(tmp_path / "other.yaml")) != first


def test_names_that_are_not_utf8_are_scanned(tmp_path, new_cache, reads):
    folders(tmp_path / "d")
    (tmp_path / "d/a/00.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/d/a/caf\xe9.png"))
    for _ in range(2):
        assert not read_classification_dataset([tmp_path / "d"]).scan.problems
    assert len(reads) == 4


@pytest.mark.parametrize("damage", [b"", b"hello" * 999, b"SQLite format 3\0" + bytes(4080), "folder", "no place"])
def test_a_cache_that_cannot_be_used_is_not_used(damage, tmp_path, new_cache, capfd):
    images = [tmp_path / "image"]
    images[0].write_bytes(KINDS["png"])
    new_cache.mkdir()
    file = new_cache / scan_cache.CACHE_FILE
    if damage == "folder":
        file.mkdir()
    elif damage == "no place":
        file.symlink_to("/proc/1/nothing")
    else:
        file.write_bytes(damage)
    for _ in range(2):
        assert [found.format for found in scan_files(images)] == ["PNG"]
    assert capfd.readouterr().err.count("is not used") == (damage != b"")


def test_a_cache_with_another_table_is_not_used(tmp_path, new_cache, capfd):
    import sqlite3

    new_cache.mkdir()
    with sqlite3.connect(new_cache / scan_cache.CACHE_FILE) as connection:
        connection.execute("CREATE TABLE results (path BLOB)")
    (tmp_path / "image").write_bytes(KINDS["png"])
    assert [found.format for found in scan_files([tmp_path / "image"])] == ["PNG"]
    assert capfd.readouterr().err.count("is not used") == 1


def test_a_cache_that_is_too_large_is_emptied(tmp_path, new_cache, reads, monkeypatch):
    (tmp_path / "image").write_bytes(KINDS["png"])
    list(scan_files([tmp_path / "image"]))
    monkeypatch.setattr(scan_cache, "MAX_BYTES", 1)
    list(scan_files([tmp_path / "image"]))
    assert reads == ["image", "image"]


def test_a_damaged_cache_changes_no_result(tmp_path, new_cache):
    paths = [tmp_path / f"{number}" for number in range(50)]
    for path in paths:
        path.write_bytes(encoded(noise(size=(5, 4))))
    right = [(found.digest, found.width) for found in scan_files(paths)]
    whole, rng = (new_cache / scan_cache.CACHE_FILE).read_bytes(), np.random.default_rng(0)
    for _ in range(20):
        damaged = np.frombuffer(whole, np.uint8).copy()
        at = rng.integers(0, len(damaged), 40)
        damaged[at] = rng.integers(0, 256, 40)
        (new_cache / scan_cache.CACHE_FILE).write_bytes(damaged.tobytes())
        assert [(found.digest, found.width) for found in scan_files(paths)] == right


def test_several_processes_share_the_cache(tmp_path, new_cache):
    paths = [tmp_path / f"{number}" for number in range(200)]
    for path in paths:
        path.write_bytes(path.name.encode())
        os.utime(path, (0, 0))
    code = (
        "import sys; from pathlib import Path; from csg.datasets import scan; scan.SETTLED_NS = -10**12\n"
        "print(len({f.digest for f in scan.scan_files(sorted(Path(sys.argv[1]).glob('[0-9]*')))}))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate() for process in running] == [("200\n", "")] * 4


def test_what_does_not_fit_is_named_from_headers(tmp_path):
    folder = write_gta5(tmp_path / "d")
    for number in range(3, 8):
        for kind in ("images", "labels"):
            shutil.copy(folder / kind / "00001.png", folder / kind / f"{number:05d}.png")
    Image.new("P", (61, 40)).save(folder / "labels/00003.png")
    Image.new("RGB", (60, 40)).save(folder / "labels/00004.png")
    (folder / "labels/00005.png").write_bytes(encoded(noise("L", (60, 40)), "JPEG"))
    (folder / "images/00006.png").write_text("no image")
    scenes = read_segmentation_dataset([folder], "cityscapes19")
    (folder / "labels/00007.png").unlink()
    assert list(scenes.scan.problems) == [2, 3, 4, 5, 6]
    for index, problem in scenes.scan.problems.items():
        with pytest.raises(InputError) as error:
            scenes.load(index)
        assert error.value.message == problem


@pytest.mark.parametrize("place", ["before", "behind"])
def test_an_image_that_exif_turns_fits_its_mask(place, tmp_path):
    image = noise(size=(40, 60))
    folder = write_gta5(tmp_path / "d")
    content = encoded(image, exif=turned())
    if place == "behind":  # Pillow writes eXIf before the pixels
        start = content.index(b"eXIf") - 4
        end = start + 12 + int.from_bytes(content[start : start + 4])
        chunk, end_of_file = content[start:end], content.index(b"IEND") - 4
        content = content[:start] + content[end:end_of_file] + chunk + content[end_of_file:]
    (folder / "images/00001.png").write_bytes(content)
    scenes = read_segmentation_dataset([folder], "cityscapes19")
    assert scenes.load(0)[0].size == (60, 40)
    assert not scenes.scan.problems
