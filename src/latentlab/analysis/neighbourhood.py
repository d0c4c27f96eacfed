"""Whether codes lie where data lies: how many codes of a data set are near, and how far the nearest are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.inference import as_codes
from latentlab.latents import Categorical, Codebook
from latentlab.models.contract import space_of

NEIGHBOURS = 10
_MOST_CODES = 4096
_CHUNK = 1024


class Neighbourhood:
    """The codes of a data set as a measure of support, in the coordinates that have an order.

    Its ``radius`` is the data's own scale: the median distance from a code of the data to its tenth nearest other
    (or the farthest, of fewer). A place where data is typical has about ten codes within the radius.

    Args:
        model: a generative model.
        data_codes: codes (n, dim) of a data set, such as posterior means, at least 3; of more than 4096, that many
            are taken, evenly through the set.
        space: name of their space, the model's first one where it is not given.

    Raises:
        ValueError: on too few codes, codes that don't fit, or a space without ordered coordinates.
    """

    def __init__(self, model: Any, data_codes: Any, space: str | None = None) -> None:
        place = space_of(model, space)
        ordered = [
            i for i in range(place.dim) if not isinstance(place.block_of(i).prior, (Categorical, Codebook))
        ]
        codes = as_codes(model, data_codes, name="data_codes", space=space)
        if len(codes) < 3 or not ordered:
            raise ValueError(
                f"data_codes must be at least 3 codes with ordered coordinates; got {len(codes)} of {len(ordered)}."
            )
        if len(codes) > _MOST_CODES:
            codes = codes[torch.linspace(0, len(codes) - 1, _MOST_CODES).long().to(codes.device)]
        self.ordered = ordered
        self.codes = codes[:, ordered]
        self.count = min(NEIGHBOURS, len(codes) - 1)
        own = [
            torch.cdist(part, self.codes).kthvalue(self.count + 1, dim=1).values
            for part in self.codes.split(_CHUNK)
        ]
        self.radius = float(torch.cat(own).quantile(0.5))
        if self.radius == 0.0:
            raise ValueError(
                "data_codes hold each code many times over, so they have no distance of their own."
            )

    def near(self, codes: Any) -> np.ndarray:
        """How many of the data's codes lie within the radius of each of codes (n, dim), int (n,)."""
        given = torch.as_tensor(np.array(codes), dtype=self.codes.dtype, device=self.codes.device)
        distances = torch.cdist(given[:, self.ordered], self.codes)
        return (distances <= self.radius).sum(dim=1).cpu().numpy()

    def excess(self, codes: Tensor) -> Tensor:
        """How far beyond the radius the tenth nearest code is, in radii (n,): 0 where data is, differentiable."""
        distances = torch.cdist(codes[:, self.ordered], self.codes.to(codes.dtype))
        return torch.relu(distances.kthvalue(self.count, dim=1).values / self.radius - 1.0)
