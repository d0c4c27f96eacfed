import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from latentlab.analysis import (
    activations,
    encode_dataset,
    load_result,
    project,
    swap_grid,
    traverse,
    traverse_grid,
)
from latentlab.analysis.results import Result
from latentlab.models.edits import Edit


def test_a_result_is_saved_and_loaded_unchanged(linear_model, planted_dataset, tmp_path):
    """Fails a save that drops a field, rounds an array or turns tuples into lists."""
    encoding = encode_dataset(linear_model, planted_dataset(linear_model))
    results = [
        traverse(linear_model, dims=["z1"], encoding=encoding, seed=3),
        encoding,
        activations(linear_model, seed=1),
    ]
    for result in results:
        path = result.save(tmp_path / "sub" / result.kind)
        again = load_result(path)
        assert type(again) is type(result) and path.suffix == ".npz"
        assert {k: (v.dtype, v.tobytes()) for k, v in result.arrays().items()} == {
            k: (v.dtype, v.tobytes()) for k, v in again.arrays().items()
        }
        assert again._values() == result._values()
        assert dict(again.certificate) == dict(result.certificate)
        assert again.provenance == result.provenance
    assert sorted(p.name for p in (tmp_path / "sub").iterdir()) == sorted(
        f"{r.kind}.{s}" for r in results for s in ("json", "npz")
    )


def test_provenance_says_model_arguments_seed_and_versions(linear_model):
    from latentlab.models.contract import weights_digest

    origin = traverse(linear_model, dims=["z1"], steps=3, seed=7).provenance
    assert origin.weights_digest == weights_digest(linear_model) and origin.seed == 7
    assert origin.parameters["dims"] == ["z1"] and origin.parameters["steps"] == 3
    assert set(origin.versions) == {"latentlab", "torch", "numpy"} and origin.created.endswith("+00:00")


def test_no_seed_is_claimed_where_none_was_used(gated_model):
    """Fails a caption that names a seed although the code was given."""
    from latentlab.analysis import compare_edits, feature_maps, rank_units, traverse_grid

    z = np.zeros((1, 2))
    given = [
        traverse(gated_model, z),
        traverse_grid(gated_model, z),
        activations(gated_model, inputs=z),
        feature_maps(gated_model, inputs=z),
        compare_edits(gated_model, z, []),
    ]
    assert [r.provenance.seed for r in given] == [None] * 5
    assert feature_maps(gated_model, seed=4).provenance.seed == 4
    assert rank_units(gated_model, "maps", inputs=z, seed=4).provenance.seed == 4  # of its random directions


def test_results_are_frozen_down_to_their_arrays(linear_model):
    result = traverse(linear_model, seed=0, steps=2)
    with pytest.raises(AttributeError):
        result.images = None
    with pytest.raises(ValueError, match="read-only"):
        result.images[0] = 0
    states = activations(linear_model, seed=0).states
    with pytest.raises(TypeError):
        states["output"] = None


def test_no_dictionary_of_a_result_can_be_changed(linear_model):
    """Fails a frozen class around open dictionaries: a proof or an origin that was put in later."""
    result = traverse(linear_model, seed=0, steps=2, edits=[Edit("generator.output", (0,))])
    for table in (result.certificate, result.provenance.parameters, result.provenance.versions,
                  result.provenance.parameters["edits"][0]):  # fmt: skip
        name = next(iter(table))
        for change in (
            lambda t=table: t.update(a=1),
            lambda t=table: t.setdefault("a", 1),
            lambda t=table, n=name: t.pop(n),
            lambda t=table: t.clear(),
            lambda t=table, n=name: t.__setitem__(n, 1),
            lambda t=table, n=name: t.__delitem__(n),
            lambda t=table: t.__ior__({"a": 1}),
        ):
            with pytest.raises(TypeError, match="A result is frozen"):
                change()
        assert "a" not in table and name in table
        assert pickle.loads(pickle.dumps(table)) == copy.deepcopy(table) == dict(table)


