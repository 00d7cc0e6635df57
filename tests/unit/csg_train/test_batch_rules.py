"""Batches that can't be trained on are refused before the start; images that can't be read leave no small batch."""

import json

import pytest
import torch

from csg.errors import InputError
from csg_train.data.loading import Replacing
from csg_train.methods import METHODS
from csg_train.recipe import Optim, load_recipe
from csg_train.training import batch_rules
from csg_train.training.batch_rules import batch_size
from csg_train.training.command import build_method, train
from csg_train.training.run_folder import Run
from tests.helpers.cli import csg, refused
from tests.helpers.mask_files import write_gta5
from tests.helpers.small_runs import noisy_images, settings, tiny_recipe


@pytest.fixture
def data(tmp_path):
    return noisy_images(tmp_path / "data", 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optim.batch": 1},
            r"optim\.batch=1 leaves batches of one.*--set optim\.batch=2.*freeze_batch_norm=true",
        ),
        ({"optim.accumulate": 4}, r"optim\.accumulate=4 leaves parts of one.*--set optim\.accumulate=2"),
        ({"optim.accumulate": 3}, r"optim\.accumulate=3 leaves parts of one.*--set optim\.accumulate=2"),
        ({"optim.accumulate": 100}, r"optim\.accumulate=100 leaves parts.*--set optim\.accumulate=2"),
        ({"optim.batch": 3, "optim.accumulate": 2}, r"optim\.accumulate=2 leaves.*--set optim\.accumulate=1"),
    ],
)
def test_a_part_of_one_image_is_refused_where_batch_norm_trains(data, changes, message):
    words = settings(**{k.replace(".", "__"): v for k, v in changes.items()})
    refused(csg("train", "cls", *words, "--data", data, "--out", "r"), 2, message)
    assert not (data.parent / "r").exists()
    frozen = [*words, "--set", "model.freeze_batch_norm=true"]
    assert csg("train", "cls", *frozen, "--data", data, "--out", "frozen").returncode == 0


def test_one_training_image_is_too_few_for_batch_norm(tmp_path):
    recipe = tiny_recipe(noisy_images(tmp_path / "data", 1), data__holdout=0.5)
    with pytest.raises(batch_rules.UsageError, match=r"1 training images leave batches.*use more training images"):
        train(recipe, Run(tmp_path / "r"))


def test_the_aspp_head_trains_batch_norm_though_the_backbone_does_not(tmp_path):
    write_gta5(tmp_path / "scenes")
    done = csg("train", "seg", "--recipe", "gta5", *_seg(optim__batch=1), "--data", "scenes", "--out", "r")
    refused(done, 2, r"optim\.batch=1 leaves batches of one.*--set optim\.batch=2.*--set model\.head=deeplabv2")
    head = ["--set", "model.head=deeplabv2"]
    done = csg("train", "seg", "--recipe", "gta5", *_seg(optim__batch=1), *head, "--data", "scenes", "--out", "r")
    assert done.returncode == 0, done.stderr


def _seg(**changes):
    words = settings(data__crop="[32,32]", data__labels="cityscapes19", optim__steps=1, **changes)
    pairs = zip(words[::2], words[1::2], strict=True)
    return [word for pair in pairs if not pair[1].startswith(("data.resize", "data.size")) for word in pair]


@pytest.mark.parametrize(
    ("batch", "images", "processes", "wanted"),
    [
        (8, 100, 2, 8),
        (64, 10, 2, 10),
        (7, 100, 2, "set --set optim.batch=6 or --set optim.batch=8"),
        (32, 100, 3, "set --set optim.batch=30 or --set optim.batch=33"),
        (64, 11, 2, "set --set optim.batch=10"),
        (1, 100, 4, "set --set optim.batch=4"),
        (5, 3, 4, "there are 3 training images; start fewer processes"),
    ],
)
def test_a_batch_that_does_not_divide_names_the_nearest_that_do(monkeypatch, batch, images, processes, wanted):
    monkeypatch.setattr(batch_rules, "world_size", lambda: processes)
    if isinstance(wanted, int):
        assert batch_size(Optim(batch=batch), images) == wanted
        return
    with pytest.raises(batch_rules.UsageError) as error:
        batch_size(Optim(batch=batch), images)
    assert wanted in str(error.value)


def test_the_check_leaves_every_module_in_its_mode(small_recipe, weights):
    method = build_method(small_recipe(), 10, torch.device("cpu"))
    before = [module.training for module in method.modules()]
    batch_rules.check_parts(method, small_recipe().model, Optim(), 1)
    assert [module.training for module in method.modules()] == before


@pytest.mark.parametrize("method", sorted({"csg", "moco-v2", "none"} & set(METHODS)))
def test_a_frozen_batch_norm_trains_with_one_image(small_recipe, weights, method):
    recipe = load_recipe("digits", {"method": method, "model.freeze_batch_norm": True})
    batch_rules.check_parts(build_method(recipe, 10, torch.device("cpu")), recipe.model, Optim(), 1)


def test_images_that_cannot_be_read_are_replaced_said_once_and_counted(tmp_path):
    data = noisy_images(tmp_path / "data", 2)
    for name in ("cat/1", "dog/0", "dog/1"):
        (data / f"{name}.png").write_bytes(b"broken")
    words = settings(data__on_unreadable="skip", optim__batch=4, optim__steps=6)
    done = csg("train", "cls", *words, "--data", data, "--out", "r", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["unreadable"] == 18, "three images in each of six epochs"
    assert done.stderr.count("dog/0.png") == done.stderr.count("cat/1.png")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_without_a_readable_image_is_one_line(tmp_path, workers):
    data = noisy_images(tmp_path / "data", 2)
    for file in data.rglob("*.png"):
        file.write_bytes(b"broken")
    words = settings(data__on_unreadable="skip", data__workers=workers)
    refused(csg("train", "cls", *words, "--data", data, "--out", "r"), 3, "read")


def test_the_replacement_is_the_next_image_with_its_own_seed():
    class Numbers:
        def __getitem__(self, key):
            epoch, index = key
            return f"{index} can't be read" if index in (3, 4, 9) else (torch.tensor([epoch, index]), torch.tensor(0))

    replacing = Replacing(Numbers(), 10, 10)
    views, _, reason = replacing[2, 3]
    assert (views.tolist(), reason) == ([2, 5], "3 can't be read")
    assert replacing[1, 9][0].tolist() == [1, 0]
    assert replacing[1, 7][2] is None
    assert Replacing(Numbers(), 10, 1)[0, 3] == "3 can't be read"


def test_a_run_that_meets_an_unreadable_image_goes_on_with_skip(tmp_path, monkeypatch):
    data = noisy_images(tmp_path / "data", 6)
    recipe = tiny_recipe(data, optim__steps=9)
    from csg_train.data.views import Views

    read = Views.__getitem__
    broken = lambda self, key: "cat/0.png can't be read" if key == (1, 0) else read(self, key)  # noqa: E731
    monkeypatch.setattr(Views, "__getitem__", broken)
    with pytest.raises(InputError, match="on_unreadable=skip; then continue with `csg train cls --resume --out"):
        train(recipe, Run(tmp_path / "r"))
    done = csg("train", "cls", "--resume", "--out", "r", "--set", "data.on_unreadable=skip", "--json")
    assert done.returncode == 0, done.stderr
    assert "resumed after step" in done.stderr
    assert json.loads(done.stdout)["unreadable"] == 1
