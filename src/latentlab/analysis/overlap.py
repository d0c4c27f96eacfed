"""Overlap of units' maps with concepts' masks: thresholds by share, and counts summed over a whole data set.

Symbols: u a unit, c a concept, r an order of the images (the first as they are, the others permuted: the null),
P positions of a mask. Intersections and unions are summed over all images before any ratio is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

UPSAMPLING = ("bilinear", "nearest")
THRESHOLDS = ("quantile", "matched", "iqr")
_AT_ONCE = 8_000_000  # positions of masks that are held as numbers
_CANDIDATES = np.geomspace(0.0025, 0.5, 10)


@dataclass(frozen=True)
class Stretch:
    """The states of a stage over all inputs, read anew each time, ``batch_size`` inputs at a time.

    Args:
        read: rows (start, stop) to the state (b, units) or (b, units, height, width).
        n: number of inputs.
        batch_size: inputs at a time.
        tick: called after each batch.
    """

    read: Callable[[int, int], Tensor]
    n: int
    batch_size: int
    tick: Callable[[], object] = lambda: None

    @property
    def batches(self) -> int:
        """Number of batches in a pass."""
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        for start in range(0, self.n, self.batch_size):
            state = self.read(start, min(start + self.batch_size, self.n)).float()
            yield start, state[:, :, None, None] if state.ndim == 2 else state
            self.tick()


def thresholds(states: Stretch, shares: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Each unit's thresholds by the share of its activations, over all positions of all inputs, that lie above.

    Exact, in one pass: the largest activations are kept as it goes. With k = share x positions, the threshold lies
    half-way between the k-th and the next smaller activation; where these are equal (a unit that is silent at most
    positions, say) it is their value, and fewer lie above.

    Returns:
        Thresholds (shares, units), the peak of each map (n, units), and whether a unit varies at all (units,).
    """
    top = low = None
    peaks, positions, largest = [], 0, 0
    for _, state in states:
        if top is None:
            positions = states.n * state.shape[2] * state.shape[3]
            largest = int(np.clip(np.floor(shares.max() * positions + 1e-9), 1, positions - 1)) + 1
        values = state.transpose(0, 1).flatten(1)
        peaks.append(state.flatten(2).amax(2))
        low = values.amin(1) if low is None else torch.minimum(low, values.amin(1))
        pool = values if top is None else torch.cat([top, values], dim=1)
        top = pool.topk(min(largest, pool.shape[1]), dim=1).values
    assert top is not None and low is not None
    counts = np.clip(np.floor(shares * positions + 1e-9), 1, positions - 1).astype(int)
    found = torch.stack([(top[:, k - 1] + top[:, k]) / 2 for k in counts])
    return found, torch.cat(peaks), top[:, 0] > low


@dataclass(frozen=True)
class Counts:
    """Positions counted for one set of thresholds.

    Attributes:
        both: above the threshold and in the mask, (orders, units, concepts).
        above: above the threshold, (units,), at the masks' resolution.
        expected: ``both`` on average over all permutations of the images, (units, concepts), exact.
        share: share of the stage's own positions above the threshold, (units,).
    """

    both: np.ndarray
    above: np.ndarray
    expected: np.ndarray
    share: np.ndarray


