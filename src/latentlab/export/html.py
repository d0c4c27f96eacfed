"""A run as one HTML file: its decoder in the browser engine, its sliders, traversals, units and model card.

The file opens from disk, needs no server and asks for nothing over a network; its own content policy forbids it to.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from latentlab.analysis import decode_latents, encode_dataset, encode_images
from latentlab.analysis.direction import Direction
from latentlab.analysis.encoding import Encoding
from latentlab.analysis.ganspace import ganspace
from latentlab.analysis.inference import as_codes, draw_codes, to_numpy
from latentlab.export.axes import Labels, axes_of, factor_labels, with_directions
from latentlab.export.lowering import lower
from latentlab.export.markdown import headline_of, to_html
from latentlab.files import atomic_write
from latentlab.models.contract import is_inference_model
from latentlab.models.gan import GAN
from latentlab.models.style_gan import W

_IMAGES = 2000
_EXAMPLES = 8
_CHECKED = 2
_DIRECTIONS = 10

_POLICY = (
    "default-src 'none'; script-src {scripts} 'wasm-unsafe-eval' blob:; worker-src blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
)


def export_html(
    run: Any,
    path: str | Path,
    *,
    precision: str = "f16",
    labels: Labels | None = None,
    encoding: Encoding | None = None,
    directions: Sequence[Direction] | None = None,
    z: Any = None,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Writes a run's explorer as one HTML file.

    Args:
        run: an opened run of one of latentlab's own VAEs or GANs.
        path: the file, its folder is made if need be.
        precision: of the decoder's weights, "f32", "f16" or "int8". Half precision changes a pixel by less than one
            grey level of 256; in 8 bits those of the shipped decoders change by one level in the mean, and at
            sharp edges by up to 23. The page measures its own difference.
        labels: {latent: (factor it knows most of, nats)}, such as a kept report gives; None to measure them here, on
            data with factors.
        encoding: of the run's data by its model; None to encode 2,000 images here, where there are data and an encoder.
        directions: directions of the model's spaces and of stages behind its code, a slider each; None for the ten
            principal directions of W where there is a W, whose own coordinates mean nothing, and else for none.
        z: code (dim,) of the model's first space that the page starts from, or several (n, dim); the page's other
            examples come behind.
        seed: decides which images are encoded, and the first codes where there are none.
        progress: called with (images encoded, images in all); it may raise to cancel.

    Returns:
        The path.

    Raises:
        ValueError: if the browser engine can't run the model, or a direction; the message names the stage.
        OSError: if the file can't be written.
    """
    text = page_html(
        run,
        precision=precision,
        labels=labels,
        encoding=encoding,
        directions=directions,
        z=z,
        seed=seed,
        progress=progress,
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "w") as file:
        file.write(text)
    return path


