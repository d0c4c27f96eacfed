"""Images written as spectra, in which a step of descent moves all scales alike, and shifts that a feature must survive.

Internal to this package.
"""

from __future__ import annotations

import torch
from torch import Tensor

_STD = 0.01
_CONTRAST = 4.0
_EDGE = 0.02


class FourierImages:
    """Images (n, channels, height, width) in (0, 1) as spectra (n, channels, height, width // 2 + 1, 2).

    A frequency f, in cycles a pixel, is scaled by 1 / max(f, 1 / longer edge), so that low ones are as easy to move as
    they are strong in natural images. Any size, grey or colour, on the device that is given.

    Args:
        image_shape: (channels, height, width).
        device: where the images are made.

    References:
        Feature visualization (Olah et al., 2017), https://distill.pub/2017/feature-visualization. There colours are
        decorrelated as in photographs, and images blown up to the size and the normalisation of one classifier; here
        colours are independent and images are those that the network reads.
    """

    def __init__(self, image_shape: tuple[int, ...], device: torch.device) -> None:
        self.shape = tuple(image_shape)
        high, wide = self.shape[1:]
        down = torch.fft.fftfreq(high, device=device)[:, None]
        across = torch.fft.rfftfreq(wide, device=device)[None]
        frequency = (down.square() + across.square()).sqrt().clamp_min(1.0 / max(high, wide))
        self._scale = ((high * wide) ** 0.5 / frequency)[..., None]
        self._device = device
        self.reach = max(1, round(min(high, wide) / 16))

    def draw(self, n: int, chance: torch.Generator) -> Tensor:
        """Spectra of ``n`` nearly grey images."""
        channels, high, wide = self.shape
        drawn = torch.randn((n, channels, high, wide // 2 + 1, 2), generator=chance)
        return _STD * drawn.to(self._device)

    def images(self, spectra: Tensor) -> Tensor:
        """The images of spectra."""
        flat = torch.fft.irfft2(torch.view_as_complex(spectra * self._scale), s=self.shape[1:], norm="ortho")
        return torch.sigmoid(flat / _CONTRAST)

    def spectra(self, images: Tensor) -> Tensor:
        """The spectra of images; what is nearly black or white is taken a little greyer."""
        flat = torch.logit(images.clamp(_EDGE, 1.0 - _EDGE)) * _CONTRAST
        return torch.view_as_real(torch.fft.rfft2(flat, norm="ortho")) / self._scale

    def shifted(self, images: Tensor, chance: torch.Generator) -> Tensor:
        """Images moved by up to a sixteenth of their edge in each direction, at least a pixel; grey comes in."""
        high, wide = self.shape[1:]
        row, column = torch.randint(2 * self.reach + 1, (2,), generator=chance).tolist()
        padded = torch.nn.functional.pad(images, (self.reach,) * 4, value=0.5)
        return padded[:, :, row : row + high, column : column + wide]
