"""Interpolation: the images on a path between two codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latentlab.analysis.geodesic import geodesic
from latentlab.analysis.inference import BATCH_SIZE, as_code, decode_latents, named, needs_generator, to_numpy
from latentlab.analysis.neighbourhood import Neighbourhood
from latentlab.analysis.results import Result, provenance
from latentlab.latents import Codebook, LatentSpace, Normal
from latentlab.models.contract import space_of

METHODS = ("lerp", "slerp", "geodesic")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Interpolation(Result):
    """Images on a path between two codes.

    Attributes:
        images: (steps, channels, height, width) in [0, 1].
        z: codes of the path, (steps, dim); the first and last are the ends themselves.
        t: position on the path, (steps,), from 0 to 1.
        method: "lerp", "slerp" or "geodesic".
        space: name of the latent space.
        neighbours: the support meter: how many codes of the data set lie within ``radius`` of each code of the path,
            (steps,); None where no data was given. About ten where data is typical, 0 where there is none.
        radius: the data's own scale, median distance of a code to its tenth nearest; None without data.

    The certificate holds ``end_difference``, the largest difference between the path's ends and the
    given codes (0); ``image_length``, the summed root mean square difference of neighbouring images; and
    ``straightness``, the same between the two ends divided by it (1 where the images, too, go straight). With data
    codes ``least_neighbours``, the least of ``neighbours``; of a geodesic also ``length_ratio``, ``acceleration``,
    ``straight_acceleration`` and ``converged``, see ``Geodesic``.
    """

    images: np.ndarray
    z: np.ndarray
    t: np.ndarray
    method: str
    space: str
    neighbours: np.ndarray | None = None
    radius: float | None = None


def interpolate(
    model: Any,
    za: Any,
    zb: Any,
    steps: int = 9,
    method: str = "lerp",
    *,
    edits: Sequence = (),
    space: str | None = None,
    data_codes: Any = None,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> Interpolation:
    """Decodes the codes on a path from ``za`` to ``zb``.

    Args:
        model: a generative model.
        za: code (dim,) of the start.
        zb: code (dim,) of the end.
        steps: images on the path, both ends included, at least 2.
        method: "lerp", the straight line; or "slerp", along the great circle, so that codes of a normal
            prior keep a typical length on the way; or "geodesic", on which the images change least and at constant
            speed (``geodesic`` has more options, such as to keep near the data). Other blocks are mixed linearly.
        edits: edits of the generator.
        space: name of the space of both codes, the model's first one where it is not given.
        data_codes: codes (n, dim) of a data set, for the support meter.
        batch_size: codes decoded at a time.
        progress: for a geodesic, called with (iterations done, most); it may raise to cancel.

    Raises:
        ValueError: on codes of another space, on an unknown method, on fewer than 2 steps, in a space
            with indices of a codebook, or for a slerp between opposite codes or from the origin, where the great
            circle is not defined.

    References:
        Slerp: Animating rotation with quaternion curves (Shoemake, 1985).
    """
    needs_generator(model)
    place: LatentSpace = space_of(model, space)
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 2:
        raise ValueError(f"steps must be a whole number of at least 2; got {steps!r}.")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}.")
    if any(isinstance(block.prior, Codebook) for block in place.blocks):
        raise ValueError(
            f"There is no path between the indices of a codebook, and space {place.name!r} holds some; decode both "
            "codes, or traverse one index at a time."
        )
    a = to_numpy(as_code(model, za, 0, name="za", space=space)).astype(float)
    b = to_numpy(as_code(model, zb, 0, name="zb", space=space)).astype(float)
    t = np.linspace(0.0, 1.0, steps)
    z = (1.0 - t[:, None]) * a + t[:, None] * b
    if method == "slerp":
        # Only normal codes lie near a sphere; on a box or a simplex a great circle leaves the support.
        round_the_sphere = np.zeros(place.dim, dtype=bool)
        for block in place.blocks:
            round_the_sphere[place.slice(block.name)] = isinstance(block.prior, Normal)
        if not round_the_sphere.any():
            raise ValueError(
                "A slerp needs a block with a normal prior, and this space has none; use method='lerp'."
            )
        z[:, round_the_sphere] = _great_circle(a[round_the_sphere], b[round_the_sphere], t)
    more: dict[str, Any] = {}
    if method == "geodesic":
        found = geodesic(
            model, a, b, steps=int(steps), edits=edits, space=space, batch_size=batch_size, progress=progress
        )
        kept = ("length_ratio", "acceleration", "straight_acceleration", "converged")
        z, more = found.z, {name: found.certificate[name] for name in kept if name in found.certificate}
    z = z.astype(np.float32)
    around = None if data_codes is None else Neighbourhood(model, data_codes, space)
    neighbours = None if around is None else around.near(z)
    if neighbours is not None:
        more["least_neighbours"] = int(neighbours.min())
    images = decode_latents(model, z, edits=edits, space=space, batch_size=batch_size)
    hops = np.sqrt(np.square(np.diff(images, axis=0)).mean(axis=(1, 2, 3)))
    direct = float(np.sqrt(np.square(images[-1] - images[0]).mean()))
    return Interpolation(
        images=images,
        z=z,
        t=t,
        method=method,
        space=place.name,
        neighbours=neighbours,
        radius=None if around is None else around.radius,
        certificate={
            "end_difference": float(max(np.abs(z[0] - a).max(), np.abs(z[-1] - b).max())),
            "image_length": float(hops.sum()),
            "straightness": direct / float(hops.sum()) if hops.sum() > 0 else 1.0,
            **more,
        },
        provenance=provenance(
            model,
            {"za": a, "zb": b, "steps": steps, "method": method, "edits": edits, **named(space)}
            | ({} if data_codes is None else {"data_codes": data_codes}),
        ),
    )


def _great_circle(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    length_a, length_b = np.linalg.norm(a), np.linalg.norm(b)
    if length_a == 0.0 or length_b == 0.0:
        raise ValueError("A slerp needs two codes away from the origin; use method='lerp'.")
    cosine = float(np.clip(a @ b / (length_a * length_b), -1.0, 1.0))
    angle = np.arccos(cosine)
    if np.pi - angle < 1e-6:
        raise ValueError("A slerp between opposite codes has no unique great circle; use method='lerp'.")
    if angle < 1e-6:
        return (1.0 - t[:, None]) * a + t[:, None] * b
    weights = np.sin(np.stack([1.0 - t, t], axis=1) * angle) / np.sin(angle)
    return weights @ np.stack([a, b])
