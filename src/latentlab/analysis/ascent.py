"""The ascent of images or codes towards what excites units of a stage. Internal to this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.fourier_images import FourierImages
from latentlab.analysis.inference import decoded, to_numpy
from latentlab.analysis.prior_region import PriorRegion
from latentlab.analysis.subject import Subject

_BETAS = (0.9, 0.99)
_LOOK = 16
_SLOWING = 0.25
_PROPOSALS = 33
_SHIFTS = 8


class Ascent:
    """A search over pixels, over the prior of an encoder's or discriminator's model, or over a generator's latents.

    What is found are *points*: images over pixels, else codes of the model's first space.

    Args:
        subject: the network whose units are excited.
        model: its model.
        stage: name of the stage.
        way: "pixels", "prior" or "latents".
        summary: "mean", "max" or "centre" of a unit's map.
        samples: what is compared with: codes where ``drawn``, else images.
        drawn: whether the samples are codes.
    """

    def __init__(
        self, subject: Subject, model: Any, stage: str, way: str, summary: str, samples: Tensor, drawn: bool
    ) -> None:
        self.subject, self.model, self.stage, self.way, self.summary = subject, model, stage, way, summary
        self.samples, self._drawn = samples, drawn
        self.region = None if way == "pixels" else PriorRegion(model.latent_space)
        shape = tuple(model.image_shape) if subject.whole else tuple(samples.shape[1:])
        self._spectra = FourierImages(shape, samples.device) if way == "pixels" else None

    def answers(self, points: Tensor) -> Tensor:
        """The activations (n, units) of the whole stage for points (n, …)."""
        return self._summed(self.subject.state(self._inputs(points), self.stage))

    def pictures(self, points: Tensor) -> Tensor:
        """The images (n, channels, height, width) of points."""
        return points if self.region is None else decoded(self.model, points)

    def of_samples(self, samples: Tensor) -> Tensor:
        """Samples as points: codes are decoded over pixels."""
        return decoded(self.model, samples) if self._drawn and self.region is None else samples

    def shifted(self, points: Tensor, chance: torch.Generator) -> Tensor | None:
        """The mean activations (n, units) of images under small shifts; None over codes."""
        if self._spectra is None:
            return None
        return torch.stack(
            [self.answers(self._spectra.shifted(points, chance)) for _ in range(_SHIFTS)]
        ).mean(dim=0)

    def run(
        self,
        starts: np.ndarray,
        units: np.ndarray,
        sampled: np.ndarray,
        roughness: np.ndarray,
        steps: int,
        rate: float,
        batch_size: int,
        chance: torch.Generator,
        progress: Callable[[int, int], object] | None,
    ) -> tuple[Tensor, np.ndarray]:
        """Ascends from each of the samples ``starts`` (n,) towards its unit (n,).

        Over pixels those not ``sampled``, bool (n,), leave from noise instead, and ``roughness`` (n,) times the mean
        step between neighbouring pixels is taken off the activation.

        Returns:
            The points of the largest activation, (n, …), and that activation, (n,).
        """
        starts_at = self.of_samples_in(starts, batch_size)
        rows = torch.as_tensor(units, device=starts_at.device)
        noiseless = torch.as_tensor(sampled, device=starts_at.device)
        cost = torch.as_tensor(roughness, dtype=torch.float32, device=starts_at.device)
        choices = 1
        if self.region is not None:
            starts_at = self.region.inside(starts_at)
            options = self.region.choices(starts_at)
            choices = options.shape[1]
            starts_at, rows = options.flatten(0, 1), rows.repeat_interleave(choices)
            noiseless, cost = (t.repeat_interleave(choices) for t in (noiseless, cost))
        climb = self._propose if self.region is not None and self.region.discrete else self._climb
        count = -(-len(rows) // batch_size)
        points, values = [], []
        for i in range(count):
            part = slice(i * batch_size, (i + 1) * batch_size)

            def told(t: int, done: int = i * steps) -> None:
                if progress is not None:
                    progress(done + t, count * steps)

            point, value = climb(
                starts_at[part], rows[part], noiseless[part], cost[part], steps, rate, chance, told
            )
            points.append(point)
            values.append(value)
        value = torch.cat(values).view(-1, choices)
        best = value.argmax(dim=1)
        point = torch.cat(points)
        point = point.view(len(value), choices, *point.shape[1:])[torch.arange(len(value)), best]
        return point, to_numpy(value.max(dim=1).values)

    def of_samples_in(self, starts: np.ndarray, batch_size: int) -> Tensor:
        """The points of some samples, in batches."""
        with torch.no_grad():
            chosen = self.samples[torch.as_tensor(starts, device=self.samples.device)]
            return torch.cat([self.of_samples(part) for part in chosen.split(batch_size)])

    def _inputs(self, points: Tensor) -> Tensor:
        if self.way == "prior":
            return decoded(self.model, points)
        if self.way == "latents" and self.subject.reads != self.model.latent_space.name:
            return self.model.map(points, self.model.latent_space.name, self.subject.reads)
        return points

    def _summed(self, state: Tensor) -> Tensor:
        if state.ndim == 2:
            return state
        if self.summary == "centre":
            return state[:, :, state.shape[2] // 2, state.shape[3] // 2]
        return state.mean(dim=(2, 3)) if self.summary == "mean" else state.amax(dim=(2, 3))

    def _values(self, points: Tensor, rows: Tensor) -> Tensor:
        return self.answers(points).gather(1, rows[:, None])[:, 0]

    def _climb(
        self,
        starts: Tensor,
        rows: Tensor,
        noiseless: Tensor,
        cost: Tensor,
        steps: int,
        rate: float,
        chance: torch.Generator,
        told: Callable[[int], None],
    ) -> tuple[Tensor, Tensor]:
        """Adam, over spectra or over codes kept in their region; the best that was looked at is kept.

        ``noiseless`` says which rows (n,) leave from their sample over pixels.
        """
        spectra = self._spectra
        unit: Any = 1.0
        if spectra is not None:
            here = spectra.draw(len(rows), chance)
            slope = self._slope(here, rows, cost, None)
            # Noise that a rectifier silences gives no direction; and what suits a sample may be out of noise's reach.
            given = (slope == 0).flatten(1).all(dim=1) | noiseless
            here[given] = spectra.spectra(starts[given])
        else:
            assert self.region is not None
            here = starts.clone()
            space = self.model.latent_space
            unit = torch.where(self.region.free, space.std, torch.zeros(space.dim)).to(here)
        with torch.no_grad():
            best = self._point(here)
            most = self._aim(best, rows, cost)
        m, v = torch.zeros_like(here), torch.zeros_like(here)
        for t in range(1, steps + 1):
            slope = self._slope(here, rows, cost, chance)
            slope = slope * unit
            m = _BETAS[0] * m + (1.0 - _BETAS[0]) * slope
            square = slope.square()
            if spectra is None:
                # One size for all coordinates: Adam's own would end where the shell is parallel to the slope's signs.
                square = square.mean(dim=1, keepdim=True).expand_as(square)
            v = _BETAS[1] * v + (1.0 - _BETAS[1]) * square
            size = (v / (1.0 - _BETAS[1] ** t)).sqrt()
            step = (m / (1.0 - _BETAS[0] ** t)) / (size + 1e-10)
            here = here + unit * rate * min(1.0, (steps - t + 1) / (_SLOWING * steps)) * step
            if self.region is not None:
                here = self.region.inside(here)
            if t % _LOOK == 0 or t == steps:
                with torch.no_grad():
                    point = self._point(here)
                    value = self._aim(point, rows, cost)
                better = value > most
                most = torch.where(better, value, most)
                best[better] = point[better]
            told(t)
        with torch.no_grad():
            return best, self._values(best, rows)

    def _aim(self, points: Tensor, rows: Tensor, cost: Tensor) -> Tensor:
        values = self._values(points, rows)
        if self._spectra is None:
            return values
        steps = points.diff(dim=2).abs().mean(dim=(1, 2, 3)) + points.diff(dim=3).abs().mean(dim=(1, 2, 3))
        return values - cost * steps

    def _point(self, here: Tensor) -> Tensor:
        return here.clone() if self._spectra is None else self._spectra.images(here)

    def _slope(self, here: Tensor, rows: Tensor, cost: Tensor, chance: torch.Generator | None) -> Tensor:
        with torch.enable_grad():
            free = here.detach().requires_grad_()
            point = free if self._spectra is None else self._spectra.images(free)
            if self._spectra is not None and chance is not None:
                point = self._spectra.shifted(point, chance)
            total = self._aim(point, rows, cost).sum()
            (slope,) = torch.autograd.grad(total, free, allow_unused=True, materialize_grads=True)
        return slope

    def _propose(
        self,
        starts: Tensor,
        rows: Tensor,
        noiseless: Tensor,
        cost: Tensor,
        steps: int,
        rate: float,
        chance: torch.Generator,
        told: Callable[[int], None],
    ) -> tuple[Tensor, Tensor]:
        """Single changes of an index, proposed at random; of each round the best is kept."""
        assert self.region is not None
        here, most = starts.clone(), torch.full(rows.shape, -torch.inf, device=starts.device)
        with torch.no_grad():
            for t in range(1, steps + 1):
                options = self.region.neighbours(here, _PROPOSALS, chance)
                values = self._values(options.flatten(0, 1), rows.repeat_interleave(_PROPOSALS))
                most, chosen = values.view(-1, _PROPOSALS).max(dim=1)
                here = options[torch.arange(len(rows)), chosen]
                told(t)
        return here, most
