"""Compare: the sliders of one model and the pictures of several, which follow where their latents were matched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from latentlab.app.components.mount import base_path, image_data, nothing, register, saved
from latentlab.app.components.traverse import Axis, TraverseState, traverse_state

_component = register("compare", ["ranges", "traverse"])


@dataclass(frozen=True)
class Link:
    """One latent of the first model that takes one of another along.

    Attributes:
        source: coordinate of the first model's code.
        target: coordinate of the other's.
        x: values of the source, rising.
        y: where the target is at each of them.
    """

    source: int
    target: int
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class CategoryLink:
    """One category of the first model that takes one of another along.

    Attributes:
        source: first of its one-hot coordinates in the first model's code.
        target: first of the other's.
        size: number of the other's categories.
        partners: for each of the first model's categories the other's, -1 where the other stays as it was.
    """

    source: int
    target: int
    size: int
    partners: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Other:
    """A model beside the first.

    Attributes:
        name: what stands below its picture.
        z: its code (dim,) where the first model's sliders stand at their start.
        image_shape: (channels, height, width).
        links: the latents that follow.
        categories: the categories that follow.
        token: of ``engine.open_session``; None for the rerun engine.
        render: decodes a code (dim,) to an image (channels, height, width).
        note: a few words behind the name.
    """

    name: str
    z: np.ndarray
    image_shape: tuple[int, ...]
    links: tuple[Link, ...] = ()
    categories: tuple[CategoryLink, ...] = ()
    token: str | None = None
    render: Callable[[np.ndarray], np.ndarray] | None = None
    note: str = ""

    def followed(self, z: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Its code when the first model's is ``z`` and was ``origin`` at the start."""
        found = np.array(self.z, dtype=np.float32)
        for link in self.links:
            moved = np.interp([z[link.source], origin[link.source]], link.x, link.y)
            found[link.target] += moved[0] - moved[1]
        for link in self.categories:
            where = slice(link.source, link.source + len(link.partners))
            now = int(np.argmax(z[where]))
            if now != int(np.argmax(origin[where])) and link.partners[now] >= 0:
                found[link.target : link.target + link.size] = 0.0
                found[link.target + link.partners[now]] = 1.0
        return found


def compare(
    axes: Sequence[Axis],
    origin: np.ndarray,
    others: Sequence[Other],
    *,
    key: str,
    name: str,
    image_shape: Sequence[int],
    token: str | None = None,
    render: Callable[[np.ndarray], np.ndarray] | None = None,
    source: np.ndarray | None = None,
    source_label: str = "Input",
    revision: str | int = 0,
    seed: int = 0,
) -> TraverseState:
    """Draws the sliders of the first model and all pictures.

    Args:
        axes: the first model's sliders, in display order.
        origin: its code (dim,) at the start.
        others: the models beside it.
        key: Streamlit's key, unique on the page.
        name: what stands below the first model's picture.
        image_shape: (channels, height, width) of its images.
        token: of ``engine.open_session``; None for the rerun engine.
        render: decodes its codes (dim,) to images (channels, height, width) in [0, 1]; used by the rerun engine.
        source: image that all of them start from, shown before the pictures.
        source_label: what to call it.
        revision: change it to make the sliders return to ``origin``.
        seed: the dice's first seed.

    Returns:
        The first model's code and locks as the person left them.
    """
    state = traverse_state(key, origin, revision)
    rerun = (saved(key, "state") or {}).get("engine") == "rerun"
    image = image_data(render(state.z)) if render is not None and (token is None or rerun) else None
    beside = []
    for other in others:
        drawn = None
        if other.render is not None and (other.token is None or rerun):
            drawn = image_data(other.render(other.followed(state.z, origin)))
        beside.append(
            {
                "name": other.name,
                "note": other.note,
                "z": [float(v) for v in other.z],
                "image_shape": list(other.image_shape),
                "links": [{"from": k.source, "to": k.target, "x": k.x, "y": k.y} for k in other.links],
                "categories": [
                    {"from": k.source, "to": k.target, "size": k.size, "partners": k.partners}
                    for k in other.categories
                ],
                "token": other.token,
                "image": drawn,
            }
        )
    _component(
        key=key,
        data={
            "axes": [asdict(axis) for axis in axes],
            "z": [float(v) for v in state.z],
            "origin": [float(v) for v in origin],
            "drawn": [float(v) for v in state.z] if image is not None else None,
            "name": name,
            "others": beside,
            "image_shape": list(image_shape),
            "token": token,
            "base": base_path(),
            "image": image,
            "source": image_data(source),
            "source_label": source_label,
            "locks": list(state.locks),
            "ranges": state.ranges.plain(),
            "revision": str(revision),
            "seed": state.seed or seed,
            "height": None,
        },
        on_state_change=nothing,
        on_expired_change=nothing,
    )
    return state
