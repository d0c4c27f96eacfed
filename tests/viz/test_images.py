import numpy as np
import pytest
from PIL import Image

from latentlab.viz import colours, images, lettering, to_pil


def test_pixels_are_exact_and_enlarged_without_smoothing():
    """Fails smoothing, channel order and rounding down."""
    image = np.zeros((3, 2, 2))
    image[0, 0, 0], image[1, 0, 1], image[2, 1, 0], image[:, 1, 1] = 1.0, 1.0, 1.0, 0.5
    picture = np.asarray(to_pil(image, scale=3))
    assert picture.shape == (6, 6, 3)
    assert (picture[:3, :3] == [255, 0, 0]).all() and (picture[:3, 3:] == [0, 255, 0]).all()
    assert (picture[3:, :3] == [0, 0, 255]).all() and (picture[3:, 3:] == 128).all()


def test_grey_images_become_rgb_and_values_outside_are_clipped():
    picture = np.asarray(to_pil(np.array([[[-1.0, 2.0, np.nan]]])))
    assert picture[0].tolist() == [[0, 0, 0], [255, 255, 255], [255, 255, 255]]


def test_a_grid_puts_each_image_in_its_cell():
    """Fails rows and columns exchanged, and images stretched."""
    cells = np.zeros((2, 3, 1, 4, 4))
    for i in range(2):
        for j in range(3):
            cells[i, j] = (3 * i + j + 1) / 10
    picture = np.asarray(images.grid(cells, scale=2, gap=1))
    assert picture.shape == (2 * 8 + 3, 3 * 8 + 4, 3)
    for i in range(2):
        for j in range(3):
            cell = picture[1 + 9 * i : 9 + 9 * i, 1 + 9 * j : 9 + 9 * j]
            assert (cell == round(255 * (3 * i + j + 1) / 10)).all()
    assert (picture[0] == 255).all() and (picture[:, 9] == 255).all()


def test_labels_take_room_beside_the_images_not_over_them():
    cells = np.zeros((1, 2, 1, 4, 4))
    bare = images.grid(cells, scale=10)
    labelled = images.grid(cells, scale=10, row_labels=["z0\nnote"], column_labels=["a", "b"], title="Title")
    assert labelled.width > bare.width and labelled.height > bare.height
    assert (np.asarray(labelled) == 0).all(axis=2).sum() >= 2 * 40 * 40  # all black pixels are still there
    marked = images.grid(cells, scale=10, marked={(0, 1)})
    assert (np.asarray(marked) == colours.WARNING).all(axis=2).any()


def test_an_empty_cell_stays_paper():
    cells = np.zeros((1, 2, 1, 4, 4))
    cells[0, 1] = np.nan
    picture = np.asarray(images.grid(cells, scale=1, gap=0))
    assert (picture[:, :4] == 0).all() and (picture[:, 4:] == 255).all()


def test_a_signed_difference_keeps_its_sign_and_a_fixed_scale():
    """Fails per-image min-max scaling, which hides the sign and makes noise look like an effect."""
    signed = np.zeros((1, 1, 3))
    signed[0, 0] = [-0.1, 0.0, 0.1]
    blue, white, red = np.asarray(images.difference(signed, limit=0.1))[0].astype(int)
    assert blue[2] > blue[0] + 50 and red[0] > red[2] + 50 and (white >= 248).all()
    weak = np.asarray(images.difference(signed, limit=10.0))[0].astype(int)
    assert (np.abs(weak - white) < 6).all()
    assert images.difference_limit(np.zeros((2, 3, 4, 4))) == 1 / 255
    assert images.difference(signed, scale=30, bar=True).height > 30


def test_feature_sheets_share_one_scale_and_cross_out_what_is_off():
    maps = np.zeros((3, 2, 2))
    maps[1], maps[2] = 0.5, 1.0
    sheet = np.asarray(images.feature_sheet(maps, columns=3, scale=10))
    dark, middle, light = (sheet[20, 10 + 22 * i + 10].astype(int).sum() for i in range(3))
    assert dark < middle < light
    each = np.asarray(images.feature_sheet(maps, columns=3, scale=10, each=True))
    assert (each[20, 10 + 22 + 10] == each[20, 10 + 44 + 10]).all()
    off = np.asarray(images.feature_sheet(maps, columns=3, scale=10, off=[2]))
    assert not (np.asarray(sheet) == colours.WARNING).all(axis=2).any()
    crossed = np.argwhere((off == colours.WARNING).all(axis=2))
    assert crossed[:, 1].min() >= 10 + 44 - 1
    assert images.feature_sheet(np.zeros((256, 1, 1))).width < 1400


