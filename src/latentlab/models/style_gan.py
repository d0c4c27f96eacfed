"""The style-based GAN: codes of Z become styles of W, and each layer of the generator reads a style, W+ in all.

Symbols: z a code of Z, w a style of W, W+ one style a layer. A code belongs to the space it was found in: maps lead
from Z to W and from W to W+, and none leads back.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from latentlab.latents import Block, LatentSpace, Mapped
from latentlab.models.contract import identity_text, space_of
from latentlab.models.edits import Edit
from latentlab.models.gan import GAN, image
from latentlab.models.precision import full
from latentlab.models.staged import StagedNetwork
from latentlab.models.style_networks import Mapping, StyledGenerator, Styles

Z, W, W_PLUS = "z", "w", "w+"


class StyleGAN(GAN):
    """A GAN whose generator reads styles.

    Outside training every layer's noise is one fixed map, so that an image is a function of its code alone.

    Args:
        image_shape: (channels, height, width).
        latent_space: Z, of normal blocks; only a code's direction counts.
        mapping: codes of Z to styles of W.
        generator: styles of W+ to numbers of an image's shape, before the tanh.
        discriminator: images (batch, channels, height, width) in [0, 1] to scores (batch, 1).
        mixing: share of the images in training that read the styles of two codes, 0 to 1.

    References:
        Analyzing and improving the image quality of StyleGAN (Karras et al., 2020),
        https://arxiv.org/abs/1912.04958. Here without its path length penalty and minibatch statistic, and with
        the tanh of the plain GAN behind the generator.
        A style-based generator architecture for generative adversarial networks (Karras et al., 2019),
        https://arxiv.org/abs/1812.04948, for truncation and the mixing of styles
    """

    generator: StyledGenerator

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_space: LatentSpace,
        mapping: Mapping,
        generator: StyledGenerator,
        discriminator: StagedNetwork,
        mixing: float = 0.9,
    ) -> None:
        super().__init__(image_shape, latent_space, generator, discriminator)
        self.mapping = mapping
        self.mixing = mixing
        layers, styles = generator.layers, generator.styles
        w = LatentSpace([Block("w", styles, Mapped())], name=W)
        each = LatentSpace([Block(f"layer{k}_", styles, Mapped()) for k in range(layers)], name=W_PLUS)
        self._spaces = {latent_space.name: latent_space, W: w, W_PLUS: each}

    @property
    def spaces(self) -> dict[str, LatentSpace]:
        """Z, W and W+, whose blocks layer0_, layer1_, … are the styles of the layers."""
        return dict(self._spaces)

    @property
    def identity(self) -> str:
        """What the model is apart from its weights; part of the weights' digest."""
        return identity_text(self)

    @property
    def networks(self) -> dict[str, StagedNetwork]:
        """The networks that can be opened."""
        return {"generator": self.generator, "mapping": self.mapping, "discriminator": self.discriminator}

    @property
    def input_spaces(self) -> dict[str, str]:
        """Which space's codes each network reads: the generator those of W+, the mapping those of Z."""
        return {"generator": W_PLUS, "mapping": self.latent_space.name}

    @property
    def generating(self) -> nn.ModuleDict:
        """What makes images, trained and averaged together: the mapping and the generator."""
        return nn.ModuleDict({"mapping": self.mapping, "generator": self.generator})

    def map(self, z: Tensor, source: str, target: str, edits: Iterable[Edit] = ()) -> Tensor:
        """Carries codes from Z to W or W+, or from W to W+, where every layer has the same style.

        Args:
            z: codes (batch, dim) of the space ``source``.
            source: name of the space that they belong to.
            target: name of the space to carry them to.
            edits: edits of the mapping network.

        Raises:
            ValueError: on a space that the model does not have, on codes of another, or for the way back.
        """
        order = list(self._spaces)
        space_of(self, target)
        space_of(self, source).check(z)
        if order.index(target) < order.index(source):
            raise ValueError(
                f"No map leads from {source!r} back to {target!r}; latentlab.invert(model, images, "
                f"space={target!r}) looks for codes whose images are the same."
            )
        first = self.latent_space.name
        w = full(self.mapping.run(z, edits)) if source == first and target != first else z
        return w.repeat(1, self.generator.layers) if target == W_PLUS and source != W_PLUS else w

    def decode(self, z: Tensor, edits: Iterable[Edit] = (), space: str | None = None) -> Tensor:
        """Images (batch, channels, height, width) in [0, 1] of codes (batch, dim).

        Args:
            z: codes.
            edits: edits of the generator, and for codes of Z of the mapping network.
            space: the name of the codes' space, "z" where it is not given.

        Raises:
            ValueError: on a space that the model does not have, or on codes of another.
        """
        edits = tuple(edits)
        styles = self.map(z, space or self.latent_space.name, W_PLUS, edits)
        return image(self.generator.run(styles, edits))

    def truncate(self, w: Tensor, psi: float, layers: Iterable[int] | None = None, space: str = W) -> Tensor:
        """Styles drawn towards the mean of all styles: mean + psi (w - mean).

        Args:
            w: codes (batch, dim) of W or W+.
            psi: 0 for the mean itself, 1 for the styles as they are.
            layers: layers of W+ to draw in; None for all.
            space: the codes' space, "w" or "w+".

        Returns:
            Codes of the same space.

        Raises:
            ValueError: on another space, on layers of W, which has none, or on layers out of range.
        """
        if space not in (W, W_PLUS):
            raise ValueError(f"Only codes of 'w' and 'w+' can be truncated; got the space {space!r}.")
        if layers is not None and space == W:
            raise ValueError("Single layers are truncated in 'w+'; carry the codes there with model.map.")
        self._spaces[space].check(w)
        mean = self.mapping.mean
        if space == W:
            return torch.lerp(mean, w, psi)
        by_layer = w.unflatten(1, (-1, len(mean)))
        return torch.where(self._chosen(layers), torch.lerp(mean, by_layer, psi), by_layer).flatten(1)

    def mix(self, a: Tensor, b: Tensor, layers: Iterable[int]) -> Tensor:
        """Codes of W+ (batch, dim) with the styles of ``b`` in some layers and those of ``a`` in all others.

        Raises:
            ValueError: on codes of another space, or layers out of range.
        """
        for codes in (a, b):
            self._spaces[W_PLUS].check(codes)
        a, b = (codes.unflatten(1, (-1, self.generator.styles)) for codes in (a, b))
        return torch.where(self._chosen(layers), b, a).flatten(1)

    def _chosen(self, layers: Iterable[int] | None) -> Tensor:
        """Which layers, bool (1, layers, 1)."""
        count = self.generator.layers
        layers = range(count) if layers is None else list(layers)
        if wrong := [k for k in layers if not 0 <= k < count]:
            raise ValueError(f"W+ has layers 0 to {count - 1}; got {wrong[0]}.")
        chosen = torch.zeros(count, dtype=torch.bool, device=self.mapping.mean.device)
        chosen[list(layers)] = True
        return chosen[None, :, None]

    def sample(self, n: int, seed: int, truncation: float = 1.0) -> Tensor:
        """Images of ``n`` codes from the prior; equal seeds give equal images.

        Args:
            n: number of images.
            seed: decides the codes.
            truncation: psi of ``truncate``.
        """
        codes = self.sample_codes(n, seed)
        if truncation == 1.0:
            return self.decode(codes)
        return self.decode(self.truncate(self.map(codes, self.latent_space.name, W), truncation), space=W)

    def forge(self, generating: nn.Module, codes: Tensor, chance: torch.Generator) -> Tensor:
        """Images (batch, channels, height, width) in [0, 1] as they are made in training.

        In training mode each image has noise of its own, some mix the styles of two codes from a layer on, and the
        running mean of the styles moves; in eval mode the images are those of ``decode``.

        Args:
            generating: ``generating`` of this model, or a copy of it that is being trained.
            codes: (batch, dim) of Z.
            chance: source of noise and second codes, on the codes' device.
        """
        mapping, generator = generating["mapping"], generating["generator"]  # pyright: ignore[reportIndexIssue]
        w = full(mapping.run(codes))
        n, layers = len(w), generator.layers
        if not mapping.training:
            return image(generator.run(w.repeat(1, layers)))
        mapping.follow(w)
        styles = w[:, None].expand(-1, layers, -1)
        if self.mixing > 0.0:
            others = full(mapping.run(self.latent_space.draw(n, chance)))
            begin = torch.randint(1, layers, (n, 1), generator=chance, device=chance.device)
            mixed = torch.rand((n, 1), generator=chance, device=chance.device) < self.mixing
            second = mixed & (torch.arange(layers, device=w.device) >= begin)
            styles = torch.where(second[..., None], others[:, None], styles)
        return image(generator.run(Styles(styles.flatten(1), generator.draw_noise(n, chance))))