def test_results_do_not_change_with_what_they_were_made_from(linear_model):
    """Fails keeping the caller's memory: a code that is moved on would move the finished picture's label."""
    z = torch.zeros(4)
    values, codes = (
        np.array([[0.0, 1.0]]),
        np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32),
    )
    strip = traverse(linear_model, z, dims=[0], values=values)
    grid = traverse_grid(linear_model, z, values=(values, values))
    states = activations(linear_model, inputs=z)
    map_ = project(codes)
    before = [{k: v.copy() for k, v in result.arrays().items()} for result in (strip, grid, states, map_)]
    z[0], values[0, 0], codes[0] = 5.0, 5.0, 5.0
    for result, arrays in zip((strip, grid, states, map_), before, strict=True):
        assert all(np.array_equal(v, arrays[k], equal_nan=True) for k, v in result.arrays().items())


def test_results_survive_pickle_as_the_apps_cache_needs(linear_model):
    for result in (traverse(linear_model, seed=0), activations(linear_model, seed=0)):
        again = pickle.loads(pickle.dumps(result))
        assert repr(again) == repr(result)
        with pytest.raises((ValueError, TypeError)):
            next(iter(again.arrays().values()))[...] = 0


def test_repr_is_short_and_html_waits_for_viz(two_block_model):
    result = swap_grid(two_block_model(), rows=2, block="pose")
    assert repr(result).startswith("SwapGrid(images 2×2×1×32×32, ") and len(repr(result)) < 400
    code = (
        "import latentlab.analysis as a; r = a.Result(provenance=None, certificate={});"
        "import sys; assert r._repr_html_() is None; assert 'latentlab.viz' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_damaged_and_foreign_files_are_refused(linear_model, tmp_path):
    """Fails a loader that unpickles, or that takes half a file."""
    with pytest.raises(OSError, match="nothing"):
        load_result(tmp_path / "nothing")
    arrays = traverse(linear_model, seed=0).save(tmp_path / "strip.npz")
    description = tmp_path / "strip.json"
    good, text = arrays.read_bytes(), description.read_text()

    arrays.write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match=r"strip\.npz is damaged"):
        load_result(arrays)
    arrays.write_bytes(good)
    description.write_text(text[:-40])
    with pytest.raises(ValueError, match=r"strip\.json is damaged"):
        load_result(arrays)
    description.write_text(text.replace('"kind": "Traversal"', '"kind": "Wormhole"'))
    with pytest.raises(ValueError, match=r"is a 'Wormhole', which is none of .*Traversal"):
        load_result(arrays)
    description.write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(ValueError, match="has format 99; this version reads format 1"):
        load_result(arrays)
    fewer = json.loads(text)
    del fewer["values"]["dims"]
    description.write_text(json.dumps(fewer))
    with pytest.raises(ValueError, match="does not hold a complete Traversal"):
        load_result(arrays)


def test_a_pickle_inside_is_never_executed(tmp_path, linear_model):
    import hashlib

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("executed",))

    path = traverse(linear_model, seed=0).save(tmp_path / "strip")
    np.savez(path, images=np.array([Bomb()], dtype=object))
    description = tmp_path / "strip.json"
    header = json.loads(description.read_text())
    header["arrays_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    description.write_text(json.dumps(header))
    with pytest.raises(ValueError, match="holds no readable arrays"):
        load_result(path)


def test_a_failed_save_leaves_nothing_behind(linear_model, tmp_path, monkeypatch):
    result = traverse(linear_model, seed=0)
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        result.save(tmp_path / "strip")
    assert list(tmp_path.iterdir()) == []


def test_every_kind_is_registered_by_name():
    import latentlab.analysis as analysis

    exported = {
        n for n in analysis.__all__ if isinstance(v := getattr(analysis, n), type) and issubclass(v, Result)
    }
    assert exported - {"Result"} == {k for k in Result.kinds if hasattr(analysis, k)}
