"""What the values of masks mean: the shares of classes, and train ids read as label ids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csg.datasets.label_sets import read_label_set
from csg.datasets.mask_values import train_id_hint
from csg.datasets.segmentation import read_segmentation_dataset
from tests.helpers.mask_files import CITYSCAPES_IDS, save_image, write_gta5


def counts_of(values):
    return np.bincount(values, minlength=256)


def test_shares_of_classes_ignored_pixels_and_unknown_values(tmp_path):
    folder = write_gta5(tmp_path / "gta5")
    mask = np.full((40, 60), 7, np.uint8)
    mask[:20], mask[20:22], mask[22:24] = 26, 4, 77
    save_image(folder / "labels" / "00001.png", mask)
    scenes = read_segmentation_dataset([folder], "cityscapes19")
    counts = scenes.value_counts(0)
    assert {value: counts[value] for value in np.flatnonzero(counts)} == {4: 120, 7: 960, 26: 1200, 77: 120}
    shares = scenes.value_shares({0: counts})
    assert shares.pixels == 2400
    assert (shares.classes["car"], shares.classes["road"], shares.classes["sky"]) == (0.5, 0.4, 0)
    assert (shares.ignored, shares.unknown) == (0.05, {77: 0.05})
    assert scenes.value_shares({}).pixels == scenes.value_shares({}).ignored == 0


def test_train_ids_read_as_label_ids_are_named_with_the_set_to_use(tmp_path):
    folder, rng = tmp_path / "own", np.random.default_rng(0)
    save_image(folder / "images" / "a.png", np.zeros((20, 20, 3), np.uint8))
    save_image(folder / "labels" / "a.png", rng.choice([*range(19), 255], (20, 20)).astype(np.uint8))
    scenes = read_segmentation_dataset([folder], "cityscapes19")
    hint = scenes.train_id_hint({0: scenes.value_counts(0)})
    assert hint == (
        "the values 0, 1, 2, 3, 4, 5, 6, 7, ... look like train ids (class indices), not like those of cityscapes19: "
        "name label set bdd19"
    )
    train_ids = read_segmentation_dataset([folder], "bdd19")
    assert train_ids.train_id_hint({0: train_ids.value_counts(0)}) is None
    assert train_ids.value_shares({0: train_ids.value_counts(0)}).ignored < 0.1


@given(st.sets(st.sampled_from(CITYSCAPES_IDS), min_size=1), st.integers(0, 16))
def test_label_ids_are_not_taken_for_train_ids(values, ignored):
    counts = counts_of(sorted(values)) * 100 + counts_of([0, 4]) * ignored
    assert train_id_hint(read_label_set("cityscapes19"), counts) is None


@pytest.mark.parametrize("name", ["camvid11", "digit-scenes", "bdd19"])
def test_a_set_whose_values_are_its_indices_needs_no_hint(name):
    labels = read_label_set(name)
    assert train_id_hint(labels, counts_of([value for c in labels.classes for value in c.ids])) is None


@pytest.mark.parametrize(("last", "other"), [(15, "a label set with the ids 0 to 15"), (18, "label set bdd19")])
def test_train_ids_read_as_values_of_16_classes(last, other):
    hint = train_id_hint(read_label_set("cityscapes16"), counts_of([*range(last + 1), 255]))
    assert hint is not None
    assert hint.endswith(f"name {other}")


def test_masks_without_a_pixel_of_a_class_are_no_train_ids():
    assert train_id_hint(read_label_set("cityscapes19"), counts_of([255] * 9)) is None
