import numpy as np
import pytest
import torch
from planted import linear
from sklearn.linear_model import RidgeClassifier
from torch import nn

from latentlab.analysis import load_result, tcav, traverse_direction
from latentlab.analysis.concept_vectors import told_apart
from latentlab.models.adapt import adapt
from latentlab.models.staged import StagedNetwork

DIM = 6
TOWARDS = np.random.default_rng(3).standard_normal(DIM)
TOWARDS /= np.linalg.norm(TOWARDS)


@pytest.fixture(scope="module")
def planted():
    """A linear generator and a target that is linear in its image, W as a matrix, and the target's weights."""
    model, weight, _ = linear.linear_model(latents=DIM, hidden=10, seed=1)
    pick = torch.randn(25, generator=torch.Generator().manual_seed(0))

    def shown(images):
        return images.flatten(1) @ pick

    return model, weight, shown, pick


def draws(n, seed, shift=0.0):
    z = np.random.default_rng(seed).standard_normal((n, DIM)) + shift * TOWARDS
    return z.astype(np.float32)


def test_a_planted_concept_is_found_and_its_effect_is_the_closed_form(planted, left_as_found):
    """Fails a CAV along what tells groups apart in other units, and a sensitivity of the wrong sign."""
    model, weight, shown, pick = planted
    left_as_found(model)
    result = tcav(model, "hidden", {"real": draws(80, 0, 2.5), "chance": draws(80, 1)}, shown)
    first = model.generator.stages["hidden"].weight.detach().numpy()
    planted_way = first @ TOWARDS / np.linalg.norm(first @ TOWARDS)
    assert float(result.cav[0] @ planted_way) > 0.9
    # The target is linear: S is the gradient's part along the CAV, at every input.
    gradient = model.generator.stages["output"][0].weight.detach().numpy().T @ pick.numpy()
    assert result.sensitivity[0] == pytest.approx(np.full(64, gradient @ result.cav[0]), rel=1e-4)
    whole = float(pick.numpy() @ (weight.numpy() @ (2.5 * TOWARDS)))
    assert np.sign(result.effect[0]) == np.sign(whole) and 0.5 < result.effect[0] / whole < 1.2
    assert result.adjusted[0] < 0.01 and result.rank_p_value[0] == pytest.approx(1 / 51)
    assert result.adjusted[1] > 0.05 and result.accuracy[0] > 0.75
    assert abs(result.null_accuracy.mean() - 0.5) < 0.03 and result.certificate["gradient_gap"] < 0.01
    assert result.adjusted == pytest.approx(np.minimum(1, 2 * result.p_value))


def test_random_concepts_are_significant_about_one_time_in_twenty(planted):
    """Fails a single CAV without a test, which calls nearly every random concept important, and the customary test."""
    model, _, shown, _ = planted
    ours, customary, single, repeats = 0, 0, 0, 60
    for seed in range(repeats):
        result = tcav(
            model, "hidden", {"chance": draws(14, 500 + seed)}, shown,
            n=16, n_draws=30, n_partners=4, random_examples=draws(120, 900 + seed), seed=seed,
        )  # fmt: skip
        ours += bool(result.p_value[0] < 0.05)
        customary += bool(result.partner_p_value[0] < 0.05)
        single += bool(abs(result.score[0, 0] - 0.5) > 0.25)
    assert ours <= 8, ours  # of 60; 9 or more have a chance below 1 in 500 at a rate of 5 %
    assert single > 50


