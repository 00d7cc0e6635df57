"""List files: what other programs write is read as they mean it."""

import csv
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csg.datasets.list_files import read_list
from csg.errors import InputError

ROWS = [(1, ("cat/0.png", "0")), (2, ("dog/a b.png", "1"))]
PLAIN = "cat/0.png 0\ndog/a b.png 1\n"
QUOTED = '"cat/0.png" 0\n"dog/a b.png" 1\n'


def rows(content, tmp_path):
    file = tmp_path / "list.txt"
    file.write_bytes(content if isinstance(content, bytes) else os.fsencode(content))
    return [(line.number, line.fields) for line in read_list(file).lines]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.rstrip(),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        b"\xff\xfe" + PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-32"),
        PLAIN.replace("png ", "png\t"),
        PLAIN.replace("png ", "png \t "),
        PLAIN.replace("png ", "png,"),
        PLAIN.replace("png ", "png , "),
        PLAIN.replace("png ", "png;"),
        PLAIN.replace("png ", "png,", 1),
        PLAIN.replace("0.png ", "0.png\t"),
        PLAIN.replace("png ", "png   ").replace("\n", "  \n"),
        QUOTED,
        QUOTED.replace('" ', '",'),
        QUOTED.replace('" ', '"\t'),
        '"cat/0.png";"0"\n"dog/a b.png";"1"',
    ],
)
def test_separators_quotes_and_encodings(content, tmp_path):
    assert rows(content, tmp_path) == ROWS


def test_comments_empty_lines_and_the_header_are_passed_over(tmp_path):
    text = "# made by hand\n\npath,label\ncat/0.png,0\n  # more\ndog/a b.png,1\n\n"
    assert rows(text, tmp_path) == [(4, ROWS[0][1]), (6, ROWS[1][1])]
    assert read_list(tmp_path / "list.txt").header == ("path", "label")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("a b/c,d.JPG traffic light", ("a b/c,d.JPG", "traffic light")),
        ("n01440764/img_001 0", ("n01440764/img_001", "0")),
        ("img 001,cat", ("img 001", "cat")),
        ("my photo.jpg", ("my photo.jpg",)),
        ("images/a b.png masks/a b.png", ("images/a b.png", "masks/a b.png")),
        ('a"b c".png 0', ('a"b c".png', "0")),
        ('a.png "traffic light"', ("a.png", "traffic light")),
        ('"a ""b"".png",0,x', ('a "b".png', "0", "x")),
        ('"broken.png 0', ('"broken.png', "0")),
        ("caf\udce9.jpg 1", ("caf\udce9.jpg", "1")),
        ("고양이/1.png 고양이", ("고양이/1.png", "고양이")),
        ('"#1/a.png" 0', ("#1/a.png", "0")),
    ],
)
def test_paths_as_people_have_them(text, fields, tmp_path):
    assert rows(text, tmp_path) == [(1, fields)]


NAMES = st.text(st.characters(exclude_characters="\0\n\r"), min_size=1, max_size=12)


@given(st.lists(st.tuples(NAMES.map("{}.png".format), NAMES), min_size=1, max_size=5), st.sampled_from("\t,; "))
def test_what_is_written_with_quotes_is_read_back(tmp_path_factory, written, delimiter):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(written)
    try:
        content = text.getvalue().encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return
    found = rows(content, tmp_path_factory.mktemp("list"))
    assert [tuple(os.fsencode(field) for field in fields) for _, fields in found] == [
        tuple(os.fsencode(field) for field in fields) for fields in written
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lists no image"),
        (b"# nothing\n\n", "lists no image"),
        (b"path label\n", "lists no image"),
        (b"a.png 0\nb\0c 1\n", "line 2 is not text"),
        (b"\xff\xfea\0.", "begins as utf-16 and is damaged"),
    ],
)
def test_what_is_no_list_is_refused(content, message, tmp_path):
    with pytest.raises(InputError, match=message):
        rows(content, tmp_path)


def test_paths_start_at_the_list_or_at_a_folder_above_it(tmp_path, monkeypatch):
    (tmp_path / "root" / "Art").mkdir(parents=True)
    (tmp_path / "root" / "lists").mkdir()
    (tmp_path / "root" / "Art" / "0.png").touch()
    (tmp_path / "root" / "lists" / "1.png").touch()
    file = tmp_path / "root" / "lists" / "Art.txt"

    def located(text):
        file.write_text(text)
        return read_list(file).locate()

    assert located("Art/0.png 0") == (
        (tmp_path / "root/Art/0.png",),
        (f"the paths in {file} start at {tmp_path}/root",),
    )
    assert located("1.png 0") == ((file.parent / "1.png",), ())
    assert located(f"{tmp_path}/root/Art/0.png 0") == ((tmp_path / "root/Art/0.png",), ())
    assert located("Art\\0.png 0")[0] == (tmp_path / "root/Art/0.png",)
    with pytest.raises(InputError, match=r"line 1 names Art/9.png, which is neither in .*/lists nor in a folder above"):
        located("Art/9.png 0\n")
    with pytest.raises(InputError, match=r"line 2 names Art/9.png, which is not in .*/root;"):
        located("Art/0.png 0\nArt/9.png 0\n")
    with pytest.raises(InputError, match=r"line 1 names /nowhere/9.png, which does not exist;"):
        located("/nowhere/9.png 0\n")
    monkeypatch.chdir(file.parent)
    file.write_text("Art/0.png 0")
    assert read_list(file.relative_to(file.parent)).locate()[0] == (tmp_path / "root/Art/0.png",)


def test_a_list_and_its_files_may_be_of_another_operating_system(tmp_path):
    names = ["a.png", "caf\u00e9\\0.png", "cafe\u0301\\1.png", "b\\2.png"]
    on_disk = ["a.png", "cafe\u0301/0.png", "caf\u00e9/1.png", "b/2.png"]
    for name in on_disk:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("\n".join(names))
    paths, _ = read_list(tmp_path / "list.txt").locate()
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == on_disk
