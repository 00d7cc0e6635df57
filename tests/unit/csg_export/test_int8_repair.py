"""int8 that repairs itself, on small networks with a layer that 8 bits are too few for."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnxruntime.quantization.calibrate import TensorData
from torch import nn

from csg.bundle import read_bundle
from csg.card import ClassSpec, Normalisation
from csg.errors import VerificationError
from csg.provenance import ClassificationEvaluation
from csg_export import int8_repair
from csg_export.export import export
from csg_export.int8 import ONNXRUNTIME_INT8, plain_plan, quantise, to_int8
from csg_export.int8_judge import Int8Judge
from csg_export.int8_remedies import corrected_biases, equalised
from csg_export.int8_repair import MAX_TRIES, int8_graphs
from csg_export.options import ExportOptions
from csg_export.parity_images import ParityImages
from csg_export.sources import Source
from tests.helpers.small_networks import CALIBRATION, IMAGES, SPEC, graph, run
from tests.helpers.tiny_bundle import PROVENANCE

pytestmark = pytest.mark.slow
PLAIN = CALIBRATION.model_copy(update={"fp32_first_last": True})


class Uneven(nn.Module):
    """Convolutions, of which the second makes a channel that is far larger than the others; the next one undoes it.

    With `shared`, two layers read it, one through a sum, so that it can't be equalised.
    """

    def __init__(self, shared, activation=nn.ReLU, factor=3000):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise((3, 8, 8, 8, 8, 5)))
        self.shared, self.activation = shared, activation()
        with torch.no_grad():
            for layer in self.layers:
                layer.weight *= 1.5
            self.layers[1].weight[0] *= factor
            self.layers[1].bias[0] *= factor
            self.layers[2].weight[:, 0] /= factor

    def forward(self, images):
        x = (images.float().permute(0, 3, 1, 2) - 120) / 60
        made = []
        for layer in self.layers:
            x = self.activation(layer(x))
            made.append(x)
        logits = 40 * x.mean((2, 3))
        return logits + made[1].mean((2, 3))[:, 3:] / 100 if self.shared else logits


def graphs_of(exact):
    return list(int8_graphs(exact, [IMAGES], PLAIN, ONNXRUNTIME_INT8, False))


class WithClassesFarApart(nn.Module):
    """A network of which two classes are always far ahead, so that nearly all variance of the logits is theirs."""

    def __init__(self, network):
        super().__init__()
        self.network, self.head = network, nn.Linear(5, 5)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(5))
            self.head.bias.copy_(torch.tensor([1e3, 1e3, 0, 0, 0]))

    def forward(self, images):
        return self.head(self.network(images))


@pytest.fixture(scope="module")
def shared():
    exact = graph(Uneven(shared=True))
    return exact, graphs_of(exact)


def operators_in_onnxruntime(model, tmp_path):
    """How often ONNX Runtime computes each operator."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type.removeprefix("Fused") for node in onnx.load(tmp_path / "optimised.onnx").graph.node)


def operators_in_openvino(model):
    """The type that OpenVINO computes each convolution in."""
    core = pytest.importorskip("openvino").Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU")
    found = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    return Counter(f["runtimePrecision"].astype(str) for f in found if f["layerType"].astype(str) == "Convolution")


def test_the_first_graph_is_the_plain_one_and_each_repaired_one_is_closer(shared):
    exact, graphs = shared
    plain = to_int8(exact, [IMAGES], PLAIN, ONNXRUNTIME_INT8)
    assert graphs[0].model.SerializeToString() == plain.SerializeToString()
    assert graphs[0].settings == PLAIN
    judge = Int8Judge(exact, [IMAGES])
    errors = [judge.error(found.model) for found in graphs]
    assert errors[0] > 0.02
    assert errors[-1] < errors[0] / 1000
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))


def test_layers_are_returned_to_float_however_small_the_error_is_beside_the_logits():
    """Whoever asks for the next graph knows that this one answers too much differently."""
    exact = graph(WithClassesFarApart(Uneven(shared=True)))
    graphs, expected = graphs_of(exact), run(exact, IMAGES).argmax(1)
    first, last = (run(made.model, IMAGES).argmax(1) == expected for made in (graphs[0], graphs[-1]))
    assert Int8Judge(exact, [IMAGES]).error(graphs[0].model) < 1e-5
    assert not first.all()
    assert last.all()
    assert graphs[-1].settings.float32_layers


def test_the_layers_around_a_value_that_8_bits_are_too_few_for_run_in_float_and_no_others(shared, tmp_path):
    exact, graphs = shared
    names = [node.name for node in exact.graph.node if node.op_type == "Conv"]
    found = next(one for one in graphs if one.settings.float32_layers)
    assert sorted(layer.name for layer in found.settings.float32_layers) == names[1:3]
    assert all(layer.error > 0.02 for layer in found.settings.float32_layers)
    operators = operators_in_onnxruntime(found.model, tmp_path)
    assert (operators["Conv"], operators["QLinearConv"]) == (4, 1), "beside the first and the last layer"


def test_layers_that_are_returned_to_float_run_in_float_in_openvino(shared):
    found = next(one for one in shared[1] if one.settings.float32_layers)
    by_type = operators_in_openvino(found.model)
    assert sum(count for name, count in by_type.items() if "8" not in name) >= 4


