"""Permalink: the state of a page as one parameter of its address, which opens the same picture elsewhere.

The parameter is a version, a dot and the base64url text of zlib-compressed JSON. What is read is data from a stranger:
every length is bounded, every number finite, every key known.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
import zlib
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from latentlab.app.ranges import USUAL, Ranges
from latentlab.models.edits import Edit

if TYPE_CHECKING:
    from latentlab.analysis.direction import Direction
    from latentlab.app.components.traverse import Slots

VERSION = "1"
LONGEST = 6000
"""Characters of the parameter: longer addresses are cut off by mail programs, proxies and servers."""

_MOST_BYTES = 64 * 1024  # unpacked
_DIGEST = 16  # characters of the weights' digest
_LARGEST = 2**31


@dataclass(frozen=True, eq=False, kw_only=True)
class View:
    """What a link carries besides the choices that the address names anyway.

    Attributes:
        run: its address.
        weights: beginning of the digest of its weights.
        z: the sliders' numbers, float32; None where there are none.
        slots: the numbers kept as A and B.
        locks: coordinates that the dice leaves alone.
        seed: of the dice.
        space: whose coordinates the sliders move; None for codes of the first space alone.
        directions: name and fingerprint of each direction that has a slider.
        cutoff: how many layers are truncated, 0 for all; None for a model that can't be.
        edits: of all networks.
        keep_edits: whether Traverse draws with them.
        stage: address of the stage whose unit is looked at.
        unit: its number.
        ranges: how far the sliders reach.
        plane: seed at the upper left of the seed plane, and the place on it: columns from the left, rows from the top;
            None for its middle.
    """

    run: str
    weights: str
    z: np.ndarray | None = None
    slots: Slots = (None, None)
    locks: tuple[int, ...] = ()
    seed: int = 0
    space: str | None = None
    directions: tuple[tuple[str, str], ...] = ()
    cutoff: int | None = None
    edits: tuple[Edit, ...] = ()
    keep_edits: bool = False
    stage: str | None = None
    unit: int | None = None
    ranges: Ranges = USUAL
    plane: tuple[int, float, float] | None = None


def short(digest: str) -> str:
    """The beginning of a weights' digest that a link names."""
    return digest[:_DIGEST]


