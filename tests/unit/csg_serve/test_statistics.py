"""Counters of a model: what its warm-up adds to them."""

import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig

from csg_serve.client.models import ModelState
from csg_serve.client.statistics import ModelStatistics, warm_up_statistics


def config(instances, gpus=(), samples=((0, 1), (0, 32))):
    made = ModelConfig()
    made.instance_group.add(count=instances, gpus=gpus)
    for count, size in samples:
        made.model_warmup.add(count=count, batch_size=size)
    return made


@pytest.mark.parametrize(
    ("config", "images", "executions"),
    [
        (config(2), 66, 4),
        (config(2, gpus=(0, 1)), 132, 8),
        (config(1, samples=((3, 2),)), 6, 3),
        (config(4, samples=()), 0, 0),
        (ModelConfig(), 0, 0),
    ],
)
def test_every_instance_computes_every_sample(config, images, executions):
    assert warm_up_statistics(config) == ModelStatistics(requests=images, images=images, executions=executions)


def test_a_server_that_does_not_count_its_warm_up_is_believed():
    state = ModelState(
        "a", 1, "READY", "", ModelStatistics(requests=3, images=3), ModelStatistics(requests=66, images=66)
    )
    assert (state.answered.requests, state.to_dict()["images"]) == (3, 3)
