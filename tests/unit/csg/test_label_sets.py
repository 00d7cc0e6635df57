"""Label sets: checked, and mapped to each other."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csg.card import ClassSpec
from csg.datasets.label_sets import IGNORED, UNKNOWN, class_index_table, class_map, label_set_names, read_label_set
from csg.errors import InputError
from tests.helpers.mask_files import CITYSCAPES_IDS


def test_label_sets_are_checked(tmp_path):
    good = "name: x\nclasses: [{name: a, ids: [0], colour: [0, 0, 0]}, {name: b, ids: [%s], colour: [0, 0, 0]}]\n"
    file = tmp_path / "x.yaml"
    for text, message in (
        (good % 0, "given twice"),
        (good % 300, "ids"),
        ("name: x", "classes"),
        ("{", "not valid YAML"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            read_label_set(str(file))
    with pytest.raises(InputError, match="no label set 'ade20k'; use one of bdd19, camvid11"):
        read_label_set("ade20k")


def test_classes_of_cityscapes_map_to_those_of_camvid():
    """Several classes may map to one; a class without a counterpart counts as wrong."""
    cityscapes19, camvid11 = read_label_set("cityscapes19"), read_label_set("camvid11")
    class_spec = ClassSpec(cityscapes19.names, "cityscapes19", cityscapes19.colours)
    pairs, table = class_map(class_spec, camvid11), class_index_table(class_spec, camvid11)
    assert pairs["truck"] == pairs["car"] == "car"
    assert "wall" not in pairs
    for index, name in enumerate(cityscapes19.names):
        assert table[index] == (camvid11.names.index(pairs[name]) if name in pairs else IGNORED)
    assert set(pairs.values()) == set(camvid11.names)
    with pytest.raises(InputError, match="differ"):
        class_map(ClassSpec(("a", "b"), "elsewhere"), camvid11)


def test_the_order_of_classes_may_differ():
    camvid11 = read_label_set("camvid11")
    table = class_index_table(ClassSpec(camvid11.names[::-1], "mine"), camvid11)
    assert table[:11].tolist() == list(range(10, -1, -1))


CLASSES = "classes: [{name: a, ids: [0], colour: [0, 0, 0]}, {name: b, ids: [1], colour: [0, 0, 0]}]\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"",
            b"[]",
            b"3",
            b"\0\1\2",
            b"\x89PNG\r\n\x1a\n",
            b"[" * 1200,
            b"- " * 1200,
            b"x: " + b"9" * 5000,
            b"a" * 2**21,
        ),
        *(BOMB.encode(), b"a: &a [*a]", b"x: 2001-99-99", b"x: !!timestamp x", b"x: !!bool x", b"? [a]\n: b", b"<<: 3"),
        *("name: caf\xe9".encode("latin-1"), b"name: x\nname: y\n", b"name: no\n" + CLASSES.encode()),
        *(b"name: x\nversion: 2\n" + CLASSES.encode(), b"name: x\nignored: [-1]\n" + CLASSES.encode()),
        *(b"name: x\nmore: 1\n" + CLASSES.encode(), b"name: x\nmaps: {camvid11: {typo: sky}}\n" + CLASSES.encode()),
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_damaged_label_set_is_one_line(tmp_path, content):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(InputError, match="label set") as error:
        read_label_set(str(tmp_path / "x.yaml"))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="replace")))
def test_no_content_of_a_label_set_is_an_internal_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("set") / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match="label set"):
        read_label_set(str(path))


@pytest.mark.parametrize("source", ["/", "/dev/null/x", "x" * 5000, "a\0b"])
def test_a_path_that_is_no_file_is_no_label_set(source):
    with pytest.raises(InputError, match="label set"):
        read_label_set(source)


def test_class_names_are_those_of_linux_whatever_the_editor_wrote(tmp_path):
    nfd = unicodedata.normalize("NFD", "caf\xe9")
    (tmp_path / "x.yaml").write_text(f"name: x\nmaps: {{y: {{{nfd}: {nfd}}}}}\n" + CLASSES.replace("a,", f"{nfd},"))
    labels = read_label_set(str(tmp_path / "x.yaml"))
    assert labels.names == ("caf\xe9", "b")
    assert labels.maps == {"y": {"caf\xe9": "caf\xe9"}}


STREETS = {"cityscapes19": 19, "bdd19": 19, "mapillary": 19, "cityscapes16": 16, "synthia16": 16}


@pytest.mark.parametrize(("name", "count"), STREETS.items())
def test_the_sets_of_streets_share_names_and_colours(name, count):
    labels, cityscapes19 = read_label_set(name), read_label_set("cityscapes19")
    assert len(labels.names) == count
    colours = dict(zip(cityscapes19.names, cityscapes19.colours, strict=True))
    assert labels.colours == tuple(colours[name] for name in labels.names)
    left_out = {"terrain", "truck", "train"} if count == 16 else set()
    assert [*labels.names] == [name for name in cityscapes19.names if name not in left_out]


SYNTHIA = (
    "- sky building road sidewalk fence vegetation pole car traffic_sign person bicycle motorcycle - - traffic_light - "
    "rider - bus - wall -"
)
MAPILLARY = (13, 24, 41, 2, 15, 17, 6, 3, 45, 47, 48, 50, 30, 29, 27, 19, 20, 21, 22, 55, 61, 54, 58, 57, 52)
MAPILLARY_CLASSES = (
    "road road road sidewalk sidewalk building wall fence pole pole traffic_light traffic_sign vegetation terrain sky "
    "person rider rider rider car truck bus train motorcycle bicycle"
)
TRAIN_IDS = " ".join(name.replace(" ", "_") for name in read_label_set("cityscapes19").names)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("synthia16", range(23), SYNTHIA),
        ("bdd19", range(19), TRAIN_IDS),
        ("mapillary", MAPILLARY, MAPILLARY_CLASSES),
    ],
)
def test_the_values_of_published_masks(name, values, expected):
    labels = read_label_set(name)
    table = labels.id_table()
    found = [labels.names[table[value]] if table[value] < UNKNOWN else "-" for value in values]
    assert found == [name.replace("_", " ") for name in expected.split()]
    last = {"synthia16": 22, "bdd19": 18, "mapillary": 65}[name]
    assert (table[: last + 1] != UNKNOWN).all()
    assert (table[last + 1 : 255] == UNKNOWN).all()


@pytest.mark.parametrize("target", STREETS)
@pytest.mark.parametrize("source", STREETS)
def test_a_model_of_one_set_of_streets_is_measured_on_another(source, target):
    """Every class that both sets have becomes itself, and the way back is the same."""
    one, other = read_label_set(source), read_label_set(target)
    table = class_index_table(ClassSpec(one.names, source, one.colours), other)
    back = class_index_table(ClassSpec(other.names, target, other.colours), one)
    for index, name in enumerate(one.names):
        assert table[index] == (other.names.index(name) if name in other.names else IGNORED)
        assert table[index] == IGNORED or back[table[index]] == index


@pytest.mark.parametrize("source", STREETS)
def test_models_of_streets_are_measured_on_camvid(source):
    labels, camvid11 = read_label_set(source), read_label_set("camvid11")
    assert set(class_map(ClassSpec(labels.names, source, labels.colours), camvid11).values()) == set(camvid11.names)


@pytest.mark.parametrize("name", label_set_names())
def test_maps_of_csgs_own_sets_name_classes_of_the_other(name):
    labels = read_label_set(name)
    for other, pairs in labels.maps.items():
        assert set(pairs.values()) <= set(read_label_set(other).names)
    for other, pairs in labels.maps_from.items():
        assert set(pairs) <= set(read_label_set(other).names)


def test_masks_named_as_cityscapes_are_read_by_the_names_of_the_classes(tmp_path):
    """A model of SYNTHIA is measured on Cityscapes' own files, whose values are not SYNTHIA's."""
    for name, count in STREETS.items():
        labels = read_label_set(name)
        expected = [
            labels.names.index(c.name) if c.name in labels.names else IGNORED
            for c in read_label_set("cityscapes19").classes
        ]
        assert labels.label_id_table()[list(CITYSCAPES_IDS)].tolist() == expected
        assert labels.train_id_table()[:19].tolist() == expected
        assert expected.count(IGNORED) == 19 - count
    (tmp_path / "x.yaml").write_text("name: x\n" + CLASSES.replace("a,", "road,").replace("b,", "car,"))
    own = read_label_set(str(tmp_path / "x.yaml"))
    assert np.array_equal(own.label_id_table(), own.id_table()), "a set of a user's own has the values that he gave it"
    assert own.train_id_table()[[0, 13, 1, 255]].tolist() == [0, 1, IGNORED, IGNORED]


def test_a_map_to_a_class_that_is_not_there_is_an_error(tmp_path):
    (tmp_path / "x.yaml").write_text("name: x\nmaps_from: {cityscapes19: {raod: a}}\n" + CLASSES)
    cityscapes19 = read_label_set("cityscapes19")
    with pytest.raises(InputError, match="map from cityscapes19 to x names raod"):
        class_map(
            ClassSpec(cityscapes19.names, "cityscapes19", cityscapes19.colours),
            read_label_set(str(tmp_path / "x.yaml")),
        )
