"""The parts of the Map page without a page: codes that grow, lassos, groups, clusters, paths, pictures."""

import asyncio
import json
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from starlette.requests import Request

from latentlab import analysis
from latentlab.analysis.clusters import find_clusters
from latentlab.app import components, engine, routes, server
from latentlab.app.allowance import Allowance
from latentlab.app.components.map import pack_colour, pack_points
from latentlab.app.mapping import codes, colours, groups, growth, pictures
from latentlab.app.mapping.codes import CodeStore
from latentlab.app.mapping.lasso import Lasso
from latentlab.app.mapping.layout import GrowingLayout
from latentlab.app.mapping.path import resample
from latentlab.app.mapping.selection import contact_sheet
from latentlab.app.mapping.statistics import factor_shares, latent_shifts
from latentlab.app.mapping.view import MapView


def quiet(share: float, message: str) -> None:
    assert 0.0 <= share <= 1.0 and message


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FIRST", 40), ("PIECE", 100), ("ERROR_PIECE", 50), ("MOST", 250)):
        monkeypatch.setattr(codes, name, value)
    monkeypatch.setattr("latentlab.app.mapping.layout.PIECE", 100)


@pytest.fixture
def store(planted, tmp_path: Path, small_pieces) -> CodeStore:
    return CodeStore(planted["alpha"], planted["alpha"].dataset(), tmp_path)


# -- codes -----------------------------------------------------------------------------------------


def test_codes_grow_by_pieces_and_equal_those_of_a_plain_encoding(planted, store) -> None:
    """Fails a store that encodes other images than it names, or loses the order between pieces."""
    run = planted["alpha"]
    assert [store.extend(quiet) for _ in range(5)] == [40, 100, 200, 250, 250]
    plain = analysis.encode_dataset(run.model, run.dataset(), 250, seed=0)
    np.testing.assert_array_equal(plain.indices, store.order)
    np.testing.assert_allclose(store.mean, plain.mean, atol=1e-5)
    np.testing.assert_allclose(store.kl, plain.kl.sum(1), rtol=1e-5)
    np.testing.assert_array_equal(store.factors(100), plain.factors[:100])
    np.testing.assert_array_equal(store.factors(250), plain.factors)
    assert [store.measure(quiet) for _ in range(2)] == [50, 100]
    known = analysis.encode_dataset(run.model, run.dataset(), store.order[:100], reconstruction=True)
    np.testing.assert_allclose(store.errors[:100], known.reconstruction_error, rtol=1e-4)
    assert np.isnan(store.errors[100:]).all()
    assert store.rows_of(store.order[[7, 3]], 100).tolist() == [3, 7] and not len(
        store.rows_of(store.order[200:], 100)
    )


def test_kept_pieces_are_taken_up_and_damaged_ones_made_again(planted, store, tmp_path, monkeypatch) -> None:
    run = planted["alpha"]
    for _ in range(4):
        store.extend(quiet)
    store.measure(quiet)
    again = CodeStore(run, run.dataset(), tmp_path)
    assert (again.count, again.measured) == (250, 50)
    np.testing.assert_array_equal(again.mean, store.mean)
    np.testing.assert_array_equal(again.kl, store.kl)
    np.testing.assert_array_equal(again.errors, store.errors)
    other = CodeStore(planted["beta"], planted["beta"].dataset(), tmp_path)
    assert other.count == 0, "codes of other weights"
    (piece,) = tmp_path.glob("map-*/codes-0000100.npy")
    piece.write_bytes(piece.read_bytes()[:-7])
    damaged = CodeStore(run, run.dataset(), tmp_path)
    assert damaged.count == 100 and damaged.extend(quiet) == 200
    np.testing.assert_array_equal(damaged.mean[:200], store.mean[:200])
    piece.write_bytes(b"\x80\x04N.")  # a pickle is refused, not run
    assert CodeStore(run, run.dataset(), tmp_path).count == 100
    nowhere = CodeStore(run, run.dataset(), None)
    assert nowhere.extend(quiet) == 40


