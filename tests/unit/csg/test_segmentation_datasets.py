"""Scenes with masks: readers of every form, what is refused, label sets, joint transforms, prepared pixels, tiles."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from csg.card import ClassSpec, SegmentationInput
from csg.datasets.label_sets import IGNORED, class_index_table, class_map, read_label_set
from csg.datasets.segmentation import read_segmentation_dataset
from csg.errors import InputError, UsageError
from csg.images import decode, prepare_segmentation
from csg.overlays import overlay, palette_png
from csg.tiles import prepare_tiles
from csg_train.data.crops import Crops, joint_crop
from csg_train.data.synthetic_scenes import draw_scene, write_scenes
from csg_train.recipe import SegmentationAugment, SegmentationData

CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # docs/method.md section 7


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, mode).save(path)
    return path


@pytest.fixture
def gta5(tmp_path):
    """Two scenes as GTA5 stores them: images/00001.png, labels/00001.png with a palette and Cityscapes' ids."""
    rng = np.random.default_rng(0)
    for number in (1, 2):
        save(tmp_path / "gta5" / "images" / f"{number:05d}.png", rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
        mask = Image.fromarray(rng.choice([*CITYSCAPES_IDS, 0, 4], (40, 60)).astype(np.uint8))
        mask.putpalette(list(range(256)) * 3)
        (tmp_path / "gta5" / "labels").mkdir(exist_ok=True)
        mask.save(tmp_path / "gta5" / "labels" / f"{number:05d}.png")
    return tmp_path / "gta5"


def cityscapes(root, split, city, ending="labelIds"):
    rng, name = np.random.default_rng(1), f"{city}_000000_000019"
    save(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", np.zeros((32, 64, 3), np.uint8))
    high = 20 if ending == "labelTrainIds" else 34
    values = rng.integers(0, high, (32, 64)).astype(np.uint8)
    if ending == "labelTrainIds":
        values[values == 19] = 255
    save(root / "gtFine" / split / city / f"{name}_gtFine_{ending}.png", values)
    return values


def test_gta5_has_cityscapes_ids(gta5):
    scenes = read_segmentation_dataset([gta5], "cityscapes19")
    assert len(scenes) == 2
    assert scenes.class_spec.names[0] == "road"
    image, found = scenes.load(0)
    values = np.asarray(Image.open(gta5 / "labels" / "00001.png"))
    slow = [[CITYSCAPES_IDS.index(v) if v in CITYSCAPES_IDS else 255 for v in row] for row in values]
    assert np.array_equal(found, slow)
    assert image.size == (60, 40)


def test_cityscapes_tree_with_ids_and_train_ids(tmp_path):
    for split, city, ending in (("train", "aachen", "labelIds"), ("val", "munster", "labelTrainIds")):
        cityscapes(tmp_path, split, city, ending)
    with pytest.raises(InputError, match=r"splits train, val; .*leftImg8bit/train"):
        read_segmentation_dataset([tmp_path])
    ids, train_ids = (read_segmentation_dataset([tmp_path / "leftImg8bit" / split]) for split in ("train", "val"))
    assert ids.labels == train_ids.labels == read_label_set("cityscapes19")
    values = np.asarray(Image.open(tmp_path / "gtFine/val/munster/munster_000000_000019_gtFine_labelTrainIds.png"))
    assert np.array_equal(train_ids.load(0)[1], values)
    assert set(np.unique(ids.load(0)[1])) == {*range(19), 255}
    both = read_segmentation_dataset([tmp_path / "leftImg8bit" / "train", tmp_path / "leftImg8bit" / "val"])
    assert len(both) == 2
    assert np.array_equal(both.load(1)[1], values)


def test_the_real_sample_of_cityscapes_loads():
    from tests.conftest import SHARED

    sample = SHARED / "cityscapes_sample"
    if not sample.is_dir():
        pytest.skip(f"{sample} is not here")
    scenes = read_segmentation_dataset([sample])
    image, found = scenes.load(0)
    trained = np.asarray(Image.open(next((sample / "gtFine").glob("*_labelTrainIds.png"))))
    assert (found == trained).mean() > 0.995, "the sample's two masks were made smaller one by one"
    assert found.shape == (image.height, image.width)


def test_a_set_of_ones_own_says_what_its_masks_mean(tmp_path):
    save(tmp_path / "own" / "images" / "a.jpg", np.zeros((8, 8, 3), np.uint8))
    save(tmp_path / "own" / "labels" / "a.png", np.full((8, 8), 3, np.uint8))
    with pytest.raises(InputError, match=r"--labels"):
        read_segmentation_dataset([tmp_path / "own"])
    (tmp_path / "own" / "labels.yaml").write_text(
        "name: own\nclasses: [{name: x, ids: [1], colour: [1, 2, 3]}, {name: y, ids: [2, 3], colour: [4, 5, 6]}]\n"
    )
    scenes = read_segmentation_dataset([tmp_path / "own"])
    assert scenes.class_spec == ClassSpec(("x", "y"), "own", ((1, 2, 3), (4, 5, 6)))
    assert (scenes.load(0)[1] == 1).all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((40, 59), np.uint8), r"labels/00001\.png has 59 x 40 pixels, its image 60 x 40"),
        (np.full((40, 60), 77, np.uint8), r"labels/00001\.png holds 77"),
        (np.zeros((40, 60), np.uint16), r"labels/00001\.png has 16 bits"),
        (np.zeros((40, 60, 3), np.uint8), r"labels/00001\.png has the channels RGB"),
    ],
)
def test_a_wrong_mask_is_named(gta5, mask, message):
    save(gta5 / "labels" / "00001.png", mask)
    with pytest.raises(InputError, match=message):
        read_segmentation_dataset([gta5], "cityscapes19").load(0)


