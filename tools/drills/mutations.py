"""Changes of bytes, texts and JSON trees, drawn from a random generator: what files become on the way to a user."""

import copy
import json
import struct
from collections.abc import Sequence
from random import Random
from typing import Any

LARGEST = 1 << 18  # bytes that a mutation may grow an input to

TOKENS: tuple[str, ...] = (
    "\0",
    "\r",
    "\n",
    "\r\n",
    "\t",
    "\v",
    "\f",
    "\x1b[31m",
    "\x7f",
    "\x85",
    "\u2028",
    "\ufeff",
    "\u200b",
    "\u00a0",
    "\u202e",
    "\u0301",
    "é",
    "e\u0301",
    "ü",
    "İ",
    "ﬁ",
    "٣",
    "²",
    "😀",
    "\U0010ffff",
    '"',
    "'",
    ",",
    ";",
    "=1+1",
    "\\",
    "..",
    "../..",
    "/",
    "//",
    "::",
    "#",
    "%",
    "~",
    "-",
    "-1",
    "-0",
    "0",
    "1",
    "1.0",
    "01",
    "1_000",
    "1e999",
    "1e-999",
    "-1e308",
    "nan",
    "NaN",
    "inf",
    "-Infinity",
    "0x10",
    "1,5",
    "9" * 40,
    "True",
    "None",
    "null",
    "{}",
    "[]",
    "{",
    "[",
    "x" * 5000,
    " ",
    "",
)

ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    1 << 31,
    1 << 62,
    10**30,
    0.5,
    -0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "0",
    "1",
    "x",
    "nan",
    "\0",
    "😀",
    [],
    [0],
    [None],
    [1, -1],
    ["a", "a"],
    {},
    {"": 0},
    {"0": "a"},
    {"0": None},
    [[[[]]]],
)

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFF000)


