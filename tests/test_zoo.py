"""What the shipped runs claim: their experiments, their sizes, and what their latents know."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentlab
from latentlab.analysis import decode_latents, encode_images, swap_grid
from latentlab.config import named_experiment
from latentlab.metrics import mutual_information_matrix
from latentlab.runs import Run, zoo_paths

SHIPPED = sorted(path.name for path in zoo_paths())
LARGEST = 3_000_000


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_what_its_script_makes_small_enough_and_scored(name):
    """Would catch: weights of another configuration than the experiment's, and a card without scores."""
    run = Run.open(f"zoo:{name}", "cpu")
    assert run.experiment == named_experiment(name)[0]
    assert int(run.metrics()["step"][-1]) == run.experiment.max_steps
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST
    assert "## Scores" in run.card and f'Run.open("zoo:{name}")' in run.card and run.digest[:16] in run.card
    assert "last.ckpt" not in {path.name for path in run.path.iterdir()}
    assert bool(run.steps) == (name == "scenes-growing"), "one run keeps its steps, to show how it grew"


def test_three_factors_of_the_sprites_have_a_latent_of_their_own():
    """Each known best by one latent, and at least twice as well as by any other (nats, posterior means, 20 bins)."""
    run = Run.open("zoo:sprites-beta-tcvae", "cpu")
    encoding = latentlab.encode_dataset(run.model, run.dataset(), 6000, seed=3, precision="auto")
    known = mutual_information_matrix(encoding.mean, encoding.factors)
    order = np.sort(known, axis=0)[::-1]
    apart = [
        name
        for k, name in enumerate(encoding.factor_names)
        if order[0, k] > 0.5 and order[0, k] >= 2.0 * order[1, k]
    ]
    assert {"scale", "x", "y"} <= set(apart)
    owners = {name: int(known[:, encoding.factor_names.index(name)].argmax()) for name in apart}
    assert len(set(owners.values())) == len(apart)


@pytest.mark.parametrize(("network", "grows"), [("generator", 2.0), ("encoder", 1.3)])
def test_colours_emerge_while_the_scenes_are_learned(network, grows):
    """Would catch: steps of another run or in another order, and a table that is the same at every step."""
    from latentlab.analysis import emergence_over_training

    run = Run.open("zoo:scenes-growing", "cpu")
    first, last = run.steps[0], run.steps[-1]
    assert first == 0 and last == run.experiment.max_steps
    models = [(step, run.at(step).model) for step in (first, last)]
    found = emergence_over_training(models, network, run.dataset(), n_images=64)
    colours = found.score[:, :, found.level_names.index("colour")].max(axis=1)
    assert colours[1] > grows * colours[0] and colours[1] > 2 * found.certificate["shuffled_score"]


def test_the_digit_asked_for_is_the_digit_drawn_and_read():
    """Would catch: a block named after the digit that does not decide it."""
    from sklearn.neighbors import KNeighborsClassifier

    run = Run.open("zoo:digits-m2", "cpu")
    held_out = latentlab.open_dataset("digits", split="test")
    encoding = latentlab.encode_dataset(run.model, held_out)
    digit = run.model.latent_space.slice("digit")
    assert (encoding.mean[:, digit].argmax(1) == encoding.factors[:, 0]).mean() > 0.9
    asked = np.repeat(np.arange(10), 30)
    codes = np.tile(encoding.mean[:30], (10, 1))
    codes[:, digit] = np.eye(10)[asked]
    drawn = decode_latents(run.model, codes)
    data = latentlab.open_dataset("digits", split="train")
    images = data.images(np.arange(len(data))).flatten(1).numpy()
    judge = KNeighborsClassifier(5).fit(images, data.factors(np.arange(len(data)))[:, 0].numpy())
    assert (judge.predict(drawn.reshape(len(drawn), -1)) == asked).mean() > 0.9


@pytest.fixture(scope="module")
def digits() -> dict[str, tuple[torch.Tensor, np.ndarray]]:
    """Images and their digits, of training and of held-out data."""
    found = {}
    for split in ("train", "test"):
        data = latentlab.open_dataset("digits", split=split)
        indices = np.arange(len(data))
        found[split] = data.images(indices), data.factors(indices)[:, 0].numpy()
    return found


