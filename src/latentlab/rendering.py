"""Files from a run, each with the recipe that makes it again bit for bit.

All files are made on the CPU by one thread, so that neither a GPU nor the number of threads decides their last bits.
"""

from __future__ import annotations

import hashlib
import math
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from latentlab.analysis.inference import as_codes, check_seed, decode_latents, device_of, draw_codes, to_numpy
from latentlab.analysis.traversal import dim_ranges, traverse, traverse_grid
from latentlab.export.codes import codes_npz
from latentlab.export.html import page_html
from latentlab.export.onnx import to_onnx
from latentlab.export.recipe import ENDING, KINDS, Recipe, ordered
from latentlab.files import atomic_write
from latentlab.latents import Categorical
from latentlab.models.contract import is_inference_model, space_of
from latentlab.models.edits import Edit
from latentlab.runs import Run

if TYPE_CHECKING:
    from latentlab.analysis.direction import Direction
    from latentlab.analysis.encoding import Encoding
    from latentlab.export.axes import Labels

Progress = Callable[[int, int], object]
_PANELS = 5  # in a row of a movie
_PACKAGES = {
    "png": ("pillow",),
    "gif": ("pillow",),
    "mp4": ("pillow", "av"),
    "npz": (),
    "onnx": ("onnx", "onnxscript", "onnx-ir"),
    "html": (),
}
# How many threads torch uses belongs to the process: two files at once would put it back wrongly.
_LOCK = threading.Lock()


def on_cpu(run: Run) -> Run:
    """The run with its model on the CPU; the run itself where it is there already."""
    if device_of(run.model).type == "cpu":
        return run
    moved = Run.open(run.name if run.name.startswith("zoo:") else run.path, device="cpu")
    return moved if run.step is None else moved.at(run.step)


def image_recipe(
    run: Run,
    z: Any = None,
    *,
    count: int = 1,
    seed: int = 0,
    edits: Sequence[Edit] = (),
    space: str | None = None,
    scale: int | None = None,
    start: str = "",
) -> Recipe:
    """The recipe of one image without any lettering, or of a sheet of several.

    Args:
        run: whose model decodes.
        z: codes (dim,) or (n, dim); None for ``count`` prior draws of ``seed``.
        count: number of draws where ``z`` is None.
        seed: decides them.
        edits: edits of the generator.
        space: name of the codes' space, the model's first one where it is not given.
        scale: pixels of the picture an image's pixel; None brings one image near 256 pixels, several near 96.
        start: where ``z`` comes from, in words.

    Raises:
        ValueError: on codes, edits or numbers that do not fit.
    """
    from latentlab.viz.images import fitting_scale

    code = _code(run, z, count, seed, space, start)
    n = len(code["z"])
    size = fitting_scale(run.image_shape, 1, cell=256) if n == 1 else None
    scale = scale or size or fitting_scale(run.image_shape, _columns(n), cell=96)
    return _checked(
        run, Recipe(kind="image", file="png", edits=tuple(edits), scale=scale, **code, **_place(run))
    )


