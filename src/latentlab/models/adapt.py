"""Any nn.Module as a network of named stages: the only place that uses hooks.

Submodules become stages under their dotted names, in the order in which a forward pass reaches them. The hooks
are set for one call, under one lock, and taken off again whatever happens; modes, buffers, gradients' flags and
the global generators are left as they were found. A module that draws in its forward draws the same every time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.distributions import Normal as NormalDistribution

from latentlab.latents import Block, LatentSpace, Posterior
from latentlab.models.contract import identity_text, space_of
from latentlab.models.edits import Edit
from latentlab.models.staged import Addressed, StageInfo, writes_input

# Two adapted networks may share submodules, so one lock serves them all.
_LOCK = threading.RLock()


class _Reached(BaseException):
    """Ends a forward pass early; no module's ``except Exception`` swallows it."""


class AdaptedNetwork(Addressed):
    """A foreign module with the interface of a StagedNetwork. Make one with ``adapt``."""

    def __init__(self, module: nn.Module, example: Tensor, name: str) -> None:
        super().__init__()
        self.module = module
        self.name = name
        self._calls: dict[str, int] = {}
        with self._hooked(lambda stage, module, state: None, count=self._calls):
            module(example)
        if not self._calls:
            raise ValueError(f"No submodule of {type(module).__name__} gave a tensor in a forward pass.")
        repeated = {path for path, calls in self._calls.items() if calls > 1}
        seen: list[str] = []

        def order(stage: str, module: nn.Module, state: Tensor) -> None:
            seen.append(stage)

        with self._hooked(order):
            module(example)
        self.names: tuple[str, ...] = tuple(seen)
        self.repeated = frozenset(repeated)

    def run(self, h, edits: Iterable[Edit] = (), start: str | None = None, stop: str | None = None):
        """Runs the module with edits.

        Args:
            h: the module's input (batch, …).
            edits: edits of any network; those of other networks are passed over.
            start: not available here, since a foreign forward can't be entered half-way.
            stop: return the state after this stage instead of the output.

        Raises:
            ValueError: on unknown stages or units, or with ``start``.
        """
        if start is not None:
            raise ValueError("An adapted network can't be resumed half-way; run it from its input.")
        if stop is not None:
            stage = self.stage_name(stop)
            return self._run(h, edits, {stage}, stage)[1][stage]
        return self._run(h, edits, set(), None)[0]

    def activations(
        self, h, names: Iterable[str] | None = None, edits: Iterable[Edit] = ()
    ) -> dict[str, Tensor]:
        """The states of the named stages (all by default), after the edits, {stage: (batch, units, …)}."""
        wanted = set(self.names if names is None else (self.stage_name(n) for n in names))
        states = self._run(h, edits, wanted, None)[1]
        return {name: states[name] for name in self.names if name in wanted}

    def kinds(self) -> dict[str, str]:
        """What each stage is, {stage: "Conv2d"}."""
        modules = dict(self.module.named_modules())
        return {name: type(modules[name.split("@")[0]]).__name__ for name in self.names}

    def describe(self, h) -> list[StageInfo]:
        """What each stage is, with the shape of its state for the input ``h``."""
        states = {}
        with torch.no_grad():
            states = self._run(h, (), set(self.names), None)[1]
        modules, kinds = dict(self.module.named_modules()), self.kinds()
        described = []
        for name in self.names:
            module = modules[name.split("@")[0]]
            described.append(
                StageInfo(
                    name=name,
                    address=f"{self.name}.{name}",
                    kind=kinds[name],
                    shape=tuple(states[name].shape[1:]),
                    parameters=sum(p.numel() for p in module.parameters()),
                    inputs=(),
                )
            )
        return described

    def _run(self, h, edits: Iterable[Edit], wanted: set[str], stop: str | None):
        mine = self.edits_by_stage(edits)
        sources = {
            (stage, e.source or ()) for stage, es in mine.items() for e in es if e.operation == "replace"
        }
        others: dict[tuple, Tensor] = {}
        for stage, source in sources:
            if len(source) != h[0].numel():
                raise ValueError(
                    f"The source of an edit in {self.name!r} needs {h[0].numel()} numbers; got {len(source)}."
                )
            sample = torch.tensor(source, dtype=h.dtype, device=h.device).view(1, *h.shape[1:])
            others[stage, source] = self._run(sample, (), {stage}, stage)[1][stage]
        states: dict[str, Tensor] = {}

        def visit(stage: str, module: nn.Module, state: Tensor) -> Tensor | None:
            edited = state
            for edit in mine.get(stage, ()):
                edited = edit.apply(edited, others.get((stage, edit.source)))
            if stage in wanted:
                # A later in-place layer would write into what was handed out.
                states[stage] = edited.clone()
            if stage == stop:
                raise _Reached
            return None if edited is state else edited

        with self._hooked(visit):
            try:
                output = self.module(h.clone() if writes_input(self.module) else h)
            except _Reached:
                output = None
        return output, states

    @contextmanager
    def _hooked(self, visit: Callable, count: dict[str, int] | None = None) -> Iterator[None]:
        """Calls ``visit(stage, module, state)`` after every submodule that gives a tensor, in eval mode."""
        with _LOCK:
            modes = {m: m.training for m in self.module.modules()}
            handles = []
            calls: dict[str, int] = {}

            def hook_for(path: str):
                def hook(module: nn.Module, inputs: object, output: object):
                    if not isinstance(output, Tensor) or output.ndim < 2:
                        return None
                    calls[path] = calls.get(path, 0) + 1
                    if count is not None:
                        count[path] = calls[path]
                    stage = (
                        f"{path}@{calls[path]}" if self._calls.get(path, 0) > 1 and count is None else path
                    )
                    return visit(stage, module, output)

                return hook

            try:
                self.module.eval()
                for path, submodule in self.module.named_modules():
                    if path:
                        handles.append(submodule.register_forward_hook(hook_for(path)))
                with _fixed_chance(self.module):
                    yield
            finally:
                for handle in handles:
                    handle.remove()
                for module, mode in modes.items():
                    module.training = mode