def test_a_cav_is_sklearns_ridge_classifier():
    """Fails a solution among inner products that forgets the intercept or the scale of the penalty."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, 7)) * [3, 1, 1, 1, 0.3, 1, 1]
    rows[:9, 0] += 2.0
    slopes = rng.standard_normal((5, 7))
    found = told_apart(
        rows @ rows.T, rows @ slopes.T, np.arange(9), np.arange(9, 60), 1, 0.3, np.random.default_rng(4)
    )
    chance = np.random.default_rng(4)
    ours, theirs = chance.permutation(np.arange(9)), chance.choice(np.arange(9, 60), 9, replace=False)
    fit = np.concatenate([ours[:6], theirs[:6]])
    x, y = rows[fit], np.repeat([1, -1], 6)
    alpha = 0.3 * ((x - x.mean(0)) ** 2).sum() / 2
    expected = RidgeClassifier(alpha=alpha).fit(x, y).coef_.ravel()
    expected /= np.linalg.norm(expected)
    assert found.weights @ rows == pytest.approx(expected, abs=1e-9)
    sensitivity = slopes @ expected
    assert found.scores == pytest.approx([(sensitivity > 0).mean()])
    assert found.magnitude == pytest.approx(sensitivity.clip(0).sum() / np.abs(sensitivity).sum())
    gap = (rows[ours[6:]] @ expected).mean() - (rows[theirs[6:]] @ expected).mean()
    assert found.effect == pytest.approx(sensitivity.mean() * gap)


def test_encoder_and_a_foreign_network_alone(gated_model, left_as_found, tmp_path):
    """Fails an analysis that only knows generators."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 2)
    )
    body.train()
    images = gated_model.decode(gated_model.sample_codes(400, 0) * 0.4).detach()
    bright = images[images[:, 0, 0, 0].argsort()[-30:]]
    network = adapt(body, images[:1])
    for model in (gated_model, body):
        left_as_found(model)
    result = tcav(gated_model, "features", {"lit": bright}, "z0", network="encoder", inputs=images[:20],
                  random_examples=images, n_partners=3)  # fmt: skip
    assert result.target == "posterior mean of z0" and result.unit == "prior standard deviations"
    assert result.effect[0] > 0 and result.p_value[0] < 0.01 and (result.score[0] == 1).all()
    other = tcav(gated_model, "features", {"lit": bright}, "z1", network="encoder", inputs=images[:1],
                 random_examples=images, n_partners=3)  # fmt: skip
    assert other.p_value[0] > 1e-4 and other.sensitivity.shape == (1, 1)  # a batch of one

    options = {"inputs": images[:8], "random_examples": images, "n_partners": 2}
    flat = tcav(network, "1", {"lit": bright}, 1, **options)
    pooled = tcav(network, "1", {"lit": bright}, 1, features="pooled", **options)
    assert (
        flat.cav.shape == (1, 192) and pooled.cav.shape == (1, 3) and pooled.target == "output 1 of network"
    )
    assert pooled.certificate["gradient_gap"] < 0.05
    assert np.array_equal(load_result(flat.save(tmp_path / "flat")).effect, flat.effect)
    direction = pooled.direction("lit")
    assert direction.stage == "network.1" and direction.edits(1.0)[0].operation == "shift"
    with pytest.raises(ValueError, match="speak of single positions"):
        flat.direction("lit")
    assert tcav(network, "1", {"lit": bright}, 1, **options).p_value == flat.p_value


def test_a_cav_is_a_direction_to_go_along(planted):
    model, _, shown, _ = planted
    result = tcav(model, "hidden", {"real": draws(60, 0, 2.5)}, shown, n_partners=5)
    strip = traverse_direction(model, result.direction("real"), np.zeros(DIM), [-1.0, 1.0])
    change = float(shown(torch.tensor(strip.images[:, 1] - strip.images[:, 0]))[0])
    assert change == pytest.approx(2 * result.step[0] * result.sensitivity[0, 0], rel=1e-3)


def test_tcav_says_what_is_wrong(planted, gated_model):
    model, _, shown, _ = planted
    some = {"a": draws(20, 0)}
    for call, words in (
        (lambda: tcav(model, "hidden", {}, shown), "at least one concept"),
        (lambda: tcav(model, "hidden", {"a": draws(3, 0)}, shown), "at least 6 examples; 'a' has 3"),
        (lambda: tcav(model, "hidden", some), "Say what the image is judged by: target="),
        (lambda: tcav(model, "hidden", some, shown, random_examples=draws(30, 1)), r"\(60\); got 30"),
        (lambda: tcav(model, "hidden", some, shown, n_draws=5), "at least 30 random concepts"),
        (lambda: tcav(model, "hidden", some, shown, features="deep"), "features must be 'flat' or 'pooled'"),
        (lambda: tcav(model, "hidden", some, lambda x: x), r"one number an input \(64,\)"),
        (lambda: tcav(model, "nowhere", some, shown), "No stage 'nowhere'"),
        (lambda: tcav(model, "hidden", some, lambda x: torch.zeros(len(x))), "no gradient at 'generator.hidden'"),
        (lambda: tcav(gated_model, "features", {"a": np.zeros((6, 1, 8, 8))}, "z0", network="encoder"),
         "needs inputs=, such as images"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            call()
    net = StagedNetwork({"one": nn.Linear(DIM, 4), "two": nn.Linear(4, 2)}, "net")
    with pytest.raises(ValueError, match="Network 'net' has outputs 0 to 1; got target 7"):
        tcav(net, "one", some, 7, inputs=draws(4, 2), random_examples=draws(80, 3))
    with pytest.raises(ZeroDivisionError):
        tcav(model, "hidden", some, shown, progress=lambda *_: 1 / 0)
    assert tcav(model, "hidden", some, shown, n_partners=2).null_score.shape == (50, 2)
