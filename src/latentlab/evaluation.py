"""Scoring a run: encode its data set once, score the codes under a protocol, keep the report with the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from latentlab.files import atomic_write
from latentlab.generation import PROTOCOL as IMAGES
from latentlab.generation import evaluate_images
from latentlab.metrics.protocols import PROTOCOLS
from latentlab.metrics.report import Report, reference_marks, write_report
from latentlab.metrics.score import Score
from latentlab.runs import CARD, Run, Workspace, read_text

SCORES = "scores"
PROTOCOL_NAMES = (*PROTOCOLS, IMAGES)
DEFAULT_PROTOCOL = "dlib"
MOST_STATES = 1_000_000
_BATCH = 256
_SECTION = "## Scores"
Progress = Callable[[float, str], object]


def evaluate(
    run: Run,
    protocol: str | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    states: int | None = None,
    measures: Sequence[str] | None = None,
    references: bool = True,
    precision: str = "auto",
    workspace: Workspace | None = None,
    progress: Progress | None = None,
) -> Report:
    """Scores a run's representation of its data set, or its images.

    Args:
        run: a run; all protocols but "images" need an encoder and a data set with ground-truth factors.
        protocol: "dlib", "chen2018", "infogan-cr", "continuous", or "images" for reconstruction, collapse and what
            the model generates (see ``generation``). By default "dlib", or "images" where there are no factors.
        seeds: one draw of points for each; their spread is the interval.
        states: encode only so many states, drawn from the training distribution; all of them by default, or a
            million of a data set that has more.
        measures: only these measures of the protocol.
        references: also score noise, rotated factors and perfect codes.
        precision: of the encoder, "fp32" or "bf16"; "auto" takes bfloat16 where the device has it, as training does.
        workspace: keeps encodings and references, so that another protocol or run does not pay for them again.
        progress: called with (share done in [0, 1], what is being done); it may raise to cancel.

    Raises:
        ValueError: if the run has no encoder or its data no factors, on an unknown protocol, or too few states.
        OSError: if its data are not on this machine.
    """
    from latentlab.analysis import encode_dataset
    from latentlab.models.contract import is_inference_model

    if protocol not in (None, *PROTOCOL_NAMES):
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOL_NAMES)}; got {protocol!r}.")
    dataset = run.dataset()
    space = dataset.factor_space
    if protocol is None:
        protocol = DEFAULT_PROTOCOL if space is not None and is_inference_model(run.model) else IMAGES
    if protocol == IMAGES:
        return evaluate_images(
            run, seeds=seeds, references=references, workspace=workspace, progress=progress
        )
    if space is None:
        raise ValueError(
            f"{run.name} was trained on {dataset.name}, which has no ground-truth factors, so no code can be held "
            f"against them; score its images with --protocol {IMAGES}."
        )
    if states is not None and states < 1:
        raise ValueError(f"states must be at least 1; got {states}.")
    encoding = encode_dataset(
        run.model,
        dataset,
        _how_many(len(dataset), states),
        batch_size=_BATCH,
        precision=precision,
        cache=None if workspace is None else workspace.cache(run.digest, "encodings", "").parent,
        progress=None
        if progress is None
        else lambda done, whole: progress(0.5 * done / whole, f"encoding {whole:,} states"),
    )
    assert encoding.factors is not None  # the data set has a factor space
    entry = None
    if workspace is not None and references:
        entry = _reference_entry(workspace, protocol, seeds, measures, encoding)
    known = None if entry is None else _read_marks(entry)
    report = write_report(
        encoding.mean,
        factors=encoding.factors,
        factor_names=encoding.factor_names,
        dim_names=encoding.dim_names,
        log_var=encoding.log_var,
        categorical=tuple(encoding.categories),
        protocol=protocol,
        seeds=seeds,
        references=references,
        measures=measures,
        known=known,
        subject=run.name,
        dataset=dataset.name,
        weights_digest=run.digest,
        notes=("codes computed in bfloat16",) if "precision" in encoding.provenance.parameters else (),
        progress=None if progress is None else lambda share, doing: progress(0.5 + 0.5 * share, doing),
    )
    if entry is not None and known is None:
        with atomic_write(entry, "w") as file:
            json.dump(reference_marks(report), file)
    return report


def agreement(runs: Sequence[Run], images: int = 2000) -> Score:
    """Unsupervised disentanglement ranking of runs on one data set: how far their codes agree, see ``udr``.

    Args:
        runs: at least two, trained on the same data.
        images: how many images all of them encode.

    Raises:
        ValueError: for fewer than two runs, or runs on different data.
    """
    from latentlab.analysis import encode_dataset
    from latentlab.metrics.udr import udr

    if len({json.dumps([r.config.data.name, r.config.data.options], sort_keys=True) for r in runs}) > 1:
        raise ValueError("Only runs on one data set can agree or not; these were trained on different ones.")
    found = [encode_dataset(run.model, run.dataset(), images, seed=0) for run in runs]
    return udr([(encoding.mean, encoding.kl_per_dim) for encoding in found])


def _how_many(size: int, states: int | None) -> int | None:
    wanted = min(size, MOST_STATES if states is None else states)
    return None if wanted == size else wanted


def _reference_entry(workspace: Workspace, protocol: str, seeds, measures, encoding) -> Path:
    """Where the references' values are kept: they depend on the states and the conventions, not on the model."""
    from latentlab.metrics.report import versions

    factors = np.ascontiguousarray(encoding.factors)
    key = json.dumps(
        [
            protocol,
            list(map(int, seeds)),
            None if measures is None else list(measures),
            encoding.mean.shape,
            hashlib.sha256(factors.tobytes()).hexdigest(),
            list(encoding.factor_names),
            versions(),
        ]
    )
    folder = workspace.path / ".cache" / "references"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _read_marks(entry: Path) -> dict | None:
    try:
        found = json.loads(entry.read_text(encoding="utf-8"))
        return {label: {str(k): float(v) for k, v in marks.items()} for label, marks in found.items()}
    except (OSError, ValueError, AttributeError, TypeError, OverflowError, RecursionError):
        return None