@contextmanager
def _fixed_chance(module: nn.Module) -> Iterator[None]:
    """Seeds the global generators that a foreign forward may draw from, and puts them back."""
    devices = {t.device.index or 0 for t in module.parameters() if t.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices)):
        torch.default_generator.manual_seed(0)
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(0)
        yield


def adapt(module: nn.Module, example: Tensor, name: str = "network") -> AdaptedNetwork:
    """Gives any module the interface of a StagedNetwork: stages, activations, edits.

    A submodule that a forward pass calls several times has one stage a call: "relu@1", "relu@2".

    Args:
        module: a module whose submodules shall be the stages; its own outputs may be anything.
        example: an input of it, (batch, …), used once to find the stages.
        name: what edits call the network.

    Returns:
        The network; the module is shared, not copied, and left as it was.

    Raises:
        ValueError: if no submodule gives a tensor.
    """
    with torch.no_grad():
        return AdaptedNetwork(module, example, name)


class AdaptedModel(nn.Module):
    """A foreign decoder, and encoder if there is one, as a generative model. Make one with ``adapt_model``."""

    def __init__(
        self,
        generator: AdaptedNetwork,
        encoder: AdaptedNetwork | None,
        latent_space: LatentSpace,
        image_shape: tuple[int, int, int],
        to_image: Callable[[Tensor], Tensor],
        to_posterior: Callable[[object], tuple[Tensor, Tensor]],
        scale: float,
        output_range: str,
    ) -> None:
        super().__init__()
        self._range = output_range
        self.generator, self.encoder = generator, encoder
        self.latent_space, self.image_shape = latent_space, image_shape
        self._to_image, self._to_posterior, self._scale = to_image, to_posterior, scale

    @property
    def spaces(self) -> dict[str, LatentSpace]:
        """The one space of the model."""
        return {self.latent_space.name: self.latent_space}

    @property
    def identity(self) -> str:
        """What the model is apart from its weights; part of the weights' digest."""
        return identity_text(self, outputs=self._range, scale=str(self._scale))

    @property
    def networks(self) -> dict[str, AdaptedNetwork]:
        """The networks that can be opened."""
        found = {"generator": self.generator, "encoder": self.encoder}
        return {name: network for name, network in found.items() if network is not None}

    def map(self, z: Tensor, source: str, target: str) -> Tensor:
        """Codes stay as they are: there is one space."""
        for name in (source, target):
            if name not in self.spaces:
                raise ValueError(f"No space {name!r} in this model; it has {', '.join(self.spaces)}.")
        return z

    def decode(self, z: Tensor, edits: Iterable[Edit] = (), space: str | None = None) -> Tensor:
        """Images (batch, channels, height, width) in [0, 1] of codes (batch, dim)."""
        space_of(self, space).check(z)
        images = self._to_image(_tensor(self.generator.run(z, edits)))
        return images.reshape(z.shape[0], *self.image_shape).clamp(0.0, 1.0)

    def likelihood(self, z: Tensor, edits: Iterable[Edit] = ()) -> Distribution:
        """N(decode(z), scale^2): a foreign module does not tell its own likelihood."""
        return Independent(NormalDistribution(self.decode(z, edits), self._scale, validate_args=False), 3)

    def encode(self, x: Tensor, edits: Iterable[Edit] = ()) -> Posterior:
        """q(z | x) of images (batch, channels, height, width).

        Raises:
            ValueError: if the model was adapted without an encoder.
        """
        if self.encoder is None:
            raise ValueError("This model was adapted without an encoder, so it can't encode images.")
        mean, log_var = self._to_posterior(self.encoder.run(x, edits))
        space = self.latent_space
        slices = [space.slice(name) for name in space.block_names]
        numbers = torch.cat([torch.cat([mean[:, s], log_var[:, s]], dim=1) for s in slices], dim=1)
        return space.posterior(numbers)

    def sample_codes(self, n: int, seed: int) -> Tensor:
        """Codes (n, dim) from the prior, on the model's device."""
        return self.latent_space.sample(n, seed, next(self.parameters()).device)

    def sample(self, n: int, seed: int) -> Tensor:
        """Images of ``n`` codes from the prior."""
        return self.decode(self.sample_codes(n, seed))


