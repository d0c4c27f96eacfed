"""A report: every score of a protocol with its interval, and what noise, a rotation and perfect codes would get."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np

from latentlab.metrics.mutual_information import BINS, entropies, mutual_information_matrix
from latentlab.metrics.protocols import Draw, Measure, Protocol, Tick, protocol_of
from latentlab.metrics.representation import LEAST_POINTS
from latentlab.metrics.score import Score
from latentlab.metrics.table import StateTable

FORMAT = 1
REFERENCES = ("noise", "rotation", "perfect")
_ROTATIONS = 5
_NOISE_CODES = 5
# Scores over all states take minutes; so many states mark their scale to the third digit.
_MARK_STATES = 50_000
# A reference code's posterior, narrow beside the steps of a factor of 40 values (0.087 when standardised).
_REFERENCE_SPREAD = 0.02
Progress = Callable[[float, str], object]


@dataclass(frozen=True)
class Row:
    """One line of a report.

    Attributes:
        label: name of the score.
        measure: key of the measure it comes from.
        value: mean over the seeds, or None where the score has no value.
        reason: why it has none, else "".
        low: value less two standard deviations of a single seed's score; None for one seed or an exact score.
        high: value plus two standard deviations.
        noise: what codes of pure noise get.
        rotation: what randomly rotated perfect factors get, the mean of the draws.
        perfect: what perfect codes get under the same conventions.
        higher_is_better: direction.
        exact: computed over all states, without chance.
        values: the score of each seed.
    """

    label: str
    measure: str
    value: float | None
    reason: str = ""
    low: float | None = None
    high: float | None = None
    noise: float | None = None
    rotation: float | None = None
    perfect: float | None = None
    higher_is_better: bool = True
    exact: bool = False
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Report:
    """Scores of one representation under one protocol, with all that is needed to read and repeat them.

    Attributes:
        protocol: its name.
        summary: its conventions in a sentence.
        rows: the scores.
        dim_names: names of the codes, (d,).
        factor_names: names of the factors asked about, (k,).
        factor_sizes: their numbers of values, (k,).
        information: mutual information of code and factor at 20 bins, nats, (d, k).
        entropies: of the factors, nats, (k,).
        information_floor: the most that five codes of noise on the same points got, nats, (k,).
        importance: DCI's importance matrix (d, k), or None where the protocol has none.
        seeds: the seeds whose draws were scored.
        states: number of states behind the codes.
        points: {"train": …, "test": …}, points drawn for each seed.
        notes: what a reader must know, such as factors left out.
        dataset: name of the data set.
        subject: name of the run or model.
        weights_digest: of the model.
        versions: of the packages that computed it.
        created: time, ISO 8601, UTC.
    """

    protocol: str
    summary: str
    rows: tuple[Row, ...]
    dim_names: tuple[str, ...]
    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]
    information: np.ndarray
    entropies: np.ndarray
    information_floor: np.ndarray
    importance: np.ndarray | None
    seeds: tuple[int, ...]
    states: int
    points: Mapping[str, int]
    notes: tuple[str, ...]
    dataset: str
    subject: str
    weights_digest: str
    versions: Mapping[str, str]
    created: str

    def row(self, label: str) -> Row:
        """The row of a label.

        Raises:
            KeyError: naming the labels there are.
        """
        for row in self.rows:
            if row.label == label:
                return row
        raise KeyError(f"{label!r}; this report has {', '.join(r.label for r in self.rows)}")

    @property
    def matching(self) -> dict[str, str]:
        """{factor: its code}: the one-to-one matching with the greatest total share of entropy."""
        from scipy.optimize import linear_sum_assignment

        shares = self.information / self.entropies
        codes, factors = linear_sum_assignment(-shares)
        return {self.factor_names[j]: self.dim_names[i] for i, j in zip(codes, factors, strict=True)}

    def factor_of(
        self, dim: str, least_nats: float = 0.1, least_share: float = 0.1
    ) -> tuple[str, float] | None:
        """The factor that a code knows most of, as a share of the factor's entropy, and how much, nats.

        Returns:
            (factor, nats), or None if what the code knows beyond noise is less than ``least_nats`` or
            ``least_share`` of the factor's entropy.
        """
        if not self.factor_names:
            return None
        row = self.information[self.dim_names.index(dim)]
        best = int((row / self.entropies).argmax())
        beyond = row[best] - self.information_floor[best]
        if beyond < max(least_nats, least_share * self.entropies[best]):
            return None
        return self.factor_names[best], float(row[best])

    @property
    def remarks(self) -> list[str]:
        """What a reader should know beside the table: latents by factor, sample sizes, what was left out."""
        found = []
        if self.factor_names:
            named = ((dim, self.factor_of(dim)) for dim in self.dim_names)
            shown = ", ".join(f"{dim} {label[0]} ({label[1]:.2f} nats)" for dim, label in named if label)
            found.append(f"Latents by the factor they know most of: {shown or 'none knows any'}.")
        seeds = ", ".join(map(str, self.seeds))
        found.append(
            f"{self.states:,} states; {self.points['train']:,} and {self.points['test']:,} points for each of the "
            f"seeds {seeds}. Intervals are two standard deviations of a single seed's score; noise, rotation and "
            "perfect are what codes of pure noise, randomly rotated factors and perfect codes get."
        )
        return [*found, *(f"Note: {note}." for note in self.notes)]

    def to_json(self) -> str:
        """The report as JSON text; ``from_json`` reads it back."""
        plain = {**asdict(self), "format": FORMAT}
        for name in ("information", "entropies", "information_floor"):
            plain[name] = getattr(self, name).tolist()
        plain["importance"] = None if self.importance is None else self.importance.tolist()
        plain["matching"] = self.matching
        return json.dumps(plain, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Reads ``to_json``'s text.

        Raises:
            ValueError: if it is no report, or one of another format.
        """
        try:
            plain = json.loads(text)
            if plain.pop("format") != FORMAT:
                raise ValueError("another format")
            plain.pop("matching")
            plain["rows"] = tuple(Row(**{**row, "values": tuple(row["values"])}) for row in plain["rows"])
            shape = (len(plain["dim_names"]), len(plain["factor_names"]))
            for name in ("information", "importance"):
                if plain[name] is not None:
                    plain[name] = np.array(plain[name], dtype=float).reshape(shape)
            for name in ("entropies", "information_floor"):
                plain[name] = np.array(plain[name], dtype=float).reshape(shape[1])
            for name in ("dim_names", "factor_names", "factor_sizes", "seeds", "notes"):
                plain[name] = tuple(plain[name])
            return cls(**plain)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"This is not a report of latentlab ({error}).") from None

    def table(self) -> str:
        """The report as aligned text for a terminal."""
        head = ("score", "value", "interval", "noise", "rotation", "perfect")
        lines: list[tuple[str, ...]] = [head]
        for row in self.rows:
            if row.value is None:
                lines.append((row.label, "none", row.reason, "", "", ""))
                continue
            interval = "exact" if row.exact else "one seed"
            if row.low is not None and row.high is not None:
                interval = f"{row.low:.3f} to {row.high:.3f}"
            marks = (_short(getattr(row, name)) for name in REFERENCES)
            label = row.label if row.higher_is_better else f"{row.label}, lower is better"
            lines.append((label, f"{row.value:.3f}", interval, *marks))
        widths = [
            max(len(line[i]) for line in lines if line is head or i < 2 or line[1] != "none")
            for i in range(len(head))
        ]
        body = [
            "  ".join(
                cell.ljust(width) if i in (0, 2) else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join(body)

    def markdown(self) -> str:
        """A report as a markdown table, for cards and documents."""
        lines = [
            f"Protocol {self.protocol}: {self.summary}.",
            "",
            "| score | value | interval | noise | rotation | perfect |",
            "| --- | ---: | --- | ---: | ---: | ---: |",
        ]
        for row in self.rows:
            if row.value is None:
                lines.append(f"| {row.label} | none | {row.reason} | | | |")
                continue
            interval = "exact" if row.exact else "one seed"
            if row.low is not None and row.high is not None:
                interval = f"{row.low:.3f} to {row.high:.3f}"
            marks = " | ".join(
                "" if mark is None else f"{mark:.3f}" for mark in (row.noise, row.rotation, row.perfect)
            )
            label = row.label if row.higher_is_better else f"{row.label}, lower is better"
            lines.append(f"| {label} | {row.value:.3f} | {interval} | {marks} |")
        for remark in self.remarks:
            lines += ["", remark]
        return "\n".join(lines)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def reference_codes(table: StateTable, kind: str, width: int, rng: np.random.Generator) -> np.ndarray:
    """Codes that mark the scale of a score, (states, width).

    Args:
        table: the states; its factors are what perfect codes hold.
        kind: "noise": independent N(0, 1); "perfect": one code for each factor, standardised, the rest noise;
            "rotation": the same with the factors' codes turned by a random rotation.
        width: number of codes. With fewer codes than factors only the first factors are held.
        rng: draws noise and rotation.
    """
    noise = rng.standard_normal((len(table), width))
    if kind == "noise":
        return noise
    v = table.factors - table.factors.mean(axis=0)
    v = v / v.std(axis=0)
    if kind == "rotation":
        turn, upper = np.linalg.qr(rng.standard_normal((v.shape[1], v.shape[1])))
        v = v @ (turn * np.sign(np.diag(upper)))
    held = min(width, v.shape[1])
    noise[:, :held] = v[:, :held]
    return noise


def write_report(
    codes: Any,
    *,
    factors: Any,
    factor_names: Sequence[str],
    dim_names: Sequence[str],
    log_var: Any = None,
    categorical: Sequence[str] = (),
    protocol: str = "dlib",
    seeds: Sequence[int] = (0, 1, 2),
    references: bool = True,
    measures: Sequence[str] | None = None,
    known: Mapping[str, Any] | None = None,
    subject: str = "",
    dataset: str = "",
    weights_digest: str = "",
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Scores the codes of all states under a protocol.

    Args:
        codes: posterior means of every state, (states, d).
        factors: their ground-truth factors, whole numbers (states, k).
        factor_names: names of the factors.
        dim_names: names of the codes.
        log_var: logs of the posterior variances (states, d), for scores of the whole posterior.
        categorical: names of factors whose values have no order.
        protocol: a name in ``PROTOCOLS``.
        seeds: one draw of points for each; their spread is the interval.
        references: also score noise, rotations and perfect codes, which takes about as long again.
        measures: only these measures of the protocol.
        known: values of the references from an earlier report (see ``reference_marks``), to save their time.
        subject: name of the run or model, for the reader.
        dataset: name of the data set, for the reader.
        weights_digest: of the model, for the reader.
        notes: sentences for the reader, without full stop.
        progress: called with (share done in [0, 1], what is being done); it may raise to cancel.

    Raises:
        ValueError: if there is no factor that varies, too few states, or an unknown protocol or measure.
    """
    chosen = protocol_of(protocol)
    seeds = tuple(int(s) for s in seeds)
    if not seeds:
        raise ValueError("seeds must hold at least one seed.")
    states = StateTable(codes, factors=factors)
    if len(states) < LEAST_POINTS:
        raise ValueError(
            f"{len(states)} states are too few for scores that mean anything; give at least {LEAST_POINTS}."
        )
    table, names, left_out = _asked(states, factor_names, chosen)
    kept = [chosen.measure(m) for m in measures] if measures is not None else list(chosen.measures)
    if log_var is not None:
        log_var = np.asarray(log_var, dtype=float)
    points = {"train": chosen.train_points(len(table)), "test": chosen.test_points(len(table))}
    classes = tuple(i for i, name in enumerate(names) if name in categorical)
    references_new = references and known is None
    works = len(kept) * (len(seeds) + (2 + _ROTATIONS if references_new else 0))
    done = 0

    def score(measure: Measure, states: StateTable, spread: Any, seed: int, doing: str) -> Score | ValueError:
        nonlocal done
        begun = done
        done += 1
        tick: Tick | None = None
        if progress is not None:
            progress(begun / works, doing)
            tick = partial(_tick, progress, begun, works, doing)
        draw = Draw(states, spread, classes, seed, points["train"], points["test"], tick)
        try:
            return measure.run(draw)
        except ValueError as error:  # a score that these codes can't have: said in its row, the others stand
            return error

    found: dict[str, list[Score]] = {}
    reasons: dict[str, str] = {}
    for measure in kept:
        for seed in seeds[:1] if measure.exact else seeds:
            result = score(measure, table, log_var, seed, f"{measure.name}, seed {seed}")
            if isinstance(result, ValueError):
                reasons[measure.name] = str(result)
                break
            found.setdefault(measure.name, []).append(result)
        done = (kept.index(measure) + 1) * len(seeds)
    marks: Mapping[str, Any] = known or {}
    if references_new:
        marks = _mark(table, kept, found, codes_width=table.codes.shape[1], seed=seeds[0], score=score)
    rows = [
        _row(measure, label, key, found.get(measure.name), reasons.get(measure.name, ""), marks)
        for measure in kept
        for label, key in measure.rows.items()
    ]
    first_train = Draw(table, None, classes, seeds[0], points["train"], points["test"]).train
    importance = next(
        (s[0].details["importance"] for name, s in found.items() if name.startswith("dci-")), None
    )
    if progress is not None:
        progress(1.0, "done")
    return Report(
        protocol=chosen.name,
        summary=chosen.summary,
        rows=tuple(rows),
        dim_names=tuple(dim_names),
        factor_names=tuple(names),
        factor_sizes=tuple(int(s) for s in table.sizes),
        information=mutual_information_matrix(*first_train, bins=BINS),
        entropies=entropies(first_train[1]),
        information_floor=_information_floor(table, seeds[0], points["train"]),
        importance=None if importance is None else np.asarray(importance),
        seeds=seeds,
        states=len(table),
        points=points,
        notes=(*notes, *left_out),
        dataset=dataset,
        subject=subject,
        weights_digest=weights_digest,
        versions=versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def reference_marks(report: Report) -> dict[str, dict[str, float]]:
    """The references' values of a report, to pass as ``known`` for other codes of the same states and width."""
    return {
        row.label: {name: getattr(row, name) for name in REFERENCES if getattr(row, name) is not None}
        for row in report.rows
    }


def _asked(
    table: StateTable, factor_names: Sequence[str], protocol: Protocol
) -> tuple[StateTable, list[str], list[str]]:
    names, notes = list(factor_names), []
    if len(names) != len(table.sizes):
        raise ValueError(f"There are {len(table.sizes)} factors but {len(names)} factor_names.")
    columns = []
    for column, name in enumerate(names):
        if table.sizes[column] < 2:
            notes.append(f"{name} has one value only and is left out")
        elif name in protocol.left_out:
            notes.append(f"{name} is not asked about under {protocol.name}")
        else:
            columns.append(column)
    if not columns:
        raise ValueError("No factor takes more than one value, so there is nothing to score.")
    return table.only(columns), [names[c] for c in columns], notes


def _information_floor(table: StateTable, seed: int, points: int) -> np.ndarray:
    rng = np.random.default_rng([seed, 2])
    noise = table.with_codes(rng.standard_normal((len(table), _NOISE_CODES)))
    return mutual_information_matrix(*noise.sample(points, rng)).max(axis=0)


def _mark(
    table: StateTable,
    measures: Sequence[Measure],
    found: Mapping[str, list[Score]],
    codes_width: int,
    seed: int,
    score: Callable[..., Score | ValueError],
) -> dict[str, dict[str, float]]:
    marks: dict[str, dict[str, float]] = {}
    spread = np.full((len(table), codes_width), 2 * np.log(_REFERENCE_SPREAD))
    for kind in REFERENCES:
        draws: dict[str, list[float]] = {}
        for turn in range(_ROTATIONS if kind == "rotation" else 1):
            rng = np.random.default_rng([seed, turn, REFERENCES.index(kind)])
            states = table.with_codes(reference_codes(table, kind, codes_width, rng))
            for measure in measures:
                if measure.name not in found:
                    continue
                doing = f"{measure.name} of {kind} codes"
                if measure.exact and len(states) > _MARK_STATES:
                    some = states.rows(_MARK_STATES, rng)
                    few = StateTable(states.codes[some], factors=states.factors[some])
                    result = score(measure, few, spread[some], seed + turn, doing)
                else:
                    result = score(measure, states, spread, seed + turn, doing)
                if isinstance(result, Score):
                    for label, key in measure.rows.items():
                        draws.setdefault(label, []).append(_pick(result, key))
        for label, values in draws.items():
            marks.setdefault(label, {})[kind] = float(np.mean(values))
    return marks


def _pick(score: Score, key: str) -> float:
    return float(score.details[key]) if key else score.value


def _tick(progress: Progress, begun: int, works: int, doing: str, part: int, whole: int) -> None:
    progress((begun + part / max(whole, 1)) / works, doing)


def _row(
    measure: Measure,
    label: str,
    key: str,
    scores: list[Score] | None,
    reason: str,
    marks: Mapping[str, Mapping[str, float]],
) -> Row:
    if not scores:
        return Row(label, measure.name, None, reason, higher_is_better=measure.higher_is_better)
    values = [_pick(score, key) for score in scores]
    return row_of_seeds(
        label, measure.name, values, marks.get(label, {}), measure.higher_is_better, exact=measure.exact
    )


def row_of_seeds(
    label: str,
    measure: str,
    values: Sequence[float],
    marks: Mapping[str, float],
    higher_is_better: bool,
    exact: bool = False,
) -> Row:
    """A row from the score of each seed: their mean, and two standard deviations as its interval."""
    mean = float(np.mean(values))
    spread = 2 * float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Row(
        label,
        measure,
        mean,
        low=None if spread is None else mean - spread,
        high=None if spread is None else mean + spread,
        noise=marks.get("noise"),
        rotation=marks.get("rotation"),
        perfect=marks.get("perfect"),
        higher_is_better=higher_is_better,
        exact=exact,
        values=tuple(float(v) for v in values),
    )


def versions() -> dict[str, str]:
    """Versions of the packages that decide a score."""
    found = {}
    for package in ("latentlab", "numpy", "scipy", "scikit-learn", "numba"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found
