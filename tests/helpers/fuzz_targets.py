"""What is fuzzed: readers of files from elsewhere, each as a function of bytes, and whole files to start from.

A target says whether the file was taken. One that is refused has a CsgError of one line; anything else that comes out
is a defect. While a target is at work every file that Python opens, makes, renames or removes is watched: none may be
outside its own folder, or behind a link that leads out of it.
"""

import atexit
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import onnx  # noqa: F401  # before anything is watched, as all that is imported late
from google.protobuf import text_format
from PIL import Image

from csg.bundle import read_bundle
from csg.card import ClassificationInput, SegmentationInput, parse_card
from csg.errors import CsgError, UsageError
from csg.files import validate_name
from csg.images import decode, prepare, prepare_segmentation
from csg_serve.repository.deploy import deploy
from csg_serve.repository.rollback import roll_back
from csg_serve.triton.config import card_of, config_text, encoded_config, model_config, read_config
from csg_serve.triton.deploy_options import DeployOptions
from tests.helpers.tiny_bundle import tiny_card, write_colour_bundle, write_scene_bundle

SPEC, SCENE_SPEC = (
    ClassificationInput(height=24, width=24, resize_shorter_side=32),
    SegmentationInput(height=64, width=64),
)
HOSTILE = (
    *(b"../x", b"../../outside/secret", b"/etc/passwd", b"\0", b"-1", b"1e999", b"NaN", b"null", b"[]", b"{}", b'"'),
    *(b"9" * 40, b"\xff\xfe", b"\xed\xa0\x80", b"[" * 300, b"{" * 300, b"\n", b"\r", b"\x1b[2J", b"%s%n", b"true"),
)