def _tensor(output: object) -> Tensor:
    if not isinstance(output, Tensor):
        raise TypeError(f"Expected the decoder to give one tensor; got {type(output).__name__}.")
    return output


def _halves(output: object) -> tuple[Tensor, Tensor]:
    if isinstance(output, (tuple, list)) and len(output) == 2:
        return output[0], output[1]
    if isinstance(output, Tensor):
        mean, log_var = output.chunk(2, dim=1)
        return mean, log_var
    raise TypeError(
        "Expected the encoder to give (mean, log_var) or one tensor with the two side by side; got "
        f"{type(output).__name__}. Pass to_posterior to read it."
    )


_TO_IMAGE: dict[str, Callable[[Tensor], Tensor]] = {
    "unit": lambda y: y,
    "logits": torch.sigmoid,
    "signed": lambda y: (y + 1.0) / 2.0,
}


def adapt_model(
    decoder: nn.Module,
    *,
    latents: int | LatentSpace,
    image_shape: tuple[int, int, int],
    encoder: nn.Module | None = None,
    outputs: str | Callable[[Tensor], Tensor] = "unit",
    to_posterior: Callable[[object], tuple[Tensor, Tensor]] = _halves,
    scale: float = 0.1,
) -> AdaptedModel:
    """Makes a generative model of a foreign decoder, and of its encoder if there is one.

    Args:
        decoder: codes (batch, dim) to images, flat or (batch, channels, height, width).
        latents: number of coordinates, or a latent space.
        image_shape: (channels, height, width).
        encoder: images to (mean, log_var), or to one tensor with the two side by side.
        outputs: the range of the decoder's outputs: "unit" for [0, 1], "logits", "signed" for [-1, 1], or a
            function to [0, 1].
        to_posterior: reads (mean, log_var), each (batch, dim), off the encoder's output.
        scale: standard deviation of the likelihood that is put around a decoded image.

    Raises:
        ValueError: on an unknown range, or a decoder whose output is no image of that shape.
    """
    space = latents if isinstance(latents, LatentSpace) else LatentSpace([Block("z", latents)])
    if isinstance(outputs, str) and outputs not in _TO_IMAGE:
        raise ValueError(f"outputs must be one of {', '.join(_TO_IMAGE)} or a function; got {outputs!r}.")
    output_range = (
        outputs if isinstance(outputs, str) else getattr(outputs, "__qualname__", type(outputs).__name__)
    )
    to_image = _TO_IMAGE[outputs] if isinstance(outputs, str) else outputs
    device = next((p.device for p in decoder.parameters()), torch.device("cpu"))
    codes = space.sample(1, 0, device)
    images = torch.zeros(1, *image_shape, device=device)
    generator = adapt(decoder, codes, "generator")
    own = adapt(encoder, images, "encoder") if encoder is not None else None
    model = AdaptedModel(generator, own, space, image_shape, to_image, to_posterior, scale, output_range)
    with torch.no_grad():
        made = to_image(_tensor(generator.run(codes)))
        if made.numel() != images.numel():
            raise ValueError(
                f"Expected the decoder to give images {tuple(image_shape)}; got {tuple(made.shape[1:])}."
            )
        if own is not None:
            model.encode(images)  # says what is wrong with the encoder's outputs
    return model