def traversal_recipe(
    run: Run,
    z: Any = None,
    dims: Sequence[int | str] | int | str | None = None,
    *,
    kind: str = "traversal",
    file: str | None = None,
    steps: int | None = None,
    span: Any = "prior",
    encoding: Encoding | None = None,
    edits: Sequence[Edit] = (),
    space: str | None = None,
    seed: int = 0,
    scale: int | None = None,
    caption: bool = True,
    fps: float = 12.0,
    start: str = "",
) -> Recipe:
    """The recipe of strips, a plane or a movie of latents that move.

    Args:
        run: whose model decodes.
        z: code (dim,) to leave from; None is a prior draw of ``seed``.
        dims: latents by name or position, a categorical block as one; None is all of them, in order of KL where an
            encoding is given. A "grid" takes two, x first.
        kind: "traversal", "grid" or "movie".
        file: "gif" or "mp4" for a movie (default: "gif").
        steps: images along each range; by default 9, and 24 in a movie.
        span: "prior", "posterior" (needs ``encoding``), k for k standard deviations around ``z``, or a table (dim, 2)
            of low and high, see ``dim_ranges``; the recipe holds the numbers that come of it.
        encoding: the encoding of a data set by this model.
        edits: edits of the generator.
        space: name of the code's space, the model's first one where it is not given.
        seed: decides ``z`` where it is None.
        scale: pixels of the picture an image's pixel; None chooses.
        caption: write below a still picture what it is.
        fps: frames a second of a movie.
        start: where ``z`` comes from, in words.

    Raises:
        ValueError: on latents, ranges, edits or numbers that do not fit.
    """
    from latentlab.viz.images import fitting_scale

    code = _code(run, z, 1, seed, space, start)
    model, place = run.model, space_of(run.model, space)
    names = _latents(run, dims, space, encoding)
    ends = dim_ranges(model, span=span, z=code["z"][0], encoding=encoding, space=space)
    ranges = tuple(
        tuple(ends[place.index(n)].tolist()) if n in place.names and ordered(place, n) else None
        for n in names
    )
    moving = kind == "movie"
    steps = steps or (24 if moving else 9)
    if scale is None:
        panels = min(len(names), _PANELS) if moving else steps
        cell = {"traversal": 80, "grid": 72}.get(kind, 192 if len(names) == 1 else 128)
        scale = fitting_scale(run.image_shape, panels, cell=cell)
    options: dict[str, Any] = {"fps": fps} if moving else {"caption": caption}
    return _checked(
        run,
        Recipe(
            kind=kind,
            file=(file or "gif") if moving else "png",
            dims=names,
            ranges=ranges,
            span=span if isinstance(span, str) else "sigma" if isinstance(span, (int, float)) else "values",
            steps=steps,
            edits=tuple(edits),
            scale=scale,
            **options,
            **code,
            **_place(run),
        ),
    )


def codes_recipe(
    run: Run,
    z: Any = None,
    *,
    source: str = "prior",
    count: int = 1000,
    seed: int = 0,
    space: str | None = None,
    start: str = "",
) -> Recipe:
    """The recipe of a file of codes.

    Args:
        run: whose codes.
        z: the codes themselves, (dim,) or (n, dim); None for those of ``source``.
        source: "prior" for draws, "data" for encoded images of the run's data set.
        count: how many.
        seed: decides which.
        space: name of the codes' space, the model's first one where it is not given.
        start: where ``z`` comes from, in words.
    """
    name = space_of(run.model, space).name
    if z is not None:
        code = _code(run, z, 1, seed, space, start)
        return _checked(run, Recipe(kind="codes", file="npz", count=len(code["z"]), **code, **_place(run)))
    if source == "data" and not is_inference_model(run.model):
        raise ValueError(f"{type(run.model).__name__} has no encoder, so there are no codes of its data.")
    words = {"prior": f"prior draws of seed {seed}", "data": f"images of {run.config.data.name}, encoded"}
    return _checked(
        run,
        Recipe(
            kind="codes",
            file="npz",
            source=source,
            count=count,
            seed=check_seed(seed),
            space=name,
            start=words.get(source, ""),
            **_place(run),
        ),
    )


def onnx_recipe(
    run: Run, network: str = "generator", *, edits: Sequence[Edit] = (), space: str | None = None
) -> Recipe:
    """The recipe of a generator or an encoder as ONNX.

    Args:
        run: whose network.
        network: "generator" or "encoder".
        edits: edits of the network, which become part of the file.
        space: name of the space whose codes the generator reads.
    """
    name = space_of(run.model, space).name
    recipe = Recipe(kind="onnx", file="onnx", network=network, edits=tuple(edits), space=name, **_place(run))
    return _checked(run, recipe)


def page_recipe(
    run: Run,
    z: Any = None,
    *,
    precision: str = "f16",
    labels: Labels | None = None,
    directions: Sequence[Direction] | None = None,
    seed: int = 0,
    start: str = "",
) -> Recipe:
    """The recipe of the self-contained page, which also shows the run's card and the names given to its latents.

    Args:
        run: whose page.
        z: code (dim,) of the model's first space that the page starts from; None for its examples alone.
        precision: of the decoder's weights, "f32", "f16" or "int8"; see ``export_html``.
        labels: {latent: (factor, nats)}, None to measure them.
        directions: directions with sliders of their own, None for those that ``export_html`` chooses.
        seed: decides which images are encoded.
        start: where ``z`` comes from, in words.
    """
    code: dict[str, Any] = {"space": run.model.latent_space.name, "start": start}
    if z is not None:
        code = _code(run, z, 1, seed, None, start)
    recipe = Recipe(
        kind="page",
        file="html",
        precision=precision,
        labels=None if labels is None else dict(labels),
        directions=None if directions is None else tuple(directions),
        **{**code, "seed": check_seed(seed)},
        **_place(run),
    )
    return _checked(run, recipe)