def count(
    states: Stretch,
    groups: list[tuple[Tensor, np.ndarray]],
    masks: np.ndarray,
    orders: np.ndarray,
    upsample: str,
) -> list[Counts]:
    """Counts positions above thresholds and inside masks, for groups of (thresholds (units,), concepts).

    Args:
        states: the maps, stretched to the size of the masks.
        groups: each a threshold a unit and the numbers of the concepts that it is compared with.
        masks: bool (n, concepts, height, width).
        orders: (orders, n): which image's masks each map meets.
        upsample: "bilinear" or "nearest".
    """
    size, spots = masks.shape[2:], masks.shape[2] * masks.shape[3]
    whole = torch.from_numpy(np.ascontiguousarray(masks)).flatten(2)
    area: Tensor | None = None
    both = above = own = seen = asked = None
    positions = 0
    for start, state in states:
        n, units = state.shape[:2]
        flat = state.shape[2:] == (1, 1)
        if flat and area is None:
            area = whole.sum(2, keepdim=True).float()
        truth = whole if area is None else area
        maps = state.cpu() if flat else _stretched(state, size, upsample).cpu()
        maps = maps.transpose(0, 1).flatten(2)
        if both is None:
            both = [np.zeros((len(orders), units, len(c))) for _, c in groups]
            above, own = (np.zeros((len(groups), units)) for _ in range(2))
            seen = [torch.zeros(units, maps.shape[2]) for _ in groups]
        assert above is not None and own is not None and seen is not None
        positions += n * state.shape[2] * state.shape[3]
        meets = orders[:, start : start + n]
        if asked is None:  # each group's own masks, so that no order gathers all of them
            asked = [truth[:, concepts] for _, concepts in groups]
        for g, (threshold, _) in enumerate(groups):
            level = threshold.to(state)
            own[g] += (state > level[:, None, None]).sum((0, 2, 3)).cpu().numpy()
            on = (maps > level.cpu()[:, None, None]).float()
            met = on.sum(1)
            seen[g] += met
            above[g] += met.double().sum(1).numpy() * (spots if flat else 1)
            on = on.flatten(1)
            at_once = max(1, _AT_ONCE // max(1, asked[g][:n].numel()))
            for r in range(
                0, len(meets), at_once
            ):  # several orders in one product, which reads the maps once
                there = asked[g][meets[r : r + at_once]].permute(0, 2, 1, 3).flatten(2).float()
                shared = (on @ there.flatten(0, 1).T).double().numpy()
                both[g][r : r + at_once] += shared.reshape(units, len(there), -1).transpose(1, 0, 2)
    assert both is not None and above is not None and own is not None and seen is not None
    everywhere = (whole if area is None else area).double().sum(0)
    return [
        Counts(
            both=both[g],
            above=above[g],
            expected=(seen[g].double() @ everywhere[concepts].T).numpy() / states.n,
            share=own[g] / positions,
        )
        for g, (_, concepts) in enumerate(groups)
    ]


def _stretched(state: Tensor, size: tuple[int, ...], upsample: str) -> Tensor:
    if tuple(state.shape[2:]) == tuple(size):
        return state
    options = {"align_corners": False} if upsample == "bilinear" else {}
    return F.interpolate(state, size=size, mode=upsample, **options)


def stretched(state: Tensor, size: tuple[int, ...], upsample: str) -> Tensor:
    """Maps (n, units, …) at another size; those of a flat stage are the same everywhere."""
    return _stretched(state[:, :, None, None] if state.ndim == 2 else state, size, upsample)


@dataclass(frozen=True)
class Match:
    """How maps and masks overlap.

    Attributes:
        iou: intersection over union, (orders, units, concepts); of the first order the maps' own.
        chance: exact mean over all orders, as the ratio of mean counts, (units, concepts).
        cuts: thresholds, (units, 1), or (units, concepts) where each concept has its own.
        share: share of the stage's positions above them, the same shape.
        peaks: largest activation of each map, (n, units).
        varies: whether a unit varies at all, (units,).
    """

    iou: np.ndarray
    chance: np.ndarray
    cuts: np.ndarray
    share: np.ndarray
    peaks: np.ndarray
    varies: np.ndarray


def match(
    states: Stretch, masks: np.ndarray, orders: np.ndarray, threshold: str, quantile: float, upsample: str
) -> Match:
    """Compares every unit with every concept, for every order of the images.

    Args:
        states: the units' maps.
        masks: bool (n, concepts, height, width).
        orders: (orders, n), the first 0 .. n - 1.
        threshold: one of THRESHOLDS: by a share of the positions, by the share that the concept covers, or by the
            information quality ratio, for each order anew.
        quantile: the share, for "quantile".
        upsample: one of UPSAMPLING.
    """
    wanted = {"quantile": np.array([quantile]), "matched": masks.mean(axis=(0, 2, 3)), "iqr": _CANDIDATES}
    cuts, peaks, varies = (t.cpu() for t in thresholds(states, wanted[threshold]))
    every, inside = np.arange(masks.shape[1]), masks.sum(axis=(0, 2, 3)).astype(float)
    if threshold == "matched":
        found = count(states, [(cuts[c], every[c : c + 1]) for c in every], masks, orders, upsample)
        both, expected = (np.concatenate([getattr(f, k) for f in found], -1) for k in ("both", "expected"))
        above = np.stack([f.above for f in found], axis=1)
        share = np.stack([f.share for f in found], axis=1)
        iou, chance, used = ratio(both, above, inside), ratio(expected, above, inside), cuts.T.numpy()
    else:
        found = count(states, [(cut, every) for cut in cuts], masks, orders, upsample)
        every_iou = np.stack([ratio(f.both, f.above[:, None], inside) for f in found])
        every_chance = np.stack([ratio(f.expected, f.above[:, None], inside) for f in found])
        shares = np.stack([f.share for f in found])
        if threshold == "quantile":
            iou, chance, used, share = every_iou[0], every_chance[0], cuts.T.numpy(), shares.T
        else:
            positions = masks.size // masks.shape[1]
            quality = [information_quality(f.both, f.above[:, None], inside, positions) for f in found]
            best = np.argmax(quality, axis=0)
            rows = np.arange(cuts.shape[1])[:, None]
            iou = np.take_along_axis(every_iou, best[None], axis=0)[0]
            chance = np.take_along_axis(every_chance, best[:1], axis=0)[0]
            used, share = cuts.numpy()[best[0], rows], shares[best[0], rows]
    return Match(iou, chance, used, share, peaks.numpy(), varies.numpy())


def ratio(both: np.ndarray, above: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Intersection over union of summed counts; 0 where both are empty."""
    union = above + inside - both
    return np.divide(both, union, out=np.zeros(np.broadcast_shapes(both.shape, union.shape)), where=union > 0)


def information_quality(
    both: np.ndarray, above: np.ndarray, inside: np.ndarray, positions: int
) -> np.ndarray:
    """Information quality ratio I(M; L) / H(M, L) of being above the threshold and being inside the mask, 0 to 1."""
    both, above, inside = np.broadcast_arrays(both, above, inside)
    joint = [both, above - both, inside - both, positions - above - inside + both]
    joint_entropy = sum(_entropy(p / positions) for p in joint)
    single = sum(_entropy(p / positions) for p in (above, positions - above, inside, positions - inside))
    return np.divide(single - joint_entropy, joint_entropy, out=np.zeros(both.shape), where=joint_entropy > 0)


def _entropy(p: np.ndarray) -> np.ndarray:
    return -p * np.log(np.where(p > 0, p, 1.0))
