"""Scores: what each latent knows of each ground-truth factor, beside what noise and perfect codes would get."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from latentlab.app import controls, state, theme
from latentlab.generation import PROTOCOL as IMAGES
from latentlab.generation import SUMMARY
from latentlab.metrics import interventional_view
from latentlab.metrics.protocols import PROTOCOLS
from latentlab.viz import scores

if TYPE_CHECKING:
    from latentlab.metrics.report import Report
    from latentlab.runs import Run

MOST_STATES = 50_000
PROTOCOL_HELP = (
    "The same model scores several times higher or lower under another protocol; never compare two.\n\n"
    + "\n".join(f"- **{p.name}**: {p.summary}" for p in PROTOCOLS.values())
    + f"\n- **{IMAGES}**: {SUMMARY}"
)


def page() -> None:
    """Draws the page."""
    run = controls.current_run()
    controls.heading(
        "Scores",
        "How well single latents hold single factors, and what noise and perfect codes get under the same rules.",
    )
    with controls.one_sentence():
        factors = state.encodes(run) and state.dataset(run).factor_space is not None
        names = [*(PROTOCOLS if factors else ()), IMAGES]
        if st.session_state.get("protocol") not in (None, *names):
            del st.session_state["protocol"]  # chosen for a run that has factors
        protocol = st.segmented_control(
            "Protocol",
            names,
            default=names[0],
            required=True,
            key="protocol",
            bind="query-params",
            help=PROTOCOL_HELP,
        )
        report = state.report_of(run, protocol)
        if report is None:
            report = ask_for(run, protocol)
        if report is not None:
            show(run, report)


def ask_for(run: Run, protocol: str) -> Report | None:
    """Offers to score the run, shows how far that is, and gives the report when it is done."""
    wanted = st.session_state.setdefault("scoring", set())
    key = (run.digest, protocol)
    if key not in wanted:
        size = len(state.dataset(run))
        if protocol == IMAGES:
            what = "trains a small feature network on its data the first time and"
        else:
            part = f"{MOST_STATES:,} of its {size:,} states" if size > MOST_STATES else f"{size:,} states"
            what = f"encodes {part} and"
        st.write(
            f"This run was not scored under {protocol} yet. Scoring {what} takes a minute or more; you can look at "
            "other pages meanwhile."
        )
        st.button("Score this run", type="primary", key="score", on_click=wanted.add, args=(key,))
        if not run.name.startswith("brought:"):  # the explorer alone knows those
            st.caption(f"In a terminal, on all states: `latentlab evaluate {run.name} --protocol {protocol}`")
        return None
    question, arguments = "scores", (protocol, state.data_key(run))
    return controls.await_job(run, question, arguments, state.scores_job(run, protocol, MOST_STATES))


def show(run: Run, report: Report) -> None:
    """The report: scores, matrices, matching, and other runs under the same protocol."""
    if any(scores.on_unit_scale(row) for row in report.rows):
        st.altair_chart(theme.chart(scores.score_strip(report)), width="stretch")
    st.caption(
        "Dot: this run, its band two standard deviations of a single seed's score. Ticks: what pure noise, randomly "
        "rotated factors and perfect codes get from the same points."
    )
    others = [row for row in report.rows if row.value is not None and not scores.on_unit_scale(row)]
    if others:
        st.dataframe(
            [
                {
                    "other scales": row.label,
                    "better": "higher" if row.higher_is_better else "lower",
                    "value": row.value,
                    "noise": row.noise,
                    "rotation": row.rotation,
                    "perfect": row.perfect,
                }
                for row in others
            ],
            hide_index=True,
            column_config={
                name: st.column_config.NumberColumn(format="%.3f")
                for name in ("value", "noise", "rotation", "perfect")
            },
        )
    refused = [row for row in report.rows if row.value is None]
    for row in refused:
        st.caption(controls.plainly(f"{row.label} has no value: {row.reason}"))
    if report.factor_names:
        matrices(run, report)
        interventions(run, report)
    for note in report.notes:
        st.caption(controls.plainly(f"Note: {note}."))
    compare(run, report)
    with st.expander("Protocol and numbers"):
        st.markdown(report.markdown())
        st.caption(
            f"{report.dataset}, weights {report.weights_digest[:12]}, "
            + ", ".join(f"{name} {version}" for name, version in report.versions.items())
            + f", {report.created}"
        )
        st.download_button(
            "Report as JSON",
            report.to_json(),
            file_name=controls.file_name(run.name, report.protocol) + ".json",
            mime="application/json",
            key="save-report",
        )


def matrices(run: Run, report: Report) -> None:
    """What each latent knows of each factor, in nats and to a predictor, and how the two match."""
    dark = theme.dark()
    with st.container(horizontal=True, gap="large"):
        with st.container(width="content"):
            st.subheader("Mutual information, nats", anchor=False)
            st.altair_chart(theme.chart(scores.information_matrix(report, dark=dark)), width="content")
        if report.importance is not None:
            with st.container(width="content"):
                st.subheader("Importance to a predictor (DCI)", anchor=False)
                st.altair_chart(theme.chart(scores.importance_matrix(report, dark=dark)), width="content")
        with st.container(width=380):
            st.subheader("Latents by factor", anchor=False)
            best_known(run, report)
    st.caption(
        "Most that a code can know of each factor: "
        + ", ".join(
            f"{name} {entropy:.2f}"
            for name, entropy in zip(report.factor_names, report.entropies, strict=True)
        )
        + "."
    )


def best_known(run: Run, report: Report) -> None:
    """The latents named after a factor, and of each factor the latent matched with it."""
    labels = {dim: label for dim in report.dim_names if (label := report.factor_of(dim))}
    task = state.encoding_job(run)
    encoding = task.result if task is not None and task.wait(0.0) and not task.error else None
    # A latent that tells nothing of an image can still have a mean that moves a little with a factor.
    idle = (
        set()
        if encoding is None
        else {d for d, on in zip(encoding.dim_names, encoding.active, strict=True) if not on}
    )
    shown = {dim: label for dim, label in labels.items() if dim not in idle}
    if not shown:
        st.write("No active latent knows clearly more of any factor than noise does.")
        return
    st.dataframe(
        [{"latent": dim, "knows most of": name, "nats": nats} for dim, (name, nats) in shown.items()],
        hide_index=True,
        column_config={"nats": st.column_config.NumberColumn(format="%.2f")},
    )
    pairs = ", ".join(f"{factor} → {dim}" for factor, dim in report.matching.items())
    left_out = sorted(set(labels) & idle, key=report.dim_names.index)
    st.caption(
        "Sliders carry these names. "
        + (f"Inactive ones are left out: {', '.join(left_out)}. " if left_out else "")
        + f"Best one-to-one matching: {pairs}."
    )


def interventions(run: Run, report: Report) -> None:
    """What setting one factor does to the codes, over the images that were encoded for the sliders."""
    task = state.encoding_job(run)
    if task is None:
        return
    st.subheader("Set one factor, let the others vary")
    encoding = controls.await_job(run, "encoding", (state.ENCODED, 0, False, state.data_key(run)), task)
    if encoding is None:
        return
    name = controls.menu("Factor", list(report.factor_names), 0, "set-factor", "The factor that is set.")
    view = interventional_view(encoding.mean, encoding.factors, list(encoding.factor_names).index(name))
    st.altair_chart(theme.chart(scores.interventions(view, encoding.dim_names)))
    st.caption(
        f"Mean of each latent and the middle 90 % of {encoding.n:,} images against the value of {name}; the most moved "
        "latents first, with the share of their variance that the value explains. A disentangled code has one "
        "narrow band that moves."
    )


def compare(run: Run, report: Report) -> None:
    """One score over all runs that were scored alike: every seed a dot."""
    others = state.reports_like(run, report)
    if not others:
        return
    st.subheader("Beside other runs")
    labels = [row.label for row in report.rows if row.value is not None]
    label = controls.menu("Score", labels, 0, "score-label", "Which score of the runs is shown.")
    chosen = [r for r in (report, *others) if any(row.label == label for row in r.rows)]
    st.altair_chart(theme.chart(scores.score_distributions(chosen, label)), width="stretch")
    st.caption("Each dot is one seed's draw of points; the tick is a run's mean.")


page()
