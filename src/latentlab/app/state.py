"""What the pages share: runs, data sets, encodings and background jobs, each computed once a process.

The only caches of the app. Every key that depends on a model holds the digest of its weights, so a run that is
trained again under the same name is never answered with the old one's pictures.
"""

from __future__ import annotations

import io
import json
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from latentlab.app import server, theme
from latentlab.app.jobs import USER_ERRORS, Job
from latentlab.app.layouts import LayoutProcess

if TYPE_CHECKING:
    from PIL import Image

    from latentlab.analysis.direction import Direction
    from latentlab.analysis.encoding import Encoding
    from latentlab.data.factors import FactorDataset
    from latentlab.metrics.report import Report
    from latentlab.models.edits import Edit
    from latentlab.runs import Run, RunSummary, Workspace
    from latentlab.viz import Picture

ENCODED = 2000
"""Data images behind slider ranges, the order by KL and the list of active latents."""

HEAD_START = 8.0
"""Seconds that the first page has the machine for itself; a map that is asked for earlier starts at once."""


def workspace() -> Workspace:
    """The folder of the user's runs, which also holds everything computed about any run."""
    from latentlab.runs import Workspace

    return Workspace(server.runs_dir())


def runs() -> dict[str, RunSummary]:
    """All runs there are now, by address: brought ones first, then shipped ones, then the workspace's, damaged or not.

    An address is "zoo:NAME", "brought:NAME", or the run's path within the workspace, "./zoo:NAME" where that begins
    like one of the former; only listed runs can be opened.
    """
    from latentlab.runs import RunSummary, zoo_runs

    home = workspace()
    brought = {n: RunSummary(run.path, n, run.experiment, "", True) for n, run in server.BROUGHT.items()}
    own = {}
    for summary in home.runs():
        address = summary.path.relative_to(home.path).as_posix()
        own[f"./{address}" if address.startswith(("zoo:", "brought:")) else address] = summary
    return brought | {summary.name: summary for summary in zoo_runs()} | own


def open_run(address: str) -> Run:
    """The run at an address, opened once until its files change.

    Raises:
        ValueError: if there is no such run, or it is damaged; one sentence.
        OSError: if it can't be read.
    """
    if address in server.BROUGHT:
        return server.BROUGHT[address]
    known = runs()
    if address not in known:
        raise ValueError(f"There is no run {address!r} here; there are: {', '.join(known) or 'none yet'}.")
    summary = known[address]
    return _open_run(summary.name, _stamp(summary.path))


def _stamp(path: Path) -> tuple:
    stamps = []
    for name in ("config.json", "weights.safetensors"):
        try:
            info = (path / name).stat()
            stamps.append((info.st_mtime_ns, info.st_size))
        except OSError:
            stamps.append(None)
    return tuple(stamps)


@st.cache_resource(max_entries=128, show_spinner=False)
def _open_run(name: str, stamp: tuple) -> Run:
    from latentlab.runs import Run

    run = Run.open(name)
    run.model  # noqa: B018 (loaded here, once, so that no two sessions load it together)
    return run


def data_key(run: Run) -> str:
    """Names the run's data set with its options: part of every key about its images."""
    data = run.config.data
    return json.dumps([data.name, data.options], sort_keys=True)


def dataset(run: Run) -> FactorDataset:
    """The images the run was trained on.

    Raises:
        OSError: if they are not on this machine; the sentence says how to get them.
        ValueError: if the run names data that do not exist.
    """
    return _dataset(data_key(run), run)


@st.cache_resource(max_entries=16, show_spinner=False)
def _dataset(key: str, _run: Run) -> FactorDataset:
    return _run.dataset()


def dataset_or_reason(run: Run) -> tuple[FactorDataset | None, str]:
    """The run's data set, or None and the sentence that says why it can't be shown."""
    try:
        return dataset(run), ""
    except USER_ERRORS as error:
        return None, str(error)


def encodes(run: Run) -> bool:
    """Whether the run's model can encode images (a VAE can, a plain GAN can't)."""
    from latentlab.models.contract import is_inference_model

    return is_inference_model(run.model)


def encoding_job(run: Run, n: int = ENCODED, seed: int = 0, reconstruction: bool = False) -> Job | None:
    """The job that encodes ``n`` data images; None for a model without encoder or without its data at hand."""
    if not encodes(run) or dataset_or_reason(run)[0] is None:
        return None

    def work(report: Callable[[float, str], None]) -> Encoding:
        return encode(run, n, seed, report, reconstruction)

    return job(run, "encoding", (n, seed, reconstruction, data_key(run)), work)


def encode(
    run: Run, n: int, seed: int, report: Callable[[float, str], None], reconstruction: bool = False
) -> Encoding:
    """Encodes ``n`` data images, or reads them back from the workspace, keyed by the weights.

    Args:
        run: whose model and data.
        n: number of images, drawn by ``seed``.
        seed: of the draw.
        report: told how far it is.
        reconstruction: measure each image's reconstruction error too, which takes several times as long.
    """
    from latentlab.analysis import encode_dataset

    return encode_dataset(
        run.model,
        dataset(run),
        n,
        seed=seed,
        cache=_kept(run, "encoding", "", folder=True),
        progress=lambda done, total: report(done / total, f"encoding {done:,} of {total:,}"),
        reconstruction=reconstruction,
        batch_size=64,  # a page that asks for one image meanwhile waits for one batch at most
    )