def page_html(
    run: Any,
    *,
    precision: str = "f16",
    labels: Labels | None = None,
    encoding: Encoding | None = None,
    directions: Sequence[Direction] | None = None,
    z: Any = None,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> str:
    """The text of the file that ``export_html`` writes; see there."""
    model = run.model
    chosen, shares = _directions(model, directions, seed)
    program = lower(model, chosen).pack(precision)
    data = _dataset(run)
    if encoding is None and data is not None and is_inference_model(model):
        encoding = encode_dataset(model, data, _IMAGES, seed=seed, progress=progress)
    examples = _examples(model, data, encoding, seed)
    if z is not None:
        examples = np.concatenate([to_numpy(as_codes(model, z)), examples])[:_EXAMPLES]
    examples = np.round(examples.astype(np.float64), 5)
    labels = factor_labels(encoding, seed) if labels is None else labels
    names = run.annotations.get("names", {})
    axes = axes_of(
        model,
        examples[0],
        encoding=encoding,
        labels=labels,
        names={str(k): str(v) for k, v in names.items()} if isinstance(names, dict) else {},
    )
    axes = with_directions(axes, model.latent_space, chosen, shares)
    still = [0.0] * len(chosen)
    wasm = files("latentlab.export").joinpath("engine.wasm").read_bytes()
    content = {
        "name": run.name.removeprefix("zoo:"),
        "facts": _facts(run, program),
        "program": program,
        "stages": program["stages"],
        "wasm": base64.b64encode(wasm).decode(),
        "image_shape": list(model.image_shape),
        "axes": axes,
        "examples": [[*z, *still] for z in examples.tolist()],
        "reference": _reference(model, examples[:_CHECKED]),
        "seed": seed,
    }
    return _page(content, run.card)


def _directions(
    model: Any, given: Sequence[Direction] | None, seed: int
) -> tuple[tuple[Direction, ...], dict[str, float]]:
    """The directions that get sliders, and the shares of the variance of those that were found here."""
    if given is not None:
        return tuple(given), {}
    if W not in model.spaces:
        return (), {}
    found = ganspace(model, n=min(_DIRECTIONS, model.spaces[W].dim), seed=seed)
    directions = tuple(d.named(f"component {i + 1}") for i, d in enumerate(found.directions))
    return directions, {d.name: float(share) for d, share in zip(directions, found.scores, strict=True)}


def _dataset(run: Any) -> Any:
    """The run's data, None where they are not on this machine."""
    try:
        return run.dataset()
    except (OSError, ValueError):
        return None


def _examples(model: Any, data: Any, encoding: Encoding | None, seed: int) -> np.ndarray:
    """Codes (n, dim) to start from: of images of the data, or for a GAN, and without data, drawn from the prior."""
    if data is None or encoding is None or isinstance(model, GAN):
        return to_numpy(draw_codes(model, _EXAMPLES, seed))
    chosen = np.asarray(encoding.indices[:_EXAMPLES])
    return encode_images(model, to_numpy(data.images(chosen)))


def _reference(model: Any, codes: np.ndarray) -> list[str]:
    """What torch decodes: (height, width, channels) in 65536 levels, for the page to compare itself with."""
    images = decode_latents(model, codes.astype(np.float32))
    levels = np.rint(images.transpose(0, 2, 3, 1) * 65535.0).astype("<u2")
    return [base64.b64encode(image.tobytes()).decode() for image in levels]


def _facts(run: Any, program: dict[str, Any]) -> list[str]:
    model, config = run.model, run.config
    channels, height, width = model.image_shape
    count = sum(p.numel() for p in model.generator.parameters())
    return [
        f"{config.model.family}, {config.objective.objective}",
        f"trained on {config.data.name}",
        f"{height} × {width} {'colour' if channels == 3 else 'grey'}",
        f"{model.latent_space.dim} latent coordinates",
        f"decoder of {count / 1e6:.2f} M weights in {program['precision']}",
    ]


def _page(content: dict[str, Any], card: str) -> str:
    """The file's text."""
    own, shared = files("latentlab.export"), files("latentlab").joinpath("app", "components")
    # One source of sliders and canvases for the explorer and for this page: its files are read, nothing is imported.
    css = shared.joinpath("core.css").read_text("utf-8") + own.joinpath("page.css").read_text("utf-8")
    scripts = {
        "core": [shared.joinpath(f"{name}.js") for name in ("core", "ranges", "traverse")],
        "engine": [own.joinpath("engine.js")],
        "page": [own.joinpath(f"{name}.js") for name in ("decoder", "strips", "units", "page")],
    }
    scripts = {tag: "\n".join(p.read_text("utf-8") for p in parts) for tag, parts in scripts.items()}
    # Browsers hash the text between the tags; a stray end tag would cut it short.
    assert not any("</script" in text.lower() for text in scripts.values())
    digests = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts.values()
    )
    values = {
        "policy": _POLICY.format(scripts=digests),
        "title": html.escape(content["name"]),
        "headline": html.escape(headline_of(card)),
        "facts": "".join(f"<li>{html.escape(fact)}</li>" for fact in content["facts"]),
        "css": css,
        "card": to_html(card),
        "data": json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        **scripts,
    }
    template = own.joinpath("page.html").read_text("utf-8")
    parts = template.split("{{")
    return parts[0] + "".join(
        values[name] + rest for name, rest in (part.split("}}", 1) for part in parts[1:])
    )
