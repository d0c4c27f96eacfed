import dataclasses

import numpy as np
import pytest

from latentlab.analysis import load_result, procrustes, project


@pytest.fixture
def codes():
    rng = np.random.default_rng(0)
    centres = np.array([[6.0, 0, 0, 0], [0, 5, 0, 0], [0, 0, 4, 0]])
    return (centres.repeat(50, axis=0) + 0.4 * rng.standard_normal((150, 4))).astype(np.float32)


def rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def moved(map_, turn, shift=(0.0, 0.0), size=1.0):
    """The same map as another run might have laid it out."""

    return dataclasses.replace(map_, points=(size * map_.points @ turn + shift).astype(np.float32))


@pytest.mark.parametrize(
    "turn", [rotation(2.0), rotation(0.5) @ np.diag([1.0, -1.0])], ids=["turned", "mirrored"]
)
def test_a_turned_shifted_and_scaled_map_is_laid_back_exactly(codes, turn):
    """The fake that only recentres fails the same check."""
    layout = project(codes, "tsne", neighbours=5)
    other = moved(layout, turn, (30.0, -7.0), 3.0)
    aligned = procrustes(other, layout)
    spread = layout.points.std()
    assert np.abs(aligned.points - layout.points).max() < 1e-4 * spread
    assert aligned.certificate["disparity"] < 1e-9 < 1.0 < aligned.certificate["disparity_before"]
    recentred = other.points - other.points.mean(0) + layout.points.mean(0)
    assert np.abs(recentred - layout.points).max() > spread


def test_a_map_by_pca_keeps_its_distances_and_still_places_and_lifts_exactly(codes):
    """Catches an alignment that moves the points but not the way new codes are placed."""
    reference = project(codes)
    turned = (
        codes @ np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0].astype(np.float32) + 2.0
    )
    plain = project(turned)
    aligned = procrustes(plain, reference)
    assert np.allclose(np.abs(aligned.points), np.abs(reference.points), atol=1e-3)
    assert np.allclose(aligned.points, reference.points, atol=1e-3)
    assert np.allclose(aligned.place(turned), aligned.points, atol=1e-3)
    assert np.allclose(aligned.place(aligned.lift([[1.0, -2.0]])), [[1.0, -2.0]], atol=1e-5)
    gaps = [np.linalg.norm(m.points[0] - m.points[99]) for m in (plain, aligned)]
    assert gaps[0] == pytest.approx(gaps[1], rel=1e-5)
    assert aligned.explained.sum() == pytest.approx(plain.explained.sum())
    shares = aligned.points.var(axis=0) / turned.astype(float).var(axis=0).sum()
    assert np.allclose(aligned.explained, shares, atol=1e-4)
    with pytest.raises(ValueError, match="keeps its distances"):
        procrustes(plain, reference, scale=True)


def test_unrelated_maps_stay_as_far_apart_as_chance(codes):
    """Fails a certificate that is not measured: points without any relation can't be laid on each other."""
    reference = project(codes)
    noise = moved(reference, np.eye(2))
    shuffled = np.random.default_rng(0).permutation(len(codes))

    noise = dataclasses.replace(noise, points=noise.points[shuffled])
    numbers = procrustes(noise, reference).certificate
    assert numbers["disparity"] > 0.8 * numbers["disparity_by_chance"] and numbers["paired"] == 150


def test_images_are_paired_by_their_number(codes):

    reference = dataclasses.replace(project(codes), indices=np.arange(150))
    order = np.random.default_rng(3).permutation(150)
    other = dataclasses.replace(moved(reference, rotation(1.0)), indices=np.arange(150)[order])
    other = dataclasses.replace(other, points=other.points[order], codes=codes[order])
    aligned = procrustes(other, reference)
    assert np.allclose(aligned.points, reference.points[order], atol=1e-4)
    far = dataclasses.replace(other, indices=np.arange(150) + 500)
    with pytest.raises(ValueError, match="at least 3 images that both maps show; got 0"):
        procrustes(far, reference)


def test_a_layout_that_starts_from_the_last_one_moves_less(codes):
    """What makes points stay between checkpoints: without the start, t-SNE lays the clusters out anew."""
    rng = np.random.default_rng(0)
    many = np.repeat(6 * rng.standard_normal((16, 8)), 15, axis=0) + rng.standard_normal((240, 8))
    turned = many @ np.linalg.qr(rng.standard_normal((8, 8)))[0] * [1, 1, 1, 1, 2, 2, 0.5, 0.5]
    last = project(many, "tsne", neighbours=5)
    anew = procrustes(project(turned, "tsne", neighbours=5), last)
    onward = procrustes(project(turned, "tsne", neighbours=5, start=last.points), last)
    assert onward.certificate["disparity"] < 0.1 < 0.4 < anew.certificate["disparity"]
    kept = [m.certificate["neighbours_kept"] for m in (onward, anew)]
    assert kept[0] > 0.9 * kept[1], "it may not stay where it was at the cost of the neighbours"
    with pytest.raises(ValueError, match=r"start must be finite positions \(150, 2\)"):
        project(codes, "tsne", start=last.points[:10])


def test_progress_is_told_by_tsne_and_may_cancel(codes):
    told = []
    project(codes, "tsne", progress=lambda done, total: told.append((done, total)))
    assert told and told[-1][1] >= told[-1][0] > 0 and told == sorted(told)

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        project(codes, "tsne", progress=cancel)


def test_a_grown_map_keeps_its_points_and_places_the_others(codes, tmp_path):
    layout = project(codes[:100])
    grown = layout.grown(codes)
    assert np.array_equal(grown.points[:100], layout.points)
    assert np.allclose(grown.points[100:], layout.place(codes[100:]), atol=1e-5)
    assert len(grown.fitted) == 100 and grown.certificate["neighbours_kept"] > 0.1
    grown.save(tmp_path / "map")
    assert np.array_equal(load_result(tmp_path / "map").points, grown.points)
    with pytest.raises(ValueError, match="grows from its own 100 codes on"):
        layout.grown(codes[1:])


def test_maps_that_coincide_or_differ_in_dimension_get_a_sentence(codes):
    layout = project(codes)
    with pytest.raises(ValueError, match="same dimensions; got 3 and 2"):
        procrustes(project(codes, dims=3), layout)
    with pytest.raises(ValueError, match="nothing to align"):
        procrustes(moved(layout, np.zeros((2, 2))), layout)
