"""SeFa: the directions of the code that the first affine map of a generator answers to most.

Symbols: A (rows, dim) what the code is multiplied by before anything bends, v its right singular vectors, s its
singular values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from latentlab.analysis.directions import Directions, home_space, layers_of, lengths, ordered, signed
from latentlab.analysis.inference import check_seed, decoded, device_of, inference, needs_generator
from latentlab.analysis.results import provenance
from latentlab.models.contract import space_of
from latentlab.models.style_gan import W_PLUS, W

_WEIGHTED = {
    "linear", "matmul", "__matmul__", "mm", "addmm", "bmm", "baddbmm", "einsum", "conv1d", "conv2d", "conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "bilinear", "embedding",
}  # fmt: skip
_SHAPING = {
    "view",
    "reshape",
    "flatten",
    "unflatten",
    "unsqueeze",
    "squeeze",
    "contiguous",
    "clone",
    "to",
    "float",
}
_NORMALISING = {"batch_norm"}
_CHECKS = 4


class _FirstMaps(TorchFunctionMode):
    """Writes down what the first weighted maps that a tensor reaches give, without touching the model.

    A mode is of its thread alone, so no other run of the model notices.
    """

    def __init__(self, code: Tensor) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []
        self._held: list[Tensor] = [code]  # kept alive, or an id could be given out again
        self._code = {id(code)}
        self._output: dict[int, int] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = [t for t in _tensors((*args, *kwargs.values()))]
        name = getattr(func, "__name__", "")
        fresh = [t for t in _tensors((result,))]
        if any(id(t) in self._code for t in given):
            for t in fresh:
                if name in _WEIGHTED:
                    self._output[id(t)] = len(self.outputs)
                    self.outputs.append(t.clone())  # an in-place activation may write into it
                else:
                    self._code.add(id(t))
                self._held.append(t)
            return result
        which = next((self._output[id(t)] for t in given if id(t) in self._output), None)
        if which is not None and len(fresh) == 1 and name in (_SHAPING | _NORMALISING):
            self._output[id(fresh[0])] = which
            self._held.append(fresh[0])
            if name in _NORMALISING:
                self.outputs[which] = fresh[0].clone()
        return result


def _tensors(values: Iterable) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def first_affine(model: Any, space: str, layers: Iterable[int] | None = None) -> tuple[np.ndarray, float]:
    """The matrix A (rows, dim) by which codes of a space first meet weights, and how far from affine that is.

    Every map with weights that reads the code itself (or a part or a view of it) has its rows in A: one in most
    generators, one a level in a ladder, one a style in a style-based one. Batch normalisation behind it is folded in.
    A is measured, by running the code 0 and the unit vectors, so whatever scales weights as they are used is in it.

    Args:
        model: a generative model.
        space: name of the space.
        layers: for W: only the maps that read these layers of W+; None for all.

    Returns:
        A, float64, and the largest difference of A z + b from what random codes give there, as a share of its range.

    Raises:
        ValueError: if nothing with weights reads the code, or the layers don't exist.
    """
    split = space == W and layers is not None
    place = space_of(model, W_PLUS if split else space)
    probes = torch.zeros(1 + place.dim + _CHECKS, place.dim)
    probes[1 : 1 + place.dim] = torch.eye(place.dim)
    checks = torch.randn(_CHECKS, place.dim, generator=torch.Generator().manual_seed(0))
    probes[-_CHECKS:] = checks
    probes = probes.to(device_of(model))
    with inference(model), _FirstMaps(probes) as found:
        decoded(model, probes, (), place.name)
    maps = [o for o in found.outputs if o.ndim >= 2 and len(o) == len(probes) and o.is_floating_point()]
    if not maps:
        raise ValueError(
            f"No affine map reads the codes of space {place.name!r} in {type(model).__name__}, so SeFa says nothing "
            "about it; ganspace finds directions in any generator."
        )
    parts = [m.detach().flatten(1).double().cpu().numpy() for m in maps]
    if split:
        width = space_of(model, W).dim
        chosen, count = set(layers or ()), place.dim // width
        if wrong := sorted(k for k in chosen if not 0 <= k < count):
            raise ValueError(f"W+ has layers 0 to {count - 1}; got {wrong[0]}.")
        parts = [p for p in parts if chosen & _read(p[1 : 1 + place.dim] - p[0], width)]
    values = np.concatenate(parts, axis=1)
    matrix = (values[1 : 1 + place.dim] - values[0]).T
    expected = values[0] + checks.double().numpy() @ matrix.T
    spread = max(float(np.abs(values[-_CHECKS:] - values[0]).max()), 1e-12)
    gap = float(np.abs(values[-_CHECKS:] - expected).max()) / spread
    if split:  # a code of W is the style of each of the layers
        matrix = sum(matrix[:, k * width : (k + 1) * width] for k in sorted(chosen))  # type: ignore[assignment]
    return np.asarray(matrix), gap


def _read(responses: np.ndarray, width: int) -> set[int]:
    """Which layers' styles a map reads: (layers x width, rows) what each coordinate changes."""
    return {int(i) // width for i in np.nonzero(np.abs(responses).max(axis=1))[0]}


def sefa(
    model: Any,
    n: int | None = None,
    *,
    layers: Iterable[int] | None = None,
    space: str | None = None,
    normalise: bool = False,
    seed: int = 0,
    n_draws: int = 64,
) -> Directions:
    """Directions in closed form: the right singular vectors of the first affine map from the code.

    Args:
        model: a generative model of any family, whose code reaches weights by no step that bends.
        n: how many directions; None for all that there are.
        layers: for W of a style-based generator: the layers of W+ whose styles count, and which the directions move.
        space: name of the space; None is W where there is one, else the model's own.
        normalise: give each row of A unit length first, as the authors' code does. By default rows keep their length,
            so that a score is what the map itself does to a step.
        seed: of the draws that measure the length of a step, and of the random directions.
        n_draws: random directions beside them, at least 1.

    Returns:
        Directions whose scores are singular values, descending: how far a code's image under A moves for a move of
        length 1. The certificate holds ``affine_gap``, how far the map is from affine, as a share of its range;
        ``orthogonality``, the largest entry of V V' - 1; ``gain_gap``, the largest relative difference between a
        score and the length of A v; ``random_gain``, the mean length of A v of random unit vectors; and
        ``covered``, the share of all squared singular values that the directions have.

    Raises:
        ValueError: if no affine map reads the code, or what leads to it bends.

    References:
        Closed-form factorization of latent semantics in GANs (Shen and Zhou, 2021), https://arxiv.org/abs/2007.06600.
        Theirs are eigenvectors of A'A in the order in which a general solver gives them; here they are sorted.
    """
    needs_generator(model)
    check_seed(seed)
    if n_draws < 1:
        raise ValueError(f"n_draws must be at least 1; got {n_draws}.")
    name = space or home_space(model)
    place = space_of(model, name)
    chosen = layers_of(place, layers)
    where = ordered(place)
    full, gap = first_affine(model, name, chosen)
    if gap > 1e-3:
        raise ValueError(
            f"Codes of space {name!r} reach the first weights of {type(model).__name__} by a step that bends (A z + b "
            f"misses by {gap:.2g} of its range), so singular vectors of A say nothing there; take a space behind that "
            "step, such as 'w', or ganspace."
        )
    matrix = full[:, where]
    if normalise:
        long = np.linalg.norm(matrix, axis=1)
        matrix = matrix[long > 0] / long[long > 0, None]
    squares, vectors = np.linalg.eigh(matrix.T @ matrix)
    order = np.argsort(-squares, kind="stable")
    squares, vectors = np.clip(squares[order], 0.0, None), vectors[:, order].T
    count = len(where) if n is None else _count(n, len(where))
    table = np.zeros((count, place.dim))
    table[:, where] = signed(vectors[:count])
    scores = np.sqrt(squares[:count])
    measured = np.linalg.norm(matrix @ table[:, where].T, axis=0)
    chance = np.random.default_rng(seed).standard_normal((n_draws, len(where)))
    chance /= np.linalg.norm(chance, axis=1, keepdims=True)
    return Directions(
        vectors=table,
        steps=lengths(model, name, table, seed),
        scores=scores,
        stability=None,
        names=tuple(f"sefa{i}" for i in range(count)),
        space=name,
        stage=None,
        layers=chosen,
        method="SeFa",
        score_name="singular value",
        certificate={
            "affine_gap": gap,
            "orthogonality": float(np.abs(table @ table.T - np.eye(count)).max()),
            "gain_gap": float((np.abs(measured - scores) / max(scores[0], 1e-12)).max()),
            "random_gain": float(np.linalg.norm(matrix @ chance.T, axis=0).mean()),
            "covered": float(squares[:count].sum() / max(squares.sum(), 1e-12)),
        },
        provenance=provenance(
            model, {"n": n, "layers": chosen, "space": name, "normalise": normalise, "n_draws": n_draws}, seed
        ),
    )


def _count(n: Any, most: int) -> int:
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= most:
        raise ValueError(f"n must be a whole number from 1 to {most}; got {n!r}.")
    return n
