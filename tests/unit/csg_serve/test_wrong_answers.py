"""Answers over gRPC that are not what the card says: one error that names the server, and no number in a result."""

import asyncio
import os

import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2

from csg.errors import ServerError
from csg_serve import open_model, stream
from csg_serve.client.shared_memory import FOLDER
from tests.helpers.client import regions
from tests.helpers.small_server import SmallServer, running
from tests.helpers.tiny_bundle import COLOURS, write_scene_bundle

IMAGES = [Image.new("RGB", (40, 40), colour) for colour in COLOURS]


class Wrong(SmallServer):
    """Changes its answers; `values` are those of a segmenter."""

    def __init__(self, change=lambda answer: None, card=None, values=None):
        super().__init__(card)
        self.change, self.values = change, values

    async def ModelInfer(self, request, context):
        answer = await super().ModelInfer(request, context)
        if self.values is not None:
            shape = tuple(request.inputs[0].shape[:3])
            answer.outputs[0].MergeFrom(type(answer.outputs[0])(name="label_map", datatype="UINT8"))
            answer.outputs[0].shape[:] = shape
            answer.raw_output_contents[0] = np.full(shape, self.values, np.uint8).tobytes()
        self.change(answer)
        return answer


def fails(server, match):
    async def run():
        async with running(server), open_model(server.address) as served:
            return [answer async for answer in stream(served, IMAGES)]

    with pytest.raises(ServerError, match=rf"the server at 127.0.0.1:\d+ answers wrongly: {match}"):
        asyncio.run(run())


def _of(**fields):
    return lambda answer: answer.MergeFrom(service_pb2.ModelInferResponse(**fields))


def _output(**fields):
    return lambda answer: answer.outputs[0].MergeFrom(type(answer.outputs[0])(**fields))


WRONG = {
    "another model": _of(model_name="other"),
    "another version": _of(model_version="2"),
    "two outputs": lambda answer: answer.outputs.append(answer.outputs[0]),
    "no outputs": lambda answer: answer.ClearField("outputs"),
    "another output": _output(name="other"),
    "whole numbers": _output(datatype="INT32"),
    "strings": _output(datatype="BYTES"),
    "another rank": _output(shape=[1]),
    "no values": lambda answer: answer.ClearField("raw_output_contents"),
    "two values": lambda answer: answer.raw_output_contents.append(b"1234"),
    "values of another size": lambda answer: answer.raw_output_contents.__setitem__(0, bytes(35)),
}


@pytest.mark.parametrize("kind", WRONG)
def test_an_answer_that_the_card_does_not_promise_is_refused(kind):
    fails(Wrong(WRONG[kind]), r".*; check its bundle with `csg export inspect`, and deploy it again")


@pytest.mark.parametrize("value", [3, 255])
def test_a_class_that_the_model_does_not_have_is_refused(value, tmp_path):
    card = write_scene_bundle(tmp_path / "scenes").card
    fails(Wrong(card=card, values=value), f"scenes answered with class {value}, and has 3")


class Sharing(Wrong):
    """Uses the client's shared memory: what it says of a shape there is checked as any other."""

    async def SystemSharedMemoryRegister(self, request, context):
        return service_pb2.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryStatus(self, request, context):
        return service_pb2.SystemSharedMemoryStatusResponse()

    async def ModelInfer(self, request, context):
        (tensor,) = request.inputs
        place = tensor.parameters
        with (FOLDER / place["shared_memory_region"].string_param).open("r+b") as region:
            size = place["shared_memory_byte_size"].int64_param
            request.raw_input_contents.append(region.read(size))
            answer = await SmallServer.ModelInfer(self, request, context)
            self.change(answer)
            values = answer.raw_output_contents.pop()
            os.pwrite(region.fileno(), values, size)
        return answer


def test_answers_in_shared_memory_are_checked():
    async def run():
        async with running(server := Sharing()), open_model(server.address) as served:
            return [int(answer.argmax()) async for answer in stream(served, IMAGES)]

    assert asyncio.run(run()) == [0, 1, 2]
    fails(Sharing(_output(shape=[2**40])), "colour answered 3 images with logits FP32 ")
    nan = np.full((3, 3), np.nan, np.float32).tobytes()
    fails(Sharing(lambda answer: answer.raw_output_contents.__setitem__(0, nan)), "the logits of colour are not finite")
    fails(Sharing(lambda answer: answer.raw_output_contents.__setitem__(0, b"")), "the logits of colour are not finite")
    assert not regions()
