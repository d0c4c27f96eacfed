"""How fast the metrics are beside the field's plain form of each, and by how much the values differ, in one run.

    python benchmarks/metrics.py                  # all but scikit-learn's boosting: about a minute
    python benchmarks/metrics.py --dci            # with it: about six minutes more on two cores
    python benchmarks/metrics.py --suite zoo:sprites-beta-vae   # the whole dlib protocol on a run, encoding included

Points are 10,000 to learn from and 5,000 to score on, ten codes (the five factors with noise, and noise), factors
of 3, 6, 40, 32 and 32 values. The plain forms below follow the definitions with scikit-learn and numpy, a loop for
each code, factor and draw. Sampled scores draw other states than ours, so their values agree within their spread.
``--suite`` times the protocol once and extrapolates the plain way's cost from a part of its encodings: it encodes
64 images at a time anew for every vote, 2.9 million images in all.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score, roc_auc_score
from sklearn.preprocessing import label_binarize
from sklearn.svm import LinearSVC

from latentlab import metrics
from latentlab.metrics.dci import completeness, disentanglement

SIZES = (3, 6, 40, 32, 32)
TRAIN, TEST = 10_000, 5_000
BETA_VAE_IMAGES = 2 * 64 * (TRAIN + TEST)
FACTOR_VAE_IMAGES = 64 * (TRAIN + TEST) + TRAIN
OTHER_IMAGES = 2 * TRAIN + 3 * (TRAIN + TEST)


def main() -> None:
    """Times every metric both ways and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dci", action="store_true", help="time scikit-learn's gradient boosting too")
    parser.add_argument("--suite", metavar="RUN", help="time the whole dlib protocol on a run instead")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    if options.suite:
        time_suite(options.suite)
    else:
        compare(options.dci)


