"""Lowering: a model's decoder, stage by stage, to the steps that the browser engine knows.

What the engine does not know is refused here, when a page is made, and not in the browser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from latentlab.analysis.direction import Direction
from latentlab.analysis.directions import listed
from latentlab.export.layers import Layers
from latentlab.export.modules import lower_module
from latentlab.export.program import Program, StageState, Value
from latentlab.models.contract import space_of
from latentlab.models.gan import GAN
from latentlab.models.likelihoods import Bernoulli, Gaussian, Laplace, Logistic
from latentlab.models.staged import INPUT, StagedNetwork
from latentlab.models.style_gan import W_PLUS, StyleGAN, W
from latentlab.models.style_networks import Mapping, StyledGenerator
from latentlab.models.vae import VAE


def lower(
    model: Any, directions: Sequence[Direction] = (), *, space: str | None = None, cutoff: int | None = None
) -> Program:
    """Writes a model's ``decode`` down for the browser engine: a code to an image in [0, 1].

    Args:
        model: a VAE or GAN of latentlab's own families, whatever its networks and latent blocks.
        directions: each takes one more number behind the code, how many steps to go along it: in a space that the code
            passes on its way, or in a stage of a network there.
        space: the code's space: the model's first one, or the W of a style-based model, whose mapping is then left out.
        cutoff: how many of the first layers of a style-based model are truncated, 0 for all: by a psi that is the last
            number of all, before any step along a direction. None for no such number.

    Returns:
        The program. It computes what ``model.decode`` computes outside training, and every stage of the generator,
        and of a mapping network, can be read and edited in it.

    Raises:
        ValueError: on another kind of model, a layer that the engine does not know, a direction that is not on the
            code's way, another space, or a truncation of a model without styles.
    """
    decodes = getattr(type(model), "decode", None)
    if decodes not in (VAE.decode, GAN.decode, StyleGAN.decode):
        raise ValueError(
            f"The browser engine decodes latentlab's own VAEs and GANs; got a {type(model).__name__}. "
            "Such a model opens in the explorer: latentlab explore."
        )
    first = model.latent_space.name
    begin = space_of(model, space)
    if begin.name not in (first, W):
        raise ValueError(
            f"The browser engine decodes codes of {first!r} or {W!r}; these are of {begin.name!r}."
        )
    program = Program()
    layers = Layers(program)
    dim, chosen = begin.dim, listed(directions, model) if directions else ()
    if cutoff is not None and decodes is not StyleGAN.decode:
        raise ValueError("Only styles are truncated, and this model has none.")
    program.input = program.place(dim + len(chosen) + (cutoff is not None)).shared
    psi = Value(program.input.at + dim + len(chosen), (1,))
    # Single layers are truncated in W+, so what moves W waits until the code is there.
    ways = _Ways(layers, chosen, Value(program.input.at + dim, (len(chosen),)), late=bool(cutoff))
    state = Value(program.input.at, (dim,))
    if begin.name != W:
        state = ways.moved(state, first)
    if decodes is StyleGAN.decode:
        if begin.name != W:
            state = _network(layers, model.mapping, state, (Mapping,), ways)
        if cutoff == 0:
            state = _truncated(layers, model, state, psi, 1)
        state = ways.moved(state, W)
        count = model.generator.layers
        styles = program.place(count * state.units)
        program.step("copy", (state.at, styles.at), (count, state.units, 0, state.units))
        state = _truncated(layers, model, styles.shared, psi, cutoff) if cutoff else styles.shared
        state = ways.moved(state, W_PLUS)
        assert styles.units == model.spaces[W_PLUS].dim
    outputs = _network(layers, model.generator, state, (StagedNetwork, StyledGenerator), ways)
    ways.check()
    program.output = _image(layers, model, outputs)
    if program.output.shape != tuple(model.image_shape):
        raise ValueError(
            f"The generator gives {program.output.shape}; the model's images are {model.image_shape}."
        )
    return program


class _Ways:
    """The directions on the code's way, and the numbers of steps that the program is given for them."""

    def __init__(self, layers: Layers, directions: Sequence[Direction], steps: Value, late: bool) -> None:
        self.layers, self.directions, self.steps = layers, directions, steps
        self.late = late  # what moves W is added in W+
        self.left = {d.name for d in directions}

    def moved(self, codes: Value, space: str) -> Value:
        """Codes of a space, moved along the directions that belong there; one of W with layers moves those of W+."""
        rows = {
            i: d.spread(space, codes.units)
            for i, d in enumerate(self.directions)
            if space == (W_PLUS if d.layers is not None or (self.late and d.space == W) else d.space)
        }
        return self.layers.add(codes, self._sum(rows, codes.units)).shared if rows else codes

    def pushed(self, state: Value, address: str) -> None:
        """Adds to each unit of a stage's state, everywhere on its map, what the directions of that stage say."""
        rows = {i: d.displacement for i, d in enumerate(self.directions) if d.stage == address}
        for i, row in rows.items():
            if len(row) != state.units:
                raise ValueError(
                    f"Direction {self.directions[i].name!r} has {len(row)} units; stage {address!r} has {state.units}."
                )
        if rows:
            self.layers.shift_by(Value(state.at, state.shape, fresh=True), self._sum(rows, state.units))

    def _sum(self, rows: dict[int, np.ndarray], units: int) -> Value:
        self.left -= {self.directions[i].name for i in rows}
        matrix = np.zeros((units, len(self.directions)))
        for i, row in rows.items():
            matrix[:, i] = row
        return self.layers.linear(self.steps, matrix, None, kernel=False)

    def check(self) -> None:
        """Refuses directions that the code does not meet."""
        for direction in self.directions:
            if direction.name in self.left:
                raise ValueError(
                    f"Direction {direction.name!r} of {direction.space or direction.stage!r} is not on the way from a "
                    "code to its image."
                )