def _kept(run: Run, name: str, suffix: str, folder: bool = False) -> Path | None:
    """Where a result about these weights is kept; None where the workspace can't be written to."""
    try:
        path = workspace().cache(run.digest, name, suffix)
    except OSError:
        return None
    return path.parent if folder else path


def computed(run: Run, question: str, arguments: Hashable, call: Callable[[], Any]) -> Any:
    """The answer to a question about a run's weights, computed once: ``call()`` decides it, the key names it."""
    keep = _kept_long if question == "sheet" else _computed
    return keep(run.digest, question, arguments, call)


@st.cache_resource(max_entries=512, show_spinner=False)
def _kept_long(digest: str, question: str, arguments: Hashable, _call: Callable[[], Any]) -> Any:
    return _call()


# Few: each release of a slider asks anew, and the strips of one colour model take megabytes.
@st.cache_resource(max_entries=32, show_spinner=False)
def _computed(digest: str, question: str, arguments: Hashable, _call: Callable[[], Any]) -> Any:
    return _call()


def checkpoint(run: Run, step: int) -> Run:
    """The run at an earlier step, opened once: a live session ends when its model becomes another object.

    Raises:
        ValueError: if no weights of that step were kept.
        OSError: if they can't be read.
    """
    return _checkpoint(run.digest, step, run)


@st.cache_resource(max_entries=16, show_spinner=False)
def _checkpoint(digest: str, step: int, _run: Run) -> Run:
    earlier = _run.at(step)
    earlier.model  # noqa: B018 (loaded here, once, so that no two sessions load it together)
    return earlier


def directions(run: Run) -> tuple[Direction, ...]:
    """The directions that were saved for these weights, by name; none where their file can't be read."""
    from latentlab.analysis.direction import load_directions

    try:
        return load_directions(_directions_file(run))
    except USER_ERRORS:
        return ()


def save_direction(run: Run, direction: Direction) -> None:
    """Keeps a direction in the workspace beside those that are there now; one of the same name gives way.

    Raises:
        ValueError: if the file of directions can't be understood.
        OSError: if it can't be read or written. In either case it stays as it is.
    """
    _change_directions(run, direction.name, direction)


def drop_direction(run: Run, name: str) -> None:
    """Forgets a saved direction.

    Raises:
        ValueError: as ``save_direction``.
        OSError: likewise.
    """
    _change_directions(run, name)


def _change_directions(run: Run, name: str, *instead: Direction) -> None:
    from latentlab.analysis.direction import load_directions, save_directions
    from latentlab.files import sole_writer

    path = _directions_file(run)
    with sole_writer(path):
        try:
            kept = load_directions(path) if path.exists() else ()
        except ValueError as error:
            raise ValueError(f"Nothing was saved: {error} Mend that file or move it away.") from None
        save_directions(path, [*(other for other in kept if other.name != name), *instead])


def _directions_file(run: Run) -> Path:
    return workspace().path / "directions" / f"{run.digest[:16]}.json"


class Drawn:
    """A result with its picture, drawn and packed once for all reruns of a page.

    Attributes:
        result: what an analysis returned.
    """

    def __init__(self, result: Any) -> None:
        self.result = result
        self._pictures: dict[bool, Picture] = {}
        self._addresses: dict[bool, str] = {}

    @property
    def picture(self) -> Picture:
        """The picture without its caption, which the page shows as text; on the paper of the page that is drawn."""
        return self.picture_on(theme.dark())

    def picture_on(self, dark: bool) -> Picture:
        """The picture without its caption, on dark paper or on light; each is drawn once."""
        from latentlab import viz

        if dark not in self._pictures:
            self._pictures[dark] = viz.show(self.result, caption=False, dark=dark)
        return self._pictures[dark]

    @property
    def address(self) -> str:
        """The picture as a ``data:`` address, on the paper of the page that is drawn."""
        return self.address_on(theme.dark())

    def address_on(self, dark: bool) -> str:
        """The picture as a ``data:`` address, on dark paper or on light; each is drawn once."""
        if dark not in self._addresses:
            self._addresses[dark] = theme.data_uri(self.picture_on(dark).image)
        return self._addresses[dark]

    def png(self) -> bytes:
        """The picture with its caption, as PNG; on light paper, as it goes into papers."""
        from latentlab import viz

        return viz.show(self.result).png()

    def gif(self) -> bytes:
        """The moving picture, on light paper."""
        from latentlab import viz

        return viz.images.gif_bytes(self.picture_on(False).frames, fps=12)

    def files(self, name: str) -> bytes:
        """The result's files in one zip."""
        out = io.BytesIO()
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(out, "w") as archive:
            self.result.save(Path(folder) / name)
            for path in sorted(Path(folder).iterdir()):
                archive.write(path, path.name)
        return out.getvalue()