def mutate_bytes(random: Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Returns the content after one to four changes: bits, bytes, chunks, length fields, splices with others."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        change = random.choice(_CHANGES)
        if change is _splice and others:
            changed = _splice(random, changed, random.choice(others))
        elif change is not _splice:
            changed = change(random, changed)
    return bytes(changed[:LARGEST])


def mutate_text(random: Random, text: str, others: Sequence[str] = ()) -> bytes:
    """Returns the text in UTF-8 after changes of its characters and lines, or of its bytes."""
    if random.random() < 0.25:
        return mutate_bytes(random, text.encode(), [other.encode() for other in others])
    for _ in range(random.choice((1, 1, 2, 3))):
        place, draw = random.randint(0, len(text)), random.random()
        end = min(len(text), place + random.choice((0, 1, 1, 2, 5, 20)))
        if draw < 0.6:
            text = text[:place] + random.choice(TOKENS) + text[end:]
        elif draw < 0.7:
            text = text[:place] + text[end:]
        else:
            lines = text.split("\n")
            line = random.randrange(len(lines))
            if draw < 0.8:
                lines.insert(random.randrange(len(lines)), lines[line])
            elif draw < 0.9:
                del lines[line]
            else:
                cells = lines[line].split(",")
                cells[random.randrange(len(cells))] = random.choice(TOKENS)
                lines[line] = ",".join(cells)
            text = "\n".join(lines)
    return text[:LARGEST].encode("utf-8", "surrogatepass")


def mutate_json(random: Random, content: bytes) -> bytes:
    """Returns a JSON document after one to three changes of its tree, or of its bytes."""
    if random.random() < 0.2:
        return mutate_bytes(random, content)
    tree = json.loads(content)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        tree = _change_tree(random, tree)
    text = json.dumps(tree)
    if random.random() < 0.03:
        text = "[" * 100_000 + text
    return text.encode()


def _change_tree(random: Random, tree: Any) -> Any:
    """Returns a copy of the tree, one of whose nodes was replaced, deleted, renamed or wrapped."""
    tree = copy.deepcopy(tree)
    places = [place for place in _places(tree) if place[0] is not None]
    if not places or random.random() < 0.02:
        return random.choice(ODD_VALUES)
    parent, key = random.choice(places)
    draw = random.random()
    if draw < 0.6:
        parent[key] = random.choice(ODD_VALUES)
    elif draw < 0.75:
        del parent[key]
    elif draw < 0.85:
        parent[key] = [parent[key]]
    elif draw < 0.95 and isinstance(parent, dict):
        parent[random.choice((*TOKENS, key + "x"))] = parent[key]
    else:
        other, name = random.choice(places)
        parent[key] = copy.deepcopy(other[name]) if _has(other, name) else None
    return tree


def _has(parent: Any, key: Any) -> bool:
    return key in parent if isinstance(parent, dict) else key < len(parent)


def _places(tree: Any, parent: Any = None, key: Any = None) -> list[tuple[Any, Any]]:
    """Returns every node of a tree as its parent and its key there."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [(parent, key), *(place for name, node in inner for place in _places(node, tree, name))]


def _place(random: Random, content: bytearray) -> int:
    """Returns a place, half of the time in the first bytes, where formats have their headers."""
    end = len(content) if random.random() < 0.5 else min(64, len(content))
    return random.randrange(end) if end else 0


def _span(random: Random, content: bytearray) -> tuple[int, int]:
    begin = _place(random, content)
    return begin, min(len(content), begin + random.choice((1, 2, 4, 8, 16, 100, 1000)))


def _flip(random: Random, content: bytearray) -> bytearray:
    if content:
        content[_place(random, content)] ^= 1 << random.randrange(8)
    return content


def _set(random: Random, content: bytearray) -> bytearray:
    if content:
        content[_place(random, content)] = random.randrange(256)
    return content


def _field(random: Random, content: bytearray) -> bytearray:
    """Sets a field of 2, 4 or 8 bytes, as lengths are, to an extreme value."""
    order, code = random.choice("<>"), random.choice("HIIQ")
    value = random.choice(EXTREMES) if random.random() < 0.8 else random.randrange(1 << 16)
    packed = struct.pack(order + code, value & (1 << 8 * struct.calcsize(code)) - 1)
    begin = _place(random, content)
    content[begin : begin + len(packed)] = packed
    return content


def _cut(random: Random, content: bytearray) -> bytearray:
    return content[: _place(random, content)]


def _cut_start(random: Random, content: bytearray) -> bytearray:
    return content[_place(random, content) :]


def _delete(random: Random, content: bytearray) -> bytearray:
    begin, end = _span(random, content)
    return content[:begin] + content[end:]


def _duplicate(random: Random, content: bytearray) -> bytearray:
    begin, end = _span(random, content)
    return content[:end] + content[begin:]


def _repeat(random: Random, content: bytearray) -> bytearray:
    begin, end = _span(random, content)
    return content[:end] + content[begin:end] * random.choice((10, 1000)) + content[end:]


def _insert(random: Random, content: bytearray) -> bytearray:
    begin = _place(random, content)
    return content[:begin] + random.randbytes(random.choice((1, 2, 4, 16, 300))) + content[begin:]


def _insert_token(random: Random, content: bytearray) -> bytearray:
    begin = _place(random, content)
    return content[:begin] + random.choice(TOKENS).encode() + content[begin:]


def _zeros(random: Random, content: bytearray) -> bytearray:
    begin, end = _span(random, content)
    content[begin:end] = bytes(end - begin)
    return content


def _splice(random: Random, content: bytearray, other: bytes = b"") -> bytearray:
    return content[: _place(random, content)] + other[_place(random, bytearray(other)) :]


_CHANGES = (
    _flip,
    _flip,
    _set,
    _field,
    _field,
    _cut,
    _cut_start,
    _delete,
    _duplicate,
    _repeat,
    _insert,
    _insert_token,
    _zeros,
    _splice,
)