def _truncated(layers: Layers, model: StyleGAN, styles: Value, psi: Value, first: int) -> Value:
    """Styles, those of the first layers drawn towards the mean of all styles by psi."""
    dim = model.spaces[W].dim
    mean = np.tile(model.mapping.mean.detach().cpu().numpy(), styles.units // dim)
    on = (np.arange(styles.units) < first * dim).astype(np.float32)
    factors = layers.linear(psi, on[:, None], 1.0 - on, kernel=False)
    centred = layers.affine(styles, None, -mean)
    return layers.affine(layers.scale_by(centred, factors), None, mean).shared


def _network(layers: Layers, network: Any, given: Value, kinds: tuple[type, ...], ways: _Ways) -> Value:
    """The steps of all stages of a network; returns its last state."""
    if type(network) not in kinds:
        raise ValueError(
            f"The browser engine runs networks of named stages; {getattr(network, 'name', 'this network')!r} is a "
            f"{type(network).__name__}."
        )
    states, described = {INPUT: given}, network.kinds()
    for name in network.names:
        try:
            state = lower_module(layers, network.stages[name], *(states[r] for r in network.inputs[name]))
        except ValueError as error:
            raise ValueError(f"Stage '{network.name}.{name}' can't run in a browser: {error}") from None
        if not state.fresh:  # an edit of this stage must not reach another one
            state = layers.activation(state, "identity")
        states[name] = state.shared
        layers.program.stages.append(
            StageState(f"{network.name}.{name}", described[name], state.shared, len(layers.program.steps))
        )
        ways.pushed(state, f"{network.name}.{name}")  # behind the edits of this stage
    return states[network.names[-1]]


def _image(layers: Layers, model: Any, outputs: Value) -> Value:
    if isinstance(model, GAN):
        return layers.activation(outputs, "half_tanh")
    likelihood = model.observation
    if type(likelihood) in (Bernoulli, Gaussian, Laplace):
        return layers.activation(outputs, "sigmoid")
    if type(likelihood) is Logistic:
        return layers.activation(outputs, "logistic", float(likelihood.scale))
    raise ValueError(f"The browser engine knows no likelihood {type(likelihood).__name__}.")
