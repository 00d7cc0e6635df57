"""Label sets: checked, and mapped to each other."""

import pytest

from csg.card import ClassSpec
from csg.datasets.label_sets import IGNORED, class_index_table, class_map, read_label_set
from csg.errors import InputError


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
