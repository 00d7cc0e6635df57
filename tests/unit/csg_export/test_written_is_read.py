"""What an export writes is accepted by all that read it, and what they would refuse is not written."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from csg.bundle import MODEL, read_bundle, write_bundle
from csg.card import ClassSpec, ModelCard
from csg.errors import InputError, VerificationError
from csg.provenance import ClassificationEvaluation, SegmentationEvaluation
from csg_export.export import export
from csg_export.inspect import read_graph
from csg_export.options import ExportOptions
from csg_serve.repository.deploy import deploy
from tests.helpers.cli import csg
from tests.helpers.small_networks import Chain
from tests.helpers.small_source import classifier, segmenter
from tests.helpers.tiny_bundle import tiny_card, write_colour_bundle

NAN = float("nan")
NAMES = ("Ä é 日本", "[red]dog[/red]", "b  b", "a" * 200, "cafe\u0301")


SLOW = pytest.mark.slow


@pytest.mark.parametrize("precision", ["fp32", *(pytest.param(p, marks=SLOW) for p in ("fp16", "bf16", "int8"))])
@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("make", [classifier, segmenter])
def test_every_command_accepts_what_an_export_writes(tmp_path, make, real, precision):
    source = make() if real else make(real=None)
    if make is classifier:
        source = replace(source, classes=ClassSpec(NAMES))
    bundle = export(source, ExportOptions(precision, licence="cc-by-4.0"), tmp_path / "bundle")
    assert read_bundle(bundle.path).card == bundle.card
    assert "\nlicense: cc-by-4.0\n" in (bundle.path / "README.md").read_text("utf-8")
    assert "  README.md\n" in (bundle.path / "SHA256SUMS").read_text()
    shown = csg("export", "inspect", bundle.path, "--json")
    assert shown.returncode == 0, shown.stderr
    json.loads(shown.stdout, parse_constant=pytest.fail)  # NaN, Infinity
    assert csg("export", "inspect", bundle.path).returncode == 0
    assert csg("deploy", bundle.path, "--backend", "python").returncode == 0


def unfinished(network, value):
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = value
    return network


class Overflowing(nn.Module):
    """Finite weights, logits beyond float32."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, images):
        return self.layer(images.float().mean((1, 2))) * 3e38 * 3e38


SCORES = ClassificationEvaluation(dataset="d", images=1, accuracy=0.5, mean_class_accuracy=0.5)
PIXEL_SCORES = SegmentationEvaluation(
    dataset="d", images=1, miou=0.5, pixel_accuracy=0.5, frequency_weighted_iou=0.5, per_class={}
)
REFUSED = {
    "NaN weight": (lambda: classifier(unfinished(Chain(), NAN)), InputError, "weights of small are not finite"),
    "infinite weight": (lambda: classifier(unfinished(Chain(), float("inf"))), InputError, r"layers\.0\.weight"),
    "NaN buffer": (
        lambda: classifier(nn.Sequential(Chain(), unfinished(nn.BatchNorm1d(5), 1.0)).apply(_nan_statistics)),
        InputError,
        r"not finite: 1\.running_mean",
    ),
    "logits": (lambda: classifier(Overflowing(), "ab"), VerificationError, "network's own logits are not finite"),
    "line break in a class": (lambda: _named("a\nb"), InputError, "model card: classes"),
    "long class": (lambda: _named("a" * 201), InputError, "model card: classes"),
    "class that is not UTF-8": (lambda: _named("jos\udce9"), InputError, "model card: classes"),
    "accuracy": (
        lambda: classifier(evaluations=(SCORES.model_copy(update={"accuracy": NAN}),)),
        InputError,
        "model card: evaluations.*accuracy",
    ),
    "mIoU": (
        lambda: segmenter(evaluations=(PIXEL_SCORES.model_copy(update={"miou": NAN}),)),
        InputError,
        "model card: evaluations",
    ),
}


def _named(name):
    return classifier(classes=(name, "b", "c", "d", "e"))


def _nan_statistics(module):
    if isinstance(module, nn.BatchNorm1d):
        module.running_mean[0] = NAN


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_be_refused_is_not_written(tmp_path, kind):
    make, error, says = REFUSED[kind]
    with pytest.raises(error, match=says):
        export(make(), ExportOptions(), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


VALUES = st.one_of(st.none(), st.floats(), st.integers(-3, 3), st.text(max_size=5), st.just(()), st.just(("a", "a\n")))


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@given(st.sampled_from(sorted(ModelCard.model_fields)), VALUES)
def test_a_bundle_is_either_refused_when_it_is_written_or_accepted_by_every_reader(tmp_path_factory, field, value):
    """Cards with one field of any kind, unchecked as a copied card is."""
    folder = tmp_path_factory.mktemp("cards")
    graph = write_colour_bundle(folder / "colour").model.read_bytes()
    try:
        bundle = write_bundle(folder / "bundle", tiny_card().model_copy(update={field: value}), {MODEL: graph})
    except InputError:
        assert not (folder / "bundle").exists()
        return
    again = read_bundle(bundle.path)
    if field not in ("input", "outputs"):
        read_graph(again)
    if field not in ("engine", "format", "runtime", "precision"):
        deploy(again, folder / "repository")


def test_inspecting_a_bundle_needs_no_torch(tmp_path):
    bundle = write_colour_bundle(tmp_path / "bundle")
    code = "import sys; sys.modules['torch'] = None; from csg_cli import main; main()"
    subprocess.run([sys.executable, "-c", code, "export", "inspect", bundle.path], check=True, capture_output=True)
