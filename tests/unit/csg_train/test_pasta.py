"""PASTA against a slow, obvious reference (docs/method.md section 11), and as a setting of a run."""

import cmath
import math

import numpy as np
import pytest
import torch
from PIL import Image

from csg.datasets.classification import read_classification_dataset
from csg_train.data.crops import NO_AUGMENT, Crops
from csg_train.data.pasta import Pasta, pasta_of
from csg_train.methods import load_method
from csg_train.methods.settings import NoneSettings
from csg_train.recipe import load_recipe
from csg_train.tasks import TASKS
from csg_train.training.training_batches import TrainingBatches
from tests.helpers.small_runs import noisy_images, tiny_recipe
from tests.helpers.tiny_student import tiny


def slow_pasta(image, alpha, beta, k, noise):
    """Sums over frequencies and pixels; noise (H, W, 3) is in the order of fft2."""
    height, width, channels = image.shape
    out = np.zeros(image.shape)
    for c in range(channels):
        for u in range(height):
            for v in range(width):
                total = sum(
                    image[y, x, c] * cmath.exp(-2j * math.pi * (u * y / height + v * x / width))
                    for y in range(height)
                    for x in range(width)
                )
                m = u - height if u >= (height + 1) // 2 else u
                n = v - width if v >= (width + 1) // 2 else v
                deviation = (2 * alpha * math.sqrt((m * m + n * n) / (height**2 + width**2))) ** k + beta
                amplitude, phase = abs(total) * (1 + deviation * noise[u, v, c]), cmath.phase(total)
                for y in range(height):
                    for x in range(width):
                        turn = cmath.exp(1j * phase + 2j * math.pi * (u * y / height + v * x / width))
                        out[y, x, c] += (amplitude * turn).real / (height * width)
    return out


@pytest.mark.parametrize(("height", "width"), [(5, 4), (6, 7)])
@pytest.mark.parametrize(("alpha", "beta", "k"), [(3.0, 0.25, 2.0), (10.0, 0.5, 1.0)])
def test_pasta_multiplies_the_amplitude_of_each_frequency(height, width, alpha, beta, k):
    image = np.random.default_rng(0).integers(100, 130, (height, width, 3), dtype=np.uint8)
    torch.manual_seed(3)
    found = Pasta(alpha, beta, k)(torch.from_numpy(image))
    torch.manual_seed(3)
    slow = slow_pasta(image.astype(float), alpha, beta, k, torch.randn(image.shape).double().numpy())
    assert found.dtype == torch.uint8
    assert np.abs(found.numpy() - slow.clip(0, 255)).max() < 0.51


def test_without_disturbance_the_image_stays():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8))
    assert torch.equal(Pasta(0.0, 0.0, 2.0)(image), image)


def test_the_published_values_are_those_of_each_task():
    assert pasta_of(load_recipe("digits", {"augment.pasta": True}).augment) == Pasta(10.0, 0.5, 1.0)
    assert pasta_of(load_recipe("digit-scenes", {"augment.pasta": True}).augment) == Pasta(3.0, 0.25, 2.0)
    assert pasta_of(load_recipe("digits").augment) is None


@pytest.mark.parametrize("augmented", [True, False])
def test_each_view_of_an_image_is_disturbed_in_its_own_way_and_the_same_way_again(tmp_path, augmented):
    folder = noisy_images(tmp_path / "data")
    plain, changed = (tiny_recipe(folder, augment__pasta=on, augment__operations=0) for on in (False, True))
    images = read_classification_dataset([str(folder)])
    before, after, again = (
        TASKS["cls"].views(images, recipe, 2, augmented=augmented)[0, 1][0] for recipe in (plain, changed, changed)
    )
    assert torch.equal(after, again)
    assert not torch.equal(after[0], after[1])
    assert all(not torch.equal(one, two) for one, two in zip(before, after, strict=True))


def test_crops_are_disturbed_and_their_labels_are_not(monkeypatch):
    class Scenes:
        def load(self, index):
            pixels = np.random.default_rng(index).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            return Image.fromarray(pixels), np.full((40, 40), 2, np.uint8)

    data = load_recipe("digit-scenes", {"data.crop": [32, 24]}).data
    (plain, labels), (changed, same) = (
        Crops(Scenes(), data, NO_AUGMENT, 2, seed=0, pasta=pasta)[0, 0] for pasta in (None, Pasta(3.0, 0.25, 2.0))
    )
    assert plain.shape == changed.shape == (2, 32, 24, 3)
    assert torch.equal(labels, same)
    assert not torch.equal(plain, changed)
    assert not torch.equal(changed[0], changed[1])


@pytest.mark.parametrize("pasta", [True, False])
def test_what_networks_give_for_an_image_is_kept_only_without_pasta(tmp_path, pasta):
    recipe = tiny_recipe(noisy_images(tmp_path / "data"), augment__pasta=pasta)
    images, method = TASKS["cls"].read_synthetic(recipe), load_method("none")(tiny()[0], None, NoneSettings())
    batches = TrainingBatches(recipe, images, method, device=torch.device("cpu"), batch=4)
    assert batches.fixed is not pasta
