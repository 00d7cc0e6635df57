"""List files of classification: what a list says is what is trained on, or the line that can't be read is named."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csg.datasets.classification import read_classification_dataset
from csg.errors import InputError

KNOWN = ("bird", "cat", "dog")


@pytest.fixture
def read(tmp_path):
    """`read(text, known)` writes a list beside images in folders, and reads it."""
    for name in ("cat/0.png", "cat/1.png", "dog/0.png", "0.png", "1.png", "2.png", "all/0.png", "all/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def write_and_read(text, known=None):
        (tmp_path / "list.txt").write_text(text)
        return read_classification_dataset([tmp_path / "list.txt"], known)

    return write_and_read


@pytest.mark.parametrize("header", ["", "path,label\n", "# path label\n"])
@pytest.mark.parametrize("labels", [("0", "1"), ("cat", "dog"), ("00", "01")])
def test_numbers_and_names_in_any_order(header, labels, read):
    listed = read(f"{header}dog/0.png,{labels[1]}\ncat/0.png,{labels[0]}\ncat/1.png,{labels[0]}\n")
    assert listed.classes == ("cat", "dog")
    assert listed.labels.tolist() == [1, 0, 0]
    assert listed.name == "list"
    assert listed.notes == ()


def test_a_header_may_name_columns_in_any_order(read):
    for header in ("id,label,image_path,split", ",class,file name,split"):
        assert read(f"{header}\n7,1,dog/0.png,train\n8,0,cat/0.png,train\n").labels.tolist() == [1, 0]


def test_numbers_of_a_model_with_named_classes(read):
    flat = read("0.png 0\n1.png 2\n2.png 2\n", KNOWN)
    assert flat.classes == KNOWN
    assert flat.labels.tolist() == [0, 2, 2]
    assert flat.notes == ("labels are numbers: 0 is bird, 2 is dog", "no image of class cat")
    by_folder = read("cat/0.png 0\ndog/0.png 1\n", KNOWN)
    assert by_folder.labels.tolist() == [1, 2]
    assert by_folder.notes == ("no image of class bird",)
    assert read("0.png 1\n1.png 2\n", ("2", "1", "0")).labels.tolist() == [1, 0]
    with pytest.raises(InputError, match="line 2: label 3 is none of the 3 classes; use labels from 0 to 2"):
        read("0.png 0\n1.png 3\n", KNOWN)


def test_a_real_list_may_lack_a_label_and_a_training_list_may_not(read):
    assert read("all/0.png 0\nall/1.png 2\n", ("a", "b", "c")).labels.tolist() == [0, 2]
    with pytest.raises(InputError, match="lists no image of label 1; number the labels from 0 without gaps"):
        read("all/0.png 0\nall/1.png 2\n")
    with pytest.raises(InputError, match="no image of label 0, 1, 2 and 96 more"):
        read("all/0.png 99\nall/1.png 100\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat/0.png 0\ndog/0.png\n", "line 2 has no label: dog/0.png"),
        ("cat/0.png,0,1\ndog/0.png,1\n", "line 1 has 3 fields: cat/0.png 0 1"),
        ("cat/0.png 0 1\ndog/0.png 1\n", "line 1: label '0 1' is neither"),
        ("cat/0.png 0\ndog/0.png -1\n", "line 2: label '-1' is neither"),
        ("cat/0.png 0.0\ndog/0.png 1.0\n", "line 1: label '0.0' is neither"),
        ("cat/0.png 0\ndog/0.png nan\n", "line 2: label 'nan' is neither"),
        ("cat/0.png,0\ndog/0.png,\n", "line 2: label '' is neither"),
        ("cat/0.png 0\ndog/0.png 999999\n", "line 2: label 999999 is above 100000"),
        (f"cat/0.png 0\ndog/0.png {'9' * 5000}\n", "line 2: label 9{80} is above 100000"),
        ("cat/0.png 0\ndog/0.png 1\ncat/1.png cat\n", "line 3: label cat is a word, others are not"),
        ("cat/0.png cat\ndog/0.png dog\ncat/1.png 0\n", "line 3: label 0 is a number, others are not"),
        ("cat/0.png 0\ndog/0.png 1\n./cat/0.png 1\n", "line 3: image .*cat/0.png has another label in line 1"),
        ("cat/0.png cat\ndog/0.png d\x07og\n", "label d.x07og: a class name holds"),
        ("cat/9.png 0\ndog/0.png 1\n", "line 1 names cat/9.png, which is neither in"),
        ("cat/0.png 0\ncat/1.png 0\n", "lists 1 classes"),
        ("filename species\ncat/0.png cat\n", "line 1 names filename, .* a header has to begin with #"),
        (f"{'x' * 5000}.png 0\ndog/0.png 1\n", "line 1 names x{200}, which is neither"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(text, message, read):
    with pytest.raises(InputError, match=message) as error:
        read(text)
    assert str(error.value).isprintable()


def test_lines_that_repeat_an_image_are_counted(read):
    listed = read("cat/0.png 0\ndog/0.png 1\ncat/0.png 0\n./dog/0.png 1\n")
    assert listed.labels.tolist() == [0, 1, 0, 1]
    assert listed.notes == ("2 lines name images that are listed before",)


def test_comments_that_name_an_image_are_counted(read):
    listed = read("# made by hand\ncat/0.png 0\n#1.png 0\n# dog/0.png 0\ndog/0.png 1\n")
    assert listed.labels.tolist() == [0, 1]
    assert listed.notes == ("2 of its lines that name an image begin with # and are comments",)


def test_a_list_in_a_sub_folder_with_paths_from_the_root(tmp_path):
    (tmp_path / "image_list").mkdir()
    for name in ("Art/Bike/0.jpg", "Art/Alarm Clock/0.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    art = tmp_path / "image_list" / "Art.txt"
    art.write_text("Art/Alarm Clock/0.jpg 0\nArt/Bike/0.jpg 1\n")
    read = read_classification_dataset([art])
    assert read.name == "Art"
    assert read.classes == ("Alarm Clock", "Bike")
    assert read.notes == (f"the paths in {art} start at {tmp_path}",)


def test_as_many_classes_as_images(read):
    count = 5_000
    lines = [f"cat/{number % 2}.png class{number}" for number in range(count)]
    with pytest.raises(InputError, match=r"line 3: image .*cat/0.png has another label in line 1"):
        read("\n".join(lines))
    lines = ["0.png a0", *(f"{number}.png a{number}" for number in range(2, count)), "1.png a1"]
    assert len(read("\n".join(lines)).classes) == count


def test_a_class_in_words_that_the_model_does_not_know_is_named(read):
    with pytest.raises(InputError, match="line 2: class wolf is none of the 3 classes"):
        read("cat/0.png cat\ndog/0.png wolf\n", KNOWN)


LINE = st.lists(
    st.sampled_from(["0.png", "cat/1.png", "0", "1", "cat", '"', " ", "\t", ",", ";", "#", "\\", "\0", "\ufeff"])
)


@given(
    st.binary() | st.lists(LINE.map("".join)).map(lambda lines: "\n".join(lines).encode()),
    st.sampled_from([None, KNOWN]),
)
def test_whatever_a_list_holds_it_is_read_or_refused_in_one_line(tmp_path_factory, content, known):
    folder = tmp_path_factory.mktemp("list")
    (folder / "0.png").touch()
    (folder / "image_list.txt").write_bytes(content)
    try:
        read = read_classification_dataset([folder], known)
    except InputError as error:
        assert str(error).isprintable()
    else:
        assert len(read.paths) == len(read.labels) > 0


WORDS = st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters='"'), min_size=1, max_size=8)


@given(
    st.lists(st.tuples(WORDS, st.integers(0, 4)), min_size=2, max_size=12, unique_by=lambda row: row[0]),
    st.sampled_from("\t,; "),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_any_list_that_is_written_is_read_back(tmp_path_factory, rows, delimiter, encoding):
    folder = tmp_path_factory.mktemp("list")
    rows = [(f"{name.replace('/', '_').lstrip('#')}{number}.jpg", label) for number, (name, label) in enumerate(rows)]
    for name, _ in (rows[0], rows[-1]):
        (folder / name).touch()
    with (folder / "image_list.txt").open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    read = read_classification_dataset([folder], ["a", "b", "c", "d", "e"])
    assert [(path.name, label) for path, label in zip(read.paths, read.labels.tolist(), strict=True)] == rows
