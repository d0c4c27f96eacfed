"""Axes: the sliders of a page, named by the factors that the latents were found to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from latentlab.analysis import dim_ranges
from latentlab.analysis.direction import Direction
from latentlab.analysis.encoding import Encoding
from latentlab.latents import ACTIVE_NATS, Categorical, Codebook, LatentSpace
from latentlab.metrics.mutual_information import entropies, mutual_information_matrix

Labels = Mapping[str, tuple[str, float]]

REACH = 3.0
"""Steps to either side along a direction."""

_LEAST_NATS, _LEAST_SHARE = 0.1, 0.1


def factor_labels(encoding: Encoding | None, seed: int = 0) -> dict[str, tuple[str, float]]:
    """The factor that each latent knows most of, as a share of the factor's entropy: {latent: (factor, nats)}.

    Latents that know less than 0.1 nats or a tenth of the factor beyond what they know of shuffled factors are left
    out. It is the rule of a report's ``factor_of``. Nothing is named where the data have fewer than two factors, since
    one name for all latents tells nothing.
    """
    if encoding is None or encoding.factors is None or len(encoding.factor_names) < 2:
        return {}
    information = mutual_information_matrix(encoding.mean, encoding.factors)
    shuffled = np.random.default_rng(seed).permutation(encoding.factors)
    floor, entropy = mutual_information_matrix(encoding.mean, shuffled), entropies(encoding.factors)
    found = {}
    for name, row, least in zip(encoding.dim_names, information, floor, strict=True):
        share = np.divide(row, entropy, out=np.zeros_like(row), where=entropy > 0)
        best = int(share.argmax())
        if row[best] - least[best] >= max(_LEAST_NATS, _LEAST_SHARE * entropy[best]):
            found[name] = (encoding.factor_names[best], float(row[best]))
    return found


def axes_of(
    model: Any,
    z: np.ndarray,
    *,
    encoding: Encoding | None = None,
    labels: Labels | None = None,
    names: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """The sliders in the order they are shown, as traverse.js takes them: blocks and latents by falling KL.

    Args:
        model: a generative model.
        z: the code (dim,) they start from.
        encoding: of data by this model, which gives ranges and KL; without it the ranges are the prior's.
        labels: {latent: (factor it knows most of, nats)}.
        names: {latent: name that a person gave}, which go before the factors' names.
    """
    space, labels, names = model.latent_space, labels or {}, names or {}
    span = "prior" if encoding is None else "posterior"
    ranges = dim_ranges(model, span=span, coverage=0.98, encoding=encoding)
    # The dice draw around the default: the codes' own mean, not the one code that the page starts from.
    centre = space.mean.numpy() if encoding is None else encoding.aggregate_mean
    spread = space.std.numpy() if encoding is None else encoding.aggregate_std
    axes = []
    for block in space.blocks:
        where = range(*space.slice(block.name).indices(space.dim))
        group = block.name if len(space.blocks) > 1 else ""
        if isinstance(block.prior, Categorical):
            kl = None if encoding is None else float(encoding.kl_per_dim[where].sum())
            axes.append(
                {
                    **_named(block.name, labels, names),
                    "index": where[0],
                    "low": 0.0,
                    "high": float(block.dim - 1),
                    "default": int(np.argmax(z[where])),
                    "std": 1.0,
                    "kl": kl,
                    "inactive": kl is not None and kl <= ACTIVE_NATS,
                    "group": "",
                    "choices": _choices(block.name, block.dim, encoding),
                    "whole": False,
                }
            )
            continue
        whole = isinstance(block.prior, Codebook)
        for i in where:
            low, high = (float(v) for v in ranges[i])
            axes.append(
                {
                    **_named(space.names[i], labels, names),
                    "index": i,
                    "low": min(low, float(z[i])),
                    "high": max(high, float(z[i])),
                    "default": float(np.rint(centre[i]) if whole else centre[i]),
                    "std": float(spread[i]),
                    "sigma": None if whole else [float(space.mean[i]), float(space.std[i])],
                    "kl": None if encoding is None else float(encoding.kl_per_dim[i]),
                    "inactive": encoding is not None and not bool(encoding.active[i]),
                    "group": group,
                    "choices": [],
                    "whole": whole,
                }
            )
    strongest: dict[str, float] = {}
    for axis in axes:
        block = axis["group"] or axis["name"]
        strongest[block] = max(strongest.get(block, 0.0), axis["kl"] or 0.0)
    several = len(space.blocks) > 1
    return sorted(
        axes, key=lambda a: (-strongest[a["group"] or a["name"]] if several else 0.0, -(a["kl"] or 0.0))
    )


def with_directions(
    axes: list[dict[str, Any]],
    space: LatentSpace,
    directions: Sequence[Direction],
    shares: Mapping[str, float] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """The sliders with one more for each direction, in steps of a standard deviation, in front.

    Args:
        axes: those of the code's coordinates.
        space: of the code; its numbers come first.
        directions: in the order of the numbers behind it.
        shares: {direction: its share of the variance where it was found}.
    """
    if not directions:
        return axes
    steps = [
        {
            "name": direction.name,
            "meaning": "",
            "known": f"{100 * shares[direction.name]:.0f} %" if direction.name in shares else "",
            "help": ", ".join(filter(None, [_place(direction), direction.method])),
            "index": space.dim + i,
            "low": -REACH,
            "high": REACH,
            "default": 0.0,
            "std": 0.0,  # the dice draw a code, and leave it where it is
            "sigma": [0.0, 1.0],
            "kl": None,
            "inactive": False,
            "group": "directions",
            "choices": [],
            "whole": False,
        }
        for i, direction in enumerate(directions)
    ]
    return [*steps, *({**axis, "group": axis["group"] or "code"} for axis in axes)]


def _place(direction: Direction) -> str:
    layers = "" if direction.layers is None else f", layers {', '.join(map(str, direction.layers))}"
    return f"a direction of {direction.stage or (direction.space or '').upper()}{layers}"


def _named(latent: str, labels: Labels, names: Mapping[str, str]) -> dict[str, str]:
    """What a slider is called: a person's word, else the factor that the latent knows most of, else its own name."""
    factor, nats = labels.get(latent, ("", 0.0))
    meaning = names.get(latent) or factor.replace("_", " ")
    help_text = f"{latent} knows most of {factor}: mutual information {nats:.2f} nats" if factor else ""
    return {"name": latent, "meaning": meaning, "known": factor, "help": help_text}


def _choices(block: str, count: int, encoding: Encoding | None) -> list[str]:
    named = () if encoding is None else encoding.categories.get(block, ())
    return list(named) if len(named) == count else [str(i) for i in range(count)]
