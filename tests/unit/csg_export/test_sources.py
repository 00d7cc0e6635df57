"""Networks to export, their outputs, and the options that do not fit them."""

import numpy as np
import onnxruntime as ort
import pytest
import torch

from csg.card import SegmentationInput
from csg.errors import UsageError
from csg_export.command import parse_batch
from csg_export.export import export
from csg_export.options import ExportOptions
from csg_export.parity_images import hard_inputs
from csg_export.sources import from_run
from csg_export.torchvision_source import from_torchvision
from tests.helpers.small_networks import SPEC


@pytest.mark.parametrize("text", ["8", "8:1:32", "0:1:2", "a:b:c", "1:2:3:4", ""])
def test_a_range_of_batches_is_checked(text):
    with pytest.raises(UsageError, match="--batch"):
        parse_batch(text)
    assert parse_batch("1:8:32") == (1, 8, 32)


def test_hard_inputs_are_prepared_as_any_image():
    assert hard_inputs(SPEC).prepared[0].shape == (7, 24, 24, 3)
    shapes = [pixels.shape for pixels in hard_inputs(SegmentationInput()).prepared]
    assert (1, 8, 8, 3) in shapes
    assert (1, 8, 1000, 3) in shapes
    assert all(side % 8 == 0 for shape in shapes for side in shape[1:3])


@pytest.mark.slow
def test_a_classifier_can_return_its_embedding(trained, tmp_path):
    source = from_run(trained)
    bundle = export(source, ExportOptions(embedding=True), tmp_path / "bundle")
    assert [o.name for o in bundle.card.outputs] == ["logits", "embedding"]
    session = ort.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    logits, embedding = session.run(["logits", "embedding"], {"image": images})
    with torch.inference_mode():
        maps = source.network.encoder(torch.from_numpy(images))
        np.testing.assert_allclose(embedding, source.network.embed(maps), atol=1e-3)
        np.testing.assert_allclose(logits, source.network.classify(maps), atol=1e-3)
    assert bundle.card.outputs[1].shape == (-1, embedding.shape[1])


@pytest.mark.slow
def test_a_torchvision_classifier_is_exported_unmodified(tmp_path):
    import torchvision

    source = from_torchvision("resnet18", "none")
    bundle = export(source, ExportOptions(), tmp_path / "bundle")
    card = bundle.card
    assert (card.input.height, card.input.resize_shorter_side, len(card.classes)) == (224, 256, 1000)
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    images = next(source.real.batches())[:2]
    expects = torchvision.transforms.functional.normalize(
        torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, card.normalisation.mean, card.normalisation.std
    )
    with torch.inference_mode():
        expected = model(expects).numpy()
    got = ort.InferenceSession(bundle.model, providers=["CPUExecutionProvider"]).run(None, {"image": images})[0]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(UsageError, match="no ImageNet classifier 'fasterrcnn_resnet50_fpn'"):
        from_torchvision("fasterrcnn_resnet50_fpn", "none")


def test_a_torchvision_classifier_has_no_embedding_output():
    with pytest.raises(UsageError, match="--embedding is for classifiers of a run"):
        export(from_torchvision("resnet18", "none"), ExportOptions(embedding=True))