def test_a_missing_or_broken_mask_is_named(gta5):
    (gta5 / "labels" / "00002.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"labels/00002\.png can't be read"):
        read_segmentation_dataset([gta5], "cityscapes19").load(1)
    (gta5 / "labels" / "00002.png").unlink()
    with pytest.raises(InputError, match=r"images/00002\.png has no mask .*labels/00002\.png"):
        read_segmentation_dataset([gta5], "cityscapes19")


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
    with pytest.raises(InputError, match="no label set 'ade20k'; use one of camvid11"):
        read_label_set("ade20k")


def test_cityscapes_classes_are_measured_as_camvids():
    """Several to one; a class without a counterpart is none of the classes, and so a mistake."""
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


def test_another_order_of_the_same_classes_is_followed():
    camvid11 = read_label_set("camvid11")
    table = class_index_table(ClassSpec(camvid11.names[::-1], "mine"), camvid11)
    assert table[:11].tolist() == list(range(10, -1, -1))


sizes = st.tuples(st.integers(1, 70), st.integers(1, 70))


@given(sizes, st.sampled_from([None, 16, 40]), st.sampled_from([None, (32, 48)]), st.integers(0, 2**16))
def test_a_prepared_scene_holds_the_whole_image_and_its_labels_come_back(size, shorter, fixed, seed):
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))
    spec = SegmentationInput(height=fixed and fixed[0], width=fixed and fixed[1], resize_shorter_side=shorter)
    scene = prepare_segmentation(image, spec)
    height, width = scene.pixels.shape[:2]
    assert (height, width) == fixed if fixed else (height % 8, width % 8) == (0, 0)
    assert scene.scaled[0] <= width
    assert scene.scaled[1] <= height
    outside = scene.pixels.copy()
    outside[: scene.scaled[1], : scene.scaled[0]] = spec.pad_colour
    assert (outside == spec.pad_colour).all()
    if not fixed and not shorter:
        assert np.array_equal(scene.pixels[: size[0], : size[1]], np.asarray(image))
        label_map = np.random.default_rng(seed).integers(0, 9, (height, width), dtype=np.uint8)
        assert np.array_equal(scene.restore(label_map), label_map[: size[0], : size[1]])
    assert scene.restore(np.zeros((height, width), np.uint8)).shape == size


