from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from latentlab.analysis import (
    compare_edits,
    encode_dataset,
    interpolate,
    project,
    rank_units,
    swap_grid,
    traverse,
    traverse_grid,
)
from latentlab.analysis.inference import decode_latents, encode_images, inference
from latentlab.models.edits import Edit


def test_a_shared_model_serves_many_threads_at_once(gated_model):
    """Fails edits kept in the model: one session's ablation would show in another's picture."""
    z = gated_model.latent_space.sample(64, 0)
    edits = [[Edit("generator.maps", (unit,))] for unit in range(6)]
    alone = [compare_edits(gated_model, z, edit).edited for edit in edits]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda k: compare_edits(gated_model, z, edits[k % 6]).edited, range(60)))
    assert all(np.array_equal(together[k], alone[k % 6]) for k in range(60))


def test_eval_mode_is_used_inside_and_undone_outside(linear_model):
    """Fails a model with dropout that is analysed in training mode, and a flag left behind."""
    linear_model.generator.stages["output"].append(torch.nn.Dropout(0.9))
    linear_model.generator.stages["output"].train()
    assert (decode_latents(linear_model, np.zeros((2, 4))) == 0.5).all()
    assert linear_model.generator.stages["output"].training and not linear_model.training
    with pytest.raises(KeyError), inference(linear_model):
        raise KeyError
    assert linear_model.generator.stages["output"].training


def test_no_gradients_are_left_behind(gated_model):
    traverse(gated_model, seed=0)
    rank_units(gated_model, "maps", n=2)
    assert all(p.grad is None and p.requires_grad for p in gated_model.parameters())


@pytest.mark.parametrize("stage", ["encoder.posterior", "generatr.output"])
def test_edits_that_meet_nothing_are_refused_wherever_codes_are_decoded(linear_model, two_block_model, stage):
    """Fails passing them over: unedited images whose provenance claims the edit."""
    edits, z = [Edit(stage)], np.zeros(4)
    blocks = two_block_model()
    for call in (
        lambda: decode_latents(linear_model, z, edits=edits),
        lambda: traverse(linear_model, z, edits=edits),
        lambda: traverse_grid(linear_model, z, edits=edits),
        lambda: interpolate(linear_model, z, z + 1, edits=edits),
        lambda: swap_grid(blocks, edits=edits),
    ):
        with pytest.raises(ValueError, match=rf"The edit of '{stage}' has no effect on network 'generator'"):
            call()


def test_edits_that_encoding_can_not_meet_are_refused(linear_model):
    """Fails passing a misspelt network over; edits of the generator may wait for the decoding."""
    x = np.full((1, 3, 4, 4), 0.5)
    with pytest.raises(ValueError, match=r"'encodr\.posterior' has no effect on network 'encoder'"):
        encode_images(linear_model, x, edits=[Edit("encodr.posterior")])
    plain = encode_images(linear_model, x + 0.1)
    assert np.array_equal(encode_images(linear_model, x + 0.1, edits=[Edit("generator.output")]), plain)
    assert not encode_images(linear_model, x + 0.1, edits=[Edit("encoder.posterior")]).any()


@pytest.mark.parametrize("seed", ["a", -1, 1.5, True, 2**63, None])
def test_what_is_no_seed_is_refused_with_a_sentence(linear_model, two_block_model, planted_dataset, seed):
    """Fails handing it on: torch answers with a RuntimeError, takes -1, or counts True as 1."""
    blocks, data = two_block_model(), planted_dataset(linear_model)
    for call in (
        lambda: traverse(linear_model, seed=seed),
        lambda: swap_grid(blocks, seed=seed),
        lambda: rank_units(linear_model, "output", seed=seed),
        lambda: encode_dataset(linear_model, data, 5, seed=seed),
        lambda: project(np.eye(5), seed=seed),
    ):
        with pytest.raises(ValueError, match=r"seed must be a whole number from 0 to 2\*\*63 - 1; got"):
            call()
    if seed is not None:  # which asks for posterior means here
        with pytest.raises(ValueError, match="seed must be a whole number"):
            encode_images(linear_model, np.full((1, 3, 4, 4), 0.5), seed=seed)
    assert np.array_equal(traverse(linear_model, seed=np.int64(3)).z, traverse(linear_model, seed=3).z)


@pytest.mark.gpu
def test_a_gpu_gives_the_cpus_results(gated_model, linear_model, planted_dataset):
    data = planted_dataset(linear_model)
    at_home = (
        encode_dataset(linear_model, data),
        traverse(linear_model, seed=1),
        rank_units(gated_model, "maps"),
    )
    x = gated_model.decode(gated_model.latent_space.sample(4, 0)).detach()
    encoder = rank_units(gated_model, "features", "encoder", x)
    data = planted_dataset(linear_model)
    images = data.images(np.arange(len(data)))
    data._read = lambda indices: images[indices.cpu()]
    linear_model.cuda(), gated_model.cuda()
    away = encode_dataset(linear_model, data), traverse(linear_model, seed=1), rank_units(gated_model, "maps")
    assert np.allclose(at_home[0].mean, away[0].mean, atol=1e-4)
    assert np.allclose(at_home[1].images, away[1].images, atol=1e-4)
    assert np.allclose(at_home[2].effect, away[2].effect, atol=1e-4)
    moved = rank_units(gated_model, "features", "encoder", x)
    assert np.allclose(encoder.code_effect, moved.code_effect, atol=1e-3)
