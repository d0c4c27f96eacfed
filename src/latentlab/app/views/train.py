"""Train: start a training from a form or YAML, watch its curves and pictures, stop it and go on later."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import streamlit as st

from latentlab.app import controls, links, server, state, theme, training_form, training_jobs
from latentlab.app.configuration import to_yaml
from latentlab.app.training_jobs import ALIVE, KILLED, TERMINAL, TrainingJob

if TYPE_CHECKING:
    from latentlab.runs import Run

NEW, OWN = "New training", "Trainings"
LOOK_AGAIN = 2.0  # seconds between two looks at a training that runs
FIRST_CURVES = ("loss", "reconstruction", "kl", "g_loss", "d_loss", "diversity", "d_real", "d_fake")
MOST_POINTS = 500
STARTED_ELSEWHERE = (
    "Started in a terminal or by a program, as process {pid}; what it prints is there. It can be watched and stopped "
    "from here like any other."
)
COLOURS: dict[str, Literal["gray", "blue", "orange", "green", "red"]] = {
    "starting": "gray",
    "running": "blue",
    "stopping": "orange",
    "finished": "green",
    "stopped": "orange",
    "failed": "red",
    "killed": "red",
}


def page() -> None:
    """Draws the page."""
    controls.heading(
        "Train",
        "Trainings run in processes of their own: close this page or stop the explorer, and they go on.",
    )
    jobs = {address(job): job for job in training_jobs.list_jobs(server.runs_dir())}
    others = elsewhere()
    if "train-view" not in st.session_state and "train-view" not in st.query_params:
        st.session_state["train-view"] = OWN if jobs else NEW
    view = st.segmented_control(
        "Show", [NEW, OWN], required=True, key="train-view", bind="query-params", label_visibility="collapsed"
    )
    if said := st.session_state.pop("train-said", ""):
        st.error(controls.plainly(said))
    with controls.one_sentence():
        if view == NEW:
            new_training(jobs)
        elif jobs:
            trainings(jobs)
        else:
            st.info("Nothing was trained in this folder yet. Choose “New training”.")
        if others:
            st.caption(
                f"This machine also trains {others}; what lies outside this folder of runs is not shown here."
            )


def address(job: TrainingJob) -> str:
    """The run of a job, as pages open it."""
    name = job.folder.relative_to(server.runs_dir()).as_posix()
    return f"./{name}" if name.startswith("zoo:") else name


def elsewhere() -> str:
    """Trainings of this machine whose runs lie outside the workspace, in words."""
    home = server.runs_dir().resolve()
    found = [t for t in training_jobs.all_trainings() if not t.folder.is_relative_to(home)]
    return ", ".join(f"{t.folder} on {'the CPU' if t.device == 'cpu' else t.device}" for t in found)


# -- new -----------------------------------------------------------------------------------------


def new_training(jobs: dict[str, TrainingJob]) -> None:
    """The form, the device and the button."""
    offered = training_jobs.devices()
    busy = training_jobs.busy_devices(server.runs_dir())
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        device = st.selectbox(
            "Device",
            list(offered),
            format_func=lambda d: offered[d] + (f" (training {busy[d]})" if d in busy else ""),
            key="train-device",
            width=260,
            help="What it trains on; each trains one run at a time.",
        )
        place = st.empty()
    if device in busy:
        st.caption(
            f"{training_jobs.device_words(device)} is training {busy[device]}, and each device trains one run at a "
            "time: wait for it, or stop it."
        )
    experiment = training_form.draw()

    def begin() -> None:
        assert experiment is not None
        try:
            job = training_jobs.start(experiment, server.runs_dir(), device)
        except state.USER_ERRORS as error:
            st.session_state["train-said"] = str(error)
            return
        st.session_state["train-view"], st.session_state["job"] = OWN, address(job)

    place.button(
        "Start training",
        type="primary",
        icon=":material/play_arrow:",
        key="train-start",
        on_click=begin,
        disabled=experiment is None or device in busy,
    )


# -- trainings -----------------------------------------------------------------------------------


def trainings(jobs: dict[str, TrainingJob]) -> None:
    """The chosen training, followed while it runs."""
    name = controls.menu(
        "Training", list(jobs), 0, "job", "Which training to look at, the last started first."
    )
    job = jobs[name]
    look = st.fragment(run_every=LOOK_AGAIN if job.alive else None)(follow)
    look(name, job.alive)


def follow(name: str, alive: bool) -> None:
    """One training: how far it is, its curves, its pictures and what it printed; drawn again while it runs."""
    from latentlab.runs import WEIGHTS, Run

    job = training_jobs.read_job(server.runs_dir() / name)
    if job is None:
        st.info("This training's folder is gone.")
        return
    now = job.state
    if alive and now not in ALIVE:
        st.rerun()  # once more, whole: the buttons differ, and nothing need be looked at again
    with controls.one_sentence():
        run = Run.open(job.folder)
        headline(job, now, run)
        buttons(name, job, now, (job.folder / WEIGHTS).is_file())
        if now in ("failed", "killed"):
            st.error(controls.plainly(job.sentence or KILLED))
            if job.tail():
                st.code("\n".join(job.tail()), language=None, wrap_lines=True)
        curves(run)
        pictures(name, run)
        with st.expander("Process and configuration"):
            controls.facts(
                {
                    "Folder": job.folder,
                    "Process": f"{job.pid}, begun {time.strftime('%Y-%m-%d %H:%M', time.localtime(job.begun))}",
                    "Device": job.device,
                }
            )
            if now not in ("failed", "killed") and job.tail():
                st.code("\n".join(job.tail()), language=None, wrap_lines=True)
            st.code(_configuration(run), language="yaml")
            st.button(
                "Use these values for a new training", key=f"again-{name}", on_click=_again, args=(run,)
            )


def headline(job: TrainingJob, now: str, run: Run) -> None:
    """State, steps and the time that is left."""
    step, steps = job.step, run.experiment.max_steps
    told = [f"{step:,} of {steps:,} steps"]
    seconds = run.timing()
    if now == "running" and len(seconds.get("seconds", ())) and step:
        rate = seconds["images_per_second"][-20:]
        rate = float(np.median(rate[np.isfinite(rate)])) if np.isfinite(rate).any() else 0.0
        if rate > 0:
            told.append(f"{rate:,.0f} images/s")
            told.append(f"{duration((steps - step) * run.experiment.batch_size / rate)} left")
    if now == "starting":
        told.append("libraries and data are being loaded")
    if now == "stopping":
        told.append("it writes a checkpoint after the step it is at")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.badge(now, color=COLOURS[now], help="What the process is at.")
        if job.origin == TERMINAL:
            st.badge("terminal", color="gray", help=STARTED_ELSEWHERE.format(pid=job.pid))
        st.progress(min(step / steps, 1.0), text=" · ".join(told), width="stretch")


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def buttons(name: str, job: TrainingJob, now: str, weights: bool) -> None:
    """What can be done with it now."""
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
        if now in ALIVE and not job.can_be_stopped:
            st.caption(
                f"Its folder can't be written to from here: press Ctrl-C where process {job.pid} runs."
            )
        elif now in ALIVE:
            st.button(
                "Stop",
                icon=":material/stop:",
                key=f"stop-{name}",
                on_click=_attempt,
                args=(training_jobs.stop, job),
                disabled=now == "stopping",
                help="Ends it after the step it is at, with a checkpoint to go on from."
                + (
                    " It reads that in its folder within seconds; nothing is done to its process."
                    if job.origin == TERMINAL
                    else ""
                ),
            )
        elif now != "finished":
            st.button(
                "Resume" if job.resumable else "Start again",
                type="primary",
                icon=":material/play_arrow:",
                key=f"resume-{name}",
                on_click=_attempt,
                args=(training_jobs.resume, job),
                help="Goes on from the last checkpoint, to the same weights as if it had never stopped."
                if job.resumable
                else "There is no checkpoint yet: it begins anew.",
            )
        if weights:
            for page_name in ("traverse", "layers", "map"):
                st.page_link(
                    f"views/{page_name}.py",
                    label=f"**{page_name.title()}**",
                    query_params=links.link(run=name),
                )


def _attempt(action, job: TrainingJob) -> None:
    try:
        action(job)
    except state.USER_ERRORS as error:
        st.session_state["train-said"] = str(error)


def _again(run: Run) -> None:
    training_form.put(run.experiment.to_dict())
    st.session_state["train-view"] = NEW


def _configuration(run: Run) -> str:
    """What was asked for; of a training from elsewhere, what its run says of itself."""
    try:
        return (run.path / training_jobs.CONFIGURATION).read_text(encoding="utf-8")[:20_000]
    except (OSError, UnicodeDecodeError):
        return to_yaml(run.experiment.to_dict())


def curves(run: Run) -> None:
    """The logged means, a panel each."""
    table = run.metrics()
    steps = table.pop("step", np.array([]))
    names = [name for name, values in table.items() if np.isfinite(values).any()]
    if not len(steps) or not names:
        st.caption(f"Curves begin with the first row of the log, at step {run.experiment.log_every:,}.")
        return
    first = [name for name in FIRST_CURVES if name in names][:3] or names[:3]
    chosen = st.multiselect(
        "Curves",
        names,
        default=first,
        key=f"curves-{run.name}",
        format_func=lambda n: n.replace("_", " "),
        help=f"Each point is a mean over {run.experiment.log_every:,} steps. Losses are nats per image.",
    )
    for begin in range(0, len(chosen), 3):
        for column, name in zip(st.columns(3), chosen[begin : begin + 3], strict=False):
            with column:
                drawn = theme.chart(curve(steps, table[name], name))
                st.altair_chart(drawn, width="stretch", key=f"curve-{run.name}-{name}")


def curve(steps: np.ndarray, values: np.ndarray, name: str):
    """One curve, thinned to what a screen shows."""
    import altair as alt
    import pandas as pd

    kept = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MOST_POINTS)).astype(int))
    kept = kept[np.isfinite(values[kept])]
    # As a frame, so that the page replaces the points and need not draw the chart anew.
    rows = pd.DataFrame({"step": steps[kept], "value": values[kept]})
    return (
        alt.Chart(rows, title=alt.Title(name.replace("_", " "), anchor="start", fontSize=13, fontWeight=600))
        .mark_line(color="#1489a8", strokeWidth=1.6)
        .encode(
            x=alt.X("step:Q", title=None, axis=alt.Axis(tickCount=4, format="~s")),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
            tooltip=[alt.Tooltip("step:Q", format=","), alt.Tooltip("value:Q", title=name, format=".4g")],
        )
        .properties(height=190)
    )


def pictures(name: str, run: Run) -> None:
    """Samples as the training drew them, at any step so far; else drawn here from the last checkpoint."""
    from latentlab.runs import PREVIEWS, WEIGHTS

    found = {}
    for path in (run.path / PREVIEWS).glob("step-*.png"):
        if number := re.fullmatch(r"step-(\d+)", path.stem):
            found[int(number[1])] = path
    steps = sorted(found)
    if steps:
        # Named by the last one, so that it follows the training until somebody looks back.
        step = steps[-1]
        if len(steps) > 1:
            step = st.select_slider(
                "Samples at step",
                steps,
                value=steps[-1],
                key=f"preview-{name}-{steps[-1]}",
                format_func=lambda s: f"{s:,}",
                width=530,
                help="The same 32 codes at each step: drag to see how the images came to be.",
            )
        picture = _whole_picture(found[step])
        if picture is not None:
            controls.show(picture, f"Samples of {name} at step {step}", f"32 samples at step {step:,}.")
        return
    if not (run.path / WEIGHTS).is_file():
        return
    opened, dark = state.open_run(name), theme.dark()
    task = state.job(opened, "training-samples", (dark,), lambda report: _sheet(opened, dark))
    if not task.wait(0.5):
        st.caption("Samples are being drawn from the last checkpoint …")
    elif task.result is not None:
        st.image(task.result, "32 samples of the last checkpoint.", alt=f"Samples of {name}")


def _sheet(run: Run, dark: bool) -> str:
    from latentlab import viz
    from latentlab.viz.colours import on_dark

    images = state.samples(run, 32, 0)
    with on_dark(dark):
        return theme.data_uri(viz.images.grid(images.reshape(4, 8, *images.shape[1:])))


def _whole_picture(path: Path):
    """A picture of the run's; None where it is being written, or is none."""
    from PIL import Image

    try:
        data = path.read_bytes()
        if len(data) > 5_000_000:
            return None
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return None


if __name__ == "__main__":
    page()
