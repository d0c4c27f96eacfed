"""Layouts that grow: fitted on the first ten thousand codes, the others placed on them as they come.

A layout of a checkpoint starts from that of the finished run and is laid on it by Procrustes, so that points move only
as far as the model moved them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from latentlab.analysis.results import array_digest
from latentlab.app import engine, state
from latentlab.app.mapping.codes import PIECE, CodeStore
from latentlab.app.mapping.lasso import Lasso

if TYPE_CHECKING:
    from latentlab.analysis.projection import Projection
    from latentlab.runs import Run

QUESTION = "map-layout"
FITTED = 10_000
PROBED = 100_000
"""Codes that a position's distance, density and decoded code are taken from; a fair sample of any more."""
_PLACED_AT_ONCE = 2_000

Report = Callable[[float, str], None]


class GrowingLayout:
    """Positions of a store's codes on one fitted map.

    Args:
        store: the codes.
        fitted: the map of the store's first codes.

    Attributes:
        count: rows that have a position.
        points: positions, (size, 2) float32; rows from ``count`` on have none yet.
    """

    def __init__(self, store: CodeStore, fitted: Projection) -> None:
        self.store, self.fitted = store, fitted
        self.points = np.empty((store.size, 2), np.float32)
        self.count = len(fitted.points)
        self.points[: self.count] = fitted.points[:, :2]
        self._turn = threading.Lock()
        self._probed: Projection | None = None
        self._lasso: tuple[int, Lasso] | None = None
        self._kind = f"placed-{fitted.method}-{array_digest(fitted.points)[:12]}"
        self._load()

    @property
    def quick(self) -> bool:
        """Whether codes are placed by one multiplication, so that nobody has to wait for it."""
        return self.fitted.components is not None

    def place(self, end: int, report: Report | None = None) -> int:
        """Places codes up to row ``end``, as far as they are known; how many have a position then."""
        with self._turn:
            end = min(end, self.store.count)
            if self.quick and end > self.count:
                center, axes = (
                    np.asarray(a, np.float32) for a in (self.fitted.center, self.fitted.components)
                )
                self.points[self.count : end] = (self.store.mean[self.count : end] - center) @ axes.T
                self.count = end
            begin = self.count
            while self.count < end:
                stop = min(self.count + _PLACED_AT_ONCE, end)
                self.points[self.count : stop] = self.fitted.place(self.store.mean[self.count : stop])
                self.count = stop
                if stop % PIECE == 0:
                    self.store.save(self._kind, stop - PIECE, self.points[stop - PIECE : stop])
                if report is not None:
                    report((stop - begin) / (end - begin), f"placing {stop:,} of {end:,}")
            return self.count

    def _load(self) -> None:
        """Takes up the positions that were placed before."""
        while not self.quick and self.count % PIECE == 0 and self.count + PIECE <= self.store.count:
            piece = self.store.read(self._kind, self.count, (PIECE, 2))
            if piece is None:
                return
            self.points[self.count : self.count + PIECE] = piece
            self.count += PIECE

    def prepare(self, n: int) -> None:
        """Makes ready in the background what the first lasso and the first click of a large map need."""
        if n >= PROBED and (self._lasso is None or self._lasso[0] != n):
            threading.Thread(target=self.lasso, args=(n,), daemon=True, name="latentlab-lasso").start()

    def probe(self, n: int) -> Projection:
        """The map of the first ``n`` rows, at most PROBED of them, to ask for codes, distances and densities."""
        n = min(n, self.count, PROBED)
        if n == len(self.fitted.points):
            return self.fitted
        with self._turn:
            if self._probed is None or len(self._probed.points) != n:
                self._probed = self.fitted.grown(self.store.mean[:n], self.points[:n])
            return self._probed

    def lasso(self, n: int) -> Lasso:
        """The first ``n`` points, ready for lassos."""
        with self._turn:
            if self._lasso is None or self._lasso[0] != n:
                self._lasso = (n, Lasso(self.points[:n]))
            return self._lasso[1]


def fitted_rows(store: CodeStore, n: int) -> int:
    """How many codes the layout of ``n`` points is fitted on now: as many as are known, ten thousand at most."""
    return min(n, store.count, FITTED)


def layout_job(run: Run, store: CodeStore, method: str, rows: int, final: Run | None = None) -> state.Job:
    """The background job that fits a layout on the first ``rows`` codes; its result is a GrowingLayout.

    Args:
        run: whose model.
        store: its codes, at least ``rows`` of them known.
        method: "pca", "umap" or "tsne".
        rows: how many.
        final: the finished run, where ``run`` is one of its checkpoints: its layout is fitted first, and this one is
            laid on it.
    """

    def work(report: Report) -> GrowingLayout:
        reference = None
        if final is not None:
            reference = _fit(final, _first_codes(final, rows, report), method, rows, None, report)
        return GrowingLayout(store, _fit(run, store.mean[:rows], method, rows, reference, report))

    return state.job(run, QUESTION, layout_key(run, method, rows, final), work, heavy=method != "pca")


def layout_key(run: Run, method: str, rows: int, final: Run | None) -> tuple:
    """What names such a job, beside the weights."""
    return (method, rows, "" if final is None else final.digest, state.data_key(run))


def _first_codes(run: Run, rows: int, report: Report) -> np.ndarray:
    from latentlab.app.mapping.codes import store_of

    store = store_of(run)
    while store.count < rows:
        store.extend(lambda share, message: report(0.5 * share, f"the finished run: {message}"))
    return store.mean[:rows]


def _fit(
    run: Run, codes: np.ndarray, method: str, rows: int, reference: Projection | None, report: Report
) -> Projection:
    """The layout of these codes, read back from the workspace where it was fitted before."""
    from latentlab.analysis import Projection, load_result, procrustes, project

    codes = np.array(codes)  # the store's own array goes on growing
    name = f"layout-{method}-{rows}" + ("" if reference is None else "-aligned")
    stored = _kept(run, name) if method != "pca" else None
    if stored is not None and stored.exists():
        try:
            found = load_result(stored)
            if isinstance(found, Projection) and np.array_equal(found.codes, codes):
                return found if reference is None else procrustes(found, reference)
        except state.USER_ERRORS:
            pass  # a damaged file is computed again
    start = None if reference is None or method == "pca" else reference.points
    if method == "pca" or not engine.serving():
        found = project(codes, method, start=start)
    else:
        found = state.layout_process().project(codes, method, start=start, report=report)
    if stored is not None:
        try:
            found.save(stored)
        except OSError:
            pass  # a full disk costs only the wait next time
    return found if reference is None else procrustes(found, reference)


def _kept(run: Run, name: str):
    try:
        return state.workspace().cache(run.digest, name, ".npz")
    except OSError:
        return None


@st.cache_resource(max_entries=12, show_spinner=False)
def at_step(digest: str, path: str, step: int, _run: Run) -> Run:
    """A run with the weights of an earlier step, opened once."""
    earlier = _run.at(step)
    earlier.model  # noqa: B018 (loaded here, once)
    return earlier


def checkpoint(run: Run, step: int | None) -> Run:
    """The run at a step, or the run itself."""
    return run if step is None else at_step(run.digest, str(run.path), step, run)