# -- keeping reports ------------------------------------------------------------------------------


def _report_path(run: Run, protocol: str, workspace: Workspace | None) -> Path:
    at = "" if run.step is None else f"-step-{run.step}"
    if run.name.startswith("zoo:") and workspace is not None:
        return workspace.cache(run.digest, f"{SCORES}-{protocol}", ".json")
    return run.path / SCORES / f"{protocol}{at}.json"


def save_report(run: Run, report: Report, workspace: Workspace | None = None) -> Path:
    """Writes a report into its run, and into the run's card; that of a shipped run goes to the workspace.

    Returns:
        The file written.
    """
    path = _report_path(run, report.protocol, workspace)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "w") as file:
        file.write(report.to_json())
    if path.is_relative_to(run.path) and run.step is None and run.card:
        _update_card(run)
    return path


def load_report(run: Run, protocol: str, workspace: Workspace | None = None) -> Report | None:
    """The kept report of a run's present weights, or None if there is none, or it is of other weights or damaged."""
    for path in dict.fromkeys((_report_path(run, protocol, workspace), _report_path(run, protocol, None))):
        try:
            report = Report.from_json(read_text(path))
        except (OSError, ValueError):
            continue
        if report.weights_digest == run.digest:
            return report
    return None


def load_reports(run: Run, workspace: Workspace | None = None) -> list[Report]:
    """All kept reports of a run's present weights, in the order of the protocols."""
    found = (load_report(run, protocol, workspace) for protocol in PROTOCOL_NAMES)
    return [report for report in found if report is not None]


def labels_of(run: Run, workspace: Workspace | None = None) -> dict[str, tuple[str, float]]:
    """{latent: (the factor it knows most of, mutual information in nats)} from any kept report; {} without one."""
    for report in load_reports(run, workspace):
        if not report.factor_names:
            continue
        found = {dim: report.factor_of(dim) for dim in report.dim_names}
        return {dim: label for dim, label in found.items() if label is not None}
    return {}


def _update_card(run: Run) -> None:
    card = run.card
    reports = load_reports(run)
    section = "\n\n".join([_SECTION, *(report.markdown() for report in reports)]) + "\n\n"
    begin = card.find(f"{_SECTION}\n")
    if begin >= 0:
        end = card.find("\n## ", begin + 1)
        card = card[:begin] + section + (card[end + 1 :] if end >= 0 else "")
    else:
        use = card.find("## Use\n")
        at = use if use >= 0 else len(card)
        card = card[:at] + section + card[at:]
    with atomic_write(run.path / CARD, "w") as file:
        file.write(card)
