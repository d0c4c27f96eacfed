"""Files of pictures: PNG, JPEG, GIF, and MP4 where the video extra is installed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from latentlab.files import atomic_write

SUFFIXES = (".png", ".jpg", ".gif", ".mp4")


def png_bytes(image: Image.Image, text: str = "") -> bytes:
    """The image as PNG; ``text`` is kept in it as its description."""
    about = PngImagePlugin.PngInfo()
    if text:
        about.add_itxt("Description", text)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=about, optimize=image.width * image.height < 1_000_000)
    return buffer.getvalue()


def gif_bytes(frames: Sequence[Image.Image], fps: float = 12) -> bytes:
    """A GIF that repeats for ever.

    Args:
        frames: RGB images of one size.
        fps: frames a second; GIF counts in hundredths of a second, most viewers stop at 50.

    Raises:
        ValueError: on no frames or a speed outside (0, 50].
    """
    frames = _checked(frames, fps, 50)
    # Quantised here by octree: Pillow's default for RGB frames takes a hundred times as long.
    palettes = [f.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) for f in frames]
    buffer = io.BytesIO()
    palettes[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=palettes[1:],
        duration=round(1000 / fps),
        loop=0,
        disposal=1,
    )
    return buffer.getvalue()


def mp4_bytes(frames: Sequence[Image.Image], fps: float = 12) -> bytes:
    """An H.264 video that every browser plays.

    Args:
        frames: RGB images of one size.
        fps: frames a second.

    Raises:
        ValueError: if PyAV, the video extra, is not installed; on no frames or a speed outside (0, 120].
    """
    frames = _checked(frames, fps, 120)
    try:
        import av
    except ImportError:
        raise ValueError(
            "Writing MP4 needs the package av: pip install 'latentlab[video]', or choose .gif instead."
        ) from None
    # H.264 with 4:2:0 colour wants even sides.
    wide, high = (side + side % 2 for side in frames[0].size)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as video:
        stream = video.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = wide, high, "yuv420p"
        # One thread: with more, the bytes depend on how many cores there are.
        stream.options, stream.thread_count = {"crf": "16", "threads": "1"}, 1
        for frame in frames:
            padded = Image.new("RGB", (wide, high), frame.getpixel((0, 0)))
            padded.paste(frame)
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.asarray(padded), format="rgb24")):
                video.mux(packet)
        for packet in stream.encode():
            video.mux(packet)
    return buffer.getvalue()


def save_media(frames: Sequence[Image.Image], path: str | Path, fps: float = 12, text: str = "") -> Path:
    """Writes pictures in the format of the file's ending: .png or .jpg (the first frame), .gif or .mp4.

    The file appears whole or not at all.

    Raises:
        ValueError: on another ending, or no frames.
        OSError: if the folder is not there or can't be written.
    """
    path = Path(path)
    suffix = ".jpg" if path.suffix.lower() == ".jpeg" else path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"A picture's file ends in {', '.join(SUFFIXES)}; got {path.name!r}.")
    frames = _checked(frames, fps, 120)
    if suffix == ".png":
        content = png_bytes(frames[0], text)
    elif suffix == ".jpg":
        buffer = io.BytesIO()
        frames[0].save(buffer, "JPEG", quality=92, comment=text.encode())
        content = buffer.getvalue()
    else:
        content = gif_bytes(frames, fps) if suffix == ".gif" else mp4_bytes(frames, fps)
    with atomic_write(path) as file:
        file.write(content)
    return path


def _checked(frames: Sequence[Image.Image], fps: float, fastest: float) -> list[Image.Image]:
    if not frames:
        raise ValueError("A picture needs at least one frame; got none.")
    if not 0 < fps <= fastest:
        raise ValueError(f"fps must lie above 0 and at most at {fastest}; got {fps}.")
    sizes = {frame.size for frame in frames}
    if len(sizes) > 1:
        raise ValueError(f"All frames must have one size; got {sorted(sizes)}.")
    return [frame.convert("RGB") for frame in frames]