def drawn(run: Run, question: str, arguments: Hashable, call: Callable[[], Any]) -> Drawn:
    """The picture of the result that ``call()`` gives, computed once for these weights and arguments."""
    return computed(run, question, arguments, lambda: Drawn(call()))


def nearest(run: Run, codes: np.ndarray) -> np.ndarray:
    """Codes (n, dim) as the generator knows them: posterior means and places of a map lie between categories."""
    import torch

    found = run.model.latent_space.nearest(torch.tensor(codes, dtype=torch.float32))
    return found.numpy()


def samples(run: Run, n: int = 32, seed: int = 0) -> np.ndarray:
    """Images (n, channels, height, width) drawn from the model's prior."""

    def draw() -> np.ndarray:
        import torch

        with torch.inference_mode():
            return run.model.sample(n, seed).float().clamp(0, 1).cpu().numpy()

    return computed(run, "samples", (n, seed), draw)


def picture(image: np.ndarray, scale: int = 1) -> Image.Image:
    """An image (channels, height, width) in [0, 1] as a picture, each pixel ``scale`` wide."""
    from latentlab import viz

    drawn = viz.to_pil(image)
    return drawn if scale == 1 else drawn.resize((drawn.width * scale, drawn.height * scale), 0)


def edits_of(run: Run) -> tuple[Edit, ...]:
    """The edits that this browser session made to the run's networks."""
    return st.session_state.get("edits", {}).get(run.digest, ())


def keep_edits(run: Run, edits: Sequence[Edit]) -> None:
    """Remembers the edits a component reports, for the other pages."""
    st.session_state.setdefault("edits", {})[run.digest] = tuple(edits)


def set_edits(run: Run, edits: Sequence[Edit]) -> None:
    """Changes the edits from outside the component, which takes them because their revision changes."""
    keep_edits(run, edits)
    st.session_state["edits-revision"] = edit_revision(run) + 1


def edit_revision(run: Run) -> int:
    """Counts the changes made from outside the component."""
    return st.session_state.get("edits-revision", 0)


def job(
    run: Run,
    question: str,
    arguments: Hashable,
    work: Callable[[Callable[[float, str], None]], Any],
    heavy: bool = False,
) -> Job:
    """The background job that answers this question about these weights, started at the first call."""
    found = _job(run.digest, question, arguments, work, heavy)
    if found.deserted:  # by somebody else; who asks now wants it done
        forget_job(run, question, arguments)
        found = _job(run.digest, question, arguments, work, heavy)
    return found


@st.cache_resource(max_entries=64, show_spinner=False)
def _job(digest: str, question: str, arguments: Hashable, _work: Callable, _heavy: bool) -> Job:
    return Job(_work, _heavy)


def forget_job(run: Run, question: str, arguments: Hashable) -> None:
    """Forgets a job that failed or was cancelled, so that the next look starts it again."""
    _job.clear(run.digest, question, arguments, None, False)


def report_of(run: Run, protocol: str) -> Report | None:
    """The kept report of a run under a protocol, or None."""
    from latentlab.evaluation import load_report

    return load_report(run, protocol, workspace())


def reports_like(run: Run, report: Report) -> list[Report]:
    """Kept reports of other runs on the same factors under the same protocol."""
    found = []
    for address, summary in runs().items():
        if summary.error or address == run.name or summary.path == run.path:
            continue
        try:
            other = report_of(open_run(address), report.protocol)
        except USER_ERRORS:
            continue
        if other and (other.factor_names, other.factor_sizes) == (report.factor_names, report.factor_sizes):
            found.append(other)
    return found


def scores_job(run: Run, protocol: str, most: int) -> Job:
    """The job that scores a run under a protocol on at most ``most`` states, and keeps the report."""

    def work(report: Callable[[float, str], None]) -> Report:
        from latentlab.evaluation import evaluate, save_report

        size = len(dataset(run))
        found = evaluate(
            run, protocol, states=most if size > most else None, workspace=workspace(), progress=report
        )
        try:
            save_report(run, found, workspace())
        except OSError:
            pass  # a read-only folder costs only the wait next time
        return found

    return job(run, "scores", (protocol, data_key(run)), work)


def labels(run: Run) -> dict[str, tuple[str, float]]:
    """{latent: (the factor it knows most of, nats)} from the run's kept report; {} where it was never scored."""
    from latentlab.evaluation import labels_of

    return labels_of(run, workspace())


@st.cache_resource(show_spinner=False)
def layout_process() -> LayoutProcess:
    """The one process that lays maps out."""
    return LayoutProcess()


@st.cache_resource(show_spinner=False)
def warm_up() -> bool:
    """Prepares what is slow the first time (imports, UMAP's compiler) behind the first page's back."""

    def prepare() -> None:
        import latentlab.viz  # noqa: F401

        time.sleep(
            HEAD_START
        )  # the compiler takes a core for half a minute: the first picture goes before it
        processes.start()

    processes = layout_process()
    threading.Thread(target=prepare, daemon=True, name="latentlab-warm-up").start()
    return True
