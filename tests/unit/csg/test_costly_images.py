"""Files that would cost too much are refused before anything is decoded; what people have is decoded as ever."""

import io
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

import csg.image_budget
import csg.rgb
from csg.datasets.masks import read_mask
from csg.datasets.scan import scan_files
from csg.errors import InputError
from csg.image_budget import DECODED_BYTES, MemoryBudget
from csg.image_headers import read_header
from csg.images import decode
from tests.helpers.costly_images import BOUNDED, COSTLY, photograph
from tests.helpers.image_files import KINDS, encoded, noise, turned

OPENED = ("png, two headers", "ppm, two numbers in one", "jpeg, cmyk, progressive, 4:4:4:4")
"""Files that Pillow opens before they are refused, still without decoding them."""


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_file_is_refused_before_pillow_sees_it(name, monkeypatch):
    content = COSTLY[name]()
    if name not in OPENED:
        monkeypatch.setattr(Image, "open", pytest.fail)
    monkeypatch.setattr(Image.core, "new", pytest.fail)
    with pytest.raises(InputError, match=r"image x can't be read: .*(the maximum is|contradicts|no size)") as refusal:
        decode(content, "x")
    assert "\n" not in str(refusal.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_scan_of_files_and_masks_refuse_them_too(tmp_path):
    names = [name for name in COSTLY if name not in ("jpeg, exif in 1,000 segments", "jpeg, 30 MB of junk")]
    paths = [tmp_path / str(number) for number in range(len(names))]
    for path, name in zip(paths, names, strict=True):
        path.write_bytes(COSTLY[name]())
    assert [name for name, found in zip(names, scan_files(paths), strict=True) if not found.problem] == []
    for path, name in zip(paths, names, strict=True):
        if name.startswith("png"):
            with pytest.raises(InputError, match="can't be read"):
                read_mask(path)


MEASURE = """
import resource, sys
from csg.errors import InputError
from csg.images import decode
content = sys.stdin.buffer.read()
for kind in sys.argv[1:]:
    decode(open(kind, "rb").read())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode(content)
except InputError:
    pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDED)
def test_decoding_takes_no_more_memory_than_was_foreseen(name, tmp_path):
    """In its own process, which has decoded a small image of each kind before."""
    content, kinds = BOUNDED[name](), ("jpeg", "png", "webp")
    for kind in kinds:
        (tmp_path / kind).write_bytes(KINDS[kind])
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, *(tmp_path / kind for kind in kinds)]
    taken = int(subprocess.run(command, input=content, capture_output=True, check=True).stdout)
    header = read_header(content)
    assert taken <= (header.memory() if header else 0) + 32 * 2**20
    assert header is None or header.memory() <= DECODED_BYTES


@pytest.mark.parametrize("kind", ["bmp", "dib", "ppm", "gif", "tiff", "png", "webp", "jpeg"])
def test_a_header_says_what_pillow_finds(kind):
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"):
        try:
            content = encoded(noise("RGB").convert("RGB" if mode == "I;16" else mode), kind)
        except (OSError, ValueError):  # the format does not have it
            continue
        header = read_header(content)
        with Image.open(io.BytesIO(content)) as image:
            assert (header.format, header.width, header.height) == (kind.upper(), *image.size)


def test_decoding_ends_when_its_cpu_time_is_over(monkeypatch):
    monkeypatch.setattr(csg.image_budget, "MAX_CPU_S", -1.0)
    with pytest.raises(InputError, match="more than -1 s of CPU time"):
        decode(KINDS["large"])


def test_images_wait_for_the_budget_in_their_order():
    budget, order, started = MemoryBudget(10), [], threading.Event()

    def take(amount):
        started.set()
        with budget.hold(amount):
            order.append(amount)

    threads = [threading.Thread(target=take, args=[amount]) for amount in (9, 2)]
    with budget.hold(5):
        for thread in threads:
            started.clear()
            thread.start()
            started.wait()
        while budget._head.acquire(blocking=False):  # until the first of them waits
            budget._head.release()
        assert order == [], "the small one does not pass the large one that was there before"
    for thread in threads:
        thread.join()
    assert sorted(order) == [2, 9]
    with pytest.raises(ValueError, match="the maximum is"), budget.hold(11):
        pass


def test_a_forked_child_starts_with_the_whole_budget():
    budget = MemoryBudget(2**30)
    with budget.hold(2**29):
        child = os.fork()
        if not child:
            with budget.hold(2**30):
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F", "RGBA", "LA", "PA", "P"])
def test_strips_give_the_pixels_of_the_whole_image(mode, monkeypatch):
    values = np.random.default_rng(0).integers(0, 65536, (50, 31), np.uint16)
    if mode in ("I;16", "I;16B"):
        image = Image.frombytes(mode, (31, 50), values.astype(">u2" if mode[-1] == "B" else "<u2").tobytes())
    elif mode in ("I", "F"):
        image = Image.fromarray(values.astype(np.int32 if mode == "I" else np.float32))
    else:
        image = noise("RGBA", (31, 50)).convert(mode) if mode != "P" else noise("RGB", (31, 50)).quantize(9)
    if mode == "P":
        image.info["transparency"] = 3
    whole = np.asarray(decode(image))
    monkeypatch.setattr(csg.rgb, "STRIP", 31 * 7)
    assert np.array_equal(np.asarray(decode(image)), whole)


def test_a_turned_image_is_turned_once():
    once = decode(KINDS["turned"])
    assert once.size == decode(once).size == (23, 37)
    assert np.array_equal(np.asarray(once), np.asarray(decode(once)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "height", "progressive"), [(4032, 3024, True), (8000, 6000, False), (8160, 6120, True)]
)
def test_photographs_are_taken(width, height, progressive):
    content = photograph(width, height, progressive=progressive, exif=turned())
    assert decode(content).size == (height, width)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.new("RGB", (7680, 4320)), "PNG"),
        (Image.new("RGBA", (1440, 30_000)), "PNG"),
        (Image.fromarray(np.zeros((5000, 6000), np.uint16)), "PNG"),
        (Image.new("CMYK", (9000, 6000)), "JPEG"),
        (Image.new("RGB", (8000, 6000)), "TIFF"),
        (Image.new("P", (3840, 2160)), "BMP"),
    ],
)
def test_large_files_of_other_kinds_are_taken(image, kind):
    assert decode(encoded(image, kind)).size == image.size