@pytest.fixture(scope="module")
def judge(digits):
    """A classifier of real training digits, as in the slow tests of the experiments."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=0.05, max_iter=2000).fit(
        digits["train"][0].flatten(1).numpy(), digits["train"][1]
    )


def test_the_categories_of_the_info_gan_name_half_of_the_digits_it_never_saw(digits):
    """53 % of 359 held-out digits, nine of ten digits among the names. Would catch: an encoder whose categories say
    nothing of real images; shuffled names are at chance."""
    model = Run.open("zoo:digits-infogan", "cpu").model
    block = model.latent_space.slice("class")
    with torch.inference_mode():
        told = {k: model.encode(x).code()[:, block].argmax(1).numpy() for k, (x, _) in digits.items()}
    counts = np.zeros((10, 10))
    np.add.at(counts, (told["train"], digits["train"][1]), 1)
    names, truth = counts.argmax(1), digits["test"][1]
    assert 0.50 <= (names[told["test"]] == truth).mean() <= 0.56
    assert len(set(names[counts.sum(1) > 0])) == 9
    assert (names[np.random.default_rng(0).permutation(told["test"])] == truth).mean() < 0.2


def test_the_pooled_digits_stay_the_digits_they_are(digits, judge):
    """95 % of the reconstructions labelled right, of the originals 96 %; shuffled, they are at chance."""
    model = Run.open("zoo:digits-pooled", "cpu").model
    images, truth = digits["test"]
    with torch.inference_mode():
        reconstructed = model.decode(model.encode(images).mean).flatten(1).numpy()
    assert judge.score(images.flatten(1).numpy(), truth) >= 0.955
    assert 0.94 <= judge.score(reconstructed, truth) <= 0.97
    assert judge.score(np.random.default_rng(0).permutation(reconstructed), truth) < 0.25


def test_the_digits_of_the_style_gan_are_as_certain_as_its_card_says(digits, judge):
    """Certainty 0.78, of real digits 0.89, of overlaid pairs 0.55, each digit in 7 to 12 % of 1000 samples. Would
    catch: samples that only look busy, and weights before the average or without it."""

    def certainty(images: np.ndarray) -> float:
        return judge.predict_proba(images).max(1).mean()

    with torch.inference_mode():
        samples = Run.open("zoo:digits-stylegan", "cpu").model.sample(1000, 1).flatten(1).numpy()
    real = digits["test"][0].flatten(1).numpy()
    assert certainty(samples) == pytest.approx(0.78, abs=0.02)
    assert certainty(real) == pytest.approx(0.89, abs=0.02)
    assert certainty(0.5 * (real[:-1:2] + real[1::2])) == pytest.approx(0.55, abs=0.02)
    shares = np.bincount(judge.predict(samples), minlength=10) / len(samples)
    assert shares.min() >= 0.05 and shares.max() <= 0.15


def test_the_two_counts_of_latents_in_use_say_what_they_count():
    """Would catch: "7 of 10 latents active" beside "Active units 8" without a word; they count KL and variance."""
    run = Run.open("zoo:digits-pooled", "cpu")
    encoding = latentlab.encode_dataset(run.model, run.dataset())
    by_kl, by_variance = int((encoding.kl_per_dim > 0.1).sum()), int((encoding.mean.var(axis=0) > 0.01).sum())
    assert (by_kl, by_variance) == (7, 8)
    assert "7 of 10 latents active (more than 0.1 nats of KL)" in run.card
    assert "a unit is active where its means have a variance above 0.01" in run.card
    assert f"| Active units | {by_variance}.000 |" in run.card


POSE, CONTENT = ("scale", "orientation"), ("floor_hue", "wall_hue", "object_hue", "shape")


def read_by_rendering(
    data, picture: torch.Tensor, factors: torch.Tensor, names: tuple[str, ...]
) -> list[int]:
    """The values of factors whose true image is nearest to a picture, the other factors being known."""
    space = data.factor_space
    columns = [space.names.index(name) for name in names]
    values = torch.cartesian_prod(*(torch.arange(space.sizes[k]) for k in columns)).reshape(-1, len(columns))
    candidates = factors.repeat(len(values), 1)
    candidates[:, columns] = values
    away = (data.images(data.index(candidates)) - picture).square().flatten(1).sum(1)
    return values[away.argmin()].tolist()


def spread(readings: np.ndarray) -> float:
    """Variance within columns over variance between them, of readings (rows, columns)."""
    return float(readings.var(0).mean() / readings.mean(0).var())


def test_swapped_scenes_have_one_pose_a_column_and_one_content_a_row():
    """An independent meter, the renderer itself, reads them. Would catch: blocks that are only called so: permuted
    blocks fail."""
    run = Run.open("zoo:scenes-pairs", "cpu")
    data, n = run.dataset(), 6
    indices = data.sample(n, seed=5)
    factors = data.factors(indices)
    codes = encode_images(run.model, data.images(indices))
    ratios = {}
    for block in ("pose", "content"):  # the second is the permuted one
        pictures = torch.tensor(swap_grid(run.model, codes, block).images)
        read = np.zeros((n, n, 2))
        for row in range(n):
            for column in range(n):
                read[row, column] = read_by_rendering(data, pictures[row, column], factors[row], POSE)
        ratios[block] = [spread(read[..., k]) for k in range(2)]
        if block == "content":
            continue
        for k, name in enumerate(CONTENT):  # each on its own, with the column's pose
            found = np.zeros((n, n))
            for row in range(n):
                for column in range(n):
                    true = factors[row].clone()
                    for pose in POSE:
                        at = data.factor_space.names.index(pose)
                        true[at] = factors[column, at]
                    found[row, column] = read_by_rendering(data, pictures[row, column], true, (name,))[0]
            assert spread(found.T) < 0.1, (name, k)
    assert max(ratios["pose"]) < 0.1 and min(ratios["content"]) > 1.0