@given(st.tuples(st.integers(1, 200), st.integers(1, 200)), st.sampled_from([32, 48, 64]))
def test_tiles_cover_an_image_exactly(size, side):
    """Where every tile's labels are a function of the pixel alone, the image's are that function's."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    tiles = prepare_tiles(image, SegmentationInput(), side)
    assert all(part.shape == (side, side, 3) for part in tiles.tiles)
    label_map = tiles.restore([part[..., 0] for part in tiles.tiles])
    assert np.array_equal(label_map, np.asarray(image)[..., 0])
    if min(size) > side:
        assert all(b - a <= side * 3 / 4 + 8 for a, b in zip(tiles.tops, tiles.tops[1:], strict=False))


@given(sizes, st.sampled_from([0.5, 0.75, 1.0, 1.25, 2.0]), st.integers(0, 2**16))
def test_image_and_labels_are_cropped_together(size, scale, seed):
    """Labels equal to the image's channels stay so wherever nothing is interpolated, and padding is 255."""
    labels = np.random.default_rng(seed).integers(0, 200, size, dtype=np.uint8)
    image = Image.fromarray(np.repeat(labels[..., None], 3, 2))
    torch.manual_seed(seed)
    crop, mask = joint_crop(image, labels, scale, (32, 24))
    assert crop.shape == (3, 32, 24)
    assert mask.shape == (32, 24)
    assert crop.dtype == mask.dtype == torch.uint8
    inside = mask != IGNORED
    assert set(mask[inside].tolist()) <= set(labels.ravel().tolist()), "nearest: no value is made up"
    if scale == 1:
        assert torch.equal(crop[0][inside], mask[inside])
        padded = crop[:, ~inside]
        assert torch.equal(
            padded, torch.tensor(SegmentationInput().pad_colour, dtype=torch.uint8)[:, None].expand_as(padded)
        )


def test_crops_share_their_place_and_differ_in_colour(gta5):
    scenes, data = read_segmentation_dataset([gta5], "cityscapes19"), SegmentationData(train=("x",), crop=(24, 32))
    crops = Crops(scenes, data, SegmentationAugment(), 2, seed=3)
    views, labels = crops[(0, 1)]
    assert views.shape == (2, 24, 32, 3)
    assert labels.shape == (24, 32)
    assert not torch.equal(views[0], views[1])
    again, _ = crops[(0, 1)]
    assert torch.equal(again, views)
    other, _ = crops[(1, 1)]
    assert not torch.equal(other, views)
    plain = Crops(scenes, data, SegmentationAugment(jitter=0), 2, seed=3)[(0, 1)][0]
    assert torch.equal(plain[0], plain[1])
    assert torch.equal(plain[0], views[0]), "the first view has no jitter"


def test_drawn_scenes_are_the_same_every_time_and_labelled_to_the_pixel(tmp_path):
    one, other = (draw_scene(np.random.default_rng([1, 0, 7])) for _ in range(2))
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])
    write_scenes(tmp_path / "x", 20, seed=0)
    scenes = read_segmentation_dataset([tmp_path / "x"], "digit-scenes")
    found = np.bincount(np.concatenate([scenes.load(i)[1].ravel() for i in range(20)]), minlength=11)
    assert found[0] > found[1:].sum()
    assert (found[1:] > 0).sum() >= 8


def test_the_real_scenes_are_handwriting_on_photographs():
    scenes = read_segmentation_dataset(["digit-scenes"])
    assert len(scenes) == 250
    image, labels = scenes.load(0)
    assert image.size == (96, 96)
    assert 0.03 < (labels > 0).mean() < 0.5
    assert scenes.fingerprint() == read_segmentation_dataset(["digit-scenes"]).fingerprint()


def test_masks_and_overlays_are_pictures(tmp_path):
    colours = read_label_set("camvid11").colours
    label_map = np.random.default_rng(0).integers(0, 11, (20, 30), dtype=np.uint8)
    label_map[0] = IGNORED
    (tmp_path / "m.png").write_bytes(palette_png(label_map, colours))
    with Image.open(tmp_path / "m.png") as mask:
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), label_map)
        assert tuple(np.asarray(mask.convert("RGB"))[5, 5]) == colours[label_map[5, 5]]
    image = decode(save(tmp_path / "i.png", np.full((20, 30, 3), 100, np.uint8)))
    laid = np.asarray(overlay(image, label_map, colours))
    assert (laid[0] == 100).all()
    assert np.allclose(laid[5, 5], 0.45 * 100 + 0.55 * np.array(colours[label_map[5, 5]]), atol=1)


def test_sizes_are_multiples_of_eight():
    from csg_export.command import parse_size

    assert parse_size("240x320") == (240, 320)
    for wrong in ("240", "240x321", "0x8", "x", "axb", "8x-8"):
        with pytest.raises(UsageError, match="HEIGHTxWIDTH"):
            parse_size(wrong)
