"""One live session: a model with an input and edits that one page may decode, and the checks of what it is asked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from latentlab.analysis.inference import carry, input_spaces
from latentlab.app.allowance import Allowance
from latentlab.app.pull import Pull
from latentlab.app.wire import (
    WANT_IMAGE,
    WANT_ORIGINAL,
    WANT_RAW,
    WANT_SHEET,
    Request,
    first_tensor,
    pack_answer,
    pack_image,
    pack_sheet,
)
from latentlab.models.edits import Edit

MAX_EDITS = 256
MAX_REPLACEMENTS = 16  # each runs the other sample through the network up to its stage

_answered = 0.0


def last_answer() -> float:
    """When a live picture was last asked for in this process, in seconds of ``time.monotonic``."""
    return _answered


def check_amount(edits: Sequence[Edit]) -> None:
    """Refuses more edits than can be made while a person drags.

    Raises:
        ValueError: if there are too many, or too many that replace.
    """
    if len(edits) > MAX_EDITS:
        raise ValueError(f"At most {MAX_EDITS} edits can be made at once; got {len(edits)}.")
    replacing = sum(edit.operation == "replace" for edit in edits)
    if replacing > MAX_REPLACEMENTS:
        raise ValueError(
            f"At most {MAX_REPLACEMENTS} edits may replace by another sample, since each runs the network once "
            f"more; got {replacing}."
        )


@dataclass
class View:
    """What one connection looks at: the stage whose maps it shows, and its own edits and code if it set any."""

    edits: tuple[Edit, ...] | None = None
    stage: str | None = None
    z: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """What a page gave its session; replaced as a whole, so that no answer sees half of a change."""

    z: torch.Tensor | None = None
    image: torch.Tensor | None = None
    edits: tuple[Edit, ...] = ()


@dataclass(eq=False)
class LiveSession:
    """A model with an input and edits that one page may decode. Made by ``open_session``.

    ``drawing`` is one of ``DRAWING``, what the person wants; ``fetches`` is how often its program may be asked for.
    """

    token: str
    owner: str
    slot: str
    model: Any
    pull: Pull | None = None
    source: Source = field(default_factory=Source)
    drawing: str = "server"
    fetches: Allowance = field(default_factory=Allowance)
    touched: float = field(default_factory=time.monotonic)
    connections: int = 0
    closed: bool = False
    listeners: set[Callable[[bool], None]] = field(default_factory=set)
    _worker: ThreadPoolExecutor | None = None
    _shapes: dict[str, tuple[int, ...]] | None = None

    @property
    def dim(self) -> int:
        """How many numbers a request has: the coordinates of the model's code, or what the sliders stand for."""
        return self.model.latent_space.dim if self.pull is None else self.pull.dim(self.model)

    @property
    def worker(self) -> ThreadPoolExecutor:
        """The session's one decoding thread, started when it is first needed.

        Raises:
            RuntimeError: if the session was closed; nobody would end the thread.
        """
        if self.closed:
            raise RuntimeError("This session was closed.")
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="latentlab-decode")
        return self._worker

    def free(self) -> None:
        """Stops the thread; work that has not begun is dropped."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown(wait=False, cancel_futures=True)

    def check_stage(self, address: Any) -> str:
        """Returns ``address`` if the model has that stage.

        Raises:
            ValueError: otherwise, naming the stages there are.
        """
        stages = [a for network in self.model.networks.values() for a in network.addresses]
        if not isinstance(address, str) or address not in stages:
            raise ValueError(f"No stage {str(address)[:80]!r} in this model; it has {', '.join(stages)}.")
        return address

    def check_edits(self, specs: Any) -> tuple[Edit, ...]:
        """Reads a list of edit dictionaries and checks stages, units and sources against the model.

        Raises:
            ValueError: one sentence on the first thing that is wrong.
        """
        if not isinstance(specs, list) or len(specs) > MAX_EDITS:
            raise ValueError(f"Edits are a list of at most {MAX_EDITS} dictionaries.")  # before any is read
        edits = tuple(Edit.from_dict(spec) for spec in specs)
        check_amount(edits)
        for edit in edits:
            self.check_stage(edit.stage)
            shape = self.shapes().get(edit.stage, ())
            if edit.units and shape and edit.units[-1] >= shape[0]:
                raise ValueError(
                    f"Stage {edit.stage!r} has units 0 to {shape[0] - 1}; the edit names unit {edit.units[-1]}."
                )
            if edit.region is not None and len(shape) != 3:
                raise ValueError(
                    f"Stage {edit.stage!r} has no spatial map, so an edit of it can't have a region."
                )
            if edit.source is not None and not all(map(math.isfinite, edit.source)):
                raise ValueError("An edit's source must hold finite numbers.")
            space = input_spaces(self.model).get(edit.network)
            size = (
                math.prod(self.model.image_shape)
                if space is None
                else self.model.latent_space.dim
                if space == self.model.latent_space.name
                else self.model.spaces[space].dim
            )
            if edit.source is not None and len(edit.source) != size:
                raise ValueError(
                    f"The source of an edit of {edit.stage!r} has {size} numbers; got {len(edit.source)}."
                )
        return edits

    def check_z(self, values: Any) -> np.ndarray:
        """Reads a code from a JSON list.

        Raises:
            ValueError: on a wrong length or numbers that are not finite.
        """
        numbers = isinstance(values, list) and all(isinstance(v, int | float) for v in values)
        if not numbers or len(values) != self.dim:
            raise ValueError(f"This model's code is a list of {self.dim} numbers.")
        try:
            z = np.asarray(values, dtype=np.float32)
        except OverflowError:
            z = np.full(self.dim, np.inf)
        if not np.isfinite(z).all():
            raise ValueError("A code must hold finite numbers; this one has NaN or infinity.")
        return z

    @torch.inference_mode()
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every stage's state, without the batch, by address."""
        if self._shapes is None:
            z = torch.zeros(1, self.model.latent_space.dim, device=self._device())
            images = torch.zeros(1, *self.model.image_shape, device=self._device())
            inputs = {
                **dict.fromkeys(self.model.networks, images),
                **{name: carry(self.model, z, space) for name, space in input_spaces(self.model).items()},
            }
            self._shapes = {
                info.address: info.shape
                for name, network in self.model.networks.items()
                for info in network.describe(inputs[name])
            }
        return self._shapes

    @torch.inference_mode()
    def answer(self, request: Request, view: View) -> bytes:
        """Decodes what the request asks for. Runs in the worker thread.

        Returns:
            The packed answer (module docstring).

        Raises:
            ValueError: if the session has no input, or no stage is chosen for a sheet.
        """
        global _answered
        began, _answered = time.perf_counter(), time.monotonic()
        source = self.source
        edits = source.edits if view.edits is None else view.edits
        parts = []
        image = None
        raw = bool(request.flags & WANT_RAW)
        if request.z is not None:
            z = torch.from_numpy(request.z)[None]
        elif view.z is not None:
            z = torch.from_numpy(view.z)[None]
        elif source.image is not None:
            image = source.image.to(self._device())
            z = self.model.encode(image, edits=edits).code()
        elif source.z is not None:
            z = source.z
        else:
            raise ValueError("This session has no input yet; send a code.")
        z = z.to(self._device())
        if request.flags & WANT_ORIGINAL:
            plain = z if image is None else self.model.encode(image).code()
            parts.append(
                {"kind": "original", **pack_image(self.model.decode(plain)[0].float().cpu().numpy(), raw)}
            )
        if request.flags & WANT_IMAGE:
            decoded = (
                self.model.decode(z, edits=edits)
                if self.pull is None
                else self.pull.decode(self.model, z, edits)
            )
            parts.append({"kind": "image", **pack_image(decoded[0].float().cpu().numpy(), raw)})
        if request.flags & WANT_SHEET:
            if view.stage is None:
                raise ValueError("Choose a stage before asking for its maps.")
            name, h = view.stage.split(".", 1)[0], z
            if name in input_spaces(self.model):
                h = carry(self.model, z, input_spaces(self.model)[name])
            elif source.image is not None:
                h = source.image.to(self._device())
            else:  # networks of images are shown what the model draws
                h = self.model.decode(z, edits=edits if name == "discriminator" else ())
            if name == "discriminator":
                values = scores(self.model, h, z, edits)
                if all(map(math.isfinite, values)):
                    parts.append({"kind": "scores", "values": values, "data": b""})
            network = self.model.networks[name]
            state = network.activations(h, [view.stage], edits=edits)[network.stage_name(view.stage)]
            parts.extend(pack_sheet(first_tensor(state)[0].float().cpu().numpy(), view.stage))
        return pack_answer(request.id, (time.perf_counter() - began) * 1e3, parts)

    def _device(self) -> torch.device:
        parameter = next(iter(self.model.parameters()), None) if hasattr(self.model, "parameters") else None
        return torch.device("cpu") if parameter is None else parameter.device


def scores(model: Any, image: torch.Tensor, z: torch.Tensor, edits: Sequence[Edit]) -> tuple[float, float]:
    """What a discriminator says of an image (1, …) drawn from ``z``, without and with the edits; before any sigmoid."""
    labels = model.labels(z)  # None where images are judged without
    before, after = (float(model.discriminate(image, made, labels)) for made in ((), edits))
    return before, after
