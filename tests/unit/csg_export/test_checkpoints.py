"""Checkpoints of the published code become bundles: the student alone, with its answers, classes and sizes."""

import argparse
import io

import numpy as np
import onnxruntime as ort
import pytest
import torch

from csg.bundle import read_bundle
from csg.errors import InputError, UsageError
from csg_export.checkpoint_source import from_checkpoint
from csg_export.runners import predict_with, torch_runner
from csg_train.models.csg_checkpoint import parse_csg_checkpoint
from csg_train.models.teacher import Teacher
from csg_train.models.weights import load_weights
from tests.helpers.cli import csg, refused
from tests.helpers.published_checkpoints import classifier, hollow_classifier, segmenter
from tests.helpers.small_runs import noisy_images


def normalised(images):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2)


def close(found, expected):
    size = abs(np.asarray(expected)).max()
    np.testing.assert_allclose(np.asarray(found) / size, np.asarray(expected) / size, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_checkpoint_becomes_a_bundle_of_the_student_alone(tmp_path):
    model, checkpoint = classifier()
    torch.save(checkpoint, tmp_path / "csg_res18_visda17_best.pth.tar")
    photos = noisy_images(tmp_path / "photos", count=2, classes=("bus", "truck"))
    words = ("--checkpoint", "csg_res18_visda17_best.pth.tar", "--real-data", photos)
    done = csg("export", *words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    bundle = read_bundle(tmp_path / "bundles" / "csg_res18_visda17_best-fp32-1")
    card = bundle.card
    assert (card.name, card.classes[::11], len(card.classes)) == ("csg-resnet18", ("aeroplane", "truck"), 12)
    assert (card.input.height, card.input.width, card.input.resize_shorter_side) == (224, 224, 224)
    assert (card.parity.source, card.parity.images) == ("photos", 4)
    assert card.provenance.backbone == "resnet18"
    assert bundle.model.stat().st_size < 1.1 * sum(4 * p.numel() for p in model.parameters())
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    found = ort.InferenceSession(bundle.model, providers=["CPUExecutionProvider"]).run(None, {"image": images})[0]
    with torch.inference_mode():
        close(found, model(normalised(images)))


def test_a_classifiers_checkpoint_is_read_with_its_answers(tmp_path):
    model, checkpoint = classifier()
    torch.save(checkpoint, tmp_path / "csg.pth.tar")
    source = from_checkpoint(tmp_path / "csg.pth.tar")
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        close(source.network(torch.from_numpy(images)), model(normalised(images)))


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_the_depth_comes_from_the_names(depth):
    with torch.device("meta"):
        state = classifier(f"resnet{depth}")[1]["state_dict"]
    found = parse_csg_checkpoint(state)
    assert (found.backbone, found.task, found.classes) == (f"resnet{depth}", "cls", 12)


def test_a_segmenters_checkpoint_is_read_with_its_answers(tmp_path):
    model, checkpoint = segmenter()
    checkpoint["best_mIoU"] = np.float64(0.35)
    old = io.BytesIO()  # as torch 1.2 and numpy 1.16 wrote it
    torch.save(checkpoint, old, _use_new_zipfile_serialization=False)
    content = old.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    (tmp_path / "csg.pth.tar").write_bytes(content)
    source = from_checkpoint(tmp_path / "csg.pth.tar", size=(64, 128))
    assert (source.name, source.task) == ("csg-deeplab-resnet50", "segmentation")
    assert (source.classes.label_set, source.classes.names[0], len(source.classes)) == ("cityscapes19", "road", 19)
    assert (source.spec.height, source.spec.width, source.spec.resize_shorter_side) == (64, 128, None)
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 128, 3), dtype=np.uint8)
    with torch.inference_mode():
        close(source.network(torch.from_numpy(images)), model(normalised(images)))


def test_other_classes_are_named(tmp_path):
    torch.save(classifier(classes=3)[1], tmp_path / "c.pth")
    with pytest.raises(UsageError, match=r"VisDA-17 has 12 classes, the checkpoint 3; .*--classes"):
        from_checkpoint(tmp_path / "c.pth")
    names = tmp_path / "names.txt"
    names.write_text("bike\n\nvan\nbus\n")
    assert from_checkpoint(tmp_path / "c.pth", str(names)).classes.names == ("bike", "van", "bus")
    for text, says in (
        ("a\nb\na\n", "hold a name twice"),
        ("a\nb\n", "has 2 classes, the checkpoint 3"),
        ("\x00\n", "can't"),
    ):
        names.write_text(text)
        with pytest.raises((InputError, UsageError), match=says):
            from_checkpoint(tmp_path / "c.pth", str(names))


NAN = torch.full((64,), float("nan"))


def _changed(change):
    def write(file, checkpoint):
        checkpoint = checkpoint | {"state_dict": dict(checkpoint["state_dict"])}
        change(checkpoint, checkpoint["state_dict"])
        torch.save(checkpoint, file)

    return write


def _renamed(checkpoint, state):
    checkpoint["state_dict"] = {f"module.{k}": v.half() if v.is_floating_point() else v for k, v in state.items()}


