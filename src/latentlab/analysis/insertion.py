"""Inserting and ablating sets of units, many sets and inputs in one run, and scoring the pictures at the place edited.

Internal to this package: what causal effects of one set and of all units share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentlab.analysis.concepts import ConceptMap, ConceptMasks
from latentlab.analysis.inference import to_numpy, to_tensor
from latentlab.analysis.meters import Meter, meter_of
from latentlab.analysis.ranking import check_units
from latentlab.analysis.subject import Subject
from latentlab.models.edits import Edit


@dataclass(frozen=True)
class Mix(Edit):
    """h' = h + w (target - h) on units that differ from row to row of the batch.

    Args:
        rows: units of each row, (batch, size).
        targets: their target, (batch, size) or (batch, size, height, width), or 0.
        weights: alpha times the place, (batch, 1, height, width) or a number.
    """

    rows: Tensor | None = field(default=None, compare=False)
    targets: Any = field(default=0.0, compare=False)
    weights: Any = field(default=1.0, compare=False)

    def apply(self, h: Tensor, other: Tensor | None = None) -> Tensor:
        """The mixed state."""
        edited = h.clone()
        index = torch.arange(len(h), device=h.device)[:, None], self.rows
        part = h[index]
        edited[index] = part + self.weights * (self.targets - part)
        return edited


@dataclass
class Insertion:
    """The inputs, the place and the scorers of one call, with what their plain run gives."""

    subject: Subject
    inputs: Tensor
    stage: str
    address: str
    scorers: tuple[ConceptMap | Meter, ...]
    place: Tensor | None
    seen: Tensor | None
    state: Tensor
    presence: list[Tensor]
    base: np.ndarray
    edits: tuple[Edit, ...]
    batch_size: int
    progress: Callable[[int, int], object] | None
    done: int = 0
    total: int = 0

    @property
    def units(self) -> int:
        """Number of units of the stage."""
        return self.state.shape[1]

    def plain(self) -> np.ndarray:
        """Scores (n,) of the first concept without any edit but the given ones."""
        return self.base[:, 0]

    def check_units(self, units: Sequence[int] | int) -> np.ndarray:
        """The set, sorted.

        Raises:
            ValueError: on units that the stage does not have, or one named twice.
        """
        return np.sort(check_units(units, self.units, self.address))

    def value(self, units: np.ndarray, concept: int, given: Any) -> Tensor:
        """What is inserted, k (size,) or (size, height, width), of a set for a concept.

        Raises:
            ValueError: if it is to be the mean where the concept is, and no input shows it.
        """
        if given is not None:
            numbers = to_tensor(
                np.broadcast_to(np.asarray(given, dtype=np.float32), len(units)), self.state.device
            )
            return numbers
        state, weight = self.state[:, units], self.presence[concept]
        total = weight.sum()
        if float(total) <= 0:
            raise ValueError(
                f"None of the {len(state)} inputs shows {self.scorers[concept].name!r}, so the units' mean where it is "
                "can't be taken; give more inputs, or value=."
            )
        if self.place is not None or state.ndim == 2:
            if state.ndim == 2:
                return torch.einsum("nu,n->u", state, weight) / total
            return torch.einsum("nuhw,nhw->u", state, weight) / total
        return torch.einsum("nuhw,n->uhw", state, weight) / total

    def scores(self, sets: np.ndarray, values: Tensor, what: str, alpha: float) -> np.ndarray:
        """Scores (sets, n, concepts) with each set of units, (sets, size), inserted with its k or ablated."""
        n, found = len(self.inputs), []
        pairs = np.stack(np.meshgrid(np.arange(len(sets)), np.arange(n), indexing="ij"), -1).reshape(-1, 2)
        for start in range(0, len(pairs), self.batch_size):
            which, rows = pairs[start : start + self.batch_size].T
            output = self._run(sets[which], values[torch.from_numpy(which)], what, alpha, rows)
            found.append(self.score(output, rows))
            self.done += len(rows)
            if self.progress is not None:
                self.progress(self.done, self.total)
        return np.concatenate(found).reshape(len(sets), n, -1)

    def _run(self, units: np.ndarray, values: Tensor, what: str, alpha: float, rows: np.ndarray) -> Tensor:
        device = self.state.device
        index = torch.as_tensor(rows, device=device)
        weights: Any = alpha
        if self.place is not None:
            weights = alpha * (self.place if len(self.place) == 1 else self.place[index])[:, None]
        targets: Any = 0.0
        if what == "insert":
            targets = values.to(device)
            if targets.ndim == 2 and self.state.ndim == 4:
                targets = targets[:, :, None, None]
        mix = Mix(
            stage=self.address, rows=torch.tensor(units, device=device), targets=targets, weights=weights
        )
        return self.subject.output(self.inputs[index], (*self.edits, mix))

    def score(self, output: Tensor, rows: np.ndarray) -> np.ndarray:
        """Scores (rows, concepts) of pictures: concept maps at the place, meters in the whole picture."""
        weight = self.seen
        if weight is not None and len(weight) > 1:
            weight = weight[torch.as_tensor(rows, device=output.device)]
        return _pooled(_measured(self.scorers, output), weight)

    def by_hand(self, units: np.ndarray, k: Tensor, inserted: np.ndarray, ablated: np.ndarray) -> float:
        """Largest distance of the first input's scores from those of its state edited by hand and put in place."""
        gap = 0.0
        # The state was read after the edits, so that those at this stage are not to be applied again.
        behind = [e for e in self.edits if e.stage != self.address]
        for target, expected in ((k, inserted), (torch.zeros_like(k), ablated)):
            state = self.state[:1].clone()
            weight = 1.0 if self.place is None else self.place[0]
            for i, unit in enumerate(units):
                state[0, unit] = state[0, unit] * (1 - weight) + weight * target[i]
            output = self.subject.output_from(self.inputs[:1], self.stage, state, behind)
            gap = max(gap, float(np.abs(self.score(output, np.zeros(1, int))[0, 0] - expected[0])))
        return gap

    def inside(self, units: np.ndarray, k: Tensor) -> float | None:
        """Share of the absolute change between inserted and ablated that lies in the place; None without one."""
        if self.seen is None:
            return None
        rows = np.arange(min(len(self.inputs), self.batch_size))
        one, other = self._both(units, k, rows)
        change = (one - other).abs().sum(1)
        weight = self.seen if len(self.seen) == 1 else self.seen[: len(rows)]
        total = float(change.sum())
        return float((change * weight).sum()) / total if total > 0 else 1.0

    def pictures(self, units: np.ndarray, k: Tensor, count: int) -> tuple[np.ndarray | None, ...]:
        """A few pictures without edits, with the units inserted, and with them ablated; None for no pictures."""
        rows = np.arange(min(count, len(self.inputs)))
        plain = self.subject.output(self.inputs[: len(rows)], self.edits)
        if not _are_pictures(plain):
            return None, None, None
        return to_numpy(plain), *(to_numpy(part) for part in self._both(units, k, rows))

    def _both(self, units: np.ndarray, k: Tensor, rows: np.ndarray) -> list[Tensor]:
        sets = np.broadcast_to(units, (len(rows), len(units)))
        values = k.expand(len(rows), *k.shape)
        return [self._run(sets, values, what, 1.0, rows) for what in ("insert", "ablate")]

    def place_shown(self) -> np.ndarray | None:
        """The place over the stage's map."""
        if self.place is None:
            return None
        return to_numpy(self.place[0] if len(self.place) == 1 else self.place)


