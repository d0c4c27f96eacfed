"""TCAV: does a concept matter to what a network gives, tested against random concepts.

Symbols: h the features (n, p) of a stage, v the unit concept activation vector (CAV), along which examples of the
concept lie apart from random ones; m the target, a number of each input; S(x) = <gradient of m in h, v> the
sensitivity of x.

A CAV is a ridge classifier. All of them are solved among the examples' inner products, so thousands cost seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.concept_vectors import p_value, rank_p_value, told_apart, welch
from latentlab.analysis.direction import Direction
from latentlab.analysis.inference import BATCH_SIZE, check_seed, evaluating, in_chunks, inference, to_numpy
from latentlab.analysis.meters import Meter, meter_of
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.subject import Subject, Substitute, subject_of

_LEAST = 6


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Tcav(Result):
    """How a target depends on concepts at a stage, and whether random concepts would do as well.

    Attributes:
        effect: first-order change of the target from the random examples to the concept's: mean sensitivity times how
            far apart held-out examples lie along the CAV; mean over partner sets, (concepts,), in the target's unit.
        null_effect: the same of random concepts, (n_draws,).
        p_value: two-sided, of each effect as one more draw of ``null_effect``, by Student's t, (concepts,).
        adjusted: p_value times the number of concepts, at most 1 (Bonferroni), (concepts,).
        rank_p_value: share of random concepts, the tested one counted in, whose effect is at least as far from their
            median, (concepts,); never below 1 / (n_draws + 1).
        score: the TCAV score, share of inputs with S > 0, for each partner set, (concepts, n_partners).
        null_score: the same of random concepts, (n_draws, n_partners).
        magnitude: share of the summed absolute S that is positive, mean over partner sets, (concepts,).
        partner_p_value: of the customary test, Welch's t of ``score`` against ``null_score``, (concepts,). All partner
            sets share the concept's examples, so it calls random concepts significant far too often.
        accuracy: of the CAVs on held-out examples, (concepts,).
        null_accuracy: of random concepts, (n_draws,).
        sensitivity: S of each input for the mean CAV of each concept, (concepts, inputs).
        cav: mean CAV over partner sets, unit length, (concepts, features).
        step: standard deviation of the random examples along each mean CAV, (concepts,).
        concepts: their names.
        target: name of the target.
        unit: its unit.
        address: address of the stage.
        network: name of the network.
        features: "flat" for the whole state, "pooled" for each unit's mean over positions.
        state_shape: shape of the stage's state, without the batch.

    ``direction(concept)`` is the mean CAV as a Direction of the stage. The certificate holds ``gradient_gap``, the
    largest difference between S and a central difference along the CAV, as a share of the largest S;
    ``null_rejected``, the share of random concepts that the same test calls significant at .05 among the others;
    and ``customary_rejected``, the same by the customary test.
    """

    effect: np.ndarray
    null_effect: np.ndarray
    p_value: np.ndarray
    adjusted: np.ndarray
    rank_p_value: np.ndarray
    score: np.ndarray
    null_score: np.ndarray
    magnitude: np.ndarray
    partner_p_value: np.ndarray
    accuracy: np.ndarray
    null_accuracy: np.ndarray
    sensitivity: np.ndarray
    cav: np.ndarray
    step: np.ndarray
    concepts: tuple[str, ...]
    target: str
    unit: str
    address: str
    network: str
    features: str
    state_shape: tuple[int, ...]

    def direction(self, concept: str) -> Direction:
        """A concept's CAV as a direction of the stage, to traverse or to measure effects of.

        Raises:
            ValueError: on an unknown concept, or a CAV over single positions of a map, which no direction of units is.
        """
        if concept not in self.concepts:
            raise ValueError(f"No concept {concept!r}; there are {', '.join(self.concepts)}.")
        if self.cav.shape[1] != self.state_shape[0]:
            raise ValueError(
                f"The CAVs of {self.address!r} speak of single positions; tcav(…, features='pooled') gives directions."
            )
        where = self.concepts.index(concept)
        return Direction(
            concept,
            tuple(np.asarray(self.cav, dtype=float)[where]),
            stage=self.address,
            step=max(float(self.step[where]), 1e-12),
            method="TCAV",
            weights_digest=self.provenance.weights_digest,
        )


def tcav(
    model: Any,
    stage: str,
    concepts: Mapping[str, Any],
    target: Any = None,
    *,
    network: str = "generator",
    inputs: Any = None,
    random_examples: Any = None,
    n: int = 64,
    n_draws: int = 50,
    n_partners: int = 30,
    features: str = "flat",
    ridge: float = 1.0,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> Tcav:
    """Tests concepts, each given by examples, for their part in a target.

    Args:
        model: a model, or a staged network itself.
        stage: name or address of the stage.
        concepts: {name: examples that show it}, inputs of the network: codes (k, dim) of the model's first space for a
            network that reads codes, images (k, channels, height, width) for an encoder or discriminator.
        target: a number of each input. For a generator a meter of its images (a name, a Meter, a function); for an
            encoder a coordinate of the code by name or position, whose posterior mean is taken in prior standard
            deviations; for any other network a position among its outputs, flattened (0 is a discriminator's
            logit), or a function of them.
        network: name of the model's network.
        inputs: what the sensitivities are taken at; None is ``n`` prior draws for a network that reads codes.
        random_examples: a pool to draw random sets from, of what the concepts are to be told apart from, at least
            three times as many as a concept has examples; None is prior draws for a network that reads codes.
        n: number of draws where ``inputs`` is None.
        n_draws: random concepts for the null, at least 30.
        n_partners: random sets that each concept is told apart from.
        features: "flat" for the whole state of a map, or "pooled" for each unit's mean over positions.
        ridge: penalty of the classifiers, in the examples' whole variance. A small one gives the plane that tells the
            groups apart best; a large one the way from one mean to the other, which is what a concept adds to h.
        seed: decides draws, sets and splits.
        batch_size: inputs run at a time.
        progress: called with (concepts done, concepts in all, random ones counted); it may raise to cancel.

    Raises:
        ValueError: on fewer than 6 examples, a pool that is too small, or an unknown stage, target or feature.

    References:
        Interpretability beyond feature attribution: quantitative testing with concept activation vectors (Kim et al.,
        2018), https://arxiv.org/abs/1711.11279. Their test compares scores over partner sets, which share the
        concept's examples and are no independent draws; here a concept is compared with random concepts, each of them
        averaged over as many partner sets. Their scores and test stand beside.
    """
    seed = check_seed(seed)
    subject = subject_of(model, network)
    address = subject.address(stage)
    if features not in ("flat", "pooled"):
        raise ValueError(f"features must be 'flat' or 'pooled'; got {features!r}.")
    if n_draws < 30 or n_partners < 2:
        raise ValueError(
            f"A test needs at least 30 random concepts and 2 partner sets; got {n_draws} and {n_partners}."
        )
    if not ridge > 0.0:
        raise ValueError(f"ridge must be above 0; got {ridge}.")
    if not concepts:
        raise ValueError("Expected at least one concept; got none.")
    measure, title, unit = _target(model, subject, target)
    given = {name: subject.inputs(examples, seed) for name, examples in concepts.items()}
    sizes = {name: len(examples) for name, examples in given.items()}
    if few := [f"{name!r} has {size}" for name, size in sizes.items() if size < _LEAST]:
        raise ValueError(f"A concept needs at least {_LEAST} examples; {few[0]}.")
    largest = max(sizes.values())
    pool = subject.inputs(random_examples, seed + 1, max(300, 6 * largest))
    if len(pool) < 3 * largest:
        raise ValueError(
            f"random_examples must be at least three times as many as a concept's ({3 * largest}); got {len(pool)}."
        )
    at = subject.inputs(inputs, seed + 2, n)

    def read(part: Tensor) -> Tensor:
        state = subject.state(part, stage)
        return state.flatten(2).mean(2) if features == "pooled" and state.ndim == 4 else state.flatten(1)

    with inference(model):
        examples = [in_chunks(read, rows, batch_size).astype(np.float64) for rows in (*given.values(), pool)]
        shape = tuple(subject.state(at[:1], stage).shape[1:])
    gradients = _gradients(model, subject, stage, measure, at, batch_size)
    if features == "pooled" and gradients.ndim == 4:
        gradients = gradients.sum(axis=(2, 3))  # a shift of a unit moves all of its positions
    slopes = gradients.reshape(len(gradients), -1)

    rows = np.concatenate(examples)
    centre = examples[-1].mean(axis=0)
    rows = rows - centre
    ends = np.cumsum([0, *(len(e) for e in examples)])
    members = {name: np.arange(ends[i], ends[i + 1]) for i, name in enumerate(given)}
    random = np.arange(ends[-2], ends[-1])
    inner, sensed = rows @ rows.T, rows @ slopes.T
    rng = np.random.default_rng(seed)
    total, done = len(given) + n_draws, 0
    found = []
    for name in given:
        found.append(told_apart(inner, sensed, members[name], random, n_partners, ridge, rng))
        done += 1
        if progress is not None:
            progress(done, total)
    null = []
    size = round(float(np.mean(list(sizes.values()))))
    for _ in range(n_draws):
        chosen = rng.permutation(random)
        null.append(told_apart(inner, sensed, chosen[:size], chosen[size:], n_partners, ridge, rng))
        done += 1
        if progress is not None:
            progress(done, total)
    null_effect = np.array([c.effect for c in null])
    effect = np.array([c.effect for c in found])
    null_score = np.stack([c.scores for c in null])
    singles = null_score[:, 0]
    p = np.array([p_value(e, null_effect) for e in effect])
    cavs = np.stack([c.weights @ rows for c in found])
    cavs /= np.maximum(np.linalg.norm(cavs, axis=1, keepdims=True), 1e-12)
    others = [p_value(e, np.delete(null_effect, i)) for i, e in enumerate(null_effect)]
    usual = [welch(c.scores, np.delete(singles, i)) for i, c in enumerate(null)]
    return Tcav(
        effect=effect,
        null_effect=null_effect,
        p_value=p,
        adjusted=np.minimum(1.0, p * len(given)),
        rank_p_value=np.array([rank_p_value(e, null_effect) for e in effect]),
        score=np.stack([c.scores for c in found]),
        null_score=null_score,
        magnitude=np.array([c.magnitude for c in found]),
        partner_p_value=np.array([welch(c.scores, singles) for c in found]),
        accuracy=np.array([c.accuracy for c in found]),
        null_accuracy=np.array([c.accuracy for c in null]),
        sensitivity=cavs @ slopes.T,
        cav=cavs,
        step=(rows[random] @ cavs.T).std(axis=0),
        concepts=tuple(given),
        target=title,
        unit=unit,
        address=address,
        network=subject.name,
        features=features,
        state_shape=shape,
        certificate={
            "gradient_gap": _gradient_gap(model, subject, stage, measure, at[:4], cavs, slopes[:4], shape),
            "null_rejected": float(np.mean(np.array(others) < 0.05)),
            "customary_rejected": float(np.mean(np.array(usual) < 0.05)),
        },
        provenance=provenance(
            model,
            {"stage": address, "concepts": given, "target": title, "inputs": at, "random_examples": pool,
             "n_draws": n_draws, "n_partners": n_partners, "features": features, "ridge": ridge},
            seed,
        ),
    )  # fmt: skip


def _target(model: Any, subject: Subject, target: Any) -> tuple[Callable[..., Tensor], str, str]:
    """The target of inputs and edits, its name and unit."""
    if subject.reads is not None and target is None:
        raise ValueError(
            "Say what the image is judged by: target=, such as 'brightness' or a function of images."
        )
    if subject.reads is not None:
        meter: Meter = meter_of(target)
        return lambda h, edits: meter(subject.output(h, edits)), meter.name, meter.unit
    if subject.whole and subject.name == "encoder" and not callable(target):
        space = model.latent_space
        index = space.index(0 if target is None else target)
        scale = float(space.std[index])
        return (
            lambda h, edits: model.encode(h, edits=edits).mean[:, index] / scale,
            f"posterior mean of {space.names[index]}",
            "prior standard deviations",
        )
    if callable(target):
        name = getattr(target, "__name__", "target")
        judge: Callable[..., Any] = target
        return lambda h, edits: judge(subject.output(h, edits)), name, ""
    position = 0 if target is None else target
    if not isinstance(position, int):
        raise ValueError(
            f"The target of network {subject.name!r} is a position among its outputs or a function; got {target!r}."
        )

    def read(h: Tensor, edits: Sequence) -> Tensor:
        output = subject.output(h, edits).flatten(1)
        if not 0 <= position < output.shape[1]:
            raise ValueError(
                f"Network {subject.name!r} has outputs 0 to {output.shape[1] - 1}; got target {position}."
            )
        return output[:, position]

    return read, f"output {position} of {subject.name}", ""


def _at(subject: Subject, stage: str, state: Tensor) -> tuple:
    return (Substitute(stage=subject.address(stage), state=state),)


def _gradients(
    model: Any, subject: Subject, stage: str, measure: Callable[..., Tensor], at: Tensor, batch_size: int
) -> np.ndarray:
    """Gradients (n, units, …) of the target in the stage's states of inputs (n, …)."""
    found = []
    with evaluating(model), torch.enable_grad():
        for part in at.split(batch_size):
            with torch.no_grad():
                state = subject.state(part, stage).clone()
            state.requires_grad_(True)
            values = measure(part, _at(subject, stage, state))
            if values.shape != (len(part),):
                raise ValueError(
                    f"A target gives one number an input ({len(part)},); got {tuple(values.shape)}."
                )
            if not values.requires_grad:
                raise ValueError(
                    f"The target has no gradient at {subject.address(stage)!r}; take another one."
                )
            found.append(to_numpy(torch.autograd.grad(values.sum(), state)[0]))
    return np.concatenate(found).astype(np.float64)


def _gradient_gap(
    model: Any,
    subject: Subject,
    stage: str,
    measure: Callable[..., Tensor],
    at: Tensor,
    cavs: np.ndarray,
    slopes: np.ndarray,
    shape: tuple[int, ...],
) -> float:
    """How far S is from central differences of a thousandth of the states' length, as a share of the largest S."""
    told, gap = cavs @ slopes.T, 0.0
    with inference(model):
        state = subject.state(at, stage)
        length = max(float(state.flatten(1).norm(dim=1).mean()), 1e-3) * 1e-3
        for cav, expected in zip(cavs, told, strict=True):
            way = torch.as_tensor(cav, dtype=state.dtype, device=state.device)
            way = way.reshape(shape) if way.numel() == state[0].numel() else way[:, None, None].expand(shape)
            up, down = (measure(at, _at(subject, stage, state + s * length * way)) for s in (1.0, -1.0))
            gap = max(gap, float(np.abs(to_numpy((up - down) / (2 * length)) - expected).max()))
    return gap / max(float(np.abs(told).max()), 1e-12)
