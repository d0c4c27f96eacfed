"""Traversals: what changes in the image when one coordinate, two, or a whole block of the code changes.

Symbols: ``z`` a code (dim,); a *strip* is a row of images along one coordinate, or over the categories of a
categorical block, which is one variable and hence one strip. A codebook index is a category, too, and its strip
runs over indices. All images of a result are decoded together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from latentlab.analysis.inference import (
    BATCH_SIZE,
    as_code,
    as_codes,
    decode_latents,
    draw_codes,
    named,
    needs_generator,
    to_numpy,
)
from latentlab.analysis.results import Result, provenance
from latentlab.latents import UNORDERED, Block, Categorical, Codebook, LatentSpace
from latentlab.models.contract import space_of, weights_digest

if TYPE_CHECKING:
    from latentlab.analysis.encoding import Encoding

SPANS = ("prior", "posterior")
_MAPPED_DRAWS = 4096


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Traversal(Result):
    """Strips of images, one for each traversed variable.

    Attributes:
        images: (dims, steps, channels, height, width) in [0, 1]; NaN behind the end of a shorter strip.
        z: the codes decoded, (dims, steps, dim); NaN likewise.
        values: the coordinate's value at each step, (dims, steps); the category's number for a
            categorical block, the index for a coordinate that is one of a codebook.
        lengths: number of steps of each strip, (dims,).
        start: the code that the strips leave from, (dim,).
        start_image: its image (channels, height, width).
        effect: mean absolute difference between the two ends of each strip, (dims,), in [0, 1].
        dims: name of each strip's coordinate, or of its categorical block.
        categorical: whether each strip runs over categories or indices, which have no order.
        span: what the range is: "prior", "posterior", "sigma" or "values".
        space: name of the latent space.

    The certificate holds ``loop_difference``, the largest difference between images of the batch and the
    same codes decoded one at a time; ``off_axis``, the largest change of any other coordinate (0);
    ``contains_start``, the share of strips whose range holds the start; and, with an encoding,
    ``data_inside``, the share of its posterior means within each strip's range.
    """

    images: np.ndarray
    z: np.ndarray
    values: np.ndarray
    lengths: np.ndarray
    start: np.ndarray
    start_image: np.ndarray
    effect: np.ndarray
    dims: tuple[str, ...]
    categorical: tuple[bool, ...]
    span: str
    space: str


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TraversalGrid(Result):
    """A plane of images over two coordinates.

    Attributes:
        images: (rows, columns, channels, height, width) in [0, 1]; the column sets the first coordinate
            (x), the row the second (y).
        z: the codes decoded, (rows, columns, dim).
        x_values: values of the first coordinate, (columns,).
        y_values: values of the second coordinate, (rows,).
        start: the code that the other coordinates are taken from, (dim,).
        dims: names of the two coordinates, x first.
        span: what the ranges are: "prior", "posterior", "sigma" or "values".
        space: name of the latent space.

    The certificate is that of a Traversal.
    """

    images: np.ndarray
    z: np.ndarray
    x_values: np.ndarray
    y_values: np.ndarray
    start: np.ndarray
    dims: tuple[str, ...]
    span: str
    space: str


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SwapGrid(Result):
    """Images with one block (such as pose) from the column's code and the other blocks from the row's.

    Attributes:
        images: (rows, columns, channels, height, width) in [0, 1].
        z: the codes decoded, (rows, columns, dim).
        row_z: codes that give the other blocks, (rows, dim).
        column_z: codes that give the block, (columns, dim).
        row_images: the rows' own images, (rows, channels, height, width).
        column_images: the columns' own images, (columns, channels, height, width).
        block: names of the swapped blocks.
        space: name of the latent space.

    The certificate holds ``loop_difference`` as in a Traversal; ``block_spread``, the largest difference
    between the block's coordinates within a column, and ``rest_spread``, that of all others within a row
    (both 0); and ``image_shift_by_column`` and ``image_shift_by_row``, the mean absolute change between
    neighbouring columns and
    rows: a block that does nothing has a shift by column of 0.
    """

    images: np.ndarray
    z: np.ndarray
    row_z: np.ndarray
    column_z: np.ndarray
    row_images: np.ndarray
    column_images: np.ndarray
    block: tuple[str, ...]
    space: str


def dim_ranges(
    model: Any,
    *,
    span: Any = "prior",
    coverage: float = 0.95,
    z: Any = None,
    encoding: Encoding | None = None,
    seed: int = 0,
    space: str | None = None,
) -> np.ndarray:
    """The range in which each coordinate is traversed.

    Args:
        model: a generative model.
        span: "prior" for the central ``coverage`` of the prior; "posterior" for the central ``coverage``
            of the aggregate posterior, taken as normal with its mean and sigma, where sigma squared is
            the mean posterior variance plus the variance of the means; k, for ``z`` plus and minus k
            prior standard deviations; or the ranges themselves, a table (dim, 2) of low and high, whose rows of
            categorical coordinates are not read.
        coverage: share of the distribution inside the range, in (0, 1).
        z: the code (dim,) that a range of k standard deviations lies around; None is a prior draw of
            ``seed``.
        encoding: the encoding of a data set by this model, which "posterior" needs.
        seed: decides ``z`` where it is None.
        space: name of the space, the model's first one where it is not given. Another one, such as W, has no
            prior in closed form: its quantiles and standard deviations are those of 4096 codes mapped there.

    Returns:
        (dim, 2), low and high of each coordinate; 0 and 1 for categorical ones, first and last index of a codebook.

    Raises:
        ValueError: on an unknown span, on a coverage outside (0, 1), on a missing or foreign encoding, or on a table
            without a finite low < high for each coordinate (whole numbers of its size for a codebook's index).
    """
    needs_generator(model)
    if encoding is not None:
        _check_encoding(space_of(model, space), encoding, weights_digest(model))
    return _ranges(model, span, coverage, z, encoding, seed, space)


def _ranges(
    model: Any,
    span: Any,
    coverage: float,
    z: Any,
    encoding: Encoding | None,
    seed: int = 0,
    space: str | None = None,
) -> np.ndarray:
    """``dim_ranges`` with an encoding that is known to be the model's: reading all weights takes time."""
    place = space_of(model, space)
    mapped = place.name != model.latent_space.name
    if not 0.0 < coverage < 1.0:
        raise ValueError(f"coverage is a share strictly between 0 and 1; got {coverage}.")
    tail = (1.0 - coverage) / 2.0
    ordered = [i for i in range(place.dim) if not isinstance(place.block_of(i).prior, UNORDERED)]
    ranges = np.tile(np.array([0.0, 1.0]), (place.dim, 1))
    for block in place.blocks:
        if isinstance(block.prior, Codebook):
            ranges[place.slice(block.name), 1] = block.prior.size - 1
    if isinstance(span, (np.ndarray, list, tuple)):
        ranges = _table(place, span, ranges)
    elif span == "prior" and mapped:
        ranges = np.quantile(_mapped_codes(model, space), [tail, 1.0 - tail], axis=0).T
    elif span == "prior":
        for i in ordered:
            ranges[i] = place.quantile(i, tail), place.quantile(i, 1.0 - tail)
    elif span == "posterior":
        if encoding is None:
            raise ValueError("span='posterior' needs encoding=, the outcome of encode_dataset.")
        reach = NormalDist().inv_cdf(1.0 - tail)
        middle, sigma = encoding.aggregate_mean, encoding.aggregate_std
        both = np.stack([middle - reach * sigma, middle + reach * sigma], axis=1)
        ranges[ordered] = both[ordered]
    elif isinstance(span, (int, float)) and not isinstance(span, bool) and 0.0 < span < float("inf"):
        start = to_numpy(as_code(model, z, seed, space=space)).astype(float)
        std = _mapped_codes(model, space).std(axis=0) if mapped else place.std.double().numpy()
        reach = float(span) * std
        both = np.stack([start - reach, start + reach], axis=1)
        ranges[ordered] = both[ordered]
    else:
        raise ValueError(
            f"span must be 'prior', 'posterior' or a number of standard deviations, or a table; got {span!r}."
        )
    return ranges


def _table(place: LatentSpace, given: Any, usual: np.ndarray) -> np.ndarray:
    """Ranges (dim, 2) as given, checked; categories keep the usual ones."""
    try:
        table = np.array(given, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"A table of ranges is ({place.dim}, 2) numbers; got {given!r}.") from None
    if table.shape != (place.dim, 2):
        raise ValueError(f"A table of ranges is ({place.dim}, 2), low and high; got shape {table.shape}.")
    for i, (low, high) in enumerate(table):
        prior = place.block_of(i).prior
        if isinstance(prior, Categorical):
            table[i] = usual[i]
        elif not (np.isfinite([low, high]).all() and low < high):
            raise ValueError(f"The range of {place.names[i]} needs low < high; got {low:g} to {high:g}.")
        elif isinstance(prior, Codebook) and not (
            low.is_integer() and high.is_integer() and 0 <= low and high <= prior.size - 1
        ):
            raise ValueError(
                f"{place.names[i]} is an index, so its range is of whole numbers from 0 to {prior.size - 1}; "
                f"got {low:g} to {high:g}."
            )
    return table


def _kind(span: Any) -> str:
    """What a span is called in a result."""
    return span if isinstance(span, str) else "sigma" if isinstance(span, (int, float)) else "values"


def _mapped_codes(model: Any, space: str | None) -> np.ndarray:
    """Prior draws carried to a space, always the same: a range must not depend on the seed of a start."""
    return to_numpy(draw_codes(model, _MAPPED_DRAWS, 0, space)).astype(float)


def dim_range(model: Any, dim: int | str, **options: Any) -> tuple[float, float]:
    """The range of one coordinate; arguments as for ``dim_ranges``."""
    low, high = dim_ranges(model, **options)[space_of(model, options.get("space")).index(dim)]
    return float(low), float(high)


def traverse(
    model: Any,
    z: Any = None,
    dims: Sequence[int | str] | int | str | None = None,
    *,
    values: Any = None,
    steps: int = 11,
    span: Any = "prior",
    coverage: float = 0.95,
    encoding: Encoding | None = None,
    edits: Sequence = (),
    space: str | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> Traversal:
    """Moves one coordinate of a code at a time and decodes the images.

    Args:
        model: a generative model.
        z: the code (dim,) to leave from; None is a prior draw of ``seed``.
        dims: coordinates by name or position; a categorical block is one strip, named by the block or by
            any of its coordinates. None is all of them, in order of KL when an encoding is given.
        values: explicit values, (steps,) for all strips or (dims, steps); categorical strips keep their
            categories.
        steps: images in a strip, at least 2 (a categorical strip has one for each category). A codebook's index shows
            as many indices, spread evenly over the codebook, or all where there are no more.
        span: range of the values, see ``dim_ranges``.
        coverage: share of the prior or posterior inside the range.
        encoding: for span "posterior", for the order of the strips, and for the certificate.
        edits: edits of the generator, applied to all images.
        space: name of the code's space, the model's first one where it is not given.
        seed: decides ``z`` where it is None.
        batch_size: codes decoded at a time.

    Raises:
        ValueError: on unknown dims (the message lists the valid ones), or on a range that makes no sense.
    """
    needs_generator(model)
    place: LatentSpace = space_of(model, space)
    start, digest = to_numpy(as_code(model, z, seed, space=space)), weights_digest(model)
    if encoding is not None:
        _check_encoding(place, encoding, digest)
    strips = _strips(place, dims, encoding)
    if values is None:
        _check_steps(steps)
        ranges = _ranges(model, span, coverage, start, encoding, space=space)
        ends = ranges[[i for _, i, _ in strips]]
        table = np.linspace(ends[:, 0], ends[:, 1], steps, axis=1)
        kind = _kind(span)
    else:
        table, kind = _explicit(values, len(strips)), "values"
    along = [_values(place, strip, row, values is not None) for strip, row in zip(strips, table, strict=True)]
    lengths = np.array([len(row) for row in along])
    shape = (len(strips), int(lengths.max()))
    codes = np.full((*shape, place.dim), np.nan, dtype=np.float32)
    chosen = np.full(shape, np.nan)
    for row, ((_, i, block), length) in enumerate(zip(strips, lengths, strict=True)):
        codes[row, :length] = start
        if block is None:
            chosen[row, :length] = along[row]
            codes[row, :length, i] = along[row]
        else:
            chosen[row, :length] = along[row]
            codes[row, :length, place.slice(block.name)] = np.eye(length, dtype=np.float32)
    valid = np.arange(shape[1]) < lengths[:, None]
    decoded = decode_latents(
        model, np.concatenate([codes[valid], start[None]]), edits=edits, space=space, batch_size=batch_size
    )
    images = np.full((*shape, *decoded.shape[1:]), np.nan, dtype=np.float32)
    images[valid] = decoded[:-1]
    rows = np.arange(len(strips))
    certificate = _decoding_certificate(model, codes[valid], decoded[:-1], edits, space)
    certificate["off_axis"] = max(
        float(
            np.abs(np.delete(codes[r, : lengths[r]] - start, _coordinates(place, strips[r]), axis=1)).max(
                initial=0
            )
        )
        for r in rows
    )
    low, high = np.nanmin(chosen, axis=1), np.nanmax(chosen, axis=1)
    inside = [bool(b) or low[r] - 1e-6 <= start[i] <= high[r] + 1e-6 for r, (_, i, b) in enumerate(strips)]
    certificate["contains_start"] = float(np.mean(inside))
    if encoding is not None:
        means = encoding.mean[:, [i for _, i, _ in strips]]
        certificate["data_inside"] = ((means >= low) & (means <= high)).mean(axis=0).round(4).tolist()
    return Traversal(
        images=images,
        z=codes,
        values=chosen,
        lengths=lengths,
        start=start,
        start_image=decoded[-1],
        effect=np.abs(images[rows, lengths - 1] - images[:, 0]).mean(axis=(1, 2, 3)),
        dims=tuple(label for label, _, _ in strips),
        categorical=tuple(isinstance(place.block_of(i).prior, UNORDERED) for _, i, _ in strips),
        span=kind,
        space=place.name,
        certificate=certificate,
        provenance=provenance(
            digest,
            {"z": start, "dims": [s[0] for s in strips], "values": values, "steps": steps, "span": span,
             "coverage": coverage, "edits": edits, "encoding": _name_of(encoding), **named(space)},
            seed if z is None else None,
        ),
    )  # fmt: skip


def traverse_grid(
    model: Any,
    z: Any = None,
    dims: Sequence[int | str] = (0, 1),
    *,
    values: Sequence[Any] | None = None,
    steps: int | tuple[int, int] = 9,
    span: Any = "prior",
    coverage: float = 0.95,
    encoding: Encoding | None = None,
    edits: Sequence = (),
    space: str | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> TraversalGrid:
    """Moves two coordinates of a code at once and decodes the plane of images.

    Args:
        model: a generative model.
        z: the code (dim,) that gives the other coordinates; None is a prior draw of ``seed``.
        dims: the two coordinates, x (along the columns) and y (along the rows), by name or position.
        values: a pair of value lists (x, y) instead of a range.
        steps: images along both coordinates, or a pair (x, y).
        span: range of the values, see ``dim_ranges``.
        coverage: share of the prior or posterior inside the range.
        encoding: for span "posterior"; it must be this model's.
        edits: edits of the generator.
        space: name of the code's space, the model's first one where it is not given.
        seed: decides ``z`` where it is None.
        batch_size: codes decoded at a time.

    Raises:
        ValueError: unless ``dims`` names two different coordinates that have an order.
    """
    needs_generator(model)
    place: LatentSpace = space_of(model, space)
    if isinstance(dims, (str, int)) or len(dims) != 2:
        raise ValueError(f"A grid needs two coordinates (x, y); got {dims!r}.")
    strips = _strips(place, dims, None)
    if len(strips) != 2 or any(isinstance(place.block_of(i).prior, UNORDERED) for _, i, _ in strips):
        raise ValueError(f"A grid needs two different coordinates with an order; got {list(dims)}.")
    (x_name, x, _), (y_name, y, _) = strips
    start, digest = to_numpy(as_code(model, z, seed, space=space)), weights_digest(model)
    if encoding is not None:
        _check_encoding(place, encoding, digest)
    if values is None:
        counts = (steps, steps) if isinstance(steps, int) else tuple(steps)
        for count in counts:
            _check_steps(count)
        ranges = _ranges(model, span, coverage, start, encoding, space=space)
        x_values, y_values = (
            np.linspace(ranges[i, 0], ranges[i, 1], n) for i, n in zip((x, y), counts, strict=True)
        )
        kind = _kind(span)
    else:
        if len(values) != 2:
            raise ValueError(f"values must be a pair of lists (x, y); got {len(values)} lists.")
        x_values, y_values = (_explicit(v, 1)[0] for v in values)
        kind = "values"
    codes = np.tile(start, (len(y_values), len(x_values), 1))
    codes[..., x] = x_values
    codes[..., y] = y_values[:, None]
    flat = codes.reshape(-1, place.dim)
    decoded = decode_latents(model, flat, edits=edits, space=space, batch_size=batch_size)
    certificate = _decoding_certificate(model, flat, decoded, edits, space)
    certificate["off_axis"] = float(np.abs(np.delete(flat - start, [x, y], axis=1)).max(initial=0))
    return TraversalGrid(
        images=decoded.reshape(*codes.shape[:2], *decoded.shape[1:]),
        z=codes,
        x_values=x_values,
        y_values=y_values,
        start=start,
        dims=(x_name, y_name),
        span=kind,
        space=place.name,
        certificate=certificate,
        provenance=provenance(
            digest,
            {"z": start, "dims": [x_name, y_name], "values": values, "steps": steps, "span": span,
             "coverage": coverage, "edits": edits, "encoding": _name_of(encoding), **named(space)},
            seed if z is None else None,
        ),
    )  # fmt: skip


def swap_grid(
    model: Any,
    z: Any = None,
    block: str | Sequence[str] | None = None,
    *,
    columns: Any = None,
    rows: int = 6,
    edits: Sequence = (),
    space: str | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> SwapGrid:
    """Crosses codes: one block (such as pose) from each column's code, the other blocks from each row's.

    Args:
        model: a generative model whose latent space has several blocks.
        z: codes (rows, dim) that give the other blocks; None for ``rows`` prior draws of ``seed``.
        block: name of the block that the columns give, or several names. None is the first block.
        columns: codes (columns, dim) that give the block; the rows' own codes by default, so that the
            diagonal shows the codes as they are.
        rows: number of prior draws where ``z`` is None.
        edits: edits of the generator.
        space: name of the codes' space, the model's first one where it is not given; its blocks are swapped, such as
            the layers of W+.
        seed: decides the draws.
        batch_size: codes decoded at a time.

    Raises:
        ValueError: if the model has a single block, if there is no such block, or if all blocks are named.
    """
    needs_generator(model)
    place: LatentSpace = space_of(model, space)
    if len(place.blocks) < 2:
        raise ValueError(
            f"This model has no blocks to swap: its latent space {place.name!r} is one block, "
            f"{place.block_names[0]!r}. Use traverse_grid, or a model with several blocks."
        )
    names = (place.block_names[0],) if block is None else (block,) if isinstance(block, str) else tuple(block)
    swapped = np.zeros(place.dim, dtype=bool)
    for name in names:
        swapped[place.slice(name)] = True
    if swapped.all() or not swapped.any():
        raise ValueError(
            f"Swap some of the blocks, not none or all; got {list(names)} of {list(place.block_names)}."
        )
    if z is None and rows < 1:
        raise ValueError(f"rows must be at least 1; got {rows}.")
    row_z = to_numpy(draw_codes(model, rows, seed, space) if z is None else as_codes(model, z, space=space))
    column_z = row_z if columns is None else to_numpy(as_codes(model, columns, name="columns", space=space))
    codes = np.where(swapped, column_z[None], row_z[:, None])
    flat = codes.reshape(-1, place.dim)
    everything = np.concatenate([flat, row_z, column_z])
    decoded = decode_latents(model, everything, edits=edits, space=space, batch_size=batch_size)
    images = decoded[: len(flat)].reshape(*codes.shape[:2], *decoded.shape[1:])
    certificate = _decoding_certificate(model, flat, decoded[: len(flat)], edits, space)
    certificate["block_spread"] = float(np.ptp(codes[:, :, swapped], axis=0).max())
    certificate["rest_spread"] = float(np.ptp(codes[:, :, ~swapped], axis=1).max())
    for axis, label in ((1, "image_shift_by_column"), (0, "image_shift_by_row")):
        if images.shape[axis] > 1:
            certificate[label] = float(np.abs(np.diff(images, axis=axis)).mean())
    return SwapGrid(
        images=images,
        z=codes,
        row_z=row_z,
        column_z=column_z,
        row_images=decoded[len(flat) : len(flat) + len(row_z)],
        column_images=decoded[len(flat) + len(row_z) :],
        block=names,
        space=place.name,
        certificate=certificate,
        provenance=provenance(
            model,
            {"block": names, "z": row_z, "columns": column_z, "edits": edits, **named(space)},
            seed if z is None else None,
        ),
    )


Strip = tuple[str, int, Block | None]


def _strips(space: LatentSpace, dims: Any, encoding: Encoding | None) -> list[Strip]:
    """(label, coordinate, block if categorical) of each strip, in the order asked, without repeats."""
    if dims is None:
        dims = range(space.dim) if encoding is None else encoding.order.tolist()
    elif isinstance(dims, (str, int)):
        dims = [dims]
    strips: dict[str, Strip] = {}
    categorical = {b.name: b for b in space.blocks if isinstance(b.prior, Categorical)}
    for dim in dims:
        if isinstance(dim, str) and dim in categorical:
            dim = space.slice(dim).start
        i = space.index(dim)
        block = space.block_of(i)
        if block.name in categorical:
            strips.setdefault(block.name, (block.name, space.slice(block.name).start, block))
        else:
            strips.setdefault(space.names[i], (space.names[i], i, None))
    if not strips:
        raise ValueError(f"Name at least one coordinate to traverse. Valid: {', '.join(space.names)}.")
    return list(strips.values())


def _coordinates(space: LatentSpace, strip: Strip) -> slice | int:
    return strip[1] if strip[2] is None else space.slice(strip[2].name)


def _values(space: LatentSpace, strip: Strip, row: np.ndarray, explicit: bool) -> np.ndarray:
    """What a strip's variable is set to: the row of the table, or categories and indices in its place."""
    _, i, block = strip
    prior = space.block_of(i).prior
    if block is not None:
        return np.arange(block.dim)
    if not isinstance(prior, Codebook):
        return row
    if not explicit:
        whole = row[0] == 0 and row[-1] == prior.size - 1
        return np.array(prior.indices(len(row))) if whole else np.unique(np.rint(row))
    if not np.isin(row, np.arange(prior.size)).all():
        raise ValueError(
            f"{strip[0]} is an index of a codebook, so its values are whole numbers from 0 to {prior.size - 1}; "
            f"got {row.tolist()}."
        )
    return row


def _check_steps(steps: int) -> None:
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 2:
        raise ValueError(f"steps must be a whole number of at least 2; got {steps!r}.")


def _explicit(values: Any, strips: int) -> np.ndarray:
    table = np.array(values, dtype=float)
    table = np.tile(table, (strips, 1)) if table.ndim == 1 else table
    if table.ndim != 2 or len(table) != strips or table.shape[1] < 1 or not np.isfinite(table).all():
        raise ValueError(
            f"values must be finite numbers (steps,) or ({strips}, steps); got shape {np.shape(values)}."
        )
    return table


def _check_encoding(space: LatentSpace, encoding: Encoding, digest: str) -> None:
    made_by = encoding.provenance.weights_digest
    if tuple(encoding.dim_names) != space.names:
        raise ValueError(
            f"The encoding belongs to another latent space: it has {len(encoding.dim_names)} coordinates "
            f"({encoding.dim_names[0]}, …), the model {space.dim} ({space.names[0]}, …)."
        )
    if made_by != digest:
        raise ValueError(
            f"The encoding of {encoding.dataset!r} was made by a model with other weights ({made_by[:8]}, this one "
            f"has {digest[:8]}), so its ranges and order say nothing here; encode the data with this model."
        )


def _name_of(encoding: Encoding | None) -> dict | None:
    if encoding is None:
        return None
    return {
        "dataset": encoding.dataset,
        "n": encoding.n,
        "weights_digest": encoding.provenance.weights_digest,
    }


def _decoding_certificate(
    model: Any, codes: np.ndarray, images: np.ndarray, edits: Sequence, space: str | None = None
) -> dict[str, Any]:
    """Decodes three of the codes one at a time: the batch must not have changed them."""
    cells = sorted({0, len(codes) // 2, len(codes) - 1})
    again = np.concatenate(
        [decode_latents(model, torch.from_numpy(codes[[c]]), edits=edits, space=space) for c in cells]
    )
    return {"loop_difference": float(np.abs(again - images[cells]).max())}