def fingerprint(direction: Direction) -> str:
    """Tells directions of one name apart."""
    text = json.dumps(asdict(direction), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def encode(view: View) -> str:
    """A view as the text of a parameter. A and B are left out where they would make it too long.

    Raises:
        ValueError: if it is too long for an address; one sentence.
    """
    text = _packed(view)
    if len(text) > LONGEST and any(slot is not None for slot in view.slots):
        text = _packed(replace(view, slots=(None, None)))
    if len(text) <= LONGEST:
        return text
    what = "edits" if len(json.dumps([e.to_dict() for e in view.edits])) > LONGEST else "code"
    way = "Layers → Edits" if what == "edits" else "Take away"
    raise ValueError(
        f"This {what if what == 'code' else 'list of edits'} is too long for a link ({len(text):,} characters; at most "
        f"{LONGEST:,}); hand it on as a file, from {way}."
    )


def _packed(view: View) -> str:
    plain = {
        field.name: value
        for field in fields(View)
        if field.name not in ("z", "slots", "edits", "ranges")
        and (value := getattr(view, field.name)) != field.default
    }
    if view.z is not None:
        plain["z"] = _text(view.z)
    if any(slot is not None for slot in view.slots):
        plain["slots"] = [None if slot is None else _text(slot) for slot in view.slots]
    if view.edits:
        plain["edits"] = [edit.to_dict() for edit in view.edits]
    if view.ranges:
        plain["ranges"] = view.ranges.plain()
    raw = json.dumps(plain, separators=(",", ":"), allow_nan=False).encode()
    if len(raw) > _MOST_BYTES:  # would not be read back
        return "x" * len(raw)
    return f"{VERSION}.{base64.urlsafe_b64encode(zlib.compress(raw, 9)).decode().rstrip('=')}"


def _text(numbers: np.ndarray) -> str:
    return base64.b64encode(np.asarray(numbers, "<f4").tobytes()).decode()


def decode(text: str) -> View:
    """The inverse of ``encode``.

    Raises:
        ValueError: on anything else; one sentence.
    """
    if len(text) > LONGEST:
        raise ValueError(f"The link's state has {len(text):,} characters; at most {LONGEST:,} are read.")
    version, dot, body = text.partition(".")
    if dot and version != VERSION and version.isdecimal():
        raise ValueError(
            f"The link's state is of version {version[:9]}; this latentlab reads version {VERSION}."
        )
    if version != VERSION or not re.fullmatch(r"[A-Za-z0-9_-]+", body):
        raise ValueError("The link's state is damaged: it is no text that latentlab wrote.")
    try:
        return _read(_plain(body))
    except (
        binascii.Error,
        zlib.error,
        UnicodeDecodeError,
        RecursionError,
        OverflowError,
        TypeError,
        KeyError,
    ):
        raise ValueError("The link's state is damaged: a part of it is missing or was changed.") from None


def _plain(body: str) -> Any:
    packed = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(packed, _MOST_BYTES)
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("The link's state is damaged: it ends too early or too late.")
    try:
        return json.loads(raw.decode(), parse_constant=_refuse, parse_float=_finite)
    except json.JSONDecodeError:
        raise ValueError("The link's state is damaged: it is no JSON.") from None


def _refuse(name: str) -> None:
    raise ValueError(f"The link's state holds {name}, which is no number.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        _refuse(text[:20])
    return number


def _read(plain: Any) -> View:
    known = {field.name for field in fields(View)}
    if not isinstance(plain, dict) or not {"run", "weights"} <= set(plain) <= known:
        raise ValueError("The link's state is damaged: it does not say what it is about.")
    found = dict(plain)
    for name in ("run", "weights", "space", "stage"):
        if name in found:
            _check(name, isinstance(found[name], str) and len(found[name]) <= 300)
    _check("weights", len(found["weights"]) == _DIGEST)
    for name in ("seed", "cutoff", "unit"):
        if name in found:
            _check(name, _whole(found[name]) and (name == "seed" or found[name] >= 0))
    if "keep_edits" in found:
        _check("keep_edits", isinstance(found["keep_edits"], bool))
    if "z" in found:
        found["z"] = _numbers(found["z"])
    if "slots" in found:
        _check("slots", isinstance(found["slots"], list) and len(found["slots"]) == 2)
        found["slots"] = tuple(None if slot is None else _numbers(slot) for slot in found["slots"])
    if "locks" in found:
        _check("locks", isinstance(found["locks"], list) and all(map(_whole, found["locks"])))
        found["locks"] = tuple(found["locks"])
    if "directions" in found:
        pairs = found["directions"]
        _check("directions", isinstance(pairs, list) and all(map(_is_pair, pairs)))
        found["directions"] = tuple((name, mark) for name, mark in pairs)
    if "edits" in found:
        _check("edits", isinstance(found["edits"], list))
        found["edits"] = tuple(Edit.from_dict(spec) for spec in found["edits"])
    if "ranges" in found:
        found["ranges"] = _ranges(found["ranges"])
    if "plane" in found:
        place = found["plane"]
        _check("plane", isinstance(place, list) and len(place) == 3 and _whole(place[0]) and place[0] >= 0)
        _check("plane", all(_whole(v) or isinstance(v, float) for v in place[1:]))
        found["plane"] = (place[0], float(place[1]), float(place[2]))
    return View(**found)


def _check(name: str, good: bool) -> None:
    if not good:
        raise ValueError(f"The link's state is damaged: its {name.replace('_', ' ')} can't be read.")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST


def _ranges(plain: Any) -> Ranges:
    try:
        return Ranges.read(plain)
    except ValueError as error:
        raise ValueError(f"The link's ranges can't be used. {error}") from None


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)


def _numbers(text: Any) -> np.ndarray:
    _check("code", isinstance(text, str))
    raw = base64.b64decode(text, validate=True)
    _check("code", len(raw) % 4 == 0)
    numbers = np.frombuffer(raw, "<f4").astype(np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError("The link's code holds NaN or infinity, which is no place to go to.")
    return numbers
