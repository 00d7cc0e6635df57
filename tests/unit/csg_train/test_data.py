"""Data: readers, views, the embedded synthetic digits, recipes, backbones, weights."""

import numpy as np
import pytest
import torch
from PIL import Image

from csg.datasets.classification import read_classification_dataset
from csg.errors import InputError, VerificationError
from csg_train.data import loading
from csg_train.data.fonts import font_faces
from csg_train.data.synthetic_digits import SYNTHETIC_DIGITS, draw
from csg_train.data.views import Views
from csg_train.models.weights import load_weights, pull
from csg_train.recipe import ClassificationAugment, ClassificationData


@pytest.fixture
def folders(tmp_path):
    """Two sources with the classes cat and dog, three images each."""
    for source in ("a", "b"):
        for name, colour in (("cat", "red"), ("dog", "blue")):
            (tmp_path / source / name).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (20 + number, 30), colour).save(tmp_path / source / name / f"{number}.png")
    return tmp_path


def test_class_folders_of_several_sources(folders):
    images = read_classification_dataset([folders / "a", folders / "b"])
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert images.fingerprint() == read_classification_dataset([folders / "a", folders / "b"]).fingerprint()
    assert images.fingerprint() != read_classification_dataset([folders / "a"]).fingerprint()


def test_list_files(folders):
    listing = folders / "a" / "image_list.txt"
    listing.write_text("dog/0.png 1\ncat/1.png 0\n\ncat/2.png 0\n")
    images = read_classification_dataset([folders / "a"])
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [1, 0, 0]
    assert [p.name for p in images.paths] == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat/0.png 0\nno label here\n", "line 2"),
        ("cat/0.png -1\n", "line 1"),
        ("cat/0.png 0\n", "1 classes"),
        ("", "lists no image"),
        ("cat/9.png 0\ndog/0.png 1\n", "cat/9.png"),
        ("cat/0.png 0\ndog/0.png 2\n", "label 1"),
    ],
)
def test_malformed_list_files(folders, text, message):
    (folders / "a" / "image_list.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_classification_dataset([folders / "a"])


def test_missing_empty_and_lonely_folders(folders):
    (folders / "empty").mkdir()
    (folders / "a" / "bird").mkdir()
    for source, message in (("nowhere", "does not exist"), ("empty", "0 class folders"), ("a", "bird holds no image")):
        with pytest.raises(InputError, match=message):
            read_classification_dataset([folders / source])


def test_classes_that_differ_are_named(folders):
    (folders / "b" / "dog").rename(folders / "b" / "wolf")
    with pytest.raises(InputError, match=r"wolf.*dog"):
        read_classification_dataset([folders / "b"]).with_classes(("cat", "dog"))
    one = read_classification_dataset([folders / "a"]).with_classes(("ape", "dog", "cat"), allow_missing=True)
    assert one.labels.tolist() == [2, 2, 2, 1, 1, 1]


def test_the_real_digits_are_scikit_learns(real_digits):
    from sklearn.datasets import load_digits

    scans = load_digits()
    assert len(real_digits) == 1797
    pixels = {int(p.stem): np.asarray(Image.open(p)) for p in real_digits.paths}
    assert np.array_equal(np.stack([pixels[i] for i in range(1797)]), (scans.images * 255 / 16).round())
    assert [int(real_digits.classes[k]) for k in real_digits.labels] == [
        scans.target[int(p.stem)] for p in real_digits.paths
    ]


def test_synthetic_digits_depend_on_seed_and_index_alone(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        SYNTHETIC_DIGITS.write(tmp_path / name, 300, seed)
    content = [
        {f.relative_to(d).as_posix(): f.read_bytes() for f in sorted(d.glob("*/*"))} for d in sorted(tmp_path.iterdir())
    ]
    assert len(content[0]) == 300
    assert content[0] == content[1] != content[2]
    assert not any(content[0][name] == content[2][name] for name in content[0])


def test_every_face_holds_ten_different_digits():
    faces = font_faces()
    assert len({f.stem.split("-")[0] for f in faces}) >= 12
    from csg_train.data.synthetic_digits import _glyph

    for face in faces:
        glyphs = [_glyph(d, face, np.random.default_rng(0)) for d in "0123456789"]
        assert all(0.02 < g.mean() < 0.8 for g in glyphs), face
        assert len({g.tobytes() for g in glyphs}) == 10, face


def test_drawn_digits_are_legible_in_contrast():
    image = draw(3, font_faces()[0], np.random.default_rng(0))
    assert image.shape == (64, 64, 3)
    assert image.dtype == np.uint8
    assert image.std() > 10


def batches(folders, workers, start=0, total=6, unreadable="fail", operations=2):
    data = ClassificationData(train=("x",), resize=16, size=12, on_unreadable=unreadable)
    views = Views(
        read_classification_dataset([folders / "a"]), data, ClassificationAugment(operations=operations), 2, seed=7
    )
    sampler = loading.StepBatchSampler(6, 2, 7, range(start, total))
    return list(loading.batches(views, sampler, unreadable, workers, pin_memory=False))


def test_views_do_not_depend_on_workers_nor_on_where_a_run_starts(folders):
    alone, two, late = batches(folders, 0), batches(folders, 2), batches(folders, 1, start=4)
    for one, other in [*zip(alone, two, strict=True), *zip(alone[4:], late, strict=True)]:
        assert torch.equal(one.views, other.views)
        assert torch.equal(one.labels, other.labels)
    assert alone[0].views.shape == (2, 2, 12, 12, 3)
    assert alone[0].views.dtype == torch.uint8


def test_an_epoch_sees_every_image_once_and_epochs_differ():
    steps = list(loading.StepBatchSampler(10, 5, 3, range(4)))
    first, second = (sorted(i for b in steps[k : k + 2] for _, i in b) for k in (0, 2))
    assert first == second == list(range(10))
    assert [i for _, i in steps[0]] != [i for _, i in steps[2]]


def test_without_operations_the_views_are_the_image(folders):
    batch = batches(folders, 0, total=1, operations=0)[0]
    assert torch.equal(batch.views[0], batch.views[1])


def test_an_unreadable_image_stops_or_is_replaced_and_counted(folders):
    (folders / "a" / "cat" / "0.png").write_bytes(b"broken")
    for workers in (0, 1):
        with pytest.raises(InputError, match=r"cat/0\.png"):
            batches(folders, workers)
    found = batches(folders, 0, unreadable="skip")
    assert sum(len(b.unreadable) for b in found) == 2
    assert [len(b.labels) for b in found] == [2] * 6, "every batch keeps its size"
    again = batches(folders, 2, unreadable="skip")
    assert all(torch.equal(one.views, other.views) for one, other in zip(found, again, strict=True))


def test_weights_are_checked_and_their_absence_is_said_in_one_line(tmp_path, monkeypatch, weights):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("csg_train.models.weights._from_torchvision", lambda url, file: False)
    monkeypatch.setattr("csg_train.models.weights._from_wheel", lambda file: False)
    with pytest.raises(InputError, match=r"mobilenet_v2-b0353104.pth.*https://.*--weights FILE"):
        pull("mobilenet_v2")
    cached = tmp_path / "hub" / "checkpoints" / "mobilenet_v2-b0353104.pth"
    cached.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(VerificationError, match="SHA-256"):
        pull("mobilenet_v2")
    cached.write_bytes(weights.read_bytes())
    assert pull("mobilenet_v2") == cached
    with pytest.raises(InputError, match="does not fit backbone resnet18"):
        load_weights("resnet18", cached)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    file = tmp_path / "evil.pth"
    file.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError):
        load_weights("resnet18", file)
    assert not (tmp_path / "ran").exists()
