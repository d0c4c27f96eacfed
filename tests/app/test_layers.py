"""The Layers page: each view's number comes back from its code, jobs can be cancelled, edits are compared.

Would catch: a figure whose code is another call than the one shown, numbers that were rounded, written out by hand or
left over from other weights, and a view that belongs to one kind of network only.
"""

from __future__ import annotations

import contextlib
import html
import io
import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from latentlab import analysis
from latentlab.analysis import Direction
from latentlab.app import calls, engine, live_session, server, sliders, state
from latentlab.app.calls import Call
from latentlab.app.inside import ranking
from latentlab.app.inside.look import Look
from latentlab.app.jobs import LONGEST_PAUSE, RESTS, Job
from latentlab.app.pull import Pull
from latentlab.app.start import Start
from latentlab.app.wire import WANT_IMAGE, WANT_SHEET, Request
from latentlab.config import MODELS, Adversarial, BetaVAE, DataConfig, Experiment
from latentlab.models.build import build_model
from latentlab.models.edits import Edit
from latentlab.runs import CHECKPOINTS, WEIGHTS, Run, save_weights

LAYERS, TRAVERSE = "views/layers.py", "views/traverse.py"
MAPS, SEES = "generator.deconv1", "encoder.conv2"
UNIT = 1
OPTIONS = {
    "vae": {"latents": 3, "width": 6, "hidden": 8},
    "gan": {"latents": 3, "width": 4},
    "style-gan": {"latents": 4, "styles": 6, "mapping_layers": 2, "width": 4},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs of small random networks on the digits."""
    folder, runs = tmp_path_factory.mktemp("small"), {}
    for family, options in OPTIONS.items():
        config = MODELS[family](**options)
        objective = Adversarial() if config.kind == "adversarial" else BetaVAE()
        run = Run.create(
            folder / family,
            Experiment(name=family, data=DataConfig("digits"), model=config, objective=objective),
            (1, 32, 32),
        )
        model = build_model(config, (1, 32, 32), 1)
        with torch.no_grad():
            for network in (n for n in ("generator", "encoder") if n in model.networks and family == "vae"):
                for module in model.networks[network].modules():
                    if isinstance(module, torch.nn.Linear | torch.nn.ConvTranspose2d | torch.nn.Conv2d):
                        module.weight *= 2.5
        save_weights(model, run.path / WEIGHTS)
        runs[family] = Run.open(run.path)
    return runs


@pytest.fixture(autouse=True)
def workspace(small: dict[str, Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = small["vae"].path.parent
    monkeypatch.setenv(server.RUNS_VARIABLE, str(folder))
    monkeypatch.setattr("latentlab.runs.ZOO", tmp_path)
    return folder


def rerun(changed) -> AppTest:
    app = changed.run()
    assert not app.exception, app.exception[0].message
    return app


def opened(page: str, **choices: object) -> AppTest:
    app = AppTest.from_file(str(server.MAIN), default_timeout=180)
    app.query_params.update({name: str(value) for name, value in choices.items()})
    return rerun(rerun(app).switch_page(page))


def settled(app: AppTest) -> AppTest:
    end = time.monotonic() + 180
    while app.get("progress"):
        assert time.monotonic() < end, "the background job did not end"
        time.sleep(0.1)
        rerun(app)
    return app


def looking_at(family: str, run: Run, stage: str, unit: int | None = None, **choices: object) -> AppTest:
    """The page with a unit clicked, as the component reports it."""
    app = opened(LAYERS, run=family, stage=stage, **choices)
    if unit is not None:
        kind = "image-" if family == "vae" and choices.get("start") != "Seed" else "seed-"
        number = int(app.number_input(key="image").value) if kind == "image-" else 0
        app.session_state["open"] = {
            "state": {
                "edits": [],
                "stage": stage,
                "selected": [unit],
                "unit": unit,
                "revision": f"{run.digest[:12]}-{kind}{number}-0",
                "engine": "rerun",
            }
        }
        rerun(app)
    return settled(app)


def texts(app: AppTest) -> str:
    return "\n".join(str(e.value) for kind in ("caption", "markdown", "info") for e in app.get(kind))


def html_of(app: AppTest) -> str:
    return "\n".join(e.proto.body for e in app.get("html"))


def output_of(code: str) -> list[str]:
    """The lines that a snippet prints when it is run as a program."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "copied", "exec"), {"__name__": "__main__"})
    return out.getvalue().splitlines()


def printed(code: str) -> list[float]:
    """The numbers that a snippet prints, without the rows of tables."""
    return [float(line) for line in output_of(code) if "\t" not in line]


def check_codes(app: AppTest, least: int = 1) -> None:
    """Every number and every table that the page shows is what its code prints."""
    snippets = [block.value for block in app.code if "print(" in block.value]
    assert len(snippets) >= least, "a figure without code"
    labelled, rows = [], []
    for snippet in snippets:
        lines = output_of(snippet)
        rows += [line.split("\t") for line in lines if "\t" in line]
        numbers = [float(line) for line in lines if "\t" not in line]
        told = re.findall(r"^print\(.*# (.*): (\S+)$", snippet, re.MULTILINE)
        assert told or rows, snippet
        np.testing.assert_allclose(
            numbers, [float(v) for _, v in told], rtol=1e-6, atol=1e-6, err_msg=snippet
        )
        labelled += [(label, number) for (label, _), number in zip(told, numbers, strict=True)]
    check_shown(html_of(app), labelled)
    for table in app.dataframe:
        check_table(table.value.to_numpy().tolist(), rows)


def check_shown(body: str, labelled: list[tuple[str, float]]) -> None:
    """Each number among a page's figures is one that its code printed under the same name, as it was rounded."""
    for label, shown in re.findall(r"<div><span>([^<]*)</span><b>([^<]*)</b></div>", body):
        ours = [number for name, number in labelled if name == html.unescape(label)]
        value = float(shown.strip("%").replace(",", "")) / (100 if "%" in shown else 1)
        digits, _, power = shown.strip("%").partition("e")
        last = 10.0 ** (int(power or 0) - len(digits.partition(".")[2])) / (100 if "%" in shown else 1)
        assert any(abs(value - number) <= 0.51 * last for number in ours), (label, shown, ours)


def check_table(table: list[list], rows: list[list[str]]) -> None:
    """Each row of a table is one that code printed."""
    left = [tuple(row) for row in rows]
    for row in table:
        assert any(len(found) == len(row) and all(map(_same, row, found)) for found in left), (row, rows[:3])


def _same(shown: object, told: str) -> bool:
    if isinstance(shown, str):
        return shown == told
    return bool(np.isclose(float(shown), float(told), rtol=1e-6, atol=1e-9, equal_nan=True))  # type: ignore[arg-type]


CARDS = [
    (MAPS, "Draws"),
    (MAPS, "Draws alone"),
    (MAPS, "Top images"),
    (MAPS, "Concept"),
    (MAPS, "Causal effect"),
    (MAPS, "Latents"),
    (MAPS, "Excite"),
    (SEES, "Sees"),
    (SEES, "Top patches"),
    (SEES, "Covering"),
    (SEES, "Concept"),
    (MAPS, "Spread"),
    (SEES, "Causal effect"),
    (SEES, "Codes"),
    (SEES, "Excite"),
]


@pytest.mark.parametrize(("stage", "view"), CARDS)
def test_a_units_card_shows_numbers_that_its_code_prints(
    small: dict[str, Run], stage: str, view: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentlab.app.inside.unit.SAMPLES", 1000)
    app = looking_at("vae", small["vae"], stage, UNIT, **{"unit-view": view})
    assert not app.error, app.error[0].value
    assert f"**Unit {UNIT}** of {stage}" in texts(app)
    check_codes(app)


def test_a_dead_latent_leads_no_units_card(small: dict[str, Run], workspace: Path) -> None:
    """The fake sorts shares that add up to 1 for every latent, so that one without any effect comes first."""
    dead, model = 2, build_model(small["vae"].config.model, (1, 32, 32), 1)
    model.load_state_dict(small["vae"].model.state_dict())
    with torch.no_grad():
        first = next(m for m in model.generator.modules() if isinstance(m, torch.nn.Linear))
        first.weight[:, dead] *= 1e-3
    run = Run.create(workspace / "collapsed", small["vae"].config, (1, 32, 32))
    save_weights(model, run.path / WEIGHTS)
    run = Run.open(run.path)
    rows = np.abs(analysis.latent_unit_pixel(run.model, MAPS, n=8).matrix)
    unit = int(np.argmax(rows[dead] - np.delete(rows, dead, axis=0).max(axis=0)))
    assert rows[:, unit].argmax() == dead, "the fake would not be noticed"
    app = looking_at("collapsed", run, MAPS, unit, start="Seed", **{"unit-view": "Latents"})
    assert not app.error, app.error[0].value
    bodies = [body.proto.body for body in app.get("html")]
    leaders = [re.findall(r"<dt>(.*?)</dt>", body) for body in bodies if 'class="ll-bars"' in body]
    drivers, handed_on = leaders
    assert drivers[-1] == f"z{dead}" and sorted(handed_on) == ["z0", "z1"]
    code = "\n".join(block.value for block in app.code)
    for path in ("unit_total", "through", "held", "certificate"):
        assert f"result.{path}[" in code
    assert "analysis.sobol(" in code and f"stage={MAPS!r}" in code


VIEWS = [
    (SEES, "Deconvnet", {}),
    (SEES, "Deconvnet", {"rule": "Guided", "projected": "The images of the data that excite each unit most"}),
    (SEES, "Concepts", {"concept-view": "Units and concepts"}),
    (SEES, "Concepts", {"concept-view": "Emergence with depth"}),
    (MAPS, "Concepts", {"concept-view": "Emergence with depth"}),
    (MAPS, "Concepts", {"concept-view": "Causal effects"}),
    (MAPS, "Datapath", {}),
    (SEES, "Datapath", {"path-stages": "This and the next"}),
    (MAPS, "Latents and layers", {"factor-view": "Latent → layer"}),
    (MAPS, "Latents and layers", {"factor-view": "Latent → unit → pixel"}),
    (MAPS, "Latents and layers", {"factor-view": "Variance"}),
    (MAPS, "Latents and layers", {"factor-view": "Pixels by unit"}),
    (SEES, "Latents and layers", {"factor-view": "Unit profiles"}),
    (MAPS, "Latents and layers", {"factor-view": "Region → units"}),
    (MAPS, "Latents and layers", {"factor-view": "Uncertainty"}),
    (MAPS, "Datapath", {"path-view": "Bundles of edges"}),
    (MAPS, "Datapath", {"path-view": "Traced graph"}),
    (MAPS, "Directions", {"method": "SeFa"}),
    (MAPS, "Directions", {"method": "GANSpace", "direction-view": "What it changes"}),
    (MAPS, "Directions", {"method": "Boundary"}),
    (MAPS, "Units that matter", {}),
]


@pytest.mark.parametrize(("stage", "tab", "choices"), VIEWS)
def test_a_view_shows_numbers_that_its_code_prints(
    small: dict[str, Run], stage: str, tab: str, choices: dict
) -> None:
    app = looking_at("vae", small["vae"], stage, **{"layer-tabs": tab, **choices})
    assert not app.error, app.error[0].value
    assert app.get("image") or app.dataframe
    check_codes(app)


def test_code_that_is_another_call_would_be_noticed(small: dict[str, Run]) -> None:
    """The fake: a figure of one seed with the code of another."""
    call, other = (Call(small["vae"], "rank_units", (MAPS,), {"n": 4, "seed": seed}) for seed in (0, 1))
    numbers = {"Effect": ("effect", 0)}
    honest, fake = call.code(numbers, call()), other.code(numbers, call())
    told = float(re.findall(r": (\S+)$", honest, re.MULTILINE)[-1])
    assert printed(honest) == pytest.approx([told], rel=1e-6)
    assert printed(fake) != pytest.approx([told], rel=1e-4)


def test_written_arguments_give_themselves_back() -> None:
    values = [
        None, True, 3, 0.1, "a'b", (1,), [2, (3, 4)], {"a": 1.5}, Edit("generator.a", (1, 2), "scale", 0.3),
        np.array([0.1, -2.5e-8, 1 / 3], np.float32), np.arange(6).reshape(2, 3),
    ]  # fmt: skip
    import latentlab

    for value in values:
        back = eval(calls.written(value), {"np": np, "latentlab": latentlab})
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(back, value)
            assert back.dtype == value.dtype
        else:
            assert back == value
    with pytest.raises(TypeError, match="A object can't be written as code"):
        calls.written(object())


# -- edits ---------------------------------------------------------------------------------------


def test_a_unit_is_switched_off_and_on_from_its_card_and_compared(small: dict[str, Run]) -> None:
    run = small["vae"]
    app = looking_at("vae", run, MAPS, UNIT, start="Seed")
    assert "No edit yet." in texts(app)
    rerun(app.button(key="card-off").click())
    edit = Edit(stage=MAPS, units=(UNIT,))
    assert app.session_state["edits"][run.digest] == (edit,)
    z = run.model.latent_space.sample(1, 0).numpy()
    expected = analysis.compare_edits(run.model, z, [edit])
    assert f"{float(expected.change[0]):.4f}" in html_of(app)
    check_codes(app)
    app.session_state["open"]["state"]["revision"] = f"{run.digest[:12]}-seed-0-1"
    app.session_state["open"]["state"]["edits"] = [edit.to_dict()]
    rerun(app)
    assert app.button(key="card-off").label == "Switch on"
    rerun(app.button(key="card-off").click())
    assert app.session_state["edits"][run.digest] == ()


def test_the_discriminators_score_follows_its_edits(small: dict[str, Run]) -> None:
    run = small["gan"]
    stage = run.model.networks["discriminator"].addresses[0]
    edit = Edit(stage=stage)
    app = looking_at("gan", run, stage, 0)
    app.session_state["open"]["state"]["edits"] = [edit.to_dict()]
    rerun(app)
    with torch.inference_mode():
        image = run.model.sample(1, 0)
        before, after = (float(run.model.discriminate(image, made)) for made in ((), (edit,)))
    assert before != pytest.approx(after)
    assert f"<b>{before:.3f}</b>" in html_of(app) and f"<b>{after:.3f}</b>" in html_of(app)
    check_codes(app)


def test_a_live_discriminator_stage_shows_what_it_sees_of_the_drawn_image(small: dict[str, Run]) -> None:
    """Catches a sheet of a discriminator that was given the code instead of an image."""
    run = small["gan"]
    stage = run.model.networks["discriminator"].addresses[0]
    session = live_session.LiveSession("t", "o", "s", run.model)
    z = run.model.latent_space.sample(1, 3)
    session.source = live_session.Source(z=z)
    answer = session.answer(Request(1, WANT_SHEET, None), live_session.View(stage=stage))
    assert b'"kind": "scores"' in answer
    with torch.inference_mode():
        image = run.model.decode(z)
        score = float(run.model.discriminate(image))
        state_ = run.model.networks["discriminator"].activations(image, [stage])[stage.split(".")[1]]
    header = json.loads(answer[4 : 4 + int.from_bytes(answer[:4], "little")])
    parts = {part["kind"]: part for part in header["parts"]}
    assert parts["scores"]["values"] == pytest.approx([score, score])
    assert parts["sheet"]["units"] == state_.shape[1]


def test_the_rest_of_a_datapath_can_be_switched_off(small: dict[str, Run]) -> None:
    run = small["vae"]
    app = looking_at("vae", run, MAPS, start="Seed", **{"layer-tabs": "Datapath", "tolerance": "20 %"})
    result = analysis.datapath(run.model, None, "generator", [MAPS], tolerance=0.2, n=12, seed=0, steps=60)
    kept = {int(u) for u in result.kept[MAPS]}
    rerun(app.button(key="path-edits").click())
    (edit,) = app.session_state["edits"][run.digest]
    assert edit.stage == MAPS and set(edit.units) == set(range(len(result.gates[MAPS]))) - kept


# -- jobs ----------------------------------------------------------------------------------------


def slowly(model, stage, network="generator", inputs=None, *, progress=None, **options):
    """A ranking that takes minutes, and can say so."""
    for step in range(60_000):
        time.sleep(0.01)
        progress(step, 60_000)
    raise AssertionError("nobody cancelled it")


def test_a_job_can_be_cancelled_and_started_again(
    small: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = analysis.stages_of(small["gan"].model)[0].address
    look = Look(small["gan"], Start(np.zeros(3), None, "", ""), stage, (), ())
    monkeypatch.setattr(Look, "seed", 41)
    call, rank_units = ranking.call_of(look), analysis.rank_units
    monkeypatch.setattr(analysis, "rank_units", slowly)
    app = opened(LAYERS, **{"run": "gan", "layer-tabs": "Units that matter", "stage": stage})
    assert app.get("progress")
    rerun(app.button(key="cancel-rank_units").click())
    settled(app)
    assert "Cancelled." in texts(app)
    rerun(app.button(key="again-rank_units").click())
    assert app.get("progress") and "Cancelled." not in texts(app)
    task = state.job(small["gan"], call.name, call.key, call)
    assert not task.done and not task.stopping
    app.query_params["layer-tabs"] = app.session_state["layer-tabs"] = "Edits"
    rerun(app)  # who leaves the view cancels what only this view waited for
    assert task.wait(60) and task.cancelled
    app.query_params["layer-tabs"] = app.session_state["layer-tabs"] = "Units that matter"
    monkeypatch.setattr(analysis, "rank_units", rank_units)
    rerun(app)
    settled(app)
    assert app.dataframe, "the work was begun anew"


def test_heavy_jobs_go_one_after_the_other_and_pause_while_somebody_drags(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running, most = [], []

    def work(report) -> str:
        running.append(1)
        most.append(len(running))
        for step in range(5):
            time.sleep(0.02)
            report(step / 5, "working")
        running.pop()
        return "done"

    jobs = [Job(work, heavy=True) for _ in range(3)]
    assert all(job.wait(60) and job.result == "done" for job in jobs)
    assert max(most) == 1

    def rests(last_answer: Callable[[], float]) -> tuple[list[float], list[float], int]:
        """Seconds between a job's reports, seconds that each report took, how often it looked for somebody dragging."""
        worked, rested, looked = [], [], []

        def measured(report) -> None:
            for step in range(5):
                began = time.monotonic()
                time.sleep(0.02)
                told = time.monotonic()
                report(step / 5, "working")
                worked.append(told - began)
                rested.append(time.monotonic() - told)

        def last() -> float:
            looked.append(1)
            return last_answer()

        monkeypatch.setattr(live_session, "last_answer", last)
        job = Job(measured, heavy=True)
        assert job.wait(60) and not job.error
        return worked, rested, len(looked)

    worked, rested, _ = rests(time.monotonic)  # somebody drags all the time
    assert all(rest >= min(LONGEST_PAUSE, RESTS * work) for work, rest in zip(worked, rested, strict=True))
    assert rests(lambda: 0.0)[2] == 5  # nobody does: it looks once a report and goes on


def test_a_job_that_somebody_else_waits_for_goes_on() -> None:
    def work(report) -> str:
        for step in range(40):
            time.sleep(0.02)
            report(step / 40, "working")
        return "done"

    job = Job(work, heavy=True)
    job.audience = {"one", "other"}
    assert not job.leave("one") and not job.stopping
    assert job.wait(60) and job.result == "done" and not job.cancelled
    alone = Job(work, heavy=True)
    alone.audience = {"one"}
    assert alone.leave("one") and alone.wait(60) and alone.cancelled and alone.result is None


def test_a_job_whose_sessions_are_all_gone_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch: a closed browser tab whose computation blocks everybody else's."""
    here = {"one", "other"}
    monkeypatch.setattr(engine, "present", lambda owner: owner in here)
    monkeypatch.setattr("latentlab.app.jobs.DESERTED", 0.1)
    going = threading.Event()

    def work(report) -> str:
        while not going.is_set():
            time.sleep(0.02)
            report(0.5, "working")
        return "done"

    job = Job(work, heavy=True)
    job.audience = {"one", "other"}
    waiting = Job(work, heavy=True)
    waiting.audience = {"other"}
    here.discard("one")
    assert not job.wait(2.5)
    here.clear()
    assert job.wait(60) and job.deserted and job.cancelled and waiting.wait(60) and waiting.deserted
    here.add("one")
    again = Job(work, heavy=True)
    again.audience = {"one"}
    going.set()
    assert again.wait(60) and again.result == "done" and not again.deserted


# -- spaces and directions -----------------------------------------------------------------------


def test_sliders_of_w_and_directions_draw_what_the_model_draws(small: dict[str, Run]) -> None:
    """Catches a direction of W with layers that moves all layers, and steps that are taken in Z."""
    run = small["style-gan"]
    model, rng = run.model, np.random.default_rng(0)
    w = model.spaces["w"].dim
    everywhere = Direction("all", tuple(rng.normal(size=w)), space="w", step=0.7)
    late = Direction("late", tuple(rng.normal(size=w)), space="w", step=1.3, layers=(2, 3))
    z = model.latent_space.sample(1, 5)
    with torch.inference_mode():
        mapped = model.map(z, "z", "w")
    steps = (1.5, -2.0)
    moved = everywhere.apply(mapped.numpy(), steps[0], space="w")
    styles = model.map(torch.from_numpy(moved), "w", "w+")
    expected = analysis.decode_latents(model, late.apply(styles.numpy(), steps[1], space="w+"), space="w+")[0]
    for space, code in (("z", z), ("w", mapped)):
        pull = Pull(space, (everywhere, late))
        numbers = np.concatenate([code[0].numpy(), steps]).astype(np.float32)
        np.testing.assert_allclose(sliders.decoded(run, pull, numbers, ()), expected, atol=1e-5)
        session = live_session.LiveSession("t", "o", "s", model, pull)
        assert session.dim == len(numbers)
        answer = session.answer(Request(1, WANT_IMAGE, numbers), live_session.View())
        shown = np.frombuffer(answer[-32 * 32 :], np.uint8).reshape(32, 32) / 255
        np.testing.assert_allclose(shown, expected[0], atol=0.5 / 255 + 1e-5)
    held, space = sliders.held_code(run, Pull("z", (everywhere, late)), np.array([*z[0], *steps], np.float32))
    assert space == "w+"
    np.testing.assert_allclose(analysis.decode_latents(model, held, space="w+")[0], expected, atol=1e-5)


def test_a_stages_direction_is_pulled_like_its_edits(small: dict[str, Run]) -> None:
    run = small["vae"]
    units = run.model.networks["generator"].describe(torch.zeros(1, 3))[3].shape[0]
    direction = Direction("s", tuple(np.random.default_rng(1).normal(size=units)), stage=MAPS, step=0.8)
    z = run.model.latent_space.sample(1, 2)[0].numpy()
    shown = sliders.decoded(run, Pull("z", (direction,)), np.array([*z, 1.7], np.float32), ())
    expected = analysis.decode_latents(run.model, z, edits=direction.edits(1.7))[0]
    np.testing.assert_allclose(shown, expected, atol=1e-5)
    assert not np.allclose(expected, analysis.decode_latents(run.model, z)[0], atol=1e-3)


def test_a_direction_saved_on_layers_is_a_slider_on_traverse(small: dict[str, Run]) -> None:
    run = small["style-gan"]
    app = settled(opened(LAYERS, **{"run": "style-gan", "layer-tabs": "Directions"}))
    rerun(app.text_input(key="direction-name-sefa0").input("tilt"))
    rerun(app.button(key="direction-save").click())
    (kept,) = state.directions(run)
    found = analysis.sefa(run.model, n=6, seed=0).direction("sefa0")
    assert kept.name == "tilt" and kept.space == "w"
    np.testing.assert_allclose(kept.array, found.array, atol=1e-9)
    app.switch_page(TRAVERSE)
    rerun(app)
    assert list(app.multiselect(key="directions").options) == ["tilt"]
    rerun(app.multiselect(key="directions").select("tilt"))
    assert not app.error
    pull = Pull("z", (kept,))
    start = Start(run.model.latent_space.sample(1, 0)[0].numpy(), None, "", "r")
    axis = next(a for a in sliders.axes(run, pull, None, start) if a.name == "tilt")
    assert axis.index == run.model.latent_space.dim and (axis.low, axis.high) == (-3.0, 3.0)
    state.drop_direction(run, "tilt")
    assert state.directions(run) == ()


def test_traverse_offers_w_and_style_mixing(small: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a grid of draws alone, without the code on the sliders, and one of other layers than were chosen."""
    run, mixed, swap = small["style-gan"], {}, analysis.swap_grid
    blocks = list(run.model.spaces["w+"].block_names)
    with torch.inference_mode():
        codes = run.model.latent_space.sample(1, 0), run.model.latent_space.sample(5, 0)
        styles = torch.cat([run.model.map(z, "z", "w+") for z in codes]).numpy()

    def spied(model, z=None, block=None, **options):
        mixed.update(z=z, block=block)
        return swap(model, z, block, **options)

    monkeypatch.setattr(analysis, "swap_grid", spied)
    app = opened(TRAVERSE, run="style-gan", space="W", below="Take away")
    assert not app.error and "A code of W" in texts(app)
    with torch.inference_mode():
        w = run.model.map(run.model.latent_space.sample(1, 0), "z", "w")[0].numpy()
    np.testing.assert_allclose(json.loads(app.code[0].value), w, atol=1e-5)
    app = opened(TRAVERSE, run="style-gan", below="Swap blocks")
    assert not app.error and app.get("image")
    assert "the styles of layers" in texts(app)
    assert mixed["block"] == blocks[: max(1, len(blocks) // 3)]
    np.testing.assert_allclose(mixed["z"], styles, atol=1e-4)
    opened(TRAVERSE, run="style-gan", below="Swap blocks", mixed=str(len(blocks) - 1))
    assert mixed["block"] == blocks[-1:]
    app = opened(TRAVERSE, run="vae", below="Take away")
    assert not [s for s in app.get("segmented_control") if getattr(s, "key", None) == "space"]


# -- what a review found missing -----------------------------------------------------------------


def test_a_number_of_the_page_that_is_not_its_codes_would_be_noticed() -> None:
    """The fakes: a figure and a table of another call beside honest code."""
    body = "<div><span>Effect</span><b>{}</b></div>"
    for right, wrong in (
        ("0.1235", "0.1236"),
        ("1.2e-01", "1.3e-01"),
        ("12.35%", "12.36%"),
        ("+0.12", "-0.12"),
    ):
        check_shown(body.format(right), [("Other", 5.0), ("Effect", 0.12346)])
        with pytest.raises(AssertionError):
            check_shown(body.format(wrong), [("Other", 5.0), ("Effect", 0.12346)])
    with pytest.raises(AssertionError):
        check_shown(body.format("5"), [("Other", 5.0)])
    check_table([[3, "edge", 0.5]], [["1", "edge", "0.1"], ["3", "edge", "0.5"]])
    for wrong in ([[3, "edge", 0.6]], [[3, "part", 0.5]], [[3, 0.5]]):
        with pytest.raises(AssertionError):
            check_table(wrong, [["1", "edge", "0.1"], ["3", "edge", "0.5"]])


@pytest.mark.parametrize("tab", ["Units that matter", "Concepts"])
def test_a_discriminators_tabs_show_numbers_that_their_code_prints(small: dict[str, Run], tab: str) -> None:
    run = small["gan"]
    stage = run.model.networks["discriminator"].addresses[0]
    choices = {"layer-tabs": tab, "concept-view": "Causal effects"}
    app = looking_at("gan", run, stage, UNIT, **choices, **{"unit-view": "Causal effect"})
    assert not app.error, app.error[0].value
    check_codes(app, 2)
    assert "on score" in texts(app) and "meters.Meter(" in "".join(block.value for block in app.code)


def test_a_stage_of_one_unit_says_why_it_has_no_effect(small: dict[str, Run]) -> None:
    run = small["gan"]
    stage = run.model.networks["discriminator"].addresses[-1]
    app = looking_at("gan", run, stage, 0, **{"unit-view": "Causal effect"})
    assert not app.error and "This stage has one unit" in texts(app)


@pytest.mark.parametrize(
    ("stage", "choices", "words"),
    [
        (SEES, {"unit-view": "Concept"}, "detectors"),
        (SEES, {"unit-view": "Codes"}, "batch and single runs agree"),
        (MAPS, {"layer-tabs": "Units that matter"}, "half of the effect in"),
    ],
)
def test_numbers_without_a_picture_have_their_certificate(
    small: dict[str, Run], stage: str, choices: dict, words: str
) -> None:
    """Fails a certificate that only a collapsed expander holds, or none."""
    app = looking_at("vae", small["vae"], stage, UNIT, **choices)
    captions = [e.value for e in app.main.caption if words in e.value and "model " in e.value]
    assert len(captions) > ("layer-tabs" in choices), texts(app)
    if "layer-tabs" in choices:
        said = float(re.findall(r"units carry (\d+) %", texts(app))[0])
        snippet = next(block.value for block in app.code if "the first carry" in block.value)
        assert said == round(printed(snippet)[0])


def test_the_number_of_samples_that_is_named_is_the_one_that_was_taken(small: dict[str, Run]) -> None:
    """Fails a label that stays when the number changes."""
    app = looking_at("vae", small["vae"], MAPS, UNIT, **{"unit-view": "Excite"})
    (code,) = (block.value for block in app.code if "maximise_activation" in block.value)
    assert "n_reference=10000" in code and "Best of 10,000 samples" in html_of(app)


def test_projections_of_any_images_carry_their_caveat_as_text(small: dict[str, Run]) -> None:
    many = {"layer-tabs": "Deconvnet", "projected": "The images of the data that excite each unit most"}
    app = looking_at("vae", small["vae"], SEES, **many)
    assert "largely image recovery" in texts(app)


def test_a_boundary_on_the_page_tells_how_far_it_is(small: dict[str, Run], monkeypatch) -> None:
    told = []

    def boundary(model, *arguments, progress=None, **options):
        told.append(progress is not None)
        raise ValueError("Enough.")

    monkeypatch.setattr(analysis, "boundary", boundary)
    app = looking_at(
        "vae", small["vae"], MAPS, **{"layer-tabs": "Directions", "method": "Boundary", "seed": 3}
    )
    assert told == [True] and app.error[0].value == "Enough."


@pytest.fixture(scope="module")
def shipped() -> dict[str, Path]:
    """Places of the runs that come with the package, before a test hides them."""
    from latentlab.runs import ZOO

    return {name: ZOO / name for name in ("digits-pooled", "scenes-vae")}


def test_a_shipped_encoder_with_pools_is_projected(
    small: dict[str, Run], shipped: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails switches that only planted networks have."""
    monkeypatch.setattr("latentlab.runs.ZOO", shipped["digits-pooled"].parent)
    run = Run.open("zoo:digits-pooled")
    app = settled(
        opened(LAYERS, **{"run": "zoo:digits-pooled", "stage": "encoder.conv2", "layer-tabs": "Deconvnet"})
    )
    assert not app.error, app.error[0].value
    check_codes(app)
    assert "unpooling is autograd's to" in texts(app) and "the rectifiers' rule holds to" in texts(app)
    assert run.digest[:8] in texts(app)


def test_the_concepts_of_a_shipped_run_with_masks(
    shipped: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentlab.runs.ZOO", shipped["scenes-vae"].parent)
    monkeypatch.setattr("latentlab.app.inside.concepts.IMAGES", 24)
    app = settled(
        opened(LAYERS, **{"run": "zoo:scenes-vae", "stage": "encoder.conv2", "layer-tabs": "Concepts"})
    )
    assert not app.error, app.error[0].value
    check_codes(app)
    levels = {row[2] for table in app.dataframe for row in table.value.to_numpy().tolist()}
    assert "whole" in levels or "part" in levels


def test_concepts_over_the_steps_of_a_training(small: dict[str, Run], workspace: Path) -> None:
    """Fails a view that only shows where a run kept steps, and asks for them wrongly."""
    run = Run.create(workspace / "steps", small["vae"].config, (1, 32, 32))
    save_weights(small["vae"].model, run.path / WEIGHTS)
    (run.path / CHECKPOINTS).mkdir(exist_ok=True)
    young = build_model(run.config.model, (1, 32, 32), 2)
    for step, model in ((1, young), (20, small["vae"].model)):
        save_weights(model, run.path / CHECKPOINTS / f"step-{step}.safetensors")
    run = Run.open(run.path)
    assert run.steps == [1, 20]
    app = looking_at(
        "steps", run, SEES, **{"layer-tabs": "Concepts", "concept-view": "Emergence in training"}
    )
    assert not app.error, app.error[0].value
    check_codes(app)