def insertion_for(
    subject: Subject,
    inputs: Tensor,
    stage: str,
    concepts: Sequence[Any],
    region: Any,
    edits: tuple[Edit, ...],
    batch_size: int,
    progress: Callable[[int, int], object] | None,
) -> Insertion:
    """Runs the inputs once, to know states, presence of the concepts and scores without edits.

    Raises:
        ValueError: on a region that is no grid of weights or on a flat stage, or concepts that need pictures where
            the network gives none.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
    scorers = tuple(c if isinstance(c, ConceptMap) else meter_of(c) for c in concepts)
    parts = inputs.split(batch_size)
    state = torch.cat([subject.state(part, stage, edits) for part in parts])
    outputs = torch.cat([subject.output(part, edits) for part in parts])
    for given, scorer in zip(concepts, scorers, strict=True):
        if not _are_pictures(outputs) and isinstance(given, (str, ConceptMap)):
            raise ValueError(
                f"{scorer.name!r} is measured in pictures; network {subject.name!r} gives {tuple(outputs.shape[1:])} "
                "numbers a sample. Give a function of its output."
            )
    name = subject.network.stage_name(stage)
    place, seen = _place(region, state, outputs, f"{subject.name}.{name}")
    found = [_measured(scorers, part) for part in outputs.split(batch_size)]
    measured = [torch.cat(lots) for lots in zip(*found, strict=True)]
    return Insertion(
        subject=subject,
        inputs=inputs,
        stage=name,
        address=f"{subject.name}.{name}",
        scorers=scorers,
        place=place,
        seen=seen,
        state=state,
        presence=[_presence(s, m.to(state), place, state) for s, m in zip(scorers, measured, strict=True)],
        base=_pooled(measured, seen),
        edits=edits,
        batch_size=batch_size,
        progress=progress,
    )


def _are_pictures(outputs: Tensor) -> bool:
    return outputs.ndim == 4 and outputs.shape[1] in (1, 3)


def _place(
    region: Any, state: Tensor, outputs: Tensor, address: str
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """The weights of a place over the stage's map and over the picture, (n or 1, height, width)."""
    if region is None:
        return None, None
    if state.ndim != 4 or not _are_pictures(outputs):
        raise ValueError(f"A region needs a stage with a map and pictures; {address!r} lacks one of them.")
    grid = to_tensor(region, state.device)
    grid = grid[None] if grid.ndim == 2 else grid
    if (
        grid.ndim != 3
        or len(grid) not in (1, len(state))
        or not bool(((grid >= 0) & (grid <= 1) & (grid.amax((1, 2), keepdim=True) > 0)).all())
    ):
        raise ValueError(
            "A region is rows of weights in [0, 1], (height, width), or one such grid an input, "
            f"({len(state)}, height, width), none of them empty; got shape {tuple(np.shape(region))}."
        )
    over = [F.interpolate(grid[:, None], size=s.shape[2:], mode="area")[:, 0] for s in (state, outputs)]
    return over[0], over[1]


