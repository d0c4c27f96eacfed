"""Uncertainty: an image's code is a distribution, and so is everything that is decoded from it.

Symbols: q(z | x) the posterior of an image, p(z) the prior, p(x | z) the likelihood; G(z) the mean image of a code.
By the law of total variance Var x' = Var_z G(z) + E_z Var(x' | z): what the code leaves open, and the likelihood's
own noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.derivatives import pushforward
from latentlab.analysis.inference import (
    BATCH_SIZE,
    as_codes,
    as_images,
    carry,
    check_seed,
    draw_codes,
    evaluating,
    inference,
    needs_encoder,
    needs_generator,
    to_numpy,
)
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.subject import subject_of
from latentlab.latents import Normal, Posterior

_BLOCKS = 32


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PredictiveMaps(Result):
    """How sure a model is of each pixel of an image.

    Attributes:
        mean: mean image over draws, (channels, height, width).
        latent_std: standard deviation of the mean image G(z) over draws of z, (channels, height, width).
        noise_std: root of the likelihood's variance, averaged over draws, of the same shape; None for a model without
            a likelihood, or with one whose variance has no formula.
        total_std: both together.
        linear_std: what the standard deviations of the latents come to by the Jacobian at the code, the root of
            diag(J S J'), of the same shape; None unless the code is a posterior of normal latents.
        draws: some of the drawn images, (k, channels, height, width).
        codes: their codes, (k, dim).
        x: the image that was given, (channels, height, width), or None.
        x_hat: the image of the posterior's own code, or of the given one; None for the prior.
        code: that code, (dim,), or None.
        sigma: standard deviation of each latent in prior standard deviations, (dim,); None without a posterior.
        kl: KL(q || p) of each latent, nats, (dim,); None without a posterior.
        dims: names of the latents.
        source: "posterior" of an image, "code" for p(x | z) alone, or "prior".
        n_draws: number of draws.

    The certificate holds ``standard_error``, the largest Monte-Carlo standard error of a pixel's mean;
    ``error_slope``, the slope of log error against log draws, measured on the means of disjoint groups of draws
    (-1/2 for independent draws, 0 for the same draw again); and ``beyond_linear``, how far ``latent_std`` is from
    ``linear_std``, root mean square as a share (0 but for chance where the generator is linear over the
    posterior). The last two are missing where nothing varies.
    """

    mean: np.ndarray
    latent_std: np.ndarray
    noise_std: np.ndarray | None
    total_std: np.ndarray
    linear_std: np.ndarray | None
    draws: np.ndarray
    codes: np.ndarray
    x: np.ndarray | None
    x_hat: np.ndarray | None
    code: np.ndarray | None
    sigma: np.ndarray | None
    kl: np.ndarray | None
    dims: tuple[str, ...]
    source: str
    n_draws: int


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class UnitSpread(Result):
    """How much each unit of a stage varies over draws of the code.

    Attributes:
        mean: mean activation of each unit over draws and its map, (units,).
        std: standard deviation over draws of a unit's mean over its map, (units,).
        map_std: the same at each place of the map, averaged over places, (units,).
        prior_std: ``std`` over draws of the prior, (units,).
        order: units by ``std``, the largest first, (units,).
        source: "posterior" of an image, or "prior".
        stage: name of the stage.
        address: its address within the model.
        network: name of the network.
        n_draws: number of draws.

    The certificate holds ``error_slope`` as in ``PredictiveMaps``; and ``left_open``, the mean over units of std as
    a share of ``prior_std``: 0 where the image settles every unit, 1 where it says nothing.
    """

    mean: np.ndarray
    std: np.ndarray
    map_std: np.ndarray
    prior_std: np.ndarray
    order: np.ndarray
    source: str
    stage: str
    address: str
    network: str
    n_draws: int


def predictive_maps(
    model: Any,
    x: Any = None,
    *,
    z: Any = None,
    n_draws: int = 256,
    keep: int = 8,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> PredictiveMaps:
    """Draws codes from an image's posterior, decodes them, and says how far each pixel is settled.

    Args:
        model: a model; for an image, one with an encoder.
        x: one image (channels, height, width) in [0, 1]. Without ``x`` and ``z`` the codes are prior draws.
        z: one code (dim,), in place of an image: what remains is the likelihood's noise.
        n_draws: number of draws, at least 32.
        keep: how many of the drawn images are kept.
        seed: decides the draws; equal seeds give equal pictures.
        batch_size: codes decoded at a time.
        progress: called with (draws done, draws in all); it may raise to cancel.

    Raises:
        ValueError: on both an image and a code, more than one of them, too few draws, or a model without an encoder
            for an image.
    """
    needs_generator(model)
    if x is not None and z is not None:
        raise ValueError("Give an image x, a code z, or neither for the prior; got both.")
    _check_draws(n_draws, keep, batch_size)
    space, posterior, image, code = model.latent_space, None, None, None
    with inference(model):
        if x is not None:
            needs_encoder(model)
            image = _single(as_images(model, x), "x", "image")
            posterior = model.encode(image)
            code = posterior.code()
        elif z is not None:
            code = _single(as_codes(model, z), "z", "code")
        codes = _draws(model, posterior, code, n_draws, seed)
        moments, kept, noise, done = _Moments(n_draws), [], None, 0
        for part in codes.split(batch_size):
            found = model.decode(part)
            moments.add(found)
            variance = _variance(model, part)
            if variance is not None:
                noise = variance.double().sum(0) + (0.0 if noise is None else noise)
            kept.append(found[: max(0, keep - done)])
            done += len(part)
            if progress is not None:
                progress(done, n_draws)
        x_hat = None if code is None else model.decode(code)[0]
    latent = moments.variance
    noise = None if noise is None else noise / n_draws
    linear = None if posterior is None else _linear_variance(model, posterior)
    certificate: dict[str, Any] = {"standard_error": float((latent / n_draws).sqrt().max())}
    slope = moments.slope()
    if slope is not None:
        certificate["error_slope"] = slope
        if linear is not None:
            away = (latent.sqrt() - linear.sqrt()).square().mean().sqrt()
            certificate["beyond_linear"] = float(away / latent.mean().sqrt())
    return PredictiveMaps(
        mean=to_numpy(moments.mean),
        latent_std=to_numpy(latent.sqrt()),
        noise_std=None if noise is None else to_numpy(noise.sqrt()),
        total_std=to_numpy((latent if noise is None else latent + noise).sqrt()),
        linear_std=None if linear is None else to_numpy(linear.sqrt()),
        draws=to_numpy(torch.cat(kept)),
        codes=to_numpy(codes[:keep]),
        x=None if image is None else to_numpy(image[0]),
        x_hat=None if x_hat is None else to_numpy(x_hat),
        code=None if code is None else to_numpy(code[0]),
        sigma=None if posterior is None else to_numpy((posterior.stddev / space.std.to(codes))[0]),
        kl=None if posterior is None else to_numpy(posterior.kl()[0]),
        dims=tuple(space.names),
        source=_source(posterior, code),
        n_draws=n_draws,
        certificate=certificate,
        provenance=provenance(model, {"x": x, "z": z, "n_draws": n_draws}, seed),
    )


def unit_spread(
    model: Any,
    stage: str,
    x: Any = None,
    network: str = "generator",
    *,
    n_draws: int = 256,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> UnitSpread:
    """How much each unit of a stage varies as the code is drawn, beside its variation over the prior.

    Args:
        model: a model; for an image, one with an encoder.
        stage: name or address of a stage of a network that reads codes. An encoder's units are settled by its image.
        x: one image (channels, height, width) in [0, 1]; None draws from the prior.
        network: name of the model's network.
        n_draws: number of draws, at least 32.
        seed: decides the draws.
        batch_size: codes run at a time.

    Raises:
        ValueError: on a network that reads images, an unknown stage, or a model without an encoder for an image.
    """
    subject = subject_of(model, network)
    if subject.reads is None:
        raise ValueError(
            f"Network {subject.name!r} reads no codes, so draws of a code leave its units as they are; take "
            f"{' or '.join(_readers(model)) or 'a model that has a generator'}."
        )
    _check_draws(n_draws, 0, batch_size)
    address = subject.address(stage)
    with inference(model):
        posterior = None
        if x is not None:
            needs_encoder(model)
            posterior = model.encode(_single(as_images(model, x), "x", "image"))
        spreads = []
        for source in (posterior, None):
            codes = carry(model, _draws(model, source, None, n_draws, seed), str(subject.reads))
            means, maps = _Moments(n_draws), _Moments(n_draws)
            for part in codes.split(batch_size):
                state = subject.state(part, stage)
                means.add(state.flatten(2).mean(2) if state.ndim > 2 else state)
                maps.add(state)
            spreads.append((means, maps))
            if posterior is None:
                spreads.append(spreads[0])
                break
    (means, maps), (prior, _) = spreads
    std, prior_std = means.variance.sqrt(), prior.variance.sqrt()
    each = maps.variance.sqrt()
    live = prior_std > 1e-9
    certificate: dict[str, Any] = {
        "left_open": float((std[live] / prior_std[live]).mean()) if bool(live.any()) else 0.0
    }
    if (slope := means.slope()) is not None:
        certificate["error_slope"] = slope
    return UnitSpread(
        mean=to_numpy(means.mean),
        std=to_numpy(std),
        map_std=to_numpy(each.flatten(1).mean(1) if each.ndim > 1 else each),
        prior_std=to_numpy(prior_std),
        order=np.argsort(-to_numpy(std), kind="stable"),
        source="prior" if posterior is None else "posterior",
        stage=subject.network.stage_name(stage),
        address=address,
        network=subject.name,
        n_draws=n_draws,
        certificate=certificate,
        provenance=provenance(
            model, {"network": subject.name, "stage": address, "x": x, "n_draws": n_draws}, seed
        ),
    )


class _Moments:
    """Mean and variance of rows that come in parts, and the sums of groups of rows, in double precision."""

    def __init__(self, n: int) -> None:
        self.n, self.done = n, 0
        self.first: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        if self.first is None:
            # Sums about one row and not about 0, or small variances would drown in rounding.
            self.first = rows[0].double()
            self._square = torch.zeros_like(self.first)
            self._sums = torch.zeros(_BLOCKS, *self.first.shape, dtype=torch.float64, device=rows.device)
            self._counts = torch.zeros(_BLOCKS, dtype=torch.float64, device=rows.device)
        away = rows.double() - self.first
        self._square += away.square().sum(0)
        group = torch.arange(self.done, self.done + len(rows), device=rows.device) * _BLOCKS // self.n
        self._sums.index_add_(0, group, away)
        self._counts.index_add_(0, group, torch.ones(len(rows), dtype=torch.float64, device=rows.device))
        self.done += len(rows)

    def _given(self) -> Tensor:
        if self.first is None:
            raise ValueError("No rows were given.")
        return self.first

    @property
    def mean(self) -> Tensor:
        return self._given() + self._sums.sum(0) / self.done

    @property
    def variance(self) -> Tensor:
        away = self._sums.sum(0) / self.done
        exact = (self._square - self.done * away.square()).clamp_min(0.0) / (self.done - 1)
        return torch.where(exact < 1e-14, 0.0, exact)

    def slope(self) -> float | None:
        """The slope of log error against log size over means of groups, each size's error from its own groups."""
        self._given()
        single = float(self.variance.mean())
        if single <= 0.0:
            return None
        sizes, errors, weights = [1.0], [0.5 * np.log(single)], [(self.n - 1) ** 0.5]
        for joined in (1, 2, 4):
            sums = self._sums.unflatten(0, (-1, joined)).sum(1)
            counts = self._counts.unflatten(0, (-1, joined)).sum(1)
            means = sums / counts.view(-1, *[1] * (sums.ndim - 1))
            spread = float(means.var(dim=0).mean())
            if spread <= 0.0:
                return None
            sizes.append(float(counts.mean()))
            errors.append(0.5 * np.log(spread))
            weights.append((len(sums) - 1) ** 0.5)
        return float(np.polyfit(np.log(sizes), errors, 1, w=weights)[0])


def _check_draws(n_draws: int, keep: int, batch_size: int) -> None:
    if n_draws < _BLOCKS or keep < 0 or batch_size < 1:
        raise ValueError(
            f"n_draws must be at least {_BLOCKS}, keep at least 0 and batch_size at least 1; got {n_draws}, "
            f"{keep} and {batch_size}."
        )


def _single(rows: Tensor, name: str, what: str) -> Tensor:
    if len(rows) != 1:
        raise ValueError(f"{name} must be one {what}; got {len(rows)}.")
    return rows


def _source(posterior: Posterior | None, code: Tensor | None) -> str:
    return "posterior" if posterior is not None else "prior" if code is None else "code"


def _readers(model: Any) -> Iterator[str]:
    networks = getattr(model, "networks", {})
    return (f"{name!r}" for name in networks if subject_of(model, name).reads is not None)


def _draws(model: Any, posterior: Posterior | None, code: Tensor | None, n: int, seed: int) -> Tensor:
    """Codes (n, dim) of one image's posterior, of the prior, or n times the one given."""
    if posterior is None:
        return draw_codes(model, n, seed) if code is None else code.expand(n, -1)
    seeds = np.random.default_rng(check_seed(seed)).integers(2**62, size=n)
    return torch.cat([posterior.sample(int(s)) for s in seeds])


def _variance(model: Any, codes: Tensor) -> Tensor | None:
    """The variance of p(x | z), of the shape of the images, where the model has a likelihood that tells it."""
    likelihood = getattr(model, "likelihood", None)
    if not callable(likelihood):
        return None
    try:
        return likelihood(codes).variance  # pyright: ignore[reportAttributeAccessIssue]
    except NotImplementedError:
        return None


def _linear_variance(model: Any, posterior: Posterior) -> Tensor | None:
    """diag(J S J') at the posterior's code, one directional derivative a latent; None unless all are normal."""
    if not all(isinstance(block.prior, Normal) for block in model.latent_space.blocks):
        return None
    code, ways = posterior.code().clone(), torch.diag_embed(posterior.stddev)
    with evaluating(model), torch.no_grad():
        return pushforward(model.decode, code, ways)[0].double().square().sum(0)