def render(recipe: Recipe, run: Run | None = None, *, progress: Progress | None = None) -> bytes:
    """The content of a recipe's file.

    Args:
        recipe: what to make.
        run: the run where it is not at the place that the recipe names.
        progress: called with (done, of all): images encoded, or steps of a picture; it may raise to cancel.

    Raises:
        OSError: if the run, or for encoded images its data, are not there.
        ValueError: if the run's weights are not those of the recipe, or it does not fit the model.
    """
    run = open_run(recipe) if run is None else on_cpu(run)
    model = run.model
    recipe.check(model)
    with _one_thread():
        if recipe.kind == "onnx":
            return to_onnx(model, recipe.network, edits=recipe.edits, space=recipe.space).content
        if recipe.kind == "codes":
            return codes_npz(recipe, model, run.dataset() if recipe.source == "data" else None, progress)
        if recipe.kind == "page":
            text = page_html(
                run,
                precision=recipe.precision,
                labels=recipe.labels,
                directions=recipe.directions,
                z=recipe.codes if recipe.z else None,
                seed=recipe.seed or 0,
                progress=progress,
            )
            return text.encode()
        return _picture(recipe, model, progress)


def make(recipe: Recipe, run: Run | None = None, *, progress: Progress | None = None) -> tuple[bytes, Recipe]:
    """The content of a recipe's file, and the recipe with its size, its digest and what made it; see ``render``."""
    content = render(recipe, run, progress=progress)
    return content, recipe.with_output(digest_of(content), made_with(recipe.file))


def write(
    recipe: Recipe, path: str | Path, run: Run | None = None, *, progress: Progress | None = None
) -> Recipe:
    """Makes a recipe's file and puts the recipe beside it, FILE.recipe.json.

    Args:
        recipe: what to make.
        path: the file; its ending is the recipe's.
        run: the run where it is not at the place that the recipe names.
        progress: as in ``render``.

    Returns:
        The recipe with the size and digest of its file.

    Raises:
        ValueError: on another ending; and as ``render``.
        OSError: if the folder is not there or can't be written; and as ``render``.
    """
    path = Path(path)
    check_ending(recipe, path)
    content, noted = make(recipe, run, progress=progress)
    with atomic_write(path) as file:
        file.write(content)
    noted.save(recipe_path(path))
    return noted


def recipe_path(path: str | Path) -> Path:
    """Where the recipe of a file stands: beside it."""
    return Path(path).with_name(Path(path).name + ENDING)


def check_ending(recipe: Recipe, path: Path) -> None:
    """Refuses a file name that would belie its content.

    Raises:
        ValueError: naming both endings.
    """
    if path.suffix.lower() != f".{recipe.file}":
        raise ValueError(
            f"A recipe of kind {recipe.kind!r} makes a .{recipe.file} file here; got {path.name!r}."
        )


def open_run(recipe: Recipe, place: str | Path | None = None) -> Run:
    """The run of a recipe, on the CPU.

    Args:
        recipe: which run, and which step of it.
        place: the run's folder where it is not the one that the recipe names.
    """
    run = Run.open(recipe.run if place is None else place, device="cpu")
    return run if recipe.step is None else run.at(recipe.step)


def digest_of(content: bytes) -> dict[str, Any]:
    """Size and SHA-256 of a file's content, as a recipe notes them."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def made_with(file: str = "png") -> dict[str, str]:
    """Versions and processor that make a file of that ending here."""
    found = {"python": platform.python_version()}
    for package in ("latentlab", "torch", "numpy", *_PACKAGES[file]):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return {**found, "system": platform.system(), "processor": torch.backends.cpu.get_cpu_capability()}


def differences(recipe: Recipe) -> list[str]:
    """What is different here from where the recipe's file was made: ["torch 2.15.0, then 2.14.0"]."""
    here = made_with(recipe.file)
    return [f"{k} {here.get(k)}, then {v}" for k, v in recipe.made_with.items() if here.get(k) != v]


