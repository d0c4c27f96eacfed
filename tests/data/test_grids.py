"""The original dSprites and 3D Shapes files, as small files of the same make."""

import itertools
import pickle

import numpy as np
import pytest
import torch

from latentlab.data import open_dataset

SIZES = (3, 2, 3, 4, 4)


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle beside the images was loaded",))


@pytest.fixture
def npz(tmp_path):
    """A small dSprites file: as the original, with a pickled description that must stay unread."""
    path = tmp_path / "dsprites.npz"
    classes = np.array([(0, *row) for row in itertools.product(*map(range, SIZES))])
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, (len(classes), 64, 64), np.uint8)
    description = np.array(_Bomb(), dtype=object)
    np.savez_compressed(path, metadata=description, imgs=images, latents_classes=classes)
    return path, images, classes


def test_the_npz_is_read_bit_by_bit(npz):
    path, images, classes = npz
    data = open_dataset("dsprites", path=path)
    assert len(data) == 288 and data.image_shape == (1, 64, 64) and data.is_grid
    assert data.factor_space.names == ("shape", "scale", "orientation", "x", "y")
    assert data.factor_space.sizes == SIZES
    indices = torch.arange(288).flip(0)
    read = data.images(indices)
    assert read.dtype == torch.float32 and np.array_equal(read[:, 0].numpy(), images[::-1].astype(np.float32))
    assert np.array_equal(data.factors(indices), classes[::-1, 1:])
    assert torch.equal(data.index(data.factors(indices)), indices)
    assert data._images.nbytes == 288 * 512  # one bit a pixel
    assert len(open_dataset(f"dsprites:{path}")) == 288


def test_an_npz_in_another_order_keeps_its_factors(npz):
    path, images, classes = npz
    order = np.random.default_rng(1).permutation(len(classes))[:100]
    np.savez(path, imgs=images[order], latents_classes=classes[order])
    data = open_dataset("dsprites", path=path)
    assert np.array_equal(data.factors(range(100)), classes[order, 1:]) and not data.is_grid
    with pytest.raises(ValueError, match="not a full grid"):
        data.index([[0, 0, 0, 0, 0]])


def test_wrong_npz_files_are_named(npz, tmp_path):
    path, images, classes = npz
    whole = path.read_bytes()
    cases = {
        r"is truncated or no npz file .*download dsprites_ndarray": whole[: len(whole) // 2],
        "is truncated or no npz file": b"<html>not found</html>",
    }
    for sentence, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(OSError, match=rf"dsprites\.npz {sentence}"):
            open_dataset("dsprites", path=path)
    # A flipped byte inside the images: the archive opens, its checksum fails.
    damaged = bytearray(whole)
    middle = whole.index(b"imgs.npy") + 10_000
    damaged[middle : middle + 8] = bytes(8)
    path.write_bytes(damaged)
    with pytest.raises(OSError, match=r"is truncated or no npz file|is damaged"):
        open_dataset("dsprites", path=path)
    arrays = {
        "is not the dSprites file: expected the arrays imgs and latents_classes, got digits": {
            "digits": images
        },
        r"imgs in .* must be uint8 \(n, 64, 64\), got float64": {
            "imgs": images / 2,
            "latents_classes": classes,
        },
        "imgs in .* must be 0 or 1, got 255": {"imgs": images * 255, "latents_classes": classes},
        r"latents_classes in .* must be integers of shape \(288, 6\)": {
            "imgs": images,
            "latents_classes": classes[1:],
        },
    }
    for sentence, content in arrays.items():
        np.savez(path, **content)
        with pytest.raises(ValueError, match=sentence):
            open_dataset("dsprites", path=path)
    hidden = np.array([pickle.dumps(1)], dtype=object)
    np.savez(path, imgs=images, latents_classes=hidden)
    with pytest.raises(OSError, match=r"is damaged .*allow_pickle"):
        open_dataset("dsprites", path=path)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.npz; expected dsprites_ndarray"):
        open_dataset("dsprites", path=tmp_path / "none.npz")
    with pytest.raises(ValueError, match='dsprites needs the path of your files: "dsprites:PATH"'):
        open_dataset("dsprites")


@pytest.fixture
def h5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py, of the extra h5, is not installed")
    path = tmp_path / "3dshapes.h5"
    values = [
        np.linspace(0, 0.9, 2),
        np.linspace(0, 0.9, 3),
        [0.0],
        np.linspace(0.75, 1.25, 2),
        range(4),
        [-30.0, 30.0],
    ]
    labels = np.array(list(itertools.product(*values)), np.float64)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 64, 64, 3), np.uint8)
    with h5py.File(path, "w") as file:
        file["images"], file["labels"] = images, labels
    return path, images, labels


@pytest.mark.parametrize("in_memory", [None, True, False])
def test_the_h5_is_read_in_grid_order(h5, in_memory):
    path, images, _ = h5
    data = open_dataset("shapes3d", path=path, in_memory=in_memory)
    assert len(data) == 96 and data.image_shape == (3, 64, 64) and data.is_grid
    assert data.factor_space.names == ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
    assert data.factor_space.sizes == (2, 3, 1, 2, 4, 2) and data.categories["shape"][3] == "capsule"
    indices = [95, 3, 3, 0]
    expected = images[indices].transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_array_equal(data.images(indices).numpy(), expected)
    assert data.factors([95, 17]).tolist() == [[1, 2, 0, 1, 3, 1], [0, 1, 0, 0, 0, 1]]
    assert data.images([]).shape == (0, 3, 64, 64)


def test_wrong_h5_files_are_named(h5):
    import h5py

    path, images, labels = h5
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>not found</html>"):
        path.write_bytes(content)
        with pytest.raises(
            OSError, match=r"3dshapes\.h5 is truncated or no HDF5 file .*download 3dshapes\.h5"
        ):
            open_dataset("shapes3d", path=path)
    cases = {
        "is not the 3D Shapes file: expected the arrays images and labels, got pictures": {
            "pictures": images
        },
        r"must hold uint8 images \(n, height, width, 3\) and labels": {
            "images": images,
            "labels": labels[1:],
        },
    }
    for sentence, arrays in cases.items():
        path.unlink()
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
        with pytest.raises(ValueError, match=sentence):
            open_dataset("shapes3d", path=path)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*; expected 3dshapes\.h5"):
        open_dataset("shapes3d", path=path.with_name("none.h5"))


def test_without_h5py_the_extra_is_named(h5, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"reading 3D Shapes needs h5py.*pip install 'latentlab\[h5\]'"):
        open_dataset("shapes3d", path=h5[0])


@pytest.mark.gpu
def test_bits_unpack_on_the_gpu(npz):
    path, images, _ = npz
    data = open_dataset("dsprites", path=path).to("cuda")
    read = data.images(data.batch(64, 0, 0))
    assert read.device.type == "cuda"
    assert np.array_equal(read[:, 0].cpu().numpy(), images[data.batch(64, 0, 0).cpu()].astype(np.float32))