SHARED = "/dev/shm" if Path("/dev/shm").is_dir() else None  # in memory: nothing there waits for a disk
_home = Path(tempfile.mkdtemp(prefix="csg-fuzz-", dir=os.environ.get("CSG_FUZZ", SHARED)))
atexit.register(shutil.rmtree, _home, ignore_errors=True)
_allowed: tuple[str, ...] | None = None  # folders, while a target is at work
_escapes: list[str] = []
_EVENTS = ("open", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate")


def _watch(event, args):
    if _allowed is None or event not in _EVENTS:
        return
    for path in args[:2] if event in ("os.rename", "os.link", "os.symlink") else args[:1]:
        if isinstance(path, int) or "/" not in (name := os.fsdecode(path)):  # a name in an open folder: shutil.rmtree
            continue
        place = os.path.realpath(name)
        if not place.startswith(_allowed):
            _escapes.append(f"{event} {place}")


sys.addaudithook(_watch)


@contextmanager
def _inside(*folders):
    """Python's own files, the package's, what counts the cores, and these folders are all that may be touched."""
    global _allowed
    own = (sys.prefix, sys.base_prefix, Path(__file__).parents[2], "/dev/null", Path(tempfile.gettempdir(), "tmp"))
    cores = ("/proc/self/cgroup", "/sys/fs/cgroup")
    _allowed = tuple(os.path.realpath(folder) for folder in (*own, *cores, *folders))
    _escapes.clear()
    try:
        yield
    finally:
        _allowed = None
        if _escapes:
            raise AssertionError(f"outside: {_escapes}")


@contextmanager
def _refusing():
    """An error for the user may come, and is one line."""
    try:
        yield
    except CsgError as error:
        if "\n" in str(error):
            raise AssertionError("an error of several lines") from error


def image(data):
    """The decoder path: bytes to the input of a classifier and of a segmenter."""
    with _refusing(), _inside(), warnings.catch_warnings(action="ignore"):
        found = decode(data)
        assert found.mode == "RGB"
        assert prepare(found, SPEC).shape == (24, 24, 3)
        scene = prepare_segmentation(found, SCENE_SPEC)
        assert scene.pixels.shape == (64, 64, 3)
        if found.width * found.height < 2**20:
            assert scene.restore(np.zeros((64, 64), np.uint8)).shape == (found.height, found.width)
        return True
    return False


def card(data):
    """card.json; what is read comes through a configuration unchanged."""
    found = None
    with _refusing(), _inside():
        found = parse_card(data, "card.json")
    if found is None:
        return False
    with _inside():
        with suppress(UsageError):
            DeployOptions(backend="python").check(found)
        for backend in ("python", "onnxruntime"):
            config = model_config(found, validate_name(found.name, "model name"), 1, DeployOptions(backend=backend))
            again = text_format.Parse(config_text(config), type(config)())
            assert card_of(again, "config.pbtxt") == found
        encoded_config(found, found.name, 1)
    return True


def config(data):
    """config.pbtxt: of a model in a repository that is deployed to and rolled back."""
    repository = _fresh("config", _repository)
    (repository / "colour" / "config.pbtxt").write_bytes(data)
    with _inside(repository, repository.parent / "bundle"):
        found = read_config(repository / "colour" / "config.pbtxt")
        if found is not None:
            with _refusing():
                card_of(found, "config.pbtxt")
        with _refusing():
            roll_back(repository, "colour", None)
        with _refusing():
            deploy(read_bundle(repository.parent / "bundle"), repository, "colour")
            return True
    return False


def bundle(data):
    """A bundle's folder: files changed, removed, linked elsewhere, beside others of any name; and deployed."""
    path = _fresh("bundle", lambda folder: write_colour_bundle(folder / "bundle"))
    folder = path / "bundle"
    stream = io.BytesIO(data)
    while (step := stream.read(3)) and len(step) == 3:
        _change(folder, *step, stream)
    (path / "repository").mkdir()
    with _refusing(), _inside(folder, path / "repository"):
        deploy(read_bundle(folder), path / "repository")
        return True
    return False


TARGETS = {"image": image, "card": card, "config": config, "bundle": bundle}


def seeds(target):
    """Whole files to start from."""
    if target == "image":
        return _pictures()
    folder = Path(tempfile.mkdtemp(dir=_home))
    if target == "card":
        scene = write_scene_bundle(folder / "scene")
        return [tiny_card().to_json(indent=1).encode(), (scene.path / "card.json").read_bytes(), _full_card()]
    if target == "config":
        _repository(folder)
        return [(folder / "colour" / "config.pbtxt").read_bytes()]
    return [b"", *(bytes([kind, 0, name]) for kind in range(len(_CHANGES)) for name in range(6))]


def _full_card():
    tree = json.loads(tiny_card().to_json())
    tree["engine"] = {
        "library": "tensorrt", "version": "10", "target": ["any"], "portable": True,
        "profile": [[1, 32, 32, 3], [4, 32, 32, 3], [16, 32, 32, 3]],
    }  # fmt: skip
    tree["calibration"] = {"source": "s", "images": 9, "method": "minmax", "fp32_first_last": True}
    tree["evaluations"] = [{"dataset": "d", "images": 2, "accuracy": 0.5, "mean_class_accuracy": 0.5}]
    return json.dumps(tree).encode()


def _pictures():
    """Small images of every format and many modes, some turned by EXIF, some animated."""
    exif, found = Image.Exif(), []
    exif[0x0112] = 6
    noise = Image.effect_noise((20, 12), 60)
    for kind, modes in {
        "JPEG": ("L", "RGB", "CMYK"), "PNG": ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"), "GIF": ("P", "L"),
        "WEBP": ("RGB", "RGBA"), "BMP": ("1", "L", "P", "RGB"), "PPM": ("L", "RGB"),
        "TIFF": ("1", "L", "RGB", "RGBA", "CMYK", "F", "I;16", "LAB"),
    }.items():  # fmt: skip
        for mode in modes:
            converted = noise.convert("I").convert(mode) if mode.startswith("I;") else _as(noise, mode)
            for options in _SAVED.get(kind, [{}]):
                stream = io.BytesIO()
                turned = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
                with suppress(OSError):  # no such compression of this mode
                    converted.save(stream, kind, **turned, **options)
                    found.append(stream.getvalue())
    stream = io.BytesIO()
    noise.convert("P").save(stream, "GIF", save_all=True, append_images=[noise.convert("P")])
    return [*found, stream.getvalue()]


_SAVED = {
    "JPEG": [{}, {"progressive": True}],
    "TIFF": [{}, *({"compression": name} for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"))],
    "WEBP": [{}, {"lossless": True}],
}


def _as(noise, mode):
    return Image.new("LAB", noise.size) if mode == "LAB" else noise.convert("RGB").convert(mode)


def _repository(folder):
    """A repository with two versions of a model, and the bundle beside it."""
    made = write_colour_bundle(folder.parent / "bundle") if not (folder.parent / "bundle").exists() else None
    for _ in range(2):
        deploy(made or read_bundle(folder.parent / "bundle"), folder)


_made: dict[str, Path] = {}


def _fresh(name, make):
    """A copy of what `make` writes, in the folder of that name; the one before is removed."""
    if name not in _made:
        _made[name] = Path(tempfile.mkdtemp(dir=_home)) / name
        _made[name].mkdir()
        make(_made[name])
    work = _made[name].parent / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(_made[name], work)
    return work


_NAMES = ("card.json", "model.onnx", "labels.txt", "SHA256SUMS", "model.onnx.data", "model.plan")
_CHANGES = ("byte", "cut", "remove", "folder", "link out", "link in", "pipe", "hostile", "rehash", "beside")


def _change(folder, kind, place, name, stream):
    """One change of a bundle's folder."""
    file = folder / _NAMES[name % len(_NAMES)]
    outside = folder.parent.parent / "outside"
    outside.write_bytes(b"nobody may read this")
    change = _CHANGES[kind % len(_CHANGES)]
    content = file.read_bytes() if file.is_file() and not file.is_symlink() else b""
    word = HOSTILE[place % len(HOSTILE)]
    if change == "rehash":
        _rehash(folder)
        return
    if change == "beside":
        with suppress(OSError, ValueError):
            (folder / os.fsdecode(word.replace(b"/", b"_")[:100])).write_bytes(stream.read(4))
        return
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    file.unlink(missing_ok=True)
    at = place * len(content) // 256
    if change == "byte":
        file.write_bytes(content[:at] + stream.read(1) + content[at + 1 :])
    elif change == "cut":
        file.write_bytes(content[:at])
    elif change == "hostile":
        file.write_bytes(content[:at] + word + content[at:])
    elif change == "folder":
        file.mkdir()
    elif change == "link out":
        file.symlink_to((outside, "../../outside", "/etc/passwd", "/dev/zero", "..")[place % 5])
    elif change == "link in":
        file.symlink_to(_NAMES[place % len(_NAMES)])
    elif change == "pipe":
        os.mkfifo(file)


def _rehash(folder):
    """SHA256SUMS that fit, as one who means harm would write them."""
    lines = []
    for name in _NAMES:
        if name != "SHA256SUMS" and (folder / name).is_file():
            with (folder / name).open("rb") as file:
                lines.append(f"{hashlib.sha256(file.read(2**20)).hexdigest()}  {name}\n")
    sums = folder / "SHA256SUMS"
    if sums.is_dir() and not sums.is_symlink():
        shutil.rmtree(sums)
    sums.unlink(missing_ok=True)
    sums.write_text("".join(lines))
