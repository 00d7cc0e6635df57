"""`config.pbtxt` and the options of `csg deploy` behind it."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

import csg_serve.repository.deploy
import csg_serve.repository.versions
import csg_serve.triton.deploy_options
from csg.bundle import Bundle
from csg.card import parse_card
from csg.errors import UsageError
from csg_serve.repository.deploy import deploy
from csg_serve.triton.config import (
    CARD_PARAMETER,
    CONFIG,
    config_text,
    encoded_config,
    model_config,
    needs_openvino,
    repository_flags,
)
from csg_serve.triton.deploy_options import DeployOptions, advice, max_batch_size, resolve, with_cpu_defaults
from tests.helpers.repositories import planned
from tests.helpers.tiny_bundle import tiny_card, write_scene_bundle


def test_batches_are_bounded_by_their_pixels(tmp_path):
    free, small = (write_scene_bundle(tmp_path / n, n, side).card for n, side in (("free", None), ("small", 64)))
    large = write_scene_bundle(tmp_path / "large", "large", 2048).card
    assert [max_batch_size(card) for card in (free, small, large, tiny_card())] == [4, 32, 1, 32]
    config = model_config(free, "free", 1, DeployOptions(backend="python"))
    assert list(config.input[0].dims) == [-1, -1, 3]
    assert list(config.output[0].dims) == [-1, -1]
    assert config.max_batch_size == 4


@pytest.mark.parametrize(
    ("backend", "kind"), [("python", ModelInstanceGroup.KIND_MODEL), ("onnxruntime", ModelInstanceGroup.KIND_AUTO)]
)
def test_the_configuration_is_tritons_own_message_and_carries_the_card(backend, kind):
    config = model_config(tiny_card(), "shades", 3, DeployOptions(backend=backend))
    assert text_format.Parse(config_text(config), ModelConfig()) == config
    assert (config.name, config.backend, config.instance_group[0].kind) == ("shades", backend, kind)
    assert (config.input[0].name, list(config.input[0].dims)) == ("image", [32, 32, 3])
    assert ModelConfig.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number[
        config.input[0].data_type
    ].name == ("TYPE_UINT8")
    assert list(config.output[0].dims) == [3]
    assert list(config.version_policy.specific.versions) == [3]
    assert parse_card(config.parameters[CARD_PARAMETER].string_value, "here") == tiny_card()


def test_the_defaults_are_these():
    config = model_config(tiny_card(), "colour", 1, DeployOptions(backend="onnxruntime"))
    assert (config.max_batch_size, config.dynamic_batching.max_queue_delay_microseconds) == (32, 100)
    assert [sample.batch_size for sample in config.model_warmup] == [1, 32]
    assert config.model_warmup[0].inputs["image"].dims == [32, 32, 3]
    assert (len(config.instance_group), config.instance_group[0].count) == (1, 1)
    assert not config.dynamic_batching.preferred_batch_size
    assert not config.dynamic_batching.HasField("default_queue_policy")
    assert not config.HasField("response_cache")
    assert not config.HasField("optimization")
    assert not config.instance_group[0].HasField("rate_limiter")


def test_a_cpu_gets_two_instances_and_batches_of_an_image_a_core(monkeypatch):
    monkeypatch.setattr(csg_serve.triton.deploy_options, "available_cores", lambda: 6)
    monkeypatch.setattr(csg_serve.triton.deploy_options, "has_gpu", lambda: False)

    def chosen(backend="python", card=None, **given):
        options = with_cpu_defaults(DeployOptions(backend=backend, **given), card or tiny_card())
        return options.instances, options.preferred_batch

    assert chosen() == (2, (6,))
    assert chosen(max_batch=4) == (2, (4,))
    assert chosen(instances=3, preferred_batch=(2,)) == (3, (2,))
    assert chosen("onnxruntime") == (None, ())
    assert chosen("onnxruntime", device="cpu") == (6, ())
    assert chosen("onnxruntime", device="cpu", instances=3) == (3, ())
    assert chosen(card=tiny_card().model_copy(update={"runtime": "openvino", "compute_type": "bf16"})) == (2, (6,))
    monkeypatch.setattr(csg_serve.triton.deploy_options, "has_gpu", lambda: True)
    assert chosen() == (None, ())
    assert chosen(device="cpu") == (2, (6,))


@pytest.mark.parametrize("gpu", [True, False])
def test_the_onnxruntime_backend_gets_threads_for_its_instances(monkeypatch, tmp_path, gpu):
    """On a CPU by name a classifier's have one each, and a segmenter's share the cores out; on a GPU one."""
    monkeypatch.setattr(csg_serve.triton.deploy_options, "available_cores", lambda: 6)
    monkeypatch.setattr(csg_serve.triton.deploy_options, "has_gpu", lambda: gpu)
    scenes = write_scene_bundle(tmp_path / "scenes").card

    def threads(card, **given):
        options = resolve(DeployOptions(backend="onnxruntime", **given), card)
        config = model_config(card, "model", 1, options)
        return config.instance_group[0].count, config.parameters["intra_op_thread_count"].string_value

    assert threads(tiny_card(), device="cpu") == (6, "1")
    assert threads(tiny_card()) == (1, "1" if gpu else "6")
    assert threads(tiny_card(), device="gpu") == (1, "1")
    assert threads(scenes, device="cpu") == (1, "6")
    assert threads(scenes, device="cpu", instances=4) == (4, "1")
    assert threads(scenes) == (1, "1" if gpu else "6")
    assert "intra_op_thread_count" not in model_config(tiny_card(), "m", 1, DeployOptions(backend="python")).parameters


@pytest.mark.parametrize(
    ("backend", "device", "gpu", "says"),
    [
        ("python", "cpu", True, "fp16 on a CPU: the server computes it in fp32"),
        ("python", "auto", False, "fp16 on a CPU: the server computes it in fp32"),
        ("onnxruntime", "auto", False, "fp16 on a CPU: up to twice the CPU time"),
        ("onnxruntime", "cpu", True, "fp16 on a CPU: up to twice the CPU time"),
        ("python", "auto", True, None),
        ("onnxruntime", "gpu", False, None),
    ],
)
def test_what_fp16_costs_on_a_cpu_is_said(monkeypatch, backend, device, gpu, says):
    monkeypatch.setattr(csg_serve.triton.deploy_options, "has_gpu", lambda: gpu)
    options = DeployOptions(backend=backend, device=device)
    half = tiny_card().model_copy(update={"compute_type": "fp16"})
    assert [line[: len(says)] for line in advice(options, half)] == [says] if says else not advice(options, half)
    assert advice(options, tiny_card()) == []


def test_the_oldest_server_is_said():
    card = tiny_card().model_copy(update={"oldest_runtime": "1.18"})
    (line,) = advice(DeployOptions(backend="onnxruntime"), card)
    assert line == "needs ONNX Runtime 1.18 or later, which Triton's images have from 24.05 on"


def test_every_option_has_its_field():
    options = DeployOptions(
        backend="onnxruntime",
        max_batch=8,
        preferred_batch=(8, 4),
        queue_delay_ms=2,
        queue_size=100,
        timeout_ms=0.5,
        instances=3,
        device="gpu",
        warm_up=False,
        response_cache=True,
        rate_limit=("memory:2", "cores:1"),
        priority=3,
        accelerator="tensorrt",
        engine_cache="/engines/",
    )
    card = tiny_card().model_copy(update={"compute_type": "fp16"})
    options.check(card)
    config = model_config(card, "colour", 1, options)
    assert text_format.Parse(config_text(config), ModelConfig()) == config
    batching, group = config.dynamic_batching, config.instance_group[0]
    assert (config.max_batch_size, list(batching.preferred_batch_size)) == (8, [4, 8])
    assert batching.max_queue_delay_microseconds == 2000
    policy = batching.default_queue_policy
    assert (policy.max_queue_size, policy.default_timeout_microseconds, policy.allow_timeout_override) == (
        100,
        500,
        True,
    )
    assert policy.timeout_action == type(policy).REJECT
    assert (group.kind, group.count, group.rate_limiter.priority) == (ModelInstanceGroup.KIND_GPU, 3, 3)
    assert [(one.name, one.count) for one in group.rate_limiter.resources] == [("memory", 2), ("cores", 1)]
    assert not config.model_warmup
    assert config.response_cache.enable
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    parameters = dict(accelerator.parameters)
    assert accelerator.name == "tensorrt"
    assert parameters.pop("trt_engine_cache_path").startswith("/engines/csg-colour-")
    assert parameters == {
        "precision_mode": "FP16",
        "trt_engine_cache_enable": "true",
        "trt_profile_min_shapes": "image:1x32x32x3",
        "trt_profile_opt_shapes": "image:8x32x32x3",
        "trt_profile_max_shapes": "image:8x32x32x3",
    }
    beside = encoded_config(card, "colour", 1, options)
    assert beside.dynamic_batching == batching
    assert not beside.HasField("response_cache"), "after a way back its answers would be another version's"


def test_engines_of_another_model_are_not_taken():
    """ONNX Runtime does not notice other weights."""
    first, second = (tiny_card().model_copy(update={"precision_note": note}) for note in ("one", "two"))
    options = DeployOptions(backend="onnxruntime", accelerator="tensorrt")
    paths = {
        model_config(card, "colour", 1, options)
        .optimization.execution_accelerators.gpu_execution_accelerator[0]
        .parameters["trt_engine_cache_path"]
        for card in (first, second)
    }
    assert len(paths) == 2


@pytest.mark.parametrize(
    ("backend", "device", "kind"),
    [
        ("python", "auto", ModelInstanceGroup.KIND_MODEL),
        ("python", "cpu", ModelInstanceGroup.KIND_CPU),
        ("onnxruntime", "auto", ModelInstanceGroup.KIND_AUTO),
        ("onnxruntime", "gpu", ModelInstanceGroup.KIND_GPU),
        ("tensorrt", "auto", ModelInstanceGroup.KIND_GPU),
    ],
)
def test_devices(backend, device, kind):
    config = model_config(tiny_card(), "colour", 1, DeployOptions(backend=backend, device=device))
    assert config.instance_group[0].kind == kind


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (DeployOptions(backend="tensorrt", max_batch=17), "--max-batch 17 is above the plan's largest batch, 16"),
        (
            DeployOptions(backend="tensorrt", preferred_batch=(4, 64)),
            "--preferred-batch 64 is above the largest",
        ),
        (DeployOptions(backend="python", accelerator="tensorrt"), "needs the onnxruntime backend, not python"),
        (DeployOptions(backend="tensorrt", device="cpu"), "TensorRT does not run on a CPU"),
        (DeployOptions(backend="onnxruntime", device="cpu", accelerator="tensorrt"), "TensorRT does not run on a CPU"),
        (DeployOptions(backend="python", rate_limit=("cores",)), "--rate-limit cores is not of the form NAME:COUNT"),
        (
            DeployOptions(backend="python", rate_limit=("cores:0",)),
            "--rate-limit cores:0 is not of the form",
        ),
        (DeployOptions(backend="python", priority=1), "--priority needs a rate limit"),
        (DeployOptions(backend="python", formats="jpeg,heic"), "--formats 'heic' is no format"),
    ],
)
def test_options_that_do_not_fit_are_named(bundle, repository, options, says):
    with pytest.raises(UsageError, match=says):
        deploy(Bundle(bundle.path, planned(bundle.card)), repository, options=options)
    assert not repository.exists()


def test_a_bf16_bundle_stays_on_the_cpu_and_in_the_python_backend():
    card = tiny_card().model_copy(update={"runtime": "openvino", "compute_type": "bf16"})
    with pytest.raises(UsageError, match="OpenVINO computes this bundle, on a CPU"):
        DeployOptions(backend="python", device="gpu").check(card)
    with pytest.raises(UsageError, match="in the python backend"):
        DeployOptions(backend="onnxruntime").check(card)
    with pytest.raises(UsageError, match="tensorrt does not compute in bf16"):
        options = DeployOptions(backend="onnxruntime", accelerator="tensorrt")
        options.check(card.model_copy(update={"runtime": "onnxruntime"}))


def test_the_server_is_started_with_what_the_models_need(bundle, repository, tmp_path):
    (tmp_path / "triton" / "caches").mkdir(parents=True)
    executable = tmp_path / "triton" / "bin" / "tritonserver"
    deploy(bundle, repository)
    assert repository_flags(repository, executable) == []
    deploy(bundle, repository, options=DeployOptions(response_cache=True, rate_limit=("cores:1",)))
    flags = repository_flags(repository, executable)
    assert flags == [
        "--cache-config=local,size=67108864",
        f"--cache-directory={tmp_path}/triton/caches",
        "--rate-limit=execution_count",
    ]


def test_a_repository_needs_openvino_if_one_of_its_models_does(repository):
    needs = {}
    for runtime in ("onnxruntime", "openvino"):
        card = tiny_card().model_copy(update={"runtime": runtime})
        (repository / runtime).mkdir(parents=True)
        config = model_config(card, runtime, 1, DeployOptions(backend="python"))
        (repository / runtime / CONFIG).write_text(config_text(config))
        needs[runtime] = needs_openvino(repository)
    assert needs == {"onnxruntime": False, "openvino": True}
    assert not needs_openvino(repository / "missing")