READ = {
    "DataParallel and half precision": _changed(_renamed),
    "an optimizer's state": _changed(lambda c, s: c.update(optimizer={"state": {0: {"step": torch.tensor(3)}}})),
    "no projection heads": _changed(lambda c, s: [s.pop(k) for k in list(s) if "fc_csg" in k or "queue" in k]),
    "no wrapper": lambda file, checkpoint: torch.save(checkpoint["state_dict"], file),
}
REFUSED = {
    "code": (_changed(lambda c, s: c.update(args=argparse.Namespace(lr=1))), "needs argparse.Namespace to be run"),
    "damaged": (lambda file, c: file.write_bytes(b"PK\x03\x04 and no more"), "no checkpoint of the published code"),
    "another net": (lambda file, c: torch.save({"conv1.weight": torch.zeros(2)}, file), "starts with encoder_q"),
    "no head": (_changed(lambda c, s: [s.pop(k) for k in list(s) if "fc_new" in k]), "it has no task head"),
    "half a head": (_changed(lambda c, s: s.pop("encoder_q.fc_new.2.weight")), "task head has no layer 2"),
    "a key missing": (_changed(lambda c, s: s.pop("encoder_q.layer3.1.bn2.bias")), "lacks layer3.1.bn2.bias;"),
    "a key of another net": (
        _changed(lambda c, s: s.update({"encoder_q.layer1.0.se.weight": torch.zeros(2)})),
        "holds layer1.0.se.weight that the network does not have",
    ),
    "a wrong shape": (
        _changed(lambda c, s: s.update({"encoder_q.conv1.weight": torch.zeros(64, 1, 7, 7)})),
        r"conv1.weight is \(64, 1, 7, 7\) in it",
    ),
    "a wrong head": (
        _changed(lambda c, s: s.update({"encoder_q.fc_new.0.weight": torch.zeros(100, 512)})),
        r"0.weight is \(100, 512\) in it",
    ),
    "another depth": (_changed(lambda c, s: [s.pop(k) for k in list(s) if "layer4.1." in k]), "2, 2, 2, 1 blocks"),
    "NaN": (_changed(lambda c, s: s.update({"encoder_q.bn1.weight": NAN})), "bn1.weight is not finite"),
    "NaN in the head": (
        _changed(lambda c, s: s.update({"encoder_q.fc_new.2.bias": NAN[:12]})),
        "2.bias is not finite",
    ),
    "complex numbers": (
        _changed(lambda c, s: s.update({"encoder_q.bn1.bias": torch.zeros(64, dtype=torch.complex64)})),
        "bn1.bias is a strided tensor of complex64 in it",
    ),
    "8 bits": (
        _changed(lambda c, s: s.update({"encoder_q.bn1.bias": torch.zeros(64, dtype=torch.float8_e5m2)})),
        "float8_e5m2|Float8_e5m2",
    ),
    "numbers": (_changed(lambda c, s: s.update({"encoder_q.conv1.weight": 3})), "something else than named tensors"),
}


@pytest.mark.parametrize("kind", READ)
def test_what_surrounds_the_student_does_not_matter(tmp_path, kind):
    checkpoint = hollow_classifier()
    READ[kind](tmp_path / "c.pth", checkpoint)
    network = from_checkpoint(tmp_path / "c.pth").network
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    for name, tensor in network.head.state_dict().items():
        torch.testing.assert_close(tensor, checkpoint["state_dict"][f"encoder_q.fc_new.{name}"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_checkpoint_without_a_student_is_refused_in_one_line(tmp_path, kind):
    write, says = REFUSED[kind]
    write(tmp_path / "c.pth", hollow_classifier())
    refused(csg("export", "--checkpoint", "c.pth", cwd=tmp_path), 3, says, "name a checkpoint of NVlabs/CSG")
    assert [file.name for file in tmp_path.iterdir()] == ["c.pth"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "--checkpoint", "c.pth"), "a run and --checkpoint name two networks"),
        (("--checkpoint", "c.pth", "--torchvision", "resnet18"), "name two networks"),
        (("--checkpoint", "c.pth", "--weights", "none"), "--weights is for --torchvision only"),
        (("run", "--classes", "c.txt"), "--classes is for --checkpoint only"),
        (("--checkpoint", "c.pth", "--size", "64x64"), "--size is for segmenters only"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, words, says):
    torch.save(hollow_classifier(), tmp_path / "c.pth")
    refused(csg("export", *words, cwd=tmp_path), 2, says)


def test_int8_measures_its_ranges_and_its_loss_on_named_images(tmp_path):
    torch.save(hollow_classifier(), tmp_path / "c.pth")
    with pytest.raises(UsageError, match="name images of the classes with --data"):
        from_checkpoint(tmp_path / "c.pth").training()
    renders = noisy_images(tmp_path / "renders", count=2, classes=("bus", "truck"))
    source = from_checkpoint(tmp_path / "c.pth", data=[str(renders)], real_data=[str(renders)])
    assert len(source.training().paths) == 4
    assert source.measure(predict_with(torch_runner(source.network))).images == 4


def test_a_training_can_start_from_the_students_encoder(tmp_path):
    torch.save(hollow_classifier(), tmp_path / "c.pth")
    weights = load_weights("resnet18", tmp_path / "c.pth")
    assert not any(name.startswith(("fc", "encoder")) for name in weights)
    teacher = Teacher("resnet18", weights)
    maps = teacher(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    with pytest.raises(UsageError, match="no ImageNet classifier of layer4, which this method needs"):
        teacher.classify(maps)
    with pytest.raises(InputError, match=r"does not fit backbone resnet50: it lacks layer1\.0\.conv3\.weight and"):
        load_weights("resnet50", tmp_path / "c.pth")
