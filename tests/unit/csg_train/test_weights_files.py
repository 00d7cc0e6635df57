"""Files named as weights that hold something else, and timm's networks at a size that they do not take."""

import os
import pickle
from pathlib import Path

import pytest
import torch
import torchvision

from csg.errors import InputError, UsageError
from csg.files import sha256
from csg_export.checkpoint_source import from_checkpoint
from csg_export.torchvision_source import from_torchvision
from csg_train.models import weights
from csg_train.models.timm_backbone import check_size
from csg_train.models.timm_weights import meta_model
from csg_train.models.weights import load_weights
from tests.helpers.cli import csg, refused


class Code:
    """Unpickled, it would write a file."""

    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def _saved(value):
    def write(file):
        torch.save(value, file)

    return write


def _nan():
    state = torchvision.models.resnet18().state_dict()
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    return state


def _truncated(file):
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, file)
    file.write_bytes(file.read_bytes()[:-500])


BROKEN = {
    "empty": lambda file: file.write_bytes(b""),
    "random": lambda file: file.write_bytes(os.urandom(999)),
    "truncated": _truncated,
    "code": lambda file: file.write_bytes(pickle.dumps(Code())),
    "code in a checkpoint": _saved({"conv1.weight": Code()}),
    "a list": _saved([1, 2]),
    "numbers": _saved({"conv1.weight": 3}),
    "other keys": _saved({"a": torch.zeros(2)}),
    "another model": lambda file: torch.save(torchvision.models.resnet34().state_dict(), file),
    "NaN": lambda file: torch.save(_nan(), file),
    "a folder": Path.mkdir,
    "nothing": lambda file: None,
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_weights_file_that_is_none_is_refused_and_never_run(tmp_path, kind, suffix):
    file = tmp_path / f"weights{suffix}"
    BROKEN[kind](file)
    for name in ("resnet18", "timm:resnet18"):
        with pytest.raises(InputError, match=r"weights.*--weights FILE|check --weights"):
            load_weights(name, file)
    if kind != "NaN":  # refused by the export itself
        for name in ("resnet18", "squeezenet1_0"):
            with pytest.raises(InputError, match=f"no weights for {name}: .*--weights"):
                from_torchvision(name, str(file))
    assert not Path("executed").exists()


@pytest.mark.parametrize("name", ["resnet18", "timm:resnet18"])
def test_a_folder_is_called_a_folder(tmp_path, name):
    with pytest.raises(InputError, match=f"{tmp_path} is a folder, not a file"):
        load_weights(name, tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path} is a folder, not a file"):
        from_checkpoint(tmp_path)


def test_timms_own_weights_are_taken(tmp_path):
    timm = pytest.importorskip("timm")
    state = timm.create_model("resnet18", num_classes=7).state_dict()
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    loaded = load_weights("timm:resnet18", tmp_path / "w.pth")
    torch.testing.assert_close(loaded["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])


def test_the_file_of_a_wheel_is_taken_under_any_name(tmp_path, monkeypatch):
    file, state = tmp_path / "copy.pth", meta_model("tf_efficientnet_lite0").state_dict()
    torch.save({f"_{key}": torch.full(tensor.shape, float(i)) for i, (key, tensor) in enumerate(state.items())}, file)
    with pytest.raises(InputError, match="holds other weights"):
        load_weights("timm:tf_efficientnet_lite0", file)
    monkeypatch.setitem(weights.SHA256, weights.LITE0, sha256(file))
    found = load_weights("timm:tf_efficientnet_lite0", file)
    assert [(key, int(tensor.flatten()[0])) for key, tensor in found.items()] == [
        (key, i) for i, key in enumerate(state)
    ]


def test_a_file_that_cannot_be_read_is_refused_in_one_line():
    with pytest.raises(InputError, match="Input/output error"):
        load_weights("timm:tf_efficientnet_lite0", Path("/proc/self/mem"))


def test_a_timm_network_that_has_one_size_is_refused_at_another_with_its_own():
    pytest.importorskip("timm")
    with pytest.raises(UsageError, match=r"takes no images of 64 x 64 pixels: .*data\.size=224"):
        check_size("timm:levit_128s", 64)
    check_size("timm:levit_128s", 224)


def test_a_timm_network_of_any_size_takes_any():
    pytest.importorskip("timm")
    for side in (32, 40, 224):
        check_size("timm:resnet18", side)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The cache of timm's hub client, empty, without a network."""
    pytest.importorskip("timm", reason="needs the extra timm")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_weights_of_timm_that_cannot_be_reached_are_missed_in_one_line(hub):
    done = csg("weights", "pull", "timm:test_vit")
    where = r"get them from https://huggingface.co/timm/test_vit.r160_in1k elsewhere, .*--weights FILE"
    refused(done, 3, rf"no pretrained weights for timm:test_vit: .*{where}")
    assert len(done.stderr.strip().splitlines()) == 2, "what is looked for, and the error"


def test_weights_in_timms_cache_are_found(hub):
    import timm
    from safetensors.torch import save_file

    folder = hub / "models--timm--test_vit.r160_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(timm.create_model("test_vit").state_dict(), folder / "snapshots" / ("0" * 40) / "model.safetensors")
    done = csg("weights", "pull", "timm:test_vit")
    assert done.returncode == 0, done.stderr
    assert "https://huggingface.co/timm/test_vit.r160_in1k" in done.stdout


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("timm:no_such_network", 2, "timm has no model 'no_such_network'"),
        ("timm:test_vit.none", 2, "test_vit has no weights 'none'"),
        ("timm:botnet50ts_256", 3, "timm knows no pretrained weights of timm:botnet50ts_256"),
    ],
)
def test_weights_that_nobody_publishes_are_refused(hub, name, code, said):
    refused(csg("weights", "pull", name), code, said)
