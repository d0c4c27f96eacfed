"""Codes of up to a million images, encoded in the background a piece at a time and kept in the workspace.

Images come in one fixed order, drawn once a data set, so that the first ten thousand are a fair sample of all and a map
only ever gains points. Each piece is a file of its own, named by the row it begins at: a process that ends in the
middle loses one piece, and two processes write the same.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from latentlab.app import state
from latentlab.files import atomic_write

if TYPE_CHECKING:
    from latentlab.data.factors import FactorDataset
    from latentlab.runs import Run

MOST = 1_000_000
FIRST, PIECE = 2_000, 10_000
ERROR_PIECE = 2_000
FORMAT = 1
SEED = 0
_PROBED = 8

Report = Callable[[float, str], None]


def order_of(data: FactorDataset) -> np.ndarray:
    """Numbers of the images in the order in which a map shows them, int64 (at most a million,)."""
    return data.batch(min(len(data), MOST), SEED, 0).cpu().numpy().astype(np.int64)


class CodeStore:
    """Posterior means, KL and reconstruction errors of a data set's images under one model's weights.

    Args:
        run: whose model and data.
        data: its data.
        folder: where pieces are kept; None to keep them in memory only.

    Attributes:
        order: image numbers, (size,).
        size: images there are to encode.
        mean: posterior means, (size, dim); rows from ``count`` on are not known yet.
        kl: nats an image, (size,); likewise.
        errors: mean squared error a pixel of reconstructions, (size,), NaN where not measured.
        count: rows whose codes are known.
        measured: rows whose errors are known.
    """

    def __init__(self, run: Run, data: FactorDataset, folder: Path | None) -> None:
        self._model, self._data = run.model, data
        self.order = order_of(data)
        self.size = len(self.order)
        dim = run.model.latent_space.dim
        self.mean = np.empty((self.size, dim), np.float32)
        self.kl = np.empty(self.size, np.float32)
        self.errors = np.full(self.size, np.nan, np.float32)
        self.count = self.measured = 0
        self._factors: np.ndarray | None = None
        self._folder = self._home(folder, run)
        self._turn = threading.Lock()
        self._load()

    def end_after(self, row: int) -> int:
        """Where the piece that begins at ``row`` ends."""
        end = FIRST if row < FIRST else PIECE * (row // PIECE + 1)
        return min(end, self.size)

    def extend(self, report: Report) -> int:
        """Encodes the next piece and keeps it; how many rows are known then."""
        with self._turn:
            begin, end = self.count, self.end_after(self.count)
            if begin == end:
                return begin
            found = self._encode(begin, end, False, report)
            self._take(begin, found.mean, found.kl.sum(axis=1))
            self.save("codes", begin, np.column_stack([found.mean, self.kl[begin:end]]))
            return self.count

    def measure(self, report: Report) -> int:
        """Decodes the next piece too and keeps the errors; how many rows are measured then."""
        with self._turn:
            begin, end = self.measured, min(self.measured + ERROR_PIECE, self.count)
            if begin == end:
                return begin
            found = self._encode(begin, end, True, report)
            self.errors[begin:end] = found.reconstruction_error
            self.measured = end
            if end - begin == ERROR_PIECE:
                self.save("errors", begin, self.errors[begin:end])
            return end

    def factors(self, n: int) -> np.ndarray:
        """Ground-truth factors of the first ``n`` rows, int32 (n, factors); no columns where the data have none."""
        if self._data.factor_space is None:
            return np.empty((n, 0), np.int32)
        known = 0 if self._factors is None else len(self._factors)
        if known < n:
            new = self._data.factors(self.order[known:n]).cpu().numpy().astype(np.int32)
            self._factors = new if self._factors is None else np.concatenate([self._factors, new])
        assert self._factors is not None
        return self._factors[:n]

    def rows_of(self, images: np.ndarray, n: int) -> np.ndarray:
        """Rows among the first ``n`` that show these images."""
        return np.flatnonzero(np.isin(self.order[:n], images))

    def _encode(self, begin: int, end: int, reconstruction: bool, report: Report) -> Any:
        from latentlab.analysis import encode_dataset

        doing = "decoding" if reconstruction else "encoding"
        return encode_dataset(
            self._model,
            self._data,
            self.order[begin:end],
            reconstruction=reconstruction,
            progress=lambda done, total: report(done / total, f"{doing} {begin + done:,} of {self.size:,}"),
            batch_size=64,  # a page that asks for one image meanwhile waits for one batch at most
        )

    def _take(self, begin: int, mean: np.ndarray, kl: np.ndarray) -> None:
        end = begin + len(mean)
        self.mean[begin:end] = mean
        self.kl[begin:end] = kl
        self.count = end  # last: readers take rows below it

    def _home(self, folder: Path | None, run: Run) -> Path | None:
        if folder is None:
            return None
        images = (
            self._data.images(self.order[:_PROBED]).cpu().numpy()
        )  # sets of one name may hold other images
        what = [FORMAT, SEED, self.size, self.mean.shape[1], run.digest, state.data_key(run)]
        key = hashlib.sha256(json.dumps(what).encode() + images.tobytes()).hexdigest()[:16]
        return folder / f"map-{key}"

    def _load(self) -> None:
        while self.count < self.size:
            piece = self.read(
                "codes", self.count, (self.end_after(self.count) - self.count, self.mean.shape[1] + 1)
            )
            if piece is None:
                break
            self._take(self.count, piece[:, :-1], piece[:, -1])
        while self.measured < self.count:
            piece = self.read("errors", self.measured, (ERROR_PIECE,))
            if piece is None or self.measured + ERROR_PIECE > self.count:
                break
            self.errors[self.measured : self.measured + ERROR_PIECE] = piece
            self.measured += ERROR_PIECE

    def read(self, kind: str, begin: int, shape: tuple[int, ...]) -> np.ndarray | None:
        """A kept piece, or None where it is missing, cut off or of other data."""
        if self._folder is None:
            return None
        try:
            piece = np.load(self._folder / f"{kind}-{begin:07d}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return piece if piece.shape == shape and np.isfinite(piece).all() else None

    def save(self, kind: str, begin: int, piece: np.ndarray) -> None:
        """Keeps a piece, where there is a folder and room in it."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._folder / f"{kind}-{begin:07d}.npy") as file:
                np.save(file, np.asarray(piece, np.float32), allow_pickle=False)
        except OSError:
            return  # a full disk costs only the wait next time


def store_of(run: Run) -> CodeStore:
    """The codes of a run's data, opened once a process.

    Raises:
        OSError: if the data are not on this machine.
        ValueError: if the model does not fit them.
    """
    return _store(run.digest, state.data_key(run), run)


@st.cache_resource(max_entries=6, show_spinner=False)
def _store(digest: str, data: str, _run: Run) -> CodeStore:
    try:
        folder = state.workspace().cache(digest, "map", "").parent
    except OSError:
        folder = None
    return CodeStore(_run, state.dataset(_run), folder)
