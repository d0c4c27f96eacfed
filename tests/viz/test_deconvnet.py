import numpy as np
import pytest
import torch
from planted import oriented

from latentlab.analysis import deconvnet, occlusion
from latentlab.models.gan_networks import dcgan
from latentlab.viz import show

IMAGES = torch.stack([oriented.edge_image(a) for a in oriented.ANGLES])


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
def test_projections_are_drawn_with_their_sign_and_their_caveat(rule):
    """Fails pictures stretched from min to max: what is 0 stays paper, below is blue and above red."""
    result = deconvnet(oriented.oriented_encoder(), "encoder", "lines", IMAGES, n_units=3, rule=rule, count=4)
    picture = show(result)
    pixels = np.asarray(picture.image).astype(int)
    blue, red = pixels[..., 2] - pixels[..., 0] > 60, pixels[..., 0] - pixels[..., 2] > 60
    assert blue.any() and red.any()
    assert picture.caption.startswith(
        {"deconvnet": "Deconvnet", "guided": "Guided", "gradient": "Gradient"}[rule]
    )
    assert "0 outside the receptive field" in picture.caption and "switches" in picture.caption
    # The caveat stands in the picture itself, also where the caption is left out.
    bare = show(result, caption=False).image
    assert bare.height < picture.image.height
    assert (np.asarray(bare)[-24:] < 160).any()


def test_colour_projections_are_grey_at_zero():
    discriminator = dcgan((3, 28, 28), 4, width=8)[1].eval()
    images = np.random.default_rng(0).random((5, 3, 28, 28), dtype=np.float32)
    result = deconvnet(discriminator, "discriminator", "conv2", images, n_units=2, count=3)
    picture = show(result, count=1, scale=4)
    assert picture.image.width > 3 * result.patches.shape[-1] * 4
    both = show(result, count=2, scale=4, caption=False).image.height
    one = show(result, count=1, scale=4, caption=False).image.height
    assert (
        both - one >= 2 * 4 * result.patches.shape[-2]
    )  # a patch and a projection of its size for each unit more


def test_occlusion_is_drawn_over_the_image():
    result = occlusion(oriented.oriented_encoder(), "encoder", IMAGES[0], "lines", 0)
    picture = show(result, scale=3)
    assert "Occlusion by a patch of 8 pixels: change of the activation" in picture.caption
    assert picture.image.width > 2 * 3 * 32
