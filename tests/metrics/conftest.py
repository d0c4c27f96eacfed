"""The golden cases: arrays and the values that the field's reference implementation gave for them."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"
CASES = ("axis_aligned_plus_noise_dims", "dead_dims", "noisy", "perfect5", "rotated")


def load_golden(case: str) -> SimpleNamespace:
    """Codes and factors of a case (all states, train, test) and the recorded values."""
    arrays = np.load(GOLDENS / f"{case}.npz")
    values = json.loads((GOLDENS / f"{case}.json").read_text())
    codes, factors = arrays["state_codes"].astype(float), arrays["state_factors"].astype(int)
    train, test = arrays["train_index"], arrays["test_index"]
    return SimpleNamespace(
        name=case,
        codes=codes,
        factors=factors,
        sizes=tuple(int(s) for s in arrays["factor_sizes"]),
        train=(codes[train], factors[train]),
        test=(codes[test], factors[test]),
        fixed=values["fixed_arrays"],
        sampled=values["sampled_entry_points"],
    )


@pytest.fixture(params=CASES)
def golden(request: pytest.FixtureRequest) -> SimpleNamespace:
    """Each golden case in turn."""
    return load_golden(request.param)


@pytest.fixture
def grid() -> SimpleNamespace:
    """A full grid of 3 x 6 x 8 states with perfect, standardised codes, and a generator."""
    sizes = (3, 6, 8)
    factors = np.stack([axis.ravel() for axis in np.indices(sizes)], axis=1)
    perfect = (factors - factors.mean(0)) / factors.std(0)
    return SimpleNamespace(sizes=sizes, factors=factors, perfect=perfect, rng=np.random.default_rng(0))
