"""UMAP and t-SNE: layouts in the plane that keep neighbours together, one fit at a time, with progress.

Both may start from positions of an earlier layout, so that the layout of a later checkpoint does not begin anew.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

Progress = Callable[[int, int], object]

_EPOCHS = 100
_ITERATIONS = 1000
_warming = threading.Lock()
# One fit at a time: where numba has no thread-safe layer, two at once would end the process.
_fitting = threading.Lock()
_warm_thread: threading.Thread | None = None
_warm = threading.Event()


def warm_up() -> threading.Thread:
    """Compiles UMAP in a background thread, once in a process: its first map waits half a minute for that.

    Returns:
        The thread; join it to wait. It never raises: without a working UMAP, ``project`` says why.
    """
    global _warm_thread
    with _warming:
        if _warm_thread is None:
            _warm_thread = threading.Thread(target=_compile, name="umap-warm-up", daemon=True)
            _warm_thread.start()
        return _warm_thread


def umap_is_warm() -> bool:
    """Whether UMAP is compiled in this process, so that a map takes seconds."""
    return _warm.is_set()


def _compile() -> None:
    try:
        # Twice, since UMAP finds the neighbours of 4,096 codes and more in another way than those of fewer.
        codes = np.random.default_rng(0).standard_normal((4_200, 4)).astype(np.float32)
        for some in (codes, codes[:200]):
            umap(some, 2, 0, 15)
        _warm.set()
    except Exception:  # whatever is wrong, the call that needs UMAP will say it to somebody
        return


def umap(
    codes: np.ndarray,
    dims: int,
    seed: int,
    neighbours: int,
    start: np.ndarray | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Positions (n, dims) by UMAP, from the principal components or from ``start`` (n, dims)."""
    shown = {} if progress is None else {"verbose": True, "tqdm_kwds": {"file": _Percent(progress)}}
    with _fitting, contextlib.redirect_stdout(_Quiet()) if shown else contextlib.nullcontext():
        reducer = _umap_class()(
            n_components=dims,
            n_neighbors=min(neighbours, len(codes) - 1),
            init="pca" if start is None else np.asarray(start, np.float32),
            n_epochs=_EPOCHS,
            random_state=seed,
            n_jobs=1,  # what a fixed random_state allows; said here to keep UMAP from warning
            **shown,
        )
        return reducer.fit_transform(codes)


def _umap_class() -> Any:
    with warnings.catch_warnings():
        # On import it warns that TensorFlow, which an unused part of it needs, is not there.
        warnings.simplefilter("ignore")
        import sklearn  # noqa: F401  (whole before its parts)
        import umap as package
    return package.UMAP


def tsne(
    codes: np.ndarray,
    dims: int,
    seed: int,
    neighbours: int,
    start: np.ndarray | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Positions (n, dims) by t-SNE, from the principal components or from ``start`` (n, dims)."""
    import sklearn  # noqa: F401  (whole before its parts)
    from sklearn.manifold import TSNE

    begin: Any = "pca"
    if start is not None:
        begin = np.asarray(start, np.float32)
    layout = TSNE(
        dims,
        perplexity=min(2.0 * neighbours, (len(codes) - 1) / 3.0),
        max_iter=_ITERATIONS,
        init=begin,
        # Exaggeration gathers clusters out of a start that knows none; an earlier layout would only be crushed by it.
        early_exaggeration=12.0 if start is None else 1.0,
        random_state=seed,
        method="barnes_hut" if dims < 4 else "exact",
        verbose=0 if progress is None else 2,
    )
    with contextlib.nullcontext() if progress is None else contextlib.redirect_stdout(_Rounds(progress)):
        return layout.fit_transform(codes)


class _Quiet:
    """Stands in for standard output while a library that only speaks through it is at work."""

    def __init__(self) -> None:
        self._thread, self._out = threading.get_ident(), sys.stdout

    def write(self, text: str) -> int:
        """Keeps what this thread prints, and passes on what others do."""
        if threading.get_ident() == self._thread:
            self.heard(text)
        else:
            self._out.write(text)
        return len(text)

    def heard(self, text: str) -> None:
        """Called with what this thread prints."""

    def flush(self) -> None:
        """Passes on."""
        self._out.flush()


class _Rounds(_Quiet):
    """Reads how far scikit-learn's t-SNE is off the lines it prints, the only place where it says so."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def heard(self, text: str) -> None:
        if found := re.search(r"Iteration (\d+)", text):
            with contextlib.redirect_stdout(self._out):
                self._progress(int(found[1]), _ITERATIONS)


class _Percent:
    """Reads how far UMAP is off the bar it draws."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def write(self, text: str) -> int:
        if found := re.search(r"(\d+)/(\d+)", text):
            self._progress(int(found[1]), int(found[2]))
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""
