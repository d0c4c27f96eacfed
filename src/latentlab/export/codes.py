"""Codes as an npz file, which numpy reads without unpickling anything."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from latentlab.analysis.encoding import encode_dataset
from latentlab.analysis.inference import as_codes, draw_codes, to_numpy
from latentlab.export.recipe import Recipe
from latentlab.models.contract import space_of


def codes_npz(
    recipe: Recipe, model: Any, dataset: Any = None, progress: Callable[[int, int], object] | None = None
) -> bytes:
    """The codes of a recipe of kind "codes" as the content of an npz file.

    Args:
        recipe: what to write.
        model: the model it was made with.
        dataset: the run's data set, for codes of its images.
        progress: called with (images done, images in all) while they are encoded; it may raise to cancel.

    Returns:
        An npz with ``z`` (n, dim) float32, ``names`` (dim,), ``space`` and ``weights_digest``. Codes of images are
        posterior means, and come with ``log_var`` and ``kl`` (n, dim), ``indices`` (n,) and, where the data has
        factors, ``factors`` (n, factors) and ``factor_names``.

    Raises:
        ValueError: for codes of images without an encoder or data, or in another space than the encoder's.
    """
    place = space_of(model, recipe.space)
    arrays: dict[str, Any] = {}
    if recipe.source == "given":
        arrays["z"] = to_numpy(as_codes(model, recipe.codes, space=recipe.space))
    elif recipe.source == "prior":
        arrays["z"] = to_numpy(draw_codes(model, recipe.count, recipe.seed or 0, recipe.space))
    else:
        if place.name != model.latent_space.name:
            raise ValueError(
                f"Images are encoded in space {model.latent_space.name!r}; the recipe asks for codes of {place.name!r}."
            )
        if dataset is None:
            raise ValueError("Codes of images need the run's data set; got none.")
        found = encode_dataset(model, dataset, recipe.count, seed=recipe.seed or 0, progress=progress)
        arrays |= {"z": found.mean, "log_var": found.log_var, "kl": found.kl, "indices": found.indices}
        if found.factors is not None:
            arrays |= {"factors": found.factors, "factor_names": np.array(found.factor_names)}
    arrays |= {
        "names": np.array(place.names),
        "space": np.array(place.name),
        "weights_digest": np.array(recipe.weights_digest),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
