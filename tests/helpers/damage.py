"""What can be wrong with a file: a table of damages, for the tests of every reader."""

import json
import os
import re
from pathlib import Path

import numpy as np

DEEP = 10_000
HEADER = 2**15  # bytes
LARGE = 2**20  # bytes of a file that no command changes in place
BOMB = b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 40))
NUMBER = re.compile(rb"(?<![\w.#-])-?\d+(\.\d+)?([eE][-+]?\d+)?(?![\w.-])")
STRING = re.compile(rb'(?<=: )"?[A-Za-z][\w./-]*"?(?=[,}\n])|(?<=")[A-Za-z][\w./ -]*(?=")')
NUMBERS = {
    **{"huge": b"1e999", "of 400 digits": b"1" + 400 * b"0", "of 5000 digits": b"9" * 5000, "not a number": b"NaN"},
    **{"negative": b"-1", "beyond 64 bits": b"18446744073709551616", "a word": b'"many"', "null": b"null"},
    **{"infinite": b"-Infinity", "yaml's nan": b".nan", "an object": b"{}", "true": b"true", "half": b"0.5"},
}
STRINGS = {
    **{"markup": b"[red]bold[/blue]", "html": b"<script>alert(1)</script>", "escape code": b"a\x1b[31mred"},
    **{"escaped escape": b"a\\u001b[2Jb", "surrogate": b"a\\ud800b", "not utf-8": b"caf\xe9", "null byte": b"a\0b"},
    **{
        "escaped null": b"a\\u0000b",
        "line break": b"a\\nb",
        "reversed": "a\u202eb".encode(),
        "path": b"../../etc/passwd",
    },
    **{"empty": b"", "long": b"x" * 5000, "format": b"%s{0}{x!r}"},
}


def _replaced(pattern, content, new, which):
    found = list(pattern.finditer(content))
    if not found:
        return content + new
    match = found[which % len(found)]
    return content[: match.start()] + new + content[match.end() :]


def _double_keys(content):
    """Every `name: value` line twice, and in JSON the first key."""
    content = re.sub(rb"(?m)^([ -]*\w+: [^\n{\[]+)$", rb"\1\n\1", content)
    return re.sub(rb'"(\w+)": ?("[^"]*"|[\d.]+),', rb'"\1":\2,"\1":\2,', content, count=1)


CONTENTS = {
    "empty": lambda content: b"",
    **{f"cut after {part}": lambda content, part=part: content[: int(part * len(content))] for part in (0.1, 0.5, 0.9)},
    "without its last byte": lambda content: content[:-1],
    "without its first byte": lambda content: content[1:],
    "a list": lambda content: b"[]\n",
    "an object": lambda content: b"{}\n",
    "a text": lambda content: b'"text"\n',
    "a number": lambda content: b"1e999\n",
    "null": lambda content: b"null\n",
    "another file": lambda content: b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "lines twice": lambda content: b"".join(2 * line for line in content.splitlines(keepends=True)),
    "twice": lambda content: 2 * content,
    "keys twice": _double_keys,
    "with a byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "in utf-16": lambda content: content.decode(errors="replace").encode("utf-16"),
    "with carriage returns": lambda content: content.replace(b"\n", b"\r\n"),
    "a null byte in the middle": lambda content: content[: len(content) // 2] + b"\0" + content[len(content) // 2 :],
    "brackets": lambda content: b"[" * DEEP,
    "braces": lambda content: b'{"a":' * DEEP,
    "dashes": lambda content: b"- " * DEEP,
    "aliases": lambda content: BOMB,
    "an alias of itself": lambda content: b"&a [*a]\n",
    "random bytes": lambda content: np.random.default_rng(0).bytes(3000),
    "zeros": lambda content: bytes(3000),
    "a line of a megabyte": lambda content: content + b"x" * 2**20 + b"\n",
    **{
        f"number {which} {name}": lambda content, new=new, which=which: _replaced(NUMBER, content, new, which)
        for name, new in NUMBERS.items()
        for which in (0, 1, -1)
    },
    **{
        f"string {which} {name}": lambda content, new=new, which=which: _replaced(STRING, content, new, which)
        for name, new in STRINGS.items()
        for which in (0, -1)
    },
}
"""Contents of a file, by what is wrong with them, as functions of the whole content."""


def _folder(file):
    file.mkdir()


def _link_to_itself(file):
    file.symlink_to(file)


def _link_to_nothing(file):
    file.symlink_to("nowhere")


PLACES = {
    "missing": lambda file: None,
    "a folder": _folder,
    "a link to itself": _link_to_itself,
    "a link to nothing": _link_to_nothing,
}
"""What may be in a file's place."""


def damage(file: Path, kind: str):
    """Damage a file in one of the ways of CONTENTS and PLACES; a hard link of it keeps its content."""
    content = file.read_bytes()
    file.unlink()
    if kind in PLACES:
        PLACES[kind](file)
    elif kind.startswith(("number", "string", "keys")):  # of a large file, in its header
        file.write_bytes(CONTENTS[kind](content[:HEADER]) + content[HEADER:])
    else:
        file.write_bytes(CONTENTS[kind](content))


def leaves(tree, path=()):
    """The places of all values in a JSON value, as tuples of keys and indices."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, value in items for place in leaves(value, (*path, key)))]


def replaced(tree, place, value):
    """A JSON value with another one at a place."""
    if not place:
        return value
    tree = json.loads(json.dumps(tree))
    inner = tree
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return tree


def snapshot(folder: Path):
    """The content of every file but those of locks, or what tells whether a large one was replaced."""
    found = {}
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(where, name)
            if not name.endswith(".lock"):
                found[str(path.relative_to(folder))] = _content(path) if path.is_file() else path.is_dir()
    return found


def _content(file):
    state = file.stat()
    return file.read_bytes() if state.st_size < LARGE else (state.st_ino, state.st_size, state.st_mtime_ns)