def test_a_cancelled_piece_leaves_nothing_half_known(store) -> None:
    store.extend(quiet)

    def cancel(share: float, message: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.extend(cancel)
    assert store.count == 40 and store.extend(quiet) == 100


def test_a_map_is_sent_anew_a_few_times_only() -> None:
    marks, shown = [], 0
    while shown < 1_000_000:
        shown = growth.next_mark(shown, 1_000_000)
        marks.append(shown)
    assert marks[:4] == [2_000, 10_000, 20_000, 40_000] and len(marks) < 12
    assert growth.next_mark(2_000, 1_438) == 1_438 and growth.next_mark(10_000, 14_000) == 14_000


# -- layout ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_a_growing_layout_places_codes_where_the_map_would(
    store, tmp_path, planted, method, monkeypatch
) -> None:
    for _ in range(4):
        store.extend(quiet)
    fitted = analysis.project(np.array(store.mean[:100]), method)
    layout = GrowingLayout(store, fitted)
    assert layout.quick == (method == "pca") and layout.count == 100
    assert layout.place(250, quiet) == 250
    np.testing.assert_allclose(layout.points[:100], fitted.points)
    np.testing.assert_allclose(layout.points[100:], fitted.place(store.mean[100:]), atol=1e-4)
    probe = layout.probe(250)
    assert probe.points.shape == (250, 2) and probe is layout.probe(250) and layout.probe(100) is fitted
    if method == "tsne":
        monkeypatch.setattr("latentlab.app.mapping.layout._PLACED_AT_ONCE", 100)
        layout.count = 100
        layout.place(250)
        kept = GrowingLayout(store, fitted)
        assert kept.count == 200, "whole pieces are kept"
        np.testing.assert_allclose(kept.points[:200], layout.points[:200], atol=1e-6)


# -- lasso -----------------------------------------------------------------------------------------