def compare(with_boosting: bool) -> None:
    """Every metric against its plain form."""
    rng = np.random.default_rng(0)
    factors = np.stack(np.unravel_index(np.arange(np.prod(SIZES)), SIZES), axis=1)
    perfect = (factors - factors.mean(0)) / factors.std(0)
    noise = rng.standard_normal((len(factors), 10))
    codes = np.hstack([perfect + 0.4 * noise[:, :5], noise[:, 5:]])
    table = metrics.StateTable(codes, SIZES)
    train, test = table.sample(TRAIN, 0), table.sample(TEST, 1)
    pairs: list[tuple[str, Callable[[], float], Callable[[], float]]] = [
        ("MI matrix (mean)", lambda: metrics.mutual_information_matrix(*train).mean(), lambda: plain_mi(*train).mean()),
        ("MIG", lambda: metrics.mig(*train).value, lambda: plain_mig(*train)),
        ("modularity", lambda: metrics.modularity(*train).value, lambda: plain_modularity(*train)),
        ("IRS", lambda: metrics.irs(*train).value, lambda: plain_irs(*train)),
        ("SAP, correlation", lambda: metrics.sap(*train, *test, continuous=True).value, lambda: plain_sap_r2(*train)),
        ("SAP, LinearSVC", lambda: metrics.sap(*train, *test).value, lambda: plain_sap_svc(*train, *test)),
        ("explicitness", lambda: metrics.explicitness(*train, *test).value, lambda: plain_explicitness(*train, *test)),
        ("BetaVAE score", lambda: metrics.beta_vae_score(table).value, lambda: plain_beta_vae(codes)),
        ("FactorVAE score", lambda: metrics.factor_vae_score(table).value, lambda: plain_factor_vae(codes)),
    ]  # fmt: skip
    print("| metric | latentlab, s | plain form, s | ratio | value | difference |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, ours, plain in pairs:
        ours()  # imports and first-touch memory are not what is compared
        value, seconds = timed(ours)
        expected, plain_seconds = timed(plain)
        print(
            f"| {name} | {seconds:.3f} | {plain_seconds:.3f} | {plain_seconds / seconds:.1f} | {value:.4f} "
            f"| {abs(value - expected):.1e} |",
            flush=True,
        )
    compare_dci(train, test, with_boosting)


def compare_dci(train, test, with_boosting: bool) -> None:
    """DCI by gradient boosting: ours, and scikit-learn's where asked for."""
    metrics.dci(train[0][:200], train[1][:200] % 3, test[0][:200], test[1][:200] % 3)  # compiles once
    score, seconds = timed(lambda: metrics.dci(*train, *test))
    if not with_boosting:
        print(f"| DCI, gradient boosting | {seconds:.2f} | (--dci) | | {score.value:.4f} | |")
        return
    begin = time.perf_counter()
    importance, right = np.zeros((10, len(SIZES))), []
    for column in range(len(SIZES)):
        model = GradientBoostingClassifier(random_state=0).fit(train[0], train[1][:, column])
        importance[:, column] = np.abs(model.feature_importances_)
        right.append((model.predict(test[0]) == test[1][:, column]).mean())
    plain_seconds = time.perf_counter() - begin
    other = disentanglement(importance)
    print(
        f"| DCI, gradient boosting | {seconds:.2f} | {plain_seconds:.2f} | {plain_seconds / seconds:.1f} "
        f"| {score.value:.4f} | {abs(score.value - other):.1e} |"
    )
    print(
        f"\nDCI: importances differ by {np.abs(importance - score.details['importance']).max():.1e} at most, "
        f"completeness by {abs(score.details['completeness'] - completeness(importance)):.1e}, accuracy on test "
        f"points by {abs(score.details['informativeness_test'] - np.mean(right)):.1e}."
    )


def timed(call):
    """The result of a call and its seconds."""
    begin = time.perf_counter()
    found = call()
    return found, time.perf_counter() - begin


def time_suite(address: str) -> None:
    """The dlib protocol on all states of a run, encoding included, against the plain way's cost by parts."""
    import torch

    from latentlab import Run
    from latentlab.analysis import encode_dataset
    from latentlab.evaluation import evaluate

    run = Run.open(address)
    dataset = run.dataset()
    metrics.dci(*(np.random.default_rng(0).integers(0, 3, (60, 2)),) * 4)
    report, seconds = timed(lambda: evaluate(run, "dlib", seeds=(0,), references=False))
    print(f"latentlab: {len(dataset):,} states encoded once and the whole suite: {seconds:.0f} s")
    print(report.table())
    some = dataset.sample(64 * 60, seed=0)
    with torch.inference_mode():
        _, sixty = timed(lambda: [run.model.encode(dataset.images(part)) for part in some.split(64)])
        _, small = timed(lambda: [run.model.encode(dataset.images(part)) for part in some[:960].split(16)])
    encoding = sixty / 3840 * (BETA_VAE_IMAGES + FACTOR_VAE_IMAGES) + small / 960 * OTHER_IMAGES
    encoding_of_all = encode_dataset(run.model, dataset, 20_000)
    table = metrics.StateTable(encoding_of_all.mean, factors=encoding_of_all.factors)
    train, test = table.sample(TRAIN, 0), table.sample(TEST, 1)
    rest = 0.0
    for call in (
        lambda: plain_mig(*train),
        lambda: plain_modularity(*train),
        lambda: plain_irs(*train),
        lambda: plain_sap_svc(*train, *test),
        lambda: plain_explicitness(*train, *test),
    ):
        rest += timed(call)[1]
    # One factor of 6 values is fitted; trees take time in proportion to their number (one for each value).
    _, six = timed(lambda: GradientBoostingClassifier().fit(train[0], train[1][:, 1]))
    boosting = six / 6 * sum(SIZES)
    plain = encoding + rest + boosting
    print(
        f"plain way, extrapolated: {encoding:.0f} s for {BETA_VAE_IMAGES + FACTOR_VAE_IMAGES + OTHER_IMAGES:,} "
        f"encodings (from 3,840 in batches of 64 and 960 in batches of 16), {boosting:.0f} s of boosting (from the "
        f"factor of 6 values), {rest:.0f} s for the rest: {plain:.0f} s, {plain / seconds:.1f} times ours"
    )


# -- the plain forms -------------------------------------------------------------------------------------


def binned(z: np.ndarray) -> np.ndarray:
    """Twenty bins over each code's range."""
    return np.stack([np.digitize(c, np.histogram(c, 20)[1][:-1]) for c in z.T], axis=1)


def plain_mi(z: np.ndarray, v: np.ndarray) -> np.ndarray:
    """One call of scikit-learn's for each code and factor."""
    bins = binned(z)
    return np.array(
        [[mutual_info_score(v[:, j], bins[:, i]) for j in range(v.shape[1])] for i in range(z.shape[1])]
    )


def plain_mig(z: np.ndarray, v: np.ndarray) -> float:
    """Gap over entropy."""
    ordered = np.sort(plain_mi(z, v), axis=0)[::-1]
    entropy = np.array([mutual_info_score(column, column) for column in v.T])
    return float(((ordered[0] - ordered[1]) / entropy).mean())


def plain_modularity(z: np.ndarray, v: np.ndarray) -> float:
    """From the squared matrix."""
    squared = plain_mi(z, v) ** 2
    best = squared.max(1)
    return float(np.mean(1 - (squared.sum(1) - best) / (best * (v.shape[1] - 1))))


def plain_irs(z: np.ndarray, v: np.ndarray) -> float:
    """A loop for each value."""
    v = np.stack([np.digitize(c, np.histogram(c, 20)[1][:-1]) for c in v.T], axis=1)
    reach = np.abs(z - z.mean(0)).max(0)
    strays = np.zeros((z.shape[1], v.shape[1]))
    for j in range(v.shape[1]):
        values = np.unique(v[:, j])
        for value in values:
            group = z[v[:, j] == value]
            strays[:, j] += np.percentile(np.abs(group - group.mean(0)), 99, axis=0)
        strays[:, j] /= len(values)
    return float(np.average((1 - strays / reach[:, None]).max(1), weights=reach))


def plain_sap_r2(z: np.ndarray, v: np.ndarray) -> float:
    """A covariance for each pair."""
    found = np.zeros((z.shape[1], v.shape[1]))
    for i in range(z.shape[1]):
        for j in range(v.shape[1]):
            c = np.cov(z[:, i], v[:, j], ddof=1)
            found[i, j] = c[0, 1] ** 2 / (c[0, 0] * c[1, 1])
    ordered = np.sort(found, axis=0)[::-1]
    return float((ordered[0] - ordered[1]).mean())


def plain_sap_svc(z: np.ndarray, v: np.ndarray, test_z: np.ndarray, test_v: np.ndarray) -> float:
    """A classifier for each pair."""
    found = np.zeros((z.shape[1], v.shape[1]))
    for i in range(z.shape[1]):
        for j in range(v.shape[1]):
            model = LinearSVC(C=0.01, class_weight="balanced").fit(z[:, [i]], v[:, j])
            found[i, j] = np.mean(model.predict(test_z[:, [i]]) == test_v[:, j])
    ordered = np.sort(found, axis=0)[::-1]
    return float((ordered[0] - ordered[1]).mean())


def plain_explicitness(z: np.ndarray, v: np.ndarray, test_z: np.ndarray, test_v: np.ndarray) -> float:
    """scikit-learn's area for each factor."""
    mean, std = z.mean(0), z.std(0)
    found = []
    for j in range(v.shape[1]):
        model = LogisticRegression().fit((z - mean) / std, v[:, j])
        chance = model.predict_proba((test_z - mean) / std)
        found.append(
            roc_auc_score(label_binarize(test_v[:, j], classes=model.classes_), chance, average="macro")
        )
    return float(np.mean(found))


def _states(n: int, rng: np.random.RandomState) -> np.ndarray:
    return np.stack([rng.randint(size, size=n) for size in SIZES], axis=1)


def _look_up(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    return codes[np.ravel_multi_index(tuple(factors.T), SIZES)]


def plain_beta_vae(codes: np.ndarray) -> float:
    """A loop for each point."""
    rng = np.random.RandomState(0)

    def points(n):
        x, y = [], []
        for _ in range(n):
            held = rng.randint(len(SIZES))
            first, second = _states(64, rng), _states(64, rng)
            second[:, held] = first[:, held]
            x.append(np.abs(_look_up(codes, first) - _look_up(codes, second)).mean(0))
            y.append(held)
        return np.array(x), np.array(y)

    model = LogisticRegression().fit(*points(TRAIN))
    return float(model.score(*points(TEST)))


def plain_factor_vae(codes: np.ndarray) -> float:
    """A loop for each vote."""
    rng = np.random.RandomState(0)
    variances = _look_up(codes, _states(TRAIN, rng)).var(0, ddof=1)

    def votes(n):
        found = np.zeros((len(SIZES), codes.shape[1]), int)
        for _ in range(n):
            held = rng.randint(len(SIZES))
            states = _states(64, rng)
            states[:, held] = states[0, held]
            found[held, (_look_up(codes, states).var(0, ddof=1) / variances).argmin()] += 1
        return found

    train, fresh = votes(TRAIN), votes(TEST)
    return float(fresh[train.argmax(0), np.arange(codes.shape[1])].sum() / fresh.sum())


if __name__ == "__main__":
    main()
