"""Change valid data a little: flipped bits, splices, swapped values, numbers at their extremes."""

from __future__ import annotations

import json
import pickle
import struct
from random import Random
from typing import Any

_NUMBERS = (0, 1, -1, 2, 3, 255, 2**31, 2**40, 2**53, 2**63, 2**64, 10**30, 10**400, 0.5, -0.0)
_FLOATS = (1e308, 1e-320, float("nan"), float("inf"), float("-inf"))
_TEXTS = ("", "0", "-1", "x" * 3000, "\x1b[31mred\x07", "\u202eabc", "\ud800", "a\0b", "9" * 5000,
          "²", "../../x", "nan", "blocks.99999999999.a.weight", "re:(.*.*.*.*.*.*.*.*)!", "[" * 400,
          "/dev/null", "weight", "nvfp4", "F32")  # fmt: skip
_OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": None}, [2**40, 0])
_TOKENS = (b"\0", b"\xff", b"\n", b'"', b"{", b"}", b"[", b",", b"1e999", b"NaN", b"\x1b[2J",
           b"\xed\xa0\x80", b"[" * 2000, b"9" * 5000, b"\\ud800", b"-", b"=", b"\t")  # fmt: skip


def mutated_bytes(random: Random, data: bytes, edits: int = 3) -> bytes:
    """Return bytes after a few flips, cuts, splices and tokens, mostly near the beginning."""
    made = bytearray(data)
    for _ in range(random.randint(1, edits)):
        near = random.random() < 0.7
        at = random.randrange(min(len(made), 4096) if near else len(made)) if made else 0
        kind = random.randrange(6)
        if kind == 0 and made:
            made[at] ^= 1 << random.randrange(8)
        elif kind == 1 and made:
            made[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            made[at : at + random.randint(1, 64)] = b""
        elif kind == 3:
            start = random.randrange(len(made)) if made else 0
            made[at:at] = made[start : start + random.randint(1, 200)]
        elif kind == 4:
            made[at:at] = random.choice(_TOKENS)
        else:
            size = random.choice((1, 2, 4, 8))
            value = random.choice((0, 1, 2**31, 2**40, 2**63 - 1, 2**64 - 1)) % (1 << 8 * size)
            made[at : at + size] = value.to_bytes(size, "little")
    return bytes(made)


def mutated_value(random: Random, data: Any, edits: int = 2) -> Any:
    """Return JSON data in which a few values or names are others."""
    made = [_copied(data)]
    for _ in range(random.randint(1, edits)):
        holder, key = random.choice(_places(made))
        kind = random.randrange(7)
        if kind == 0:
            del holder[key]
            if not made:
                made.append(None)
        elif kind == 1 and isinstance(holder, dict):
            holder[random.choice(_TEXTS)] = holder.pop(key)
        elif kind == 2:
            other, place = random.choice(_places(made))
            holder[key] = _copied(other[place])
        elif kind == 3 and isinstance(holder, list):
            few = isinstance(holder[key], (dict, list))
            holder[key:key] = [_copied(holder[key])] * (2 if few else 100)
        else:
            holder[key] = _copied(_extreme(random))
    return made[0]


def mutated_json(random: Random, data: Any) -> bytes:
    """Return JSON text of mutated data, sometimes broken as text."""
    text = json.dumps(mutated_value(random, data)).encode()
    if random.random() < 0.15:
        text = mutated_bytes(random, text)
    if random.random() < 0.02:
        text = b"[" * random.choice((70, 900, 5000)) + text
    return text


def mutated_text(random: Random, text: str) -> str:
    """Return a text after a few edits."""
    made = mutated_bytes(random, text.encode()).decode("utf-8", "replace")
    return made + random.choice(_TEXTS) if random.random() < 0.2 else made


def mutated_safetensors(random: Random, data: bytes) -> bytes:
    """Return a safetensors file with another header, whose length is right, or other bytes."""
    if random.random() < 0.2:
        return mutated_bytes(random, data)
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.update({k: v for k, v in _in_metadata(random, header).items() if v})
    text = mutated_json(random, header) if random.random() < 0.7 else json.dumps(header).encode()
    body = data[8 + length :]
    if random.random() < 0.2:
        body = mutated_bytes(random, body)
    return struct.pack("<Q", len(text)) + text + body


def _in_metadata(random: Random, header: dict[str, Any]) -> dict[str, Any]:
    """Return metadata of which one text that is JSON is mutated inside."""
    metadata = dict(header.get("__metadata__") or {})
    if metadata and random.random() < 0.6:
        key = random.choice(sorted(metadata))
        try:
            inner = mutated_json(random, json.loads(metadata[key]))
            metadata[key] = inner.decode("utf-8", "replace")
        except ValueError:
            metadata[key] = mutated_text(random, metadata[key])
    return {"__metadata__": metadata}


def _copied(data: Any) -> Any:
    """Return a copy that shares nothing, several times as fast as `copy.deepcopy`."""
    return pickle.loads(pickle.dumps(data, pickle.HIGHEST_PROTOCOL))


def _extreme(random: Random) -> Any:
    return random.choice(random.choice((_NUMBERS, _FLOATS, _TEXTS, _OTHERS)))


def _places(data: Any) -> list[tuple[Any, Any]]:
    """Return every place in nested data as its holder and its key."""
    found: list[tuple[Any, Any]] = []
    waiting = [data]
    while waiting and len(found) < 3000:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                waiting.append(holder[key])
    return found