def even_odd(x: float, y: float, polygon: np.ndarray) -> bool:
    """The textbook's rule, a point at a time."""
    inside = False
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if (y0 <= y) != (y1 <= y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            inside = not inside
    return inside


def test_a_lasso_holds_what_the_textbook_says_it_holds() -> None:
    """Convex, hollow and self-crossing; the fake that takes the bounding box fails the same check."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((800, 2)).astype(np.float32)
    lasso = Lasso(points)
    star = np.stack([(np.cos(a), np.sin(a)) for a in 2 * np.pi * np.arange(5) * 2 / 5]) * 1.5
    hollow = np.array([[-1, -1], [1, -1], [1, 1], [0.8, 1], [0.8, -0.8], [-1, -0.8]])
    for polygon in (star, hollow, rng.standard_normal((9, 2)), np.round(points[:7])):
        expected = [
            i for i, (x, y) in enumerate(points.astype(float)) if even_odd(x, y, np.asarray(polygon, float))
        ]
        assert lasso.inside(polygon).tolist() == expected
    low, high = hollow.min(0), hollow.max(0)
    box = np.flatnonzero(((points >= low) & (points <= high)).all(1))
    assert len(box) > len(lasso.inside(hollow)) > 0
    assert not len(lasso.inside([[50, 50], [51, 50], [50, 51]]))
    for wrong in ([[0, 0], [1, 1]], [[0, 0], [1, np.nan], [2, 2]], np.zeros((5000, 2))):
        with pytest.raises(ValueError, match="lasso"):
            lasso.inside(wrong)


def test_what_sets_a_selection_apart() -> None:
    factors = np.stack([np.repeat([0, 1], 50), np.arange(100) % 4], axis=1).astype(np.int32)
    rows = np.arange(60, 80)
    first, second = factor_shares(factors, rows, ("half", "turn"), {"half": ("low", "high")})
    assert (first.factor, first.value, first.inside, first.overall) == ("half", "high", 1.0, 0.5)
    assert first.divergence == pytest.approx(np.log(2)) and second.divergence == pytest.approx(0.0, abs=1e-9)
    z = np.stack([np.arange(100.0), np.zeros(100), -np.arange(100.0)], axis=1).astype(np.float32)
    shifts = latent_shifts(z, rows, ("a", "dead", "b"))
    assert {s.latent: round(s.by, 3) for s in shifts} == {"a": 0.693, "b": -0.693, "dead": 0.0}


# -- groups, clusters, paths ------------------------------------------------------------------------


def test_groups_are_kept_for_the_data_and_give_codes_for_a_direction(planted, tmp_path) -> None:
    run = planted["alpha"]
    data = run.dataset()
    path = groups.groups_file(SimpleNamespace(path=tmp_path), "sprites")
    assert groups.load_groups(path) == ()
    a = groups.ImageGroup("  low   ones ", np.array([5, 3, 5]))
    b = groups.ImageGroup("high", np.arange(100, 130))
    groups.save_groups(path, [a, b])
    found = groups.load_groups(path)
    assert [(g.name, g.images.tolist()) for g in found] == [
        ("high", list(range(100, 130))),
        ("low ones", [3, 5]),
    ]
    groups.save_groups(path, groups.with_group(found, groups.ImageGroup("high", np.array([1]))))
    assert [len(g.images) for g in groups.load_groups(path)] == [1, 2]
    np.testing.assert_allclose(
        groups.codes_of(run.model, data, a), analysis.encode_dataset(run.model, data, np.array([3, 5])).mean
    )
    direction = analysis.group_direction(
        run.model, groups.codes_of(run.model, data, a), groups.codes_of(run.model, data, b)
    )
    assert direction.certificate["distance"] > 0
    assert groups.groups_file(SimpleNamespace(path=tmp_path), "other") != path
    path.write_bytes(b"PK nonsense")
    with pytest.raises(ValueError, match="holds no groups"):
        groups.load_groups(path)
    for name, images in (("", [1]), ("x" * 61, [1]), ("a", []), ("a", [-1]), ("a", [0.5])):
        with pytest.raises(ValueError, match="group"):
            groups.ImageGroup(name, np.array(images))


@pytest.mark.parametrize("method", ["kmeans", "hdbscan"])
def test_planted_clusters_are_found_and_noise_scores_as_noise(method: str) -> None:
    """Fails a silhouette that is not measured: noise must score what its null scores."""
    rng = np.random.default_rng(0)
    centres = 8 * np.eye(4, 6)
    which = np.repeat([0, 1, 2, 3], [200, 100, 80, 60])
    z = (centres[which] + 0.5 * rng.standard_normal((440, 6))).astype(np.float32)
    found = find_clusters(z, method, 4)
    names = found.assign(z)
    kept = names >= 0
    assert kept.mean() > 0.9 and (names[kept] == which[kept]).all(), "numbered by falling size"
    assert found.certificate["silhouette"] > 0.7 > found.certificate["silhouette_by_chance"] + 0.3
    assert (found.assign(z[::7] + 0.01) == which[::7]).mean() > 0.9
    assert len(found.names) == len(found.centres) == 4
    if method == "kmeans":
        noise = find_clusters(rng.standard_normal((440, 6)).astype(np.float32), method, 4)
        assert abs(noise.certificate["silhouette"] - noise.certificate["silhouette_by_chance"]) < 0.05
        with pytest.raises(ValueError, match="between 2 and"):
            find_clusters(z[:3], method, 8)


def test_a_path_is_walked_at_an_even_pace() -> None:
    """Fails a path that lingers where the pointer did."""
    places = resample([[0, 0], [0.1, 0], [0.2, 0], [3, 0], [3, 0], [3, 3]], 31)
    np.testing.assert_allclose(np.linalg.norm(np.diff(places, axis=0), axis=1), 0.2, atol=1e-9)
    np.testing.assert_allclose(places[[0, 15, -1]], [[0, 0], [3, 0], [3, 3]], atol=1e-9)
    with pytest.raises(ValueError, match="longer one"):
        resample([[1, 1], [1, 1]])


# -- pictures and buffers ----------------------------------------------------------------------------


def unpacked(data: bytes) -> np.ndarray:
    size = struct.unpack_from("<I", data)[0]
    header = json.loads(data[4 : 4 + size])
    return np.frombuffer(data, np.uint8, offset=4 + size).reshape(*(header[k] for k in "nhwc"))


def test_pictures_are_packed_small_and_rows_are_checked() -> None:
    images = np.zeros((2, 3, 5, 4), np.float32)
    images[1, 2, 4, 3] = 1.0
    pixels = unpacked(pictures.pack(images))
    assert pixels.shape == (2, 5, 4, 3) and pixels[1, 4, 3].tolist() == [0, 0, 255] and pixels.sum() == 255
    large = np.full((1, 1, 130, 200), 0.5)
    assert unpacked(pictures.pack(large)).shape == (1, 32, 50, 1)
    assert unpacked(pictures.pack(large, 128)).shape == (1, 65, 100, 1)
    assert pictures.read_rows("3,0,3", 4).tolist() == [3, 0, 3]
    for wrong in ("", "a", "-1", "1,,2", "4", "1.0", "١", ",".join(["1"] * 257), "9" * 12):
        with pytest.raises(ValueError, match=r"[Rr]ows"):
            pictures.read_rows(wrong, 4)


def got(address: str, **headers: str):
    """What the route answers to a GET of pictures."""
    token, _, query = address.partition("?")
    named = {"host": "127.0.0.1:8501", **headers}
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/ll/pictures/{token}",
        "path_params": {"token": token},
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }
    return asyncio.run(routes.pictures(Request(scope)))


def test_pictures_go_to_whoever_holds_the_token_on_our_own_page() -> None:
    asked = []

    def draw(rows: np.ndarray) -> np.ndarray:
        asked.append(rows.tolist())
        return rows[:, None, None, None] / 255 * np.ones((len(rows), 1, 2, 2))

    token = pictures.sources.offer("anna", "map", "1", 10, draw)
    assert pictures.sources.offer("anna", "map", "1", 20, draw) == token
    answer = got(f"{token}?rows=7,19")
    assert answer.status_code == 200 and asked == [[7, 19]]
    assert unpacked(bytes(answer.body))[:, 0, 0, 0].tolist() == [7, 19]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    for headers in (
        {"origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site"},
    ):
        assert got(f"{token}?rows=1", **headers).status_code == 403
    assert got(f"{token}?rows=20").status_code == 400
    assert got(token).status_code == 400
    assert got("guess?rows=1").status_code == 404
    assert pictures.sources.offer("anna", "map", "2", 10, draw) != token
    assert got(f"{token}?rows=1").status_code == 404
    assert pictures.offer("map", "1", 10, draw) is None, "no routes are served here"
    assert len(asked) == 1


def test_pictures_are_asked_for_one_batch_after_the_other_and_only_so_often() -> None:
    """Catches one page's requests that wait in all the server's threads, and a rate without end."""
    token = pictures.sources.offer("anna", "many", "1", 10, lambda rows: np.zeros((len(rows), 1, 2, 2)))
    source = pictures.sources.find(token)
    assert source is not None
    source.answers = Allowance(pictures.MOST_AT_ONCE, 60.0)
    for _ in range(pictures.MOST_AT_ONCE):
        assert source.enter() == ""
    answer = got(f"{token}?rows=1")
    assert answer.status_code == 429 and b"one batch of pictures after the other; 4 are" in bytes(answer.body)
    for _ in range(pictures.MOST_AT_ONCE):
        source.leave()
    answer = got(f"{token}?rows=1")
    assert answer.status_code == 429 and b"at most 6,000 times in 10 seconds" in bytes(answer.body)
    source.answers.clear()
    for rows in ("1", "99", "2"):  # a refused one leaves too
        assert got(f"{token}?rows={rows}").status_code == (400 if rows == "99" else 200)
    assert source.inside == 0
    assert pictures.ANSWERS / pictures.SPAN >= 10 * 60, "a page asks once for each frame of a screen, at most"


def test_image_numbers_and_colours_travel_as_numbers() -> None:
    data = pack_points(np.zeros((3, 2)), np.array([9, 8, 700_000]))
    size = struct.unpack_from("<I", data)[0]
    assert json.loads(data[4 : 4 + size]) == {"n": 3, "ids": True} and len(data) == 4 + size + 24 + 12
    assert np.frombuffer(data, "<i4", 3, 4 + size + 24).tolist() == [9, 8, 700_000]
    for values in (np.array([3, -1, 0], np.int16), np.array([3.0, np.nan, 0.0])):
        names = ("a", "b", "c", "d")
        data = pack_colour(components.Colour(values, "kind", names), 3)
        size = struct.unpack_from("<I", data)[0]
        assert np.frombuffer(data, "<u2", 3, 4 + size).tolist() == [3, 0xFFFF, 0]


def test_a_few_far_values_do_not_leave_all_others_one_colour() -> None:
    values = np.append(np.linspace(0, 1, 4_000), [500.0])
    data = pack_colour(components.Colour(values), 4_001)
    size = struct.unpack_from("<I", data)[0]
    scale = json.loads(data[4 : 4 + size])["colour"]
    assert scale["cut"] and 0 <= scale["low"] < 0.02 and 0.98 < scale["high"] < 1.1
    steps = np.frombuffer(data, "<u2", 4_001, 4 + size)
    assert steps[-1] == 0xFFFE and abs(int(steps[2_000]) - 0x7FFF) < 400
    plain = pack_colour(components.Colour(values[:-1]), 4_000)
    assert b"cut" not in plain[:200]


def test_a_contact_sheet_holds_every_image_once() -> None:
    images = np.linspace(0.1, 1, 11)[:, None, None, None] * np.ones((11, 1, 40, 40))
    sheet = np.asarray(contact_sheet(images))
    shown = np.unique(sheet[sheet[..., 3] > 0][:, 0])
    assert shown.tolist() == (images[:, 0, 0, 0] * 255 + 0.5).astype(np.uint8).tolist()


def test_points_are_coloured_by_what_was_chosen(store, planted, monkeypatch, tmp_path) -> None:
    run = planted["alpha"]
    monkeypatch.setenv(server.RUNS_VARIABLE, str(tmp_path))
    for _ in range(3):
        store.extend(quiet)
    layout = GrowingLayout(store, analysis.project(np.array(store.mean[:200])))
    view = MapView(run, run, run.dataset(), store, layout, 200, 200, "pca")
    plain = analysis.encode_dataset(run.model, run.dataset(), store.order[:200])
    shape = colours.colour_of(view, "shape")
    assert shape.names == ("square", "ellipse", "heart")
    np.testing.assert_array_equal(shape.values, plain.factors[:, 0])
    x = colours.colour_of(view, "x")
    assert x.names is None
    np.testing.assert_array_equal(x.values, plain.factors[:, list(plain.factor_names).index("x")])
    np.testing.assert_allclose(colours.colour_of(view, "KL").values, plain.kl.sum(1), rtol=1e-5)
    np.testing.assert_allclose(colours.colour_of(view, "Latent z4").values, plain.mean[:, 4], atol=1e-5)
    assert np.isnan(colours.colour_of(view, colours.ERROR).values).all()
    store.measure(quiet)
    assert np.isfinite(colours.colour_of(view, colours.ERROR).values).sum() == 50
    assert colours.GROUPS not in colours.options(run, view.data)
    path = groups.groups_file(SimpleNamespace(path=tmp_path), '["sprites", {}]')
    groups.save_groups(path, [groups.ImageGroup("mine", store.order[[4, 9]])])
    assert colours.GROUPS in colours.options(run, view.data)
    mine = colours.colour_of(view, colours.GROUPS)
    assert mine.names == ("mine",) and np.flatnonzero(mine.values == 0).tolist() == [4, 9]
    assert colours.colour_of(view, "Nothing") is None
    assert engine.serving() is False