def _measured(scorers: Sequence[ConceptMap | Meter], output: Tensor) -> list[Tensor]:
    """Numbers (n,) of meters, maps (n, height, width) of concept maps; each segment function runs once."""
    found: dict[int, ConceptMasks] = {}
    measured = []
    for scorer in scorers:
        if isinstance(scorer, ConceptMap) and scorer.segment is not None:
            key = id(scorer.segment)
            if key not in found:
                found[key] = scorer.segment(output)
            masks = found[key]
            measured.append(torch.from_numpy(masks.masks[:, masks.position(scorer.name)]).to(output))
        else:
            measured.append(scorer.maps(output) if isinstance(scorer, ConceptMap) else scorer(output))
    return measured


def _pooled(measured: Sequence[Tensor], weight: Tensor | None) -> np.ndarray:
    """Scores (n, concepts): the means of maps at the place with these weights (n or 1, height, width)."""
    columns = []
    for values in measured:
        if values.ndim == 3:
            values = (
                values.mean((1, 2)) if weight is None else (values * weight).sum((1, 2)) / weight.sum((1, 2))
            )
        columns.append(to_numpy(values.float()))
    return np.stack(columns, axis=1).astype(np.float64)


def _presence(scorer: ConceptMap | Meter, measured: Tensor, place: Tensor | None, state: Tensor) -> Tensor:
    """Weights of the inputs (n,), or with a place of their positions (n, height, width), for the mean feature."""
    if isinstance(scorer, Meter):
        low, high = measured.min(), measured.max()
        level = (measured - low) / (high - low) if float(high) > float(low) else torch.ones_like(measured)
        return level if place is None else level[:, None, None] * place
    if place is None:
        return measured.mean((1, 2))
    there = F.interpolate(measured[:, None], size=state.shape[2:], mode="area")[:, 0]
    return there * place if float((there * place).sum()) > 0 else there


def bootstrap(per_input: np.ndarray, n_boot: int, rng: np.random.Generator) -> np.ndarray:
    """95 % percentile intervals (rows, 2) of the means of (rows, n) over resamples of the n."""
    n = per_input.shape[1]
    weights = rng.multinomial(n, np.full(n, 1 / n), size=n_boot) / n
    return np.quantile(per_input @ weights.T, [0.025, 0.975], axis=1).T


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation; 0 where one of the two does not vary."""
    from scipy.stats import rankdata

    ranks = [rankdata(np.round(v, 9)) for v in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1]) if all(r.std() > 0 for r in ranks) else 0.0
