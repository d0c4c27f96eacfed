import numpy as np
import pytest
import torch

from latentlab.analysis import encode_dataset, project, projection


@pytest.fixture
def clusters():
    """Three well separated clusters of 40 codes in 5 dimensions."""
    rng = np.random.default_rng(0)
    centres = np.array([[6.0, 0, 0, 0, 0], [0, 6, 0, 0, 0], [0, 0, 6, 0, 0]])
    return (centres.repeat(40, axis=0) + 0.3 * rng.standard_normal((120, 5))).astype(np.float32)


def _same_cluster(points: np.ndarray) -> float:
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return float((distances.argmin(axis=1) // 40 == np.arange(120) // 40).mean())


def test_pca_agrees_with_sklearn(clusters):
    from sklearn.decomposition import PCA

    reference = PCA(2, svd_solver="full").fit(clusters.astype(float))
    map_ = project(clusters)
    assert np.allclose(np.abs(map_.components @ reference.components_.T), np.eye(2), atol=1e-5)
    assert np.allclose(map_.explained, reference.explained_variance_ratio_, atol=1e-6)
    assert map_.certificate["explained_variance"] == pytest.approx(map_.explained.sum())


def test_pca_places_and_lifts_exactly(clusters):
    """Fails a lift that returns the nearest datum for PCA, and a place that refits."""
    map_ = project(clusters)
    positions = np.array([[0.0, 0.0], [1.0, -2.0], [30.0, 5.0]])
    lifted = map_.lift(positions)
    assert np.allclose(map_.place(lifted), positions, atol=1e-5)
    assert np.allclose(lifted[0], clusters.mean(axis=0), atol=1e-5)
    assert np.allclose(map_.place(clusters), map_.points, atol=1e-5)
    assert map_.lift([0.0, 0.0]).shape == (1, 5)


@pytest.mark.parametrize("method", ["tsne"])
def test_layouts_keep_clusters_apart_and_place_codes_beside_their_neighbours(clusters, method):
    _check_layout(clusters, method)


@pytest.mark.slow  # half a minute of compilation
def test_umap_keeps_clusters_apart_and_places_codes_beside_their_neighbours(clusters):
    _check_layout(clusters, "umap")
    assert projection.warm_up() is projection.warm_up()
    projection.warm_up().join()
    assert projection.umap_is_warm()


def _check_layout(clusters, method):
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    map_, again, other = (project(clusters, method, seed=s, fit_on=90) for s in (0, 0, 1))
    assert torch.equal(state[0], torch.get_rng_state())
    assert np.array_equal(state[1], np.random.get_state()[1])  # noqa: NPY002
    assert np.array_equal(map_.points, again.points) and not np.array_equal(map_.points, other.points)
    assert len(map_.fitted) == 90 and np.isfinite(map_.points).all()
    assert _same_cluster(map_.points) > 0.95
    assert map_.certificate["neighbours_kept"] > 3 * map_.certificate["neighbours_kept_by_chance"]
    # A fitted code has its own place; a new one lies among the places of its five nearest fitted codes.
    assert np.allclose(map_.place(clusters[map_.fitted]), map_.points[map_.fitted], atol=1e-4)
    new = clusters[0] + 0.05
    distances = np.linalg.norm(clusters[map_.fitted] - new, axis=1)
    nearest = np.argsort(distances)[:5]
    weights = 1 / distances[nearest] / (1 / distances[nearest]).sum()
    assert np.allclose(map_.place(new)[0], weights @ map_.points[map_.fitted][nearest], atol=1e-3)
    # Lifting the place of a datum gives its code; elsewhere a mean of the nearest data's codes.
    assert np.allclose(map_.lift(map_.points[7]), clusters[7], atol=1e-4)
    assert map_.lift(map_.points[:40].mean(axis=0))[0].argmax() == 0


def test_support_tells_data_from_empty_space(clusters):
    map_ = project(clusters)
    inside, far = map_.points[:3].mean(axis=0), np.array([100.0, 100.0])
    support = map_.support([inside, far])
    assert support.inside.tolist() == [True, False]
    assert support.relative[1] > 50 > support.relative[0] and support.density[0] > 100 * support.density[1]
    rows, distances = map_.nearest(map_.points[17], k=2)
    assert rows[0, 0] == 17 and distances[0, 0] == 0.0 and rows.shape == (1, 2)


def test_a_random_map_has_a_certificate_at_chance(clusters):
    """Fails a certificate that is computed on the fitted layout only, or not at all."""
    noise = np.random.default_rng(1).standard_normal((120, 2)).astype(np.float32)
    scores = projection._certificate(clusters, noise, seed=0)
    assert scores["neighbours_kept"] == pytest.approx(scores["neighbours_kept_by_chance"], abs=0.05)
    assert abs(scores["distance_rank_correlation"]) < 0.1
    same = projection._certificate(clusters, clusters, seed=0)
    assert same["neighbours_kept"] == 1.0 and same["distance_rank_correlation"] == pytest.approx(1.0)


def test_duplicate_codes_do_not_break_anything():
    codes = np.repeat(np.eye(4, 3, dtype=np.float32), 30, axis=0)
    map_ = project(codes, "tsne")
    assert np.isfinite(map_.points).all() and np.isfinite(map_.place(codes)).all()
    assert np.isfinite(map_.support(map_.points).density).all()


def test_an_encoding_brings_its_indices_and_factors(linear_model, planted_dataset):
    encoding = encode_dataset(linear_model, planted_dataset(linear_model), [3, 1, 30, 8])
    map_ = project(encoding)
    assert map_.indices.tolist() == [3, 1, 30, 8] and map_.factor_names == ("a", "b")
    assert map_.provenance.weights_digest == encoding.provenance.weights_digest


@pytest.mark.parametrize(
    ("codes", "arguments", "wording"),
    [
        (np.zeros((50, 3)), {"method": "isomap"}, "one of pca, umap, tsne; got 'isomap'"),
        (np.zeros((50, 3)), {"dims": 4}, "between 1 and the codes' dimension 3"),
        (np.zeros((5, 3)), {"method": "umap"}, "needs at least 10 codes; got 5"),
        (np.zeros((50, 3)), {"method": "umap"}, "All 50 codes are equal, so 'umap' has nothing to lay out"),
        (np.full((50, 3), np.nan), {}, "finite codes"),
        (np.zeros(50), {}, r"got shape \(50,\)"),
    ],
)
def test_wrong_arguments_get_a_sentence(codes, arguments, wording):
    with pytest.raises(ValueError, match=wording):
        project(codes, **arguments)


def test_positions_and_codes_of_another_dimension_get_a_sentence(clusters):
    map_ = project(clusters)
    with pytest.raises(ValueError, match=r"codes must be finite numbers \(k, 5\)"):
        map_.place(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"positions must be finite numbers \(k, 2\)"):
        map_.lift([np.nan, 0.0])