def test_an_overlay_warms_the_hot_place_only():
    picture = np.asarray(images.overlay(np.full((1, 8, 8), 0.5), np.eye(2)[::-1] * [[0, 1], [0, 0]]))
    assert (picture[-1, 0] == 128).all() and picture[0, -1].std() > 20


@pytest.mark.parametrize(
    ("call", "wording"),
    [
        (lambda: to_pil(np.zeros((2, 4, 4))), r"1 or 3 channels, height, width\); got shape \(2, 4, 4\)"),
        (lambda: images.grid(np.zeros((2, 1, 4, 4))), "Expected images"),
        (
            lambda: images.grid(np.zeros((1, 2, 1, 4, 4)), column_labels=["a"]),
            "column_labels must be 2 texts; got 1",
        ),
        (lambda: images.feature_sheet(np.zeros((4, 4))), r"Expected maps \(units, height, width\)"),
        (lambda: to_pil(np.zeros((1, 4, 4)), scale=0), "scale must be a whole number of at least 1"),
    ],
)
def test_wrong_arguments_get_a_sentence(call, wording):
    with pytest.raises(ValueError, match=wording):
        call()


def test_gif_and_mp4_play_every_frame(tmp_path):
    """Fails frames that are dropped or all alike."""
    import io

    av = pytest.importorskip("av", reason="the video extra is not installed")
    frames = [Image.new("RGB", (33, 21), (40 * i, 0, 255 - 40 * i)) for i in range(6)]
    gif = Image.open(io.BytesIO(images.gif_bytes(frames, fps=10)))
    assert gif.n_frames == 6 and gif.info["duration"] == 100 and gif.info["loop"] == 0
    for i in range(6):
        gif.seek(i)
        assert np.abs(np.array(gif.convert("RGB").getpixel((5, 5))) - frames[i].getpixel((5, 5))).max() <= 8
    path = images.save_media(frames, tmp_path / "film.mp4", fps=10)
    with av.open(str(path)) as film:
        shown = [f.to_ndarray(format="rgb24") for f in film.decode(video=0)]
        assert film.streams.video[0].codec_context.name == "h264"
    assert len(shown) == 6 and shown[0].shape == (22, 34, 3)
    assert np.abs(shown[5][5, 5].astype(int) - frames[5].getpixel((5, 5))).max() < 25


def test_mp4_without_the_extra_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"pip install 'latentlab\[video\]', or choose \.gif"):
        images.mp4_bytes([Image.new("RGB", (4, 4))])


def test_files_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    frames = [Image.new("RGB", (4, 4))]
    with pytest.raises(ValueError, match=r"ends in \.png, \.jpg, \.gif, \.mp4; got 'x\.bmp'"):
        images.save_media(frames, tmp_path / "x.bmp")
    with pytest.raises(ValueError, match="at least one frame"):
        images.gif_bytes([])
    with pytest.raises(ValueError, match="fps must lie above 0"):
        images.gif_bytes(frames, fps=0)
    with pytest.raises(ValueError, match="All frames must have one size"):
        images.gif_bytes([*frames, Image.new("RGB", (5, 4))])
    with pytest.raises(OSError):
        images.save_media(frames, tmp_path / "missing" / "x.png")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        images.save_media(frames, tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_text_is_as_wide_as_it_says_and_wraps():
    text = "a caption of several words that is too long for one line"
    assert lettering.width(lettering.wrapped(text, 120, 11), 11) <= 120
    sheet = Image.new("RGB", (300, 40), colours.PAPER)
    lettering.write(sheet, (0, 0), "MMMM", size=20)
    inked = np.argwhere(np.asarray(sheet).min(axis=2) < 200)[:, 1]
    assert abs(inked.max() - lettering.width("MMMM", 20)) <= 3
