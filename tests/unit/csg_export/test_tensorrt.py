"""TensorRT-RTX engines, built without a GPU."""

import pytest
import torch

from csg.bundle import read_bundle
from csg.errors import InputError, UsageError, VerificationError
from csg_export.export import export
from csg_export.fp16_graph import in_fp16
from csg_export.int8 import ONNXRUNTIME_INT8, TENSORRT_INT8, to_int8
from csg_export.options import ExportOptions
from csg_export.runners import tensorrt_runner
from csg_export.sources import from_run
from csg_export.tensorrt import EngineOptions, build_engine, open_engine
from tests.helpers.small_networks import CALIBRATION, IMAGES, SPEC, Chain, graph

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_tensorrt_rtx_builds_an_engine_of_every_precision(precision):
    model = graph(Chain())
    if precision == "fp16":
        model = in_fp16(model, ())
    if precision == "int8":
        model = to_int8(model, [IMAGES], CALIBRATION, TENSORRT_INT8)
    options = EngineOptions(batch=(1, 2, 4), compute_capabilities=("8.6",))
    plan, engine = build_engine(model.SerializeToString(), "tensorrt-rtx", SPEC, options)
    assert len(plan) > 1000
    assert engine.target == ("8.6",)
    assert engine.profile == ((1, 24, 24, 3), (2, 24, 24, 3), (4, 24, 24, 3))


def test_an_engine_that_does_not_load_is_refused():
    plan, engine = build_engine(
        graph(Chain()).SerializeToString(), "tensorrt-rtx", SPEC, EngineOptions(compute_capabilities=("8.6",))
    )
    with pytest.raises(VerificationError, match=r"tensorrt-rtx built an engine that it can't load: \S"):
        open_engine(b"x" + plan[1:], engine)


def test_an_engine_for_other_gpus_is_not_run(monkeypatch, capsys):
    model = graph(Chain()).SerializeToString()
    plan, engine = build_engine(model, "tensorrt-rtx", SPEC, EngineOptions(compute_capabilities=("8.6", "8.9")))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    assert tensorrt_runner(plan, engine) is None
    assert "not run: NVIDIA H100 has compute capability 9.0, the engine is for 8.6, 8.9" in capsys.readouterr().err


def test_engines_travel_in_the_bundle(trained, tmp_path):
    options = ExportOptions("fp16", format="tensorrt-rtx", engine=EngineOptions(compute_capabilities=("8.6", "8.9")))
    bundle = export(from_run(trained), options, tmp_path / "bundle")
    again = read_bundle(bundle.path)
    assert again.card.engine.library == "tensorrt-rtx"
    assert again.card.engine.target == ("8.6", "8.9")
    assert again.plan.stat().st_size > 10**6
    assert "model.plan" in (bundle.path / "SHA256SUMS").read_text()
    again.plan.write_bytes(again.plan.read_bytes()[:-1])
    with pytest.raises(VerificationError, match=r"model\.plan"):
        read_bundle(bundle.path)
    again.plan.unlink()
    with pytest.raises(InputError, match=r"model\.plan is missing"):
        read_bundle(bundle.path)


def test_what_an_engine_needs_is_said_in_one_line():
    model = graph(Chain()).SerializeToString()
    with pytest.raises(UsageError, match=r"needs the package tensorrt.*tensorrt-rtx"):
        build_engine(model, "tensorrt", SPEC, EngineOptions())
    with pytest.raises(UsageError, match=r"has no compute capability 6\.1.*8\.6"):
        build_engine(model, "tensorrt-rtx", SPEC, EngineOptions(compute_capabilities=("6.1",)))
    unsigned = to_int8(graph(Chain()), [IMAGES], CALIBRATION, ONNXRUNTIME_INT8)
    with pytest.raises(InputError, match=r"can't read the graph: node \S+ \((De)?[qQ]uantizeLinear\)"):
        build_engine(unsigned.SerializeToString(), "tensorrt-rtx", SPEC, EngineOptions())
