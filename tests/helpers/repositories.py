"""What lies in a model repository."""

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from csg.provenance import Engine


def served_config(repository, name="colour"):
    """The configuration in the repository."""
    return text_format.Parse((repository / name / "config.pbtxt").read_text(), ModelConfig())


def content(folder):
    """The bytes of every file below a folder, by path; lock files excepted."""
    return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file() and "lock" not in f.name}


def planned(card, largest=16):
    """The card of a bundle with a TensorRT plan."""
    profile = ((1, 32, 32, 3), (4, 32, 32, 3), (largest, 32, 32, 3))
    engine = Engine(library="tensorrt", version="10", target=("a GPU",), profile=profile)
    return card.model_copy(update={"engine": engine, "format": "tensorrt"})
