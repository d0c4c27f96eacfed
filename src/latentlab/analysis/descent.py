"""The descent of codes towards images, each image's its own, by Adam on the codes of a model that stays as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from latentlab.analysis.inference import decoded
from latentlab.latents import LatentSpace, Uniform

_SMALLEST = 4
_RAMP_UP, _RAMP_DOWN = 0.05, 0.25
_BETAS = (
    0.9,
    0.99,
)  # the second below the usual 0.999: slopes shrink a lot on the way to an image that is found


@dataclass(frozen=True)
class Descent:
    """What is descended: the error of a model's images of codes of a space, and what is added to it.

    Args:
        model: a generative model, in eval mode while it is descended.
        place: the space.
        edits: edits in force.
        middle: mean of each coordinate, (dim,).
        spread: its standard deviation, (dim,), the unit of steps and distances.
        free: whether it is descended at all, bool (dim,).
        pyramid: weight of the errors of smaller images.
        closeness: weight of the distance from the middle.
    """

    model: Any
    place: LatentSpace
    edits: Sequence
    middle: Tensor
    spread: Tensor
    free: Tensor
    pyramid: float
    closeness: float

    def images(self, codes: Tensor) -> Tensor:
        """Images (n, channels, height, width) of codes (n, dim)."""
        return decoded(self.model, codes, self.edits, self.place.name)

    def loss(self, codes: Tensor, targets: Tensor) -> Tensor:
        """The loss of each image, (n,)."""
        return self.judge(self.images(codes), codes, targets)

    def judge(self, x: Tensor, codes: Tensor, y: Tensor) -> Tensor:
        """The loss of images that are decoded already, (n,), beside targets (n, …) or (1, …)."""
        total = (x - y).square().mean(dim=(1, 2, 3))
        while self.pyramid > 0.0 and min(x.shape[2:]) >= 2 * _SMALLEST:
            x, y = avg_pool2d(x, 2), avg_pool2d(y, 2)
            total = total + self.pyramid * (x - y).square().mean(dim=(1, 2, 3))
        if self.closeness > 0.0:
            away = ((codes - self.middle) / self.spread)[:, self.free]
            total = total + self.closeness * away.square().mean(dim=1)
        return total

    def descend(
        self, first: Tensor, targets: Tensor, steps: int, rate: float, tolerance: float, window: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Descends from each of the starts (n, dim) towards its target.

        Args:
            first: the codes to leave from.
            targets: images (n, channels, height, width) in [0, 1].
            steps: most steps of any of them.
            rate: step size in units of ``spread``; it rises over the first twentieth of the steps, falls over the last
                quarter.
            tolerance: share by which ``window`` steps must lower the least loss; 0 takes all steps.
            window: see ``tolerance``.

        Returns:
            The codes of the least loss (n, dim) and that loss (n,), the losses before each step (steps + 1, n), the
            steps taken (n,), and whether they came to rest (n,).
        """
        n, device = len(first), first.device
        codes, best = first.clone(), first.clone()
        first_moment, second_moment = torch.zeros_like(codes), torch.zeros_like(codes)
        losses = torch.full((steps + 1, n), math.nan, device=device)
        least = torch.full((steps + 1, n), math.inf, device=device)  # of all steps so far
        taken = torch.full((n,), steps, device=device)
        stopped = torch.zeros(n, dtype=torch.bool, device=device)
        active = torch.arange(n, device=device)
        for t in range(steps + 1):
            here = codes[active].requires_grad_()
            with torch.enable_grad():
                loss = self.loss(here, targets[active])
                slope = torch.autograd.grad(loss.sum(), here)[0] if t < steps else None
            loss, here = loss.detach(), here.detach()
            losses[t, active] = loss
            before = least[t - 1] if t else least[0]
            better = loss < before[active]
            best[active[better]] = here[better]
            least[t] = before
            least[t, active] = torch.minimum(loss, before[active])
            if slope is None:
                break
            if t >= window:
                earlier, now = least[t - window, active], least[t, active]
                rests = (earlier - now < tolerance * earlier) | (now == 0.0)
                stopped[active[rests]] = True
                taken[active[rests]] = t
                going = ~rests
                active, slope, here = active[going], slope[going], here[going]
                if not len(active):
                    break
            step = rate * min(1.0, (t + 1) / (_RAMP_UP * steps), (steps - t) / (_RAMP_DOWN * steps))
            codes[active] = self._step(here, slope, first_moment, second_moment, active, t + 1, step)
        return best, least[t], losses, taken, stopped

    def _step(
        self, here: Tensor, slope: Tensor, m: Tensor, v: Tensor, active: Tensor, t: int, step: float
    ) -> Tensor:
        """One step of Adam in units of each coordinate's spread; categories stay, bounded coordinates in bounds."""
        slope = slope * self.spread
        m[active] = _BETAS[0] * m[active] + (1.0 - _BETAS[0]) * slope
        v[active] = _BETAS[1] * v[active] + (1.0 - _BETAS[1]) * slope.square()
        mean, variance = m[active] / (1.0 - _BETAS[0] ** t), v[active] / (1.0 - _BETAS[1] ** t)
        moved = here - self.spread * step * mean / (variance.sqrt() + 1e-10)
        moved = torch.where(self.free, moved, here)
        for block in self.place.blocks:
            if isinstance(block.prior, Uniform):
                where = self.place.slice(block.name)
                moved[:, where] = moved[:, where].clamp(block.prior.low, block.prior.high)
        return moved