def test_the_same_images_give_the_same_graphs_in_a_bounded_number_of_tries(shared, capsys):
    again = graphs_of(shared[0])
    tries = [line for line in capsys.readouterr().err.splitlines() if "layers in float32: error" in line]
    assert 0 < len(tries) <= MAX_TRIES
    assert [one.model.SerializeToString() for one in again] == [one.model.SerializeToString() for one in shared[1]]
    assert [one.settings for one in again] == [one.settings for one in shared[1]]


class StrictJudge:
    """The error is halved only when no convolution is left in int8."""

    def __init__(self, model, images):
        pass

    def error(self, model):
        constants = {constant.name for constant in model.graph.initializer}
        left = sum(node.op_type == "Conv" and node.input[1] not in constants for node in model.graph.node)
        return 1 + left / 10 if left else 0.0


def test_where_few_layers_do_not_halve_the_error_the_most_accurate_that_were_tried_are_offered(monkeypatch):
    monkeypatch.setattr(int8_repair, "Int8Judge", StrictJudge)
    plain, last = graphs_of(graph(Uneven(shared=True, factor=1)))
    assert not plain.settings.float32_layers
    assert 1 <= len(last.settings.float32_layers) <= last.layers / 2
    assert StrictJudge(None, None).error(last.model) < StrictJudge(None, None).error(plain.model)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6])
def test_equalised_channels_leave_the_answers_and_cost_less_as_int8(activation):
    network = Uneven(False, activation, factor=3000 if activation is nn.ReLU else 1)
    if activation is nn.ReLU6:
        with torch.no_grad():
            network.layers[1].weight[1:] /= 500
            network.layers[1].bias[1:] /= 500
            network.layers[2].weight[:, 1:] *= 500
    exact = graph(network)
    even = equalised(exact, [IMAGES])
    np.testing.assert_allclose(run(even), run(exact), rtol=2e-3, atol=2e-3)
    judge = Int8Judge(exact, [IMAGES])
    plain, better = (judge.error(to_int8(one, [IMAGES], PLAIN, ONNXRUNTIME_INT8)) for one in (exact, even))
    assert better < plain / 4


def test_corrected_biases_undo_the_mean_error_of_a_clipped_input(shared):
    """The range of the second layer's input is cut to a tenth, so that its results are too small."""
    exact = shared[0]
    plan = plain_plan(exact, [IMAGES], PLAIN, ONNXRUNTIME_INT8)
    second = [node for node in exact.graph.node if node.op_type == "Conv"][1].input[0]
    plan.ranges[second] = TensorData(lowest=np.float32(0), highest=plan.ranges[second].highest / 10)
    biases, judge = corrected_biases(plan, [IMAGES]), Int8Judge(exact, [IMAGES])
    assert len(biases) == 3, "the first and the last layer are float32"
    assert judge.error(quantise(replace(plan, biases=biases))) < 0.8 * judge.error(quantise(plan))


def test_an_int8_export_that_is_refused_is_repaired_and_the_card_says_how(tmp_path):
    bundle = export(source_of(Uneven(shared=True)), ExportOptions("int8"), tmp_path / "bundle")
    how = read_bundle(bundle.path).card.calibration
    assert how.float32_layers or how.remedies
    assert all(layer.name in bundle.card.precision_note for layer in how.float32_layers)
    student, measured = bundle.card.evaluations
    assert student.accuracy - measured.accuracy <= 0.003


def test_int8_that_loses_more_than_a_point_however_it_is_repaired_is_not_written(tmp_path):
    source = source_of(Uneven(shared=True))
    lost = replace(source, evaluations=(source.evaluations[0].model_copy(update={"accuracy": 3.0}),))
    with pytest.raises(VerificationError, match=r"int8 loses .* points on noise"):
        export(lost, ExportOptions("int8"), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(("before", "after"), [(1.0, 0.99), (0.9, 0.89), (0.87, 0.86)])
def test_int8_that_loses_exactly_a_point_is_written(tmp_path, before, after):
    """The difference of these floats is a little more than 0.01."""
    assert before - after > 0.01
    source = source_of(Uneven(shared=True, factor=1))
    (student,) = source.evaluations
    known = student.model_copy(update={"accuracy": before})
    same = replace(source, evaluations=(known,), measure=lambda _: student.model_copy(update={"accuracy": after}))
    bundle = export(same, ExportOptions("int8"), tmp_path / "bundle")
    assert [evaluation.accuracy for evaluation in bundle.card.evaluations] == [before, after]


def source_of(network):
    """A source whose classes are what the network says, to which an int8 graph has to keep."""
    images = ParityImages(
        "noise", SPEC, prepared=tuple(np.concatenate([IMAGES, 255 - IMAGES, IMAGES // 2]).reshape(3, 6, 24, 24, 3))
    )
    network = network.eval()
    batches = list(images.batches())
    with torch.inference_mode():
        classes = [network(torch.from_numpy(batch)).argmax(1) for batch in batches]

    def measure(predict):
        right = [predict(torch.from_numpy(b)).logits.argmax(1) == c for b, c in zip(batches, classes, strict=True)]
        share = float(torch.cat(right).float().mean())
        return ClassificationEvaluation(dataset="noise", images=18, accuracy=share, mean_class_accuracy=share)

    return Source(
        stem="uneven",
        name="uneven",
        task="classification",
        network=network,
        spec=SPEC,
        classes=ClassSpec(tuple("abcde")),
        normalisation=Normalisation(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)),
        provenance=PROVENANCE,
        real=images,
        training=lambda: images,
        evaluations=(ClassificationEvaluation(dataset="noise", images=18, accuracy=1, mean_class_accuracy=1),),
        measure=measure,
    )
