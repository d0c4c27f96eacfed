"""Compare: models side by side on the same image; linked sliders move the same factor in all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from latentlab import analysis
from latentlab.app import controls, engine, linked_categories, linking, server, shared_lasso, state, theme
from latentlab.app.calls import opened
from latentlab.app.components.compare import compare
from latentlab.app.jobs import Job
from latentlab.app.start import Start, starting_point

if TYPE_CHECKING:
    from latentlab.runs import Run

MOST = 3  # models beside the first
SHOWN = 8
LAST = "last"
PATIENCE = 0.4
STEP_HELP = "Weights kept at this step of its training: drag to replay how it learned."


def page() -> None:
    """Draws the page."""
    run = controls.current_run()
    controls.heading(
        "Compare",
        "Models side by side on the same image. Latents that mean the same are matched, so one slider moves "
        "the same factor in all of them.",
    )
    with controls.one_sentence():
        first, others = chosen(run)
        if not others:
            st.info("Choose a run to compare with, or the same run to look at earlier steps of its training.")
            return
        live(first, others, starting_point(first))


def title(run: Run, address: str) -> str:
    """What a model is called here."""
    return address if run.step is None else f"{address}, step {run.step:,}"


def chosen(run: Run) -> tuple[Run, dict[str, Run]]:
    """The first model and those beside it, by name, each at the step that is wanted."""
    own = st.session_state["run"]
    fitting = like(run)
    if "with" in st.session_state:
        st.session_state["with"] = [name for name in st.session_state["with"] if name in fitting]
    names = st.multiselect(
        "Compare with",
        fitting,
        key="with",
        bind="query-params",
        max_selections=MOST,
        help="Runs whose images have the same size; the run itself, to look at earlier steps of its training.",
    )
    runs = [(own, run), *((name, state.open_run(name)) for name in names)]
    with_steps = [k for k, (_, each) in enumerate(runs) if each.steps]
    found = dict(enumerate(runs))
    if with_steps:
        for column, k in zip(st.columns(max(2, len(with_steps))), with_steps, strict=False):
            name, each = runs[k]
            with column:
                found[k] = name, at_step(each, name, k)
    named = {title(found[0][1], own): found[0][1]}
    for k in range(1, len(runs)):
        label = title(found[k][1], found[k][0])
        named[f"{label} ({k + 1})" if label in named else label] = found[k][1]
    return found[0][1], dict(list(named.items())[1:])


def like(run: Run) -> list[str]:
    """Addresses of the runs whose images have the same shape."""
    from latentlab.runs import Run

    found = []
    for address, summary in state.runs().items():
        if not summary.has_weights:
            continue
        try:
            if (server.BROUGHT.get(address) or Run.open(summary.name)).image_shape == run.image_shape:
                found.append(address)
        except state.USER_ERRORS:
            continue
    return found


def at_step(run: Run, name: str, place_in_row: int) -> Run:
    """The run at the step chosen for it."""
    options = [*(f"{step:,}" for step in run.steps), LAST]
    key = f"step-{place_in_row}"
    if st.session_state.get(key) not in (None, *options):
        del st.session_state[key]
    step = st.select_slider(
        f"Step of {name}", options, value=LAST, key=key, bind="query-params", help=STEP_HELP
    )
    if step == LAST:
        return run
    return state.checkpoint(run, int(str(step).replace(",", "")))


@st.fragment
def live(first: Run, others: dict[str, Run], start: Start) -> None:
    """The linked sliders, and what follows them."""
    with controls.one_sentence():
        task = state.encoding_job(first)
        encoding = task.result if task is not None and task.wait(PATIENCE) else None
        jobs = {name: linking.matching_job(first, other) for name, other in others.items()}
        found = {
            name: job.result.result
            for name, job in jobs.items()
            if job is not None and job.wait(PATIENCE) and job.result is not None
        }
        waiting = {name: job for name, job in jobs.items() if job is not None and not job.done}
        beside = [
            linking.follower(first, name, other, start, found.get(name), name in waiting)
            for name, other in others.items()
        ]
        axes = linking.partners(controls.sliders(first, encoding, start), found, others)
        revision = "-".join([start.revision, first.digest[:8], *(o.digest[:8] for o in others.values())])
        compare(
            axes,
            start.z,
            beside,
            key="compare",
            name=title(first, st.session_state["run"]),
            image_shape=first.image_shape,
            token=engine.open_session("compare-0", first.model, z=start.z),
            render=lambda z: analysis.decode_latents(first.model, z[None])[0],
            source=start.image,
            source_label=start.label,
            revision=revision,
            seed=int(st.session_state["seed"]),
        )
        if waiting:
            controls.watch(next(iter(waiting.values())))
        elif task is not None and not task.done:
            controls.watch(task)
        below(first, others, jobs)


# -- below ---------------------------------------------------------------------------------------


def below(first: Run, others: dict[str, Run], jobs: dict[str, Job | None]) -> None:
    """Matching, reconstructions and scores, each drawn only while it is open."""
    tabs = st.tabs(
        ["Matching", "Same images", "Maps", "Scores"],
        key="compare-below",
        on_change="rerun",
        bind="query-params",
    )
    for tab, draw in zip(
        tabs,
        (
            lambda: matchings(first, others, jobs),
            lambda: same_images(first, others),
            lambda: shared_lasso.draw(first, {title(first, st.session_state["run"]): first, **others}),
            lambda: scores(first, others),
        ),
        strict=True,
    ):
        if tab.open:
            with tab, controls.one_view():
                draw()


def matchings(first: Run, others: dict[str, Run], jobs: dict[str, Job | None]) -> None:
    """How the latents were matched, and how sure that is."""
    name = next(iter(others))
    if len(others) > 1:
        name = controls.menu("With", list(others), 0, "matched-with", "Which of the models.")
    other, job = others[name], jobs[name]
    if job is None:
        why = (
            state.dataset_or_reason(first)[1] or "latents are matched by what encoders say of the same images"
        )
        if linking.same_kind(first, other):
            st.caption("Two steps of one training: the sliders move the latents of the same number.")
        else:
            st.caption(f"Not matched: {controls.plainly(why)}.")
        return
    if job.error:
        st.error(controls.plainly(job.error))
        return
    if not job.done or job.result is None:
        st.caption("The latents are being matched …")
        return
    drawn, match = job.result, job.result.result
    proof = match.certificate
    controls.figures(
        {
            "Sure pairs": f"{proof['sure']} of {int(match.active_a.sum())} active latents",
            "Agreement": f"{proof['matched_mean']:.2f} nats",
            "Shuffled images": f"{proof['null_high']:.2f} nats",
            "More than the next best": f"{proof['margin']:.2f} nats",
        }
    )
    st.caption(
        f"Mutual information between what both encoders say of {linking.MATCHED_ON:,} images; the pairing with the "
        "greatest sum lies along the diagonal. A minus means that one grows as the other falls. A pair is sure, and "
        "linked, if it agrees more than pairs do when the images are shuffled."
    )
    linked_categories.describe(title(first, st.session_state["run"]), first, name, other, match)
    earlier = "" if other.step is None else f".at({other.step})"
    mine = "" if first.step is None else f".at({first.step})"
    code = (
        "import latentlab\nfrom latentlab import analysis\n\n"
        f"first = {opened(first)}{mine}\n"
        f"other = {opened(other)}{earlier}\n"
        "data = first.dataset()\n"
        f"images = data.images(data.sample({linking.MATCHED_ON}, 0)).cpu().numpy()\n"
        "result = analysis.match_latents(first.model, other.model, images)\n"
        f"print(result.pairs())  # {proof['sure']} sure pairs\n"
    )
    controls.show_drawn(
        drawn,
        f"Agreement of latents with {name}",
        "match",
        controls.file_name(first.name, "match", other.name),
        code,
    )


def same_images(first: Run, others: dict[str, Run]) -> None:
    """The same images as each model gives them back; or, where one can't encode, the same seeds."""
    from latentlab import viz

    runs = {title(first, st.session_state["run"]): first, **others}
    data = state.dataset_or_reason(first)[0]
    scale = max(1, 96 // first.image_shape[-1])
    if data is None or not all(state.encodes(run) for run in runs.values()):
        rows = [state.samples(run, SHOWN, int(st.session_state["seed"])) for run in runs.values()]
        labels, meaning = list(runs), "Each model's draws by the seed in the sidebar."
    else:
        x = data.images(data.sample(SHOWN, int(st.session_state["seed"]))).cpu().numpy()
        given_back = [
            analysis.decode_latents(run.model, analysis.encode_images(run.model, x)) for run in runs.values()
        ]
        errors = [float(((y - x) ** 2).mean()) for y in given_back]
        rows = [x, *given_back]
        labels = ["given", *(f"{name}\nMSE {error:.4f}" for name, error in zip(runs, errors, strict=True))]
        meaning = f"{SHOWN} images drawn by the seed in the sidebar, and what each model gives back of them."
    cells = [[viz.to_pil(image, scale) for image in row] for row in rows]
    with theme.paper():
        sheet = viz.images.sheet(cells, row_labels=labels)
    with st.container(key="paper-same"):
        st.image(theme.data_uri(sheet), alt="The same images through each model")
    st.caption(meaning)


def scores(first: Run, others: dict[str, Run]) -> None:
    """Scores under the same protocol and how they differ, for the models that were scored."""
    from latentlab.evaluation import PROTOCOL_NAMES

    runs = {title(first, st.session_state["run"]): first, **others}
    shown = False
    for protocol in PROTOCOL_NAMES:
        reports = {name: state.report_of(run, protocol) for name, run in runs.items()}
        known = {name: report for name, report in reports.items() if report is not None}
        if len(known) < 2:
            continue
        shown = True
        base = next(iter(known))
        tables = {name: {r.label: r.value for r in report.rows} for name, report in known.items()}
        rows = []
        for label, value in tables[base].items():
            row: dict[str, object] = {"score": label, base: value}
            for name in list(known)[1:]:
                theirs = tables[name].get(label)
                row[name] = theirs
                row[f"{name} − {base}"] = None if value is None or theirs is None else theirs - value
            rows.append(row)
        st.subheader(f"Protocol {protocol}", anchor=False)
        st.dataframe(
            rows,
            hide_index=True,
            column_config={
                name: st.column_config.NumberColumn(format="%.3f") for name in rows[0] if name != "score"
            },
        )
    if not shown:
        st.info(
            "Fewer than two of these models were scored under one protocol. Score them on the Scores page first."
        )


if __name__ == "__main__":
    page()
