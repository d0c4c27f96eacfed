"""The catalogue: what it lists, that listing is cheap, and what it says about wrong names."""

import subprocess
import sys
from pathlib import Path

import pytest

from latentlab.data import dataset_names, factor_sizes, list_datasets, open_dataset


def test_what_is_listed_is_what_opens():
    # Would catch a size, shape, factor list or source that went stale in the catalogue.
    listed = {info.name: info for info in list_datasets()}
    assert tuple(listed) == dataset_names()
    for name in ("sprites", "scenes", "digits"):
        info, data = listed[name], open_dataset(name)
        assert (info.size, info.image_shape, info.factors) == (len(data), data.image_shape, data.labels)
        assert info.source == data.source and data.name == name and info.available
    assert [name for name in listed if ":" in name] == ["folder:PATH", "dsprites:PATH", "shapes3d:PATH"]


@pytest.mark.parametrize("options", [{}, {"color": True}, {"color": False}])
def test_factors_known_without_opening_are_those_of_the_data(options):
    for name in ("sprites",) if options else ("sprites", "scenes", "digits"):
        space = open_dataset(name, **options).factor_space
        assert factor_sizes(name, options) == dict(zip(space.names, space.sizes, strict=True))
    assert factor_sizes("dsprites:/a/file") == factor_sizes("sprites")
    assert factor_sizes("shapes3d:/a/file") == factor_sizes("scenes")
    assert factor_sizes("folder:/a/folder") == factor_sizes("celeba") == factor_sizes("nothing") == {}


def test_availability_looks_at_the_root(tmp_path, monkeypatch):
    def mnist(**options):
        return next(info for info in list_datasets(**options) if info.name == "mnist")

    monkeypatch.setenv("LATENTLAB_DATA", str(tmp_path))
    assert not mnist().available and f"downloads it into {tmp_path}" in mnist().how
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    assert mnist().available and not mnist(root=tmp_path / "MNIST").available


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from latentlab.data import list_datasets; assert list_datasets();"
        "heavy = {'torch', 'torchvision', 'sklearn', 'PIL', 'h5py', 'numpy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": source}
    )
    assert done.returncode == 0, done.stderr


def test_wrong_names_and_options_list_the_right_ones():
    with pytest.raises(
        ValueError, match=r"unknown data set 'sprite'; the data sets are sprites, .*mean 'sprites'\?"
    ):
        open_dataset("sprite")
    with pytest.raises(
        ValueError, match=r"unknown data set 'sprites:small'; the data sets are sprites, scenes"
    ):
        open_dataset("sprites:small")
    with pytest.raises(
        ValueError, match="'sprites' has no option 'colour'; its options are color, background, "
    ):
        open_dataset("sprites", colour=True)
    with pytest.raises(ValueError, match="names its path already; leave out path="):
        open_dataset("folder:here", path="there")
