import numpy as np
import pytest
import torch

import latentlab
from latentlab.analysis import encode_dataset, encode_images
from latentlab.models.contract import weights_digest
from latentlab.models.precision import supports_bf16


def test_means_kl_and_moments_are_those_of_the_planted_posterior(
    linear_model, planted_dataset, left_as_found
):
    """Fails a KL of other units, an aggregate without the posterior variance, and rows out of order."""
    data = planted_dataset(linear_model)
    left_as_found(linear_model)
    encoding = encode_dataset(linear_model, data, batch_size=8, reconstruction=True)
    codes = data.codes(np.arange(35)).numpy()
    codes[:, 3] = 0.0  # the dead coordinate can't be read back
    assert np.allclose(encoding.mean, codes, atol=1e-5)
    assert np.allclose(encoding.log_var, 2 * np.log(0.1), atol=1e-5)
    assert np.allclose(encoding.kl, 0.5 * (codes**2 + 0.01 - 1 - np.log(0.01)), atol=1e-4)
    assert np.allclose(encoding.aggregate_std, np.sqrt(0.01 + codes.var(axis=0)), atol=1e-5)
    assert np.array_equal(encoding.indices, np.arange(35)) and encoding.factor_names == ("a", "b")
    assert np.array_equal(encoding.factors, data.factors(np.arange(35)).numpy())
    assert encoding.active_variance.tolist() == [True, True, False, False]
    assert np.allclose(encoding.reconstruction_error, 0, atol=1e-9)
    assert encoding.certificate["kl_total"] == pytest.approx(encoding.kl.sum(axis=1).mean(), rel=1e-5)


def test_a_collapsed_coordinate_is_not_active(linear_model, planted_dataset):
    linear_model.posterior_std = 1.0
    encoding = encode_dataset(linear_model, planted_dataset(linear_model, shift=2.0))
    assert encoding.active.tolist() == [True, False, False, False]
    assert encoding.order[0] == 0 and encoding.kl_per_dim[3] == pytest.approx(0.0, abs=1e-6)


def test_a_number_draws_that_many_different_images_by_seed(linear_model, planted_dataset):
    data = planted_dataset(linear_model)
    a, b, c = (encode_dataset(linear_model, data, 20, seed=s) for s in (0, 0, 1))
    assert len(set(a.indices.tolist())) == 20
    assert np.array_equal(a.indices, b.indices) and not np.array_equal(a.indices, c.indices)
    assert encode_dataset(linear_model, data, 1000).n == 35
    chosen = encode_dataset(linear_model, data, torch.tensor([4, 2]))
    assert np.allclose(chosen.mean[:, 0], data.codes([4, 2])[:, 0], atol=1e-5)


def test_the_cache_is_keyed_by_weights_data_and_indices(linear_model, planted_dataset, tmp_path):
    """Fails a cache keyed by name alone, which shows another model's or another folder's codes."""
    data = planted_dataset(linear_model)
    first = encode_dataset(linear_model, data, cache=tmp_path)
    reads = data.reads
    again = encode_dataset(linear_model, data, cache=tmp_path)
    assert np.array_equal(first.mean, again.mean) and data.reads == reads + 1  # the probe alone
    assert again.provenance.created == first.provenance.created
    other = encode_dataset(linear_model, planted_dataset(linear_model, shift=1.0), cache=tmp_path)
    assert not np.allclose(other.mean, first.mean)
    assert encode_dataset(linear_model, data, [1, 2], cache=tmp_path).n == 2
    with torch.no_grad():
        linear_model.encoder.stages["posterior"][1].bias.add_(1.0)
    moved = encode_dataset(linear_model, data, cache=tmp_path)
    assert np.allclose(moved.mean, first.mean + 1.0, atol=1e-5)


@pytest.mark.parametrize("suffix", ["npz", "json"])
def test_a_damaged_cache_is_computed_anew(linear_model, planted_dataset, tmp_path, suffix):
    data = planted_dataset(linear_model)
    first = encode_dataset(linear_model, data, cache=tmp_path)
    (entry,) = tmp_path.glob(f"*.{suffix}")
    entry.write_bytes(entry.read_bytes()[:50])
    again = encode_dataset(linear_model, data, cache=tmp_path)
    assert np.array_equal(first.mean, again.mean)
    assert len(entry.read_bytes()) > 50


def test_progress_counts_images_and_may_cancel(linear_model, planted_dataset, tmp_path):
    seen = []
    encode_dataset(
        linear_model, planted_dataset(linear_model), batch_size=10, progress=lambda *done: seen.append(done)
    )
    assert seen == [(10, 35), (20, 35), (30, 35), (35, 35)]

    def cancel(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        encode_dataset(linear_model, planted_dataset(linear_model), cache=tmp_path, progress=cancel)
    assert list(tmp_path.iterdir()) == []


def test_a_model_in_training_mode_is_put_back_even_when_it_fails(
    linear_model, planted_dataset, left_as_found
):
    linear_model.train()
    linear_model.generator.eval()
    left_as_found(linear_model)
    with pytest.raises(ZeroDivisionError):
        encode_dataset(linear_model, planted_dataset(linear_model), progress=lambda *_: 1 / 0)


def test_wrong_data_get_a_sentence(linear_model, two_block_model, planted_dataset):
    data = planted_dataset(linear_model)
    with pytest.raises(ValueError, match="has no encoder"):
        encode_dataset(two_block_model(), data)
    linear_model.image_shape = (1, 8, 8)
    with pytest.raises(ValueError, match=r"The model reads images \(1, 8, 8\); data set 'planted' has"):
        encode_dataset(linear_model, data)


def test_images_are_encoded_by_mean_or_by_one_seeded_draw(linear_model, planted_dataset):
    x = planted_dataset(linear_model).images(range(5))
    mean = encode_images(linear_model, x)
    draws = [encode_images(linear_model, x, seed=s) for s in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])
    assert 0 < np.abs(draws[0] - mean).max() < 1.0
    with pytest.raises(ValueError, match=r"images in \[0, 1\]"):
        encode_images(linear_model, x.numpy() * 255)
    with pytest.raises(ValueError, match=r"must be images \(n, 3, 4, 4\)"):
        encode_images(linear_model, np.zeros((5, 5)))


def test_bfloat16_codes_are_close_and_kept_apart(tmp_path):
    """Would catch a cache that answers fp32 with rounded codes, or a model left in another layout."""
    run = latentlab.Run.open("zoo:digits-vae")
    data = run.dataset()
    exact = encode_dataset(run.model, data, 300, cache=tmp_path)
    if not supports_bf16(torch.device("cpu")):
        with pytest.raises(ValueError, match="has no bfloat16; use auto or fp32"):
            encode_dataset(run.model, data, 300, precision="bf16")
        return
    digest = weights_digest(run.model)
    rounded = encode_dataset(run.model, data, 300, cache=tmp_path, precision="bf16")
    away = np.abs(rounded.mean - exact.mean)
    assert 0 < away.max() and away.mean() < 0.02 * exact.mean.std()
    assert weights_digest(run.model) == digest
    assert all(p.is_contiguous() for p in run.model.parameters())
    again = encode_dataset(run.model, data, 300, cache=tmp_path)
    np.testing.assert_array_equal(again.mean, exact.mean)
    with pytest.raises(ValueError, match="auto, fp32, bf16; got 'half'"):
        encode_dataset(run.model, data, 300, precision="half")
