"""The ladder: each level has a depth of its own in both networks, and the whole is a VAE like any other."""

import pytest
import torch

from latentlab.analysis import swap_grid, traverse
from latentlab.config import OBJECTIVES, LadderVAEConfig
from latentlab.models.build import build_model
from latentlab.models.contract import TermsRequest, weights_digest
from latentlab.models.edits import Edit
from latentlab.models.ladder import depths
from latentlab.models.vae import VAE
from latentlab.objectives.build import build_objective
from latentlab.objectives.variational import BetaVAE, DataDescription


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(channels: int = 1, size: int = 28, levels: tuple[int, ...] = (2, 3, 1)) -> VAE:
    return build_model(LadderVAEConfig(levels=list(levels), width=4, hidden=8), (channels, size, size))


@pytest.mark.parametrize(
    ("channels", "size", "levels"),
    [(1, 28, (2, 3, 1)), (3, 32, (1, 2)), (1, 45, (1, 1, 1, 1)), (3, 64, (3,)), (1, 128, (1, 1, 1, 1, 1))],
)
def test_every_size_and_number_of_levels_trains_all_its_parameters(channels, size, levels):
    """Would catch: a head or an entry that no path leads through, and sizes that are no powers of two."""
    model = small(channels, size, levels)
    x = torch.rand(1, channels, size, size, generator=noise())
    terms = model.elbo_terms(x, noise(1))
    assert terms.z.shape == terms.kl.shape == (1, sum(levels))
    assert model.decode(terms.z).shape == x.shape
    loss = BetaVAE().loss(terms, 0, noise(2))
    loss.total.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    names = [f"level{k}_{i}" for k, dim in enumerate(levels, start=1) for i in range(dim)]
    assert list(model.latent_space.names) == names


def test_a_level_reaches_only_stages_from_its_entry_on_and_deeper_levels_enter_earlier():
    """Would catch: levels that all enter at the bottom, or a block that reads another level's coordinates."""
    model = small(size=64, levels=(2, 3, 4))
    z = model.sample_codes(2, 0)
    before = model.generator.activations(z)
    order = list(model.generator.names)
    entries = []
    for level in (1, 2, 3):
        moved = z.clone()
        moved[:, model.latent_space.slice(f"level{level}_")] += 1.0
        after = model.generator.activations(moved)
        changed = {name for name in order if not torch.equal(before[name], after[name])}
        entry = order.index(f"mix{level}" if level < 3 else "fc1")
        own = {f"level{level}"}
        others = {f"level{k}" for k in (1, 2, 3)} - own
        assert changed == ({*order[entry:]} | own) - others
        entries.append(before[order[entry]].shape[-1])
    assert entries == [32, 8, 4]  # pixels of the map that a level first changes: the deeper, the coarser


def test_a_level_is_read_off_at_its_depth():
    """Would catch: heads that all read the last map, so that a shallow level costs as many layers as a deep one."""
    model = small(size=64, levels=(2, 3, 4))
    x = torch.rand(2, 1, 64, 64, generator=noise())
    reads = model.encoder.inputs
    assert [reads[f"level{k}"] for k in (1, 2, 3)] == [("conv1",), ("conv3",), ("fc1",)]
    before, after = model.encode(x).mean, model.encode(x, [Edit("encoder.conv4")]).mean
    same = [
        torch.equal(before[:, s], after[:, s])
        for s in map(model.latent_space.slice, model.latent_space.block_names)
    ]
    assert same == [True, True, False]


def test_each_levels_numbers_stand_in_its_own_block():
    """Would catch: heads joined in another order than the space's, which mixes means and variances of two levels."""
    model = small(levels=(2, 3, 1))
    x = torch.rand(4, 1, 28, 28, generator=noise())
    states = model.encoder.activations(x)
    posterior = model.encode(x)
    for k, dim in ((1, 2), (2, 3), (3, 1)):
        where, numbers = model.latent_space.slice(f"level{k}_"), states[f"level{k}"]
        assert torch.equal(posterior.mean[:, where], numbers[:, :dim])
        assert torch.allclose(posterior.log_var[:, where], numbers[:, dim:], atol=1e-5)


@pytest.mark.parametrize("name", ["annealed-vae", "beta-tcvae", "factor-vae", "dip-vae", "info-vae"])
def test_objectives_train_it_as_one_space(name):
    """Would catch: an objective that takes the blocks for something else than normal coordinates in a row."""
    model = small()
    config = OBJECTIVES[name](**({"layers": 1, "units": 8} if name == "factor-vae" else {}))
    objective = build_objective(config, model, DataDescription(100, model.image_shape), 0)
    found = [model.elbo_terms(torch.rand(4, 1, 28, 28, generator=noise(k)), noise(k)) for k in range(2)]
    found[0].others = (found[1],)
    objective.loss(found[0], 5, noise(3)).total.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_levels_stand_at_distinct_depths_up_to_the_last_and_too_many_are_refused():
    for size, deepest in ((28, 3), (45, 4), (64, 4), (128, 5)):
        for levels in range(1, deepest + 1):
            found = depths(levels, size)
            assert len(set(found)) == levels and found == sorted(found)
            assert found[-1] == deepest and found[0] >= 1
    message = "An image of 28 pixels is halved 3 times, so it has room for 3 levels at most; got 4"
    with pytest.raises(ValueError, match=message):
        small(levels=(1, 1, 1, 1))


def test_analyses_know_it_as_a_space_of_blocks():
    """Would catch: a ladder that needs a call of its own to be traversed, swapped, edited or sampled."""
    model = small(levels=(2, 3, 1))
    result = traverse(model, None, ["level2_1"], steps=3)
    assert result.images.shape == (1, 3, 1, 28, 28) and result.effect[0] > 0.0
    swapped = swap_grid(model, block="level1_", rows=2)
    assert swapped.certificate["block_spread"] == 0.0 and swapped.certificate["image_shift_by_column"] > 0.0
    z = model.sample_codes(3, 0)
    assert torch.equal(model.sample(3, 0), model.decode(z))
    assert not torch.equal(model.decode(z, [Edit("generator.level1")]), model.decode(z))
    resumed = model.generator.run(model.generator.activations(z)["mix1"], start="mix1")
    assert torch.equal(resumed, model.generator.run(z))
    assert weights_digest(small()) == weights_digest(small()) != weights_digest(small(levels=(1, 3, 2)))


def test_several_draws_and_given_posteriors_work_as_in_any_vae():
    model = small()
    x = torch.rand(2, 1, 28, 28, generator=noise())
    terms = model.elbo_terms(x, noise(1), TermsRequest(samples=3), posterior=model.encode(x))
    assert terms.z.shape == (3, 2, 6) and terms.log_likelihood.shape == (3, 2)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([], r"model.levels must be a list of 1 to 5 numbers of latents; got \[\]"),
        (3, "model.levels must be a list of 1 to 5 numbers of latents; got 3"),
        ([2, 2.5], "model.levels must hold whole numbers; got 2.5"),
        ([0], r"model.levels must lie in \[1, 1024\]; got 0"),
    ],
)
def test_levels_that_are_none_are_refused(levels, message):
    with pytest.raises(ValueError, match=message):
        LadderVAEConfig(levels=levels)
