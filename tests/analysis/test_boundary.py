import numpy as np
import pytest
import torch
from planted import linear, renderer

from latentlab.analysis import Direction, analogy, boundary, decode_latents, group_direction, load_result

DIM = 8
RNG = np.random.default_rng(0)
TRUTH = RNG.standard_normal(DIM) / 1.0
TRUTH /= np.linalg.norm(TRUTH)


@pytest.fixture(scope="module")
def planted():
    return linear.linear_model(latents=DIM, hidden=10, seed=1)[0]


@pytest.fixture(scope="module")
def codes(planted):
    return planted.sample_codes(2000, 3).numpy()


def fake_normal(z, scores):
    """Regression towards the mean image: the mean of the codes that score high, not the way from low to high."""
    mean = z[np.argsort(scores)[-20:]].mean(axis=0) + 1.0
    return mean / np.linalg.norm(mean)


def test_the_normal_of_a_planted_half_space(planted, codes, left_as_found):
    """Fails the mean of one side alone, an accuracy on fitted examples, and a null that is not at chance."""
    left_as_found(planted)
    for target in (codes @ TRUTH > 0.3, codes @ TRUTH, (codes @ TRUTH > 0).astype(int)):
        found = boundary(planted, codes, target, seed=1)
        assert float(found.vectors[0] @ TRUTH) > 0.98
        assert found.certificate["accuracy"] > 0.94
        assert abs(found.certificate["shuffled_accuracy"][0] - 0.5) < 0.1
        assert found.steps == pytest.approx([1.0], abs=0.05)
    assert fake_normal(codes, codes @ TRUTH) @ TRUTH < 0.98
    noise = boundary(planted, codes, np.random.default_rng(5).standard_normal(2000), share=0.1, seed=1)
    assert abs(noise.certificate["accuracy"] - 0.5) < 0.2 and noise.certificate["rank_correlation"] < 0.4
    again = boundary(planted, codes, codes @ TRUTH, seed=2)
    assert np.array_equal(again.vectors, boundary(planted, codes, codes @ TRUTH, seed=2).vectors)


def test_a_condition_is_held_fixed(planted, codes):
    """Fails a conditional direction that still moves along what it shall leave."""
    other = RNG.standard_normal(DIM)
    others = [Direction("o", tuple(other), space="z"), Direction("p", tuple(np.eye(DIM)[0]), space="z")]
    found = boundary(planted, codes, codes @ TRUTH, condition_on=others, name="held")
    assert found.names == ("held",) and found.certificate["conditioned_cosine"] < 1e-9
    expected = Direction("t", tuple(TRUTH), space="z").without(*others)
    assert found.directions[0].cosine(expected) > 0.98
    with pytest.raises(ValueError, match="must hold directions of space 'z'; 'w' is one of 'w'"):
        boundary(planted, codes, codes @ TRUTH, condition_on=[Direction("w", (1.0,) * DIM, space="w")])


def test_a_meter_scores_the_images():
    found = boundary(renderer.renderer_model(), None, "x", n=600, share=0.1)
    assert found.names == ("x",) and found.vectors[0, 3] > 0.98
    assert found.steps == pytest.approx([1 / np.sqrt(3)], abs=0.03)


def test_it_tells_how_far_it_is_and_can_be_cancelled_everywhere(planted, codes):
    """Fails one report at the end, which nobody can cancel."""
    told = []
    found = boundary(
        planted, codes[:600], "brightness", share=0.1, batch_size=100, progress=lambda *a: told.append(a)
    )
    assert told == [(i + 1, 26) for i in range(26)]  # 6 batches and 20 shuffles
    quiet = boundary(planted, codes[:600], "brightness", share=0.1, batch_size=100)
    assert np.array_equal(found.vectors, quiet.vectors) and found.certificate == quiet.certificate
    for last in (1, 10):

        def cancel(done, total, last=last):
            if done == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            boundary(planted, codes[:600], "brightness", share=0.1, batch_size=100, progress=cancel)


def test_a_boundary_says_what_is_wrong(planted, codes, categorical_model):
    for call, words in (
        (lambda: boundary(planted, codes, codes[:5, 0]), r"one finite number a code \(2000,\); got \(5,\)"),
        (lambda: boundary(planted, codes, np.zeros(2000)), "All scores are the same"),
        (
            lambda: boundary(planted, codes[:50], codes[:50, 0]),
            "at least 10 examples of either side; got 1 and 1",
        ),
        (lambda: boundary(planted, codes, "smile"), "No meter 'smile'"),
        (lambda: boundary(planted, codes, "x", share=0.7), r"share lies in \(0, 0.5\]"),
        (lambda: boundary(planted, codes, "x", space="w"), "No space 'w'"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    assert boundary(categorical_model, None, "brightness", n=800).vectors[0, :3].tolist() == [0, 0, 0]


def test_a_group_direction_is_the_difference_of_the_means_beyond_chance(planted, codes):
    """Fails two groups of one kind passed off as different."""
    a, b = codes[:60], codes[60:120] + 1.5 * TRUTH
    found = group_direction(planted, a, b, name="aged")
    apart = b.mean(axis=0) - a.mean(axis=0)
    assert found.vectors[0] == pytest.approx(apart / np.linalg.norm(apart)) and found.names == ("aged",)
    assert found.certificate["p_value"] < 0.01 and found.scores[0] == pytest.approx(np.linalg.norm(apart))
    same = group_direction(planted, codes[:60], codes[60:120])
    assert same.certificate["p_value"] > 0.05
    assert group_direction(planted, a[0], b[0]).vectors.shape == (1, DIM)
    with pytest.raises(ValueError, match="same mean"):
        group_direction(planted, a, a)


def test_an_analogy_closes_the_parallelogram(planted, codes, tmp_path, left_as_found, categorical_model):
    """Fails b - a added to the wrong corner: in a linear generator the images close, too."""
    left_as_found(planted)
    found = analogy(planted, codes[:5], codes[5:12], codes[20])
    assert found.z[3] - found.z[2] == pytest.approx(found.z[1] - found.z[0], abs=1e-6)
    images = decode_latents(planted, found.z)
    assert found.images == pytest.approx(images, abs=1e-6)
    assert images[3] - images[2] == pytest.approx(images[1] - images[0], abs=1e-5)
    assert np.array_equal(load_result(found.save(tmp_path / "a")).images, found.images)
    assert found.certificate["closure"] < 1e-6 and found.certificate["random_change"] > 0
    a, b, c = torch.eye(4)[[0, 1, 2]]
    b[3] = 2.0
    assert analogy(categorical_model, a, b, c).z[3].tolist() == [0, 0, 1, 2]  # the category stays
    with pytest.raises(ValueError, match="code_c must be one code"):
        analogy(planted, codes[:2], codes[:2], codes[:2])
