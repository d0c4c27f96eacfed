import numpy as np
import pytest

from latentlab.analysis import project
from latentlab.viz import charts, colours


def _rows(chart):
    return chart.to_dict()["data"]["values"]


def test_a_static_map_shows_each_point_in_its_colour_at_its_place():
    """Fails y drawn downwards, colours of other points, and points lost at the edge."""
    codes = np.array([[-1.0, -0.5], [1.0, 0.5], [-1.0, 0.4], [1.0, -0.4]], dtype=np.float32) * [2, 1]
    map_ = project(codes)
    picture = np.asarray(charts.raster_map(map_, np.array(["a", "b", "c", "d"]), size=300)).astype(int)
    plot = picture[10:310, :]  # above the axis' name
    centres = {}
    for i in range(4):
        at = np.argwhere((np.abs(plot[:, :350] - colours.category(i)) < 30).all(axis=2))
        assert len(at) > 10, i
        centres[i] = at.mean(axis=0)
    for i in range(4):
        for j in range(4):
            for axis, sign in ((0, 1), (1, -1)):
                gap = map_.points[i, axis] - map_.points[j, axis]
                if abs(gap) > 0.1:
                    seen = centres[i][1 - axis] - centres[j][1 - axis]
                    assert np.sign(gap) == np.sign(seen) * sign


def test_maps_are_coloured_by_factor_name_or_values(encoding):
    map_ = project(encoding)
    plain, shape, x = (charts.raster_map(map_, c) for c in (None, "shape", "x"))
    assert shape.width > plain.width and x.width > plain.width  # legends
    with pytest.raises(ValueError, match="No factor 'hue' to colour by; it has shape, x"):
        charts.raster_map(map_, "hue")
    with pytest.raises(ValueError, match=r"one value a point \(60,\); got \(3,\)"):
        charts.raster_map(map_, np.zeros(3))
    with pytest.raises(ValueError, match="Only two-dimensional maps"):
        charts.raster_map(project(encoding, dims=3))


def test_a_scatter_holds_every_point_and_its_colour(encoding):
    map_ = project(encoding)
    rows = _rows(charts.scatter(map_, "shape"))
    assert len(rows) == 60 and rows[4] == {
        "x": pytest.approx(float(map_.points[4, 0])),
        "y": pytest.approx(float(map_.points[4, 1])),
        "image": 104,
        "colour": "ellipse",
    }
    assert _rows(charts.scatter(map_, "x"))[7]["colour"] == 7.0
    many = project(np.random.default_rng(0).standard_normal((20_001, 2)))
    with pytest.raises(ValueError, match="at most 20000 points; got 20001"):
        charts.scatter(many)


def test_kl_bars_are_sorted_and_say_what_is_active(encoding):
    rows = _rows(charts.kl_bars(encoding))
    assert [r["latent"] for r in rows] == ["z0", "z1", "z2"]
    assert [r["state"] for r in rows] == ["active", "collapsed", "collapsed"]
    assert rows[0]["KL"] == pytest.approx(float(encoding.kl_per_dim[0]))


def test_training_curves_thin_long_runs_and_leave_out_gaps():
    metrics = {"step": np.arange(5000), "loss": np.linspace(9, 1, 5000), "kl": np.full(5000, np.nan)}
    chart = charts.training_curves(metrics)
    rows = _rows(chart)
    assert len(rows) <= 400 and {r["metric"] for r in rows} == {"loss"}
    assert rows[0] == {"step": 0.0, "metric": "loss", "value": 9.0} and rows[-1]["value"] == 1.0
    with pytest.raises(ValueError, match="No column 'elbo' in the metrics; they have step, loss, kl"):
        charts.training_curves(metrics, ["elbo"])


def test_a_matrix_shows_its_numbers_and_diverges_only_with_negative_ones():
    values = np.array([[0.5, -1.0, 0.0]])
    spec = charts.matrix(values, ["r"], ["a", "b", "c"]).to_dict()
    cells = next(iter(spec["datasets"].values())) if "datasets" in spec else spec["data"]["values"]
    assert [(c["column"], c["value"]) for c in cells] == [("a", 0.5), ("b", -1.0), ("c", 0.0)]
    assert spec["layer"][0]["encoding"]["color"]["scale"]["domain"] == [-1.0, 0, 1.0]
    positive = charts.matrix(np.abs(values), ["r"], ["a", "b", "c"]).to_dict()
    assert positive["layer"][0]["encoding"]["color"]["scale"]["domain"] == [0, 1.0]
    with pytest.raises(ValueError, match="needs as many names"):
        charts.matrix(values, ["r"], ["a"])
    assert charts.matrix_picture(values, ["row"], ["a", "b", "a longer name"]).width > 100
