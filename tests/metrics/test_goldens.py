"""Every metric against the values that the field's reference implementation gave on the same arrays."""

import numpy as np
import pytest

from latentlab import metrics


def test_information_mig_and_modularity_equal_the_reference(golden):
    """Would catch other bins, bits for nats, a bias correction, or codes and factors swapped."""
    x, y = golden.train
    expected = np.array(golden.fixed["mutual_information_matrix"])
    np.testing.assert_allclose(metrics.mutual_information_matrix(x, y), expected, rtol=1e-10, atol=1e-12)
    found = metrics.mig(x, y)
    assert found.value == pytest.approx(golden.fixed["mig"], rel=1e-10)
    np.testing.assert_allclose(found.details["entropies"], golden.fixed["factor_entropies"], rtol=1e-12)
    assert metrics.modularity(x, y).value == pytest.approx(golden.fixed["modularity"], rel=1e-10)


def test_irs_equals_the_reference(golden):
    """Would catch the median in place of the mean, other weights, or a quantile of the pooled deviations."""
    x, y = golden.train
    found = metrics.irs(x, y)
    assert found.value == pytest.approx(golden.fixed["irs"]["IRS"], rel=1e-10)
    np.testing.assert_allclose(found.details["matrix"], golden.fixed["irs"]["matrix"], rtol=1e-10, atol=1e-12)
    assert found.details["parents"].tolist() == golden.fixed["irs"]["parents"]
    strict = golden.fixed["irs_quantile_1.0"]
    expected = strict["IRS"] if isinstance(strict, dict) else strict
    assert metrics.irs(x, y, quantile=1.0).value == pytest.approx(expected, rel=1e-10)


def test_unsupervised_scores_equal_the_reference(golden):
    """Would catch a correlation for a covariance, or a mean that counts the diagonal."""
    x, _ = golden.train
    expected = golden.fixed["unsupervised"]
    wasserstein = metrics.gaussian_wasserstein_correlation(x)
    found = {
        "gaussian_total_correlation": metrics.gaussian_total_correlation(x).value,
        "gaussian_wasserstein_correlation": wasserstein.value,
        "gaussian_wasserstein_correlation_norm": wasserstein.details["normalized"],
        "mutual_info_score": metrics.mutual_info_between_codes(x).value,
    }
    for name, value in found.items():
        assert value == pytest.approx(expected[name], rel=1e-8, abs=1e-12), name


def test_explicitness_equals_the_reference(golden):
    """Would catch test points standardised by themselves, accuracy for area, or a micro average."""
    found = metrics.explicitness(*golden.train, *golden.test)
    expected = golden.fixed["explicitness"]
    assert found.value == pytest.approx(expected["test"], abs=1e-4)
    assert found.details["train"] == pytest.approx(expected["train"], abs=1e-4)
    np.testing.assert_allclose(found.details["per_factor_test"], expected["per_factor_test"], atol=1e-4)


def test_sap_equals_the_reference_in_both_forms(golden):
    """Would catch the two conventions mixed, or the gap taken over factors."""
    discrete = metrics.sap(*golden.train, *golden.test)
    expected = golden.fixed["sap_discrete"]
    assert discrete.value == pytest.approx(expected["mean"], abs=1e-9)
    np.testing.assert_allclose(discrete.details["matrix"], expected["matrix_seed0"], atol=1e-9)
    continuous = metrics.sap(*golden.train, *golden.test, continuous=True)
    assert continuous.value == pytest.approx(golden.fixed["sap_continuous"]["SAP"], rel=1e-10)


def _close(values, expected, entry):
    # Four standard deviations of the reference's own spread; its repeats may not spread at all.
    room = 4 * np.hypot(expected["std"], expected["std"] / np.sqrt(len(expected["values"]))) + 1e-9
    assert abs(np.mean(values) - expected["mean"]) <= room, (entry, values, expected["mean"], expected["std"])


def test_sampled_scores_agree_with_the_reference(golden):
    """Would catch a wrong sampling scheme: another group size, one fixed value, votes over all codes."""
    table = metrics.StateTable(golden.codes, golden.sizes)
    draws = [table.sample(10_000, seed) for seed in range(3)]
    _close([metrics.mig(*d).value for d in draws], golden.sampled["mig"]["discrete_mig"], "mig")
    _close([metrics.irs(*d).value for d in draws], golden.sampled["irs"]["IRS"], "irs")
    expected = golden.sampled["modularity_explicitness"]
    _close([metrics.modularity(*d).value for d in draws], expected["modularity_score"], "modularity")
    found = metrics.explicitness(*draws[0], *table.sample(5_000, 9))
    _close([found.value], expected["explicitness_score_test"], "explicitness")
    beta = [metrics.beta_vae_score(table, seed).value for seed in range(2)]
    _close(beta, golden.sampled["beta_vae"]["eval_accuracy"], "beta_vae")
    scores = [metrics.factor_vae_score(table, seed) for seed in range(2)]
    _close([s.value for s in scores], golden.sampled["factor_vae"]["eval_accuracy"], "factor_vae")
    train = [s.details["train_accuracy"] for s in scores]
    _close(train, golden.sampled["factor_vae"]["train_accuracy"], "factor_vae train")
    loose = [metrics.factor_vae_score(table, seed, threshold=0).value for seed in range(2)]
    _close(loose, golden.sampled["factor_vae_prune0"]["eval_accuracy"], "factor_vae_prune0")