def _place(run: Run) -> dict[str, Any]:
    zoo = run.name.startswith("zoo:")
    return {"run": run.name if zoo else str(run.path), "step": run.step, "weights_digest": run.digest}


def _code(run: Run, z: Any, count: int, seed: int, space: str | None, start: str) -> dict[str, Any]:
    name = space_of(run.model, space).name
    if z is None:
        if count < 1:
            raise ValueError(f"count must be at least 1; got {count}.")
        codes = draw_codes(run.model, count, seed, space)
        drawn: dict[str, Any] = {"seed": check_seed(seed), "start": f"prior draw of seed {seed}"}
    else:
        codes, drawn = as_codes(run.model, z, space=space), {"start": start}
    return {"z": to_numpy(codes).tolist(), "space": name, **drawn}


def _latents(
    run: Run, dims: Sequence[int | str] | int | str | None, space: str | None, encoding: Encoding | None
) -> tuple[str, ...]:
    """The latents' names, each once; a category by the name of its block."""
    place = space_of(run.model, space)
    if dims is None:
        chosen = list(range(place.dim)) if encoding is None else list(encoding.order)
    else:
        chosen = [dims] if isinstance(dims, (str, int)) else list(dims)
    categorical = {b.name for b in place.blocks if isinstance(b.prior, Categorical)}
    names = []
    for dim in chosen:
        if dim in categorical:
            names.append(str(dim))
            continue
        block = place.block_of(dim)
        names.append(block.name if block.name in categorical else place.names[place.index(dim)])
    return tuple(dict.fromkeys(names))


def _checked(run: Run, recipe: Recipe) -> Recipe:
    recipe.check(run.model)
    return recipe


def _columns(n: int) -> int:
    return min(n, max(math.ceil(math.sqrt(n)), min(n, 8)))


def _picture(recipe: Recipe, model: Any, progress: Progress | None = None) -> bytes:
    from latentlab.viz import show
    from latentlab.viz.images import gif_bytes, grid, mp4_bytes, png_bytes, to_pil

    if recipe.kind == "image":
        images = decode_latents(model, recipe.codes, edits=recipe.edits, space=recipe.space)
        about = f"{recipe.start or 'given codes'} · model {recipe.weights_digest[:8]}"
        if len(images) == 1:
            return png_bytes(to_pil(images[0], recipe.scale), about)
        columns = _columns(len(images))
        cells = np.full((-(-len(images) // columns) * columns, *images.shape[1:]), np.nan, dtype=np.float32)
        cells[: len(images)] = images
        return png_bytes(grid(cells.reshape(-1, columns, *images.shape[1:]), scale=recipe.scale), about)
    values = recipe.values(model)
    options: dict[str, Any] = {"edits": recipe.edits, "space": recipe.space}
    if recipe.kind == "grid":
        result = traverse_grid(model, recipe.codes[0], recipe.dims, values=list(values), **options)
    else:
        result = traverse(model, recipe.codes[0], recipe.dims, values=values, **options)
    # The ranges' origin and the seed are the recipe's: the call was given their outcome.
    origin = replace(result.provenance, seed=recipe.seed)
    result = replace(result, span=recipe.span, provenance=origin)
    told = progress or (lambda done, total: None)
    told(1, 3)
    picture = show(result, caption=recipe.caption, scale=recipe.scale)
    if recipe.kind != "movie":
        return picture.png()
    picture.frames  # noqa: B018 (drawn here, between two looks at whether somebody cancelled)
    told(2, 3)
    return (gif_bytes if recipe.file == "gif" else mp4_bytes)(picture.frames, recipe.fps)


@contextmanager
def _one_thread() -> Iterator[None]:
    with _LOCK:
        threads = torch.get_num_threads()
        try:
            if threads != 1:
                torch.set_num_threads(1)
            yield
        finally:
            if threads != 1:
                torch.set_num_threads(threads)


assert set(_PACKAGES) == {file for files, _ in KINDS.values() for file in files}
