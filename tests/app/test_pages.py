"""Each page as AppTest runs it: what is shown belongs to the run that was chosen, and errors are one sentence."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

import latentlab
from latentlab import analysis, viz
from latentlab.app import controls, server, state
from latentlab.app.layouts import LayoutProcess
from latentlab.app.start import Start, image_with
from latentlab.app.views import gallery
from latentlab.config import DataConfig, Experiment, VAEConfig
from latentlab.data.arrays import ImageArray
from latentlab.data.factors import FactorSpace
from latentlab.models.build import build_model
from latentlab.models.edits import Edit
from latentlab.models.vae import VAE
from latentlab.runs import METRICS, Run, save_weights

MAIN = str(server.MAIN)
TRAVERSE, LAYERS, MAP = "views/traverse.py", "views/layers.py", "views/map.py"
IMAGE = 1234


@pytest.fixture(autouse=True)
def workspace(planted: dict[str, Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The pages look at the planted runs only."""
    folder = planted["alpha"].path.parent
    monkeypatch.setenv(server.RUNS_VARIABLE, str(folder))
    monkeypatch.setattr("latentlab.runs.ZOO", tmp_path)
    return folder


def opened(page: str | None, **choices: object) -> AppTest:
    """The app on a page, after the choices of its address; an uncaught exception fails."""
    app = AppTest.from_file(MAIN, default_timeout=60)
    app.query_params.update({name: str(value) for name, value in choices.items()})
    app = rerun(app)  # pages are known after the first run
    return rerun(app.switch_page(page)) if page else app


def rerun(changed) -> AppTest:
    """Runs the script again, given the app or the widget that was used."""
    app = changed.run()
    assert not app.exception, app.exception[0].message
    return app


def until(app: AppTest, ready) -> AppTest:
    """Runs the page again, as its own polling does, until a background job has ended."""
    end = time.monotonic() + 60
    while not ready(app):
        assert time.monotonic() < end, "the background job did not end"
        time.sleep(0.1)
        rerun(app)
    return app


def pictures(app: AppTest) -> dict[str, np.ndarray]:
    """The shown pictures by text alternative, as (height, width, 3) arrays."""
    shown = {image.alt: image.url for element in app.get("image") for image in element.proto.imgs}
    for element in app.get("bidi_component"):  # pictures whose images can be clicked
        if element.proto.component_name.endswith("picture"):
            data = json.loads(element.proto.json)
            shown[data["alt"]] = data["address"]
    found = {}
    for alt, address in shown.items():
        kind, data = address.split(",", 1)
        assert kind == "data:image/png;base64", "a picture that can go stale"
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            found[alt] = np.asarray(picture.convert("RGB"))
    return found


def starting_with(found: dict[str, np.ndarray], words: str) -> np.ndarray:
    names = [name for name in found if name.startswith(words)]
    assert len(names) == 1, f"pictures shown: {list(found)}"
    return found[names[0]]


def texts(app: AppTest) -> str:
    return "\n".join(str(e.value) for kind in ("caption", "markdown", "info") for e in app.get(kind))


def page_html(app: AppTest) -> str:
    return "\n".join(e.proto.body for e in app.get("html"))


def code_of(run: Run, image: int) -> np.ndarray:
    return analysis.encode_images(run.model, run.dataset().images(np.array([image])))[0]


def rgb(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"))


# -- start ---------------------------------------------------------------------------------------


def test_pages_start_without_lightning_and_umap(workspace: Path) -> None:
    program = f"""
import sys
from streamlit.testing.v1 import AppTest
app = AppTest.from_file({MAIN!r}, default_timeout=60).run()
for page in ({TRAVERSE!r}, {LAYERS!r}):
    app.query_params["run"] = "alpha"
    app.switch_page(page).run()
    assert not app.exception, app.exception[0].message
print([name for name in ("pytorch_lightning", "lightning", "umap", "numba", "sklearn") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, server.RUNS_VARIABLE: str(workspace)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip().splitlines()[-1:] == ["[]"], done.stdout + done.stderr[-2000:]


# -- gallery -------------------------------------------------------------------------------------


def test_gallery_shows_each_run_by_its_own_samples(planted: dict[str, Run]) -> None:
    found = pictures(opened(None))
    for name in ("alpha", "beta"):
        samples = planted[name].model.sample(32, 0).numpy()
        sheet = viz.images.grid(samples.reshape(4, 8, 1, 64, 64), scale=1, gap=gallery.GAP)
        np.testing.assert_array_equal(found[f"Images drawn by {name}"], rgb(sheet))
    assert not np.array_equal(found["Images drawn by alpha"], found["Images drawn by beta"])


def test_gallery_says_in_one_sentence_why_a_run_cannot_be_opened() -> None:
    app = opened(None)
    errors = [error.value for error in app.error]
    assert len(errors) == 2
    assert any("must be a run's configuration of format 1; got 99" in error for error in errors)
    assert any("damaged or no safetensors file" in error for error in errors)
    assert not any("Traceback" in error or "\n" in error for error in errors)
    assert "No weights yet: training writes them at its first checkpoint." in texts(app)


@pytest.mark.parametrize("table", ["step,kl\n1,2\ninf,nan\n", "step,kl\nnan,-inf\n", "\n1,2\n", "step\n,\n"])
def test_one_runs_table_of_anything_leaves_the_other_cards_alone(
    planted: dict[str, Run], workspace: Path, table: str
) -> None:
    """Catches a gallery that reads the last step as a whole number: infinity took the whole page down."""
    shutil.copytree(planted["beta"].path, workspace / "hostile")
    try:
        (workspace / "hostile" / METRICS).write_text(table, encoding="utf-8")
        app = opened(None)
        found = pictures(app)
        assert {"Images drawn by alpha", "Images drawn by beta"} <= set(found)
        assert "<b>100</b>" in page_html(app), "the other runs keep their figures"
        assert not re.search(r"<b>(inf|nan|-inf)\b", page_html(app))
        if table.startswith("step,"):
            assert "Images drawn by hostile" in found and "<b>not finite</b>" in page_html(app)
    finally:
        shutil.rmtree(workspace / "hostile")


def test_a_card_that_fails_in_any_way_stays_one_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a gallery that lets one run's error end the page."""

    def card(run: Run) -> str:
        if run.path.name == "beta":
            raise RecursionError("too\ndeep")
        return ""

    monkeypatch.setattr(Run, "card", property(card))
    app = opened(None)
    assert "This run can't be shown (RecursionError: too deep)." in [error.value for error in app.error]
    assert {"Images drawn by alpha", "Images drawn by blocks"} <= set(pictures(app))
    assert any(link.proto.query_string == "to-run=homeless" for link in app.get("page_link"))


def test_a_folder_that_is_called_like_a_shipped_run_does_not_replace_it(
    planted: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a list of runs in which the workspace's names win over the shipped ones."""
    own, shipped = tmp_path / "runs" / "zoo:digits-vae", tmp_path / "zoo" / "digits-vae"
    shutil.copytree(planted["alpha"].path, own)
    shutil.copytree(planted["beta"].path, shipped)
    monkeypatch.setenv(server.RUNS_VARIABLE, str(own.parent))
    monkeypatch.setattr("latentlab.runs.ZOO", shipped.parent)
    assert {a: s.path for a, s in state.runs().items()} == {
        "zoo:digits-vae": shipped,
        "./zoo:digits-vae": own,
    }
    assert state.open_run("zoo:digits-vae").digest == planted["beta"].digest
    assert state.open_run("./zoo:digits-vae").digest == planted["alpha"].digest
    app = opened(None)
    assert [header.value for header in app.subheader] == ["Shipped with latentlab", "Your runs"]
    assert {"Images drawn by zoo:digits-vae", "Images drawn by ./zoo:digits-vae"} == set(pictures(app))
    app = opened(TRAVERSE, run="./zoo:digits-vae", start="Seed", below="Take away")
    assert f"Run.open({str(own)!r})" in app.code[1].value
    app = opened(TRAVERSE, run="zoo:digits-vae", start="Seed", below="Take away")
    assert "Run.open('zoo:digits-vae')" in app.code[1].value


def test_gallery_links_open_the_pages_on_that_run() -> None:
    links = [link.proto for link in opened(None).get("page_link")]
    addresses = {(link.page, link.query_string) for link in links}
    for page in ("traverse", "layers", "map"):
        assert (page, "to-run=alpha") in addresses
    assert not any("damaged" in query or "garbled" in query for _, query in addresses)


def test_gallery_shows_figures_and_a_card_that_fetches_nothing() -> None:
    app = opened(None)
    assert "12.2 nats" in page_html(app) or "12.3 nats" in page_html(app)
    app.button(key="card-beta").click()
    card = "\n".join(m.value for m in rerun(app).markdown)
    assert "# Card of beta" in card
    assert "tags:" not in card
    assert "example.org" not in card
    assert "*(away not shown)*" in card


def test_gallery_of_an_empty_workspace_says_how_to_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(server.RUNS_VARIABLE, str(tmp_path / "none"))
    app = opened(None)
    assert f"latentlab train digits-vae --out {tmp_path / 'none'}/first" in texts(app)
    assert not app.error
    assert not (tmp_path / "none").exists(), "looking must not make the folder"
    assert "No run yet" in texts(opened(TRAVERSE))


# -- traverse ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_traverse_draws_the_chosen_run_around_the_chosen_image(planted: dict[str, Run], name: str) -> None:
    run = planted[name]
    app = opened(TRAVERSE, run=name, image=IMAGE)
    until(app, lambda a: "latents are active" in texts(a))
    encoding = analysis.encode_dataset(run.model, run.dataset(), state.ENCODED, seed=0)
    z = code_of(run, IMAGE)
    shown = pictures(app)["Traversal strips of z4, z1"]
    axes = controls.sliders(
        run, encoding, Start(z, None, "", "r")
    )  # from one end of each slider to the other
    ends = np.array([(axis.low, axis.high) for axis in sorted(axes, key=lambda axis: axis.index)])
    expected = analysis.traverse(run.model, z, ["z4", "z1"], span=ends, encoding=encoding)
    np.testing.assert_array_equal(shown, rgb(viz.show(expected, caption=False).image))
    rerun(app.segmented_control(key="strip-range").set_value("Data"))
    expected = analysis.traverse(run.model, z, ["z4", "z1"], span="posterior", encoding=encoding)
    shown = pictures(app)["Traversal strips of z4, z1"]
    np.testing.assert_array_equal(shown, rgb(viz.show(expected, caption=False).image))
    assert "2 of 6 latents are active" in texts(app)
    assert run.digest[:10] in page_html(app)


def test_strips_span_the_data_as_soon_as_they_are_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened(TRAVERSE, run="alpha", start="Seed", seed=8)
    until(app, lambda a: "latents are active" in texts(a))
    data = starting_with(pictures(app), "Traversal strips")
    with monkeypatch.context() as patched:
        patched.setattr(state.Job, "wait", lambda job, seconds: False)
        patched.setattr(state.Job, "done", False)
        slow = opened(TRAVERSE, run="alpha", start="Seed", seed=8)
        assert not np.array_equal(starting_with(pictures(slow), "Traversal strips"), data), (
            "all by the prior yet"
        )
    np.testing.assert_array_equal(starting_with(pictures(rerun(slow)), "Traversal strips"), data)


def test_a_job_that_ends_while_the_page_is_drawn_draws_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch: sliders by the prior under words that say they are sorted by KL, for good."""
    app = opened(TRAVERSE, run="alpha", start="Seed", seed=8)
    until(app, lambda a: "latents are active" in texts(a))
    data = starting_with(pictures(app), "Traversal strips")
    with monkeypatch.context() as patched:
        waits = iter([False])  # as if it ended right after the page had asked
        patched.setattr(state.Job, "wait", lambda job, seconds: next(waits, True))
        late = opened(TRAVERSE, run="alpha", start="Seed", seed=8)
    assert "latents are active" in texts(late)
    np.testing.assert_array_equal(starting_with(pictures(late), "Traversal strips"), data)


def test_two_runs_show_different_strips() -> None:
    app = opened(TRAVERSE, run="alpha", start="Seed")
    first = starting_with(pictures(app), "Traversal strips")
    app.selectbox(key="run").select("beta")
    assert not np.array_equal(first, starting_with(pictures(rerun(app)), "Traversal strips"))


def test_a_run_trained_again_under_its_name_is_opened_anew(planted: dict[str, Run], workspace: Path) -> None:
    shutil.copytree(planted["alpha"].path, workspace / "again")
    try:
        app = opened(TRAVERSE, run="again", start="Seed")
        before = starting_with(pictures(app), "Traversal strips")
        shutil.copy(planted["beta"].weights_path, workspace / "again" / "weights.safetensors")
        after = starting_with(pictures(rerun(app)), "Traversal strips")
        assert planted["beta"].digest[:10] in page_html(app)
        assert not np.array_equal(before, after)
    finally:
        shutil.rmtree(workspace / "again")


def test_sliders_are_sorted_by_kl_and_dead_latents_folded(planted: dict[str, Run]) -> None:
    run = planted["alpha"]
    encoding = analysis.encode_dataset(run.model, run.dataset(), 500, seed=0)
    start = Start(code_of(run, IMAGE), None, "", "r")
    axes = controls.sliders(run, encoding, start)
    assert [axis.name for axis in axes][:2] == ["z4", "z1"]
    assert [axis.inactive for axis in axes] == [False, False, True, True, True, True]
    assert axes[0].kl > axes[1].kl > 0.1 > axes[2].kl
    low, high = analysis.dim_range(run.model, "z4", span="posterior", coverage=0.98, encoding=encoding)
    assert axes[0].low == pytest.approx(min(low, start.z[4])) and axes[0].high == pytest.approx(
        max(high, start.z[4])
    )


def test_sliders_of_a_run_without_its_data_span_the_prior(planted: dict[str, Run]) -> None:
    app = opened(TRAVERSE, run="homeless")
    assert "No image to start from: " in texts(app)
    assert "Sliders span the middle 98 % of the prior" in texts(app)
    assert not app.error
    axes = controls.sliders(planted["homeless"], None, Start(np.zeros(6, np.float32), None, "", "r"))
    assert [axis.index for axis in axes] == list(range(6))
    assert axes[0].high == pytest.approx(2.326, abs=1e-3) and axes[0].kl is None


def test_what_is_below_follows_the_sliders(planted: dict[str, Run]) -> None:
    run = planted["alpha"]
    app = opened(TRAVERSE, run="alpha", start="Seed", below="Take away")
    assert json.loads(app.code[0].value) == pytest.approx(
        run.model.latent_space.sample(1, 0)[0].tolist(), abs=1e-5
    )
    z = [0.5, -1.0, 0.0, 2.0, 0.25, -0.125]
    revision = f"{run.digest[:12]}-seed-0"
    app.session_state["pull"] = {
        "state": {"z": z, "locks": [], "revision": revision, "engine": "rerun", "seed": 0}
    }
    assert json.loads(rerun(app).code[0].value) == z
    assert str(z) in app.code[1].value


def test_numbers_are_taken_or_refused_with_a_sentence(planted: dict[str, Run]) -> None:
    z = [0.5, -1.0, 0.0, 2.0, 0.25, -0.125]
    app = opened(TRAVERSE, run="alpha", start="Numbers", z=json.dumps(z), below="Take away")
    assert json.loads(app.code[0].value) == z
    app.text_input(key="z").input("1, 2")
    assert [e.value for e in rerun(app).error] == ["Expected 6 finite numbers, one for each latent; got 2."]
    app.text_input(key="z").input("one two")
    assert [e.value for e in rerun(app).error] == ["Expected 6 numbers such as 0.5, -1, 2; got 'one two'."]
    app.text_input(key="z").input("nan 0 0 0 0 0")
    assert "finite" in rerun(app).error[0].value


def test_a_thumbnail_starts_from_its_image(planted: dict[str, Run]) -> None:
    app = opened(TRAVERSE, run="alpha")
    chosen = next(b for b in app.button if str(b.key).startswith("thumb-other-"))
    number = int(str(chosen.key).rsplit("-", 1)[1])
    rerun(chosen.click())
    assert app.number_input(key="image").value == number
    assert f"Image {number:,} of sprites" in texts(app)


def test_choosing_by_factor_finds_the_image_with_those_factors(planted: dict[str, Run]) -> None:
    data = planted["alpha"].dataset()
    app = opened(TRAVERSE, run="alpha", image=IMAGE)
    rerun(app.slider(key="factor-x").set_value(31))
    wanted = data.factors(np.array([IMAGE])).numpy().copy()
    wanted[0, data.factor_space.position("x")] = 31
    assert app.number_input(key="image").value == int(data.index(wanted)[0])


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages look at the runs that ship with the package, too."""
    monkeypatch.setattr("latentlab.runs.ZOO", Path(latentlab.__file__).parent / "zoo")


def test_an_image_that_is_drawn_twice_is_offered_once(shipped: None) -> None:
    """Catches a choice of images drawn with replacement, where two widgets get one key: seed 86 does."""
    data = Run.open("zoo:digits-vae").dataset()
    assert len(set(data.sample(8, 86).tolist())) < 8, "the seed must draw one image twice"
    for page in (TRAVERSE, LAYERS):
        app = opened(page, run="zoo:digits-vae", seed=86)
        assert sum(str(button.key).startswith("thumb-") for button in app.button) == 8
        assert not app.error


def test_a_folder_of_three_images_works_on_every_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches pages that take a data set to be larger than what they show of it."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(np.full((32, 32), 80 * i, np.uint8)).save(folder / f"{i}.png")
    data = DataConfig(f"folder:{folder}", {"image_size": 32, "channels": 1})
    run = small_run(tmp_path / "runs" / "three", latents=3, data=data)
    monkeypatch.setenv(server.RUNS_VARIABLE, str(run.path.parent))
    for below in ("Strips", "Plane"):
        app = until(opened(TRAVERSE, run="three", below=below), lambda a: "latents are active" in texts(a))
        assert not app.error
        assert {str(b.key)[-1] for b in app.button if str(b.key).startswith("thumb-")} == {"0", "1", "2"}
    assert not opened(LAYERS, run="three").error
    app = until(opened(MAP, run="three"), lambda a: "Neighbours kept" in page_html(a) or a.error)
    assert not app.error


def small_run(path: Path, latents: int, data: DataConfig | None = None) -> Run:
    """A run of random weights for images (1, 32, 32)."""
    model = VAEConfig(latents=latents, width=4, hidden=8)
    experiment = Experiment(name=path.name, data=data or DataConfig("digits"), model=model)
    run = Run.create(path, experiment, (1, 32, 32))
    save_weights(build_model(model, (1, 32, 32)), run.weights_path)
    return Run.open(path)


def test_choosing_by_factor_works_where_factors_do_not_name_one_image(shipped: None) -> None:
    """Catches a picker that computes an image's number from its factors, which only a full grid allows."""
    data = Run.open("zoo:digits-vae").dataset()
    assert not data.is_grid
    app = opened(TRAVERSE, run="zoo:digits-vae", image=100)
    for digit in (7, 2):
        rerun(app.selectbox(key="factor-digit").set_value(digit))
        number = app.number_input(key="image").value
        assert int(data.factors(np.array([number]))[0, 0]) == digit
        assert f"digit {digit}" in texts(app)


def test_the_image_found_by_a_factor_keeps_the_other_factors_if_it_can() -> None:
    """Catches a search that takes any image with the value, or the same one whatever is shown now."""
    table = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [1, 0, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]])
    space = FactorSpace(("a", "b", "c"), (3, 2, 2))
    data = ImageArray("planted", "", np.zeros((7, 1, 8, 8), np.uint8), space, table)
    assert image_with(data, 0, "a", 1) == 2
    assert image_with(data, 4, "a", 1) == 1, "the only one that agrees in b and c"
    assert image_with(data, 3, "c", 0) == 5, "of two equals the next in order"
    assert image_with(data, 6, "a", 1) == 2, "round the end"
    assert image_with(data, 0, "a", 2) is None


def test_a_seed_is_drawn_by_the_models_own_prior(
    planted: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a start drawn from each block's own prior, past the prior that a model has between its blocks."""
    z = [0.5, -1.0, 0.0, 2.0, 0.25, -0.125]
    monkeypatch.setattr(VAE, "sample_codes", lambda model, n, seed: torch.tensor([z]) * seed)
    app = opened(TRAVERSE, run="alpha", start="Seed", seed=3, below="Take away")
    assert json.loads(app.code[0].value) == [3 * v for v in z]


def test_the_plane_is_that_of_the_two_latents_chosen(planted: dict[str, Run]) -> None:
    run = planted["beta"]
    app = opened(TRAVERSE, run="beta", start="Seed", below="Plane", across="z2", upwards="z5")
    rerun(app.segmented_control(key="plane-range").set_value("± 2 σ"))
    z = run.model.latent_space.sample(1, 0)[0].numpy()
    expected = analysis.traverse_grid(run.model, z, ("z2", "z5"), steps=9, span=2.0)
    shown = pictures(app)["Images over z2 (across) and z5 (upwards)"]
    np.testing.assert_array_equal(shown, rgb(viz.show(expected, caption=False).image))
    rerun(app.selectbox(key="upwards").select("z2"))
    assert "Choose two different latents to span a plane." in texts(app)


def test_swaps_need_blocks_and_say_so() -> None:
    app = opened(TRAVERSE, run="alpha", below="Swap blocks")
    assert "keeps all its latents in one block ('z'), so it has no blocks to swap" in texts(app)


def test_swaps_of_a_model_with_blocks(planted: dict[str, Run]) -> None:
    run = planted["blocks"]
    app = opened(TRAVERSE, run="blocks", below="Swap blocks", block="kind", seed=3)
    until(app, lambda a: "latents are active" in texts(a))
    encoding = analysis.encode_dataset(run.model, run.dataset(), state.ENCODED, seed=0)
    codes = encoding.mean[np.random.default_rng(3).permutation(encoding.n)[:6]]
    expected = analysis.swap_grid(run.model, codes, "kind")
    np.testing.assert_array_equal(
        pictures(app)["Swap grid of the block kind"], rgb(viz.show(expected, caption=False).image)
    )


def test_downloads_hold_the_picture_and_its_provenance(planted: dict[str, Run]) -> None:
    run = planted["alpha"]
    result = analysis.traverse(run.model, np.zeros(6, np.float32), ["z1"], steps=3)
    with zipfile.ZipFile(io.BytesIO(state.Drawn(result).files("alpha-strips"))) as archive:
        assert sorted(archive.namelist()) == ["alpha-strips.json", "alpha-strips.npz"]
        assert run.digest in archive.read("alpha-strips.json").decode()
    assert controls.file_name("zoo:a b", "../z1") == "zoo-a-b-..-z1"


def test_an_address_that_names_no_run_shows_a_run_there_is() -> None:
    app = opened(TRAVERSE, run="../../etc", start="Seed")
    assert app.selectbox(key="run").value in ("alpha", "again", "beta", "blocks", "damaged", "homeless")
    with pytest.raises(ValueError, match=re.escape("There is no run '../../etc' here; there are: ")):
        state.open_run("../../etc")


def test_a_damaged_run_gets_its_sentence_on_every_page() -> None:
    for page in (TRAVERSE, LAYERS, MAP):
        app = opened(page, run="damaged")
        assert len(app.error) == 1 and "damaged or no safetensors file" in app.error[0].value


def test_a_link_wins_over_what_was_chosen_before(planted: dict[str, Run]) -> None:
    z = [0.5, -1.0, 0.0, 2.0, 0.25, -0.125]
    app = opened(TRAVERSE, run="alpha", start="Numbers", z="1, 1, 1, 1, 1, 1", below="Take away")
    app.query_params.update({"to-run": "beta", "to-z": ",".join(map(str, z))})
    assert json.loads(rerun(app).code[0].value) == z
    assert planted["beta"].digest[:10] in page_html(app)
    app.query_params.update({"to-start": "Image", "to-image": "77"})
    assert rerun(app).number_input(key="image").value == 77
    assert "Image 77 of sprites" in texts(app)
    assert not any(name.startswith("to-") for name in app.query_params)
    for nonsense in ("-1", "99999999999", "one", ""):
        app.query_params.update({"to-run": "../..", "to-image": nonsense, "to-start": "Away"})
        rerun(app)
        assert planted["beta"].digest[:10] in page_html(app)


# -- layers --------------------------------------------------------------------------------------


def layers_held(run: Run, edits: list[Edit], revision: str, stage: str = "generator.deconv1") -> dict:
    specs = [edit.to_dict() for edit in edits]
    return {
        "state": {"edits": specs, "stage": stage, "selected": [], "revision": revision, "engine": "rerun"}
    }


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_layers_compares_the_run_with_itself_under_the_edits(planted: dict[str, Run], name: str) -> None:
    run = planted[name]
    app = opened(LAYERS, run=name, image=IMAGE)
    assert "No edit yet." in texts(app)
    stages = analysis.stages_of(run.model)
    edit = Edit(stage=stages[2].address, units=(0, 1))
    app.session_state["open"] = layers_held(
        run, [edit], f"{run.digest[:12]}-image-{IMAGE}-0", stages[2].address
    )
    rerun(app)
    expected = analysis.compare_edits(
        run.model, run.dataset().images(np.array([IMAGE])), [edit], network="encoder"
    )
    assert expected.change[0] > 0, "the planted edit must change the image"
    shown = pictures(app)["Original, edited and difference"]
    np.testing.assert_array_equal(shown, rgb(viz.show(expected, caption=False).image))
    assert f"{float(expected.change[0]):.4f}" in page_html(app)


def test_edits_are_listed_removed_cleared_and_follow_to_traverse(planted: dict[str, Run]) -> None:
    run = planted["alpha"]
    stage = analysis.stages_of(run.model)[2].address
    edits = [Edit(stage=stage, units=(0,)), Edit(stage=stage, units=(2, 3), operation="scale", value=2.0)]
    app = opened(LAYERS, **{"run": "alpha", "start": "Seed", "layer-tabs": "Edits"})
    app.session_state["open"] = layers_held(run, edits, f"{run.digest[:12]}-seed-0-0", stage)
    shown = texts(rerun(app))
    assert f"1. `{stage}` unit 0 switched off" in shown
    assert f"2. `{stage}` units 2, 3 scaled by 2" in shown
    rerun(app.button(key="drop-0").click())
    assert f"1. `{stage}` units 2, 3 scaled by 2" in texts(app)
    app.switch_page(TRAVERSE)
    rerun(app)
    before = starting_with(pictures(app), "Traversal strips")
    rerun(app.toggle(key="keep-edits").set_value(True))
    assert "Keep the 1 edit made on Layers" in app.toggle(key="keep-edits").label
    assert not np.array_equal(before, starting_with(pictures(app), "Traversal strips"))


def test_edits_of_one_run_stay_with_it(planted: dict[str, Run]) -> None:
    run = planted["alpha"]
    stage = analysis.stages_of(run.model)[2].address
    app = opened(LAYERS, run="alpha", start="Seed")
    app.session_state["open"] = layers_held(
        run, [Edit(stage=stage, units=(0,))], f"{run.digest[:12]}-seed-0-0", stage
    )
    rerun(app)
    assert "Original, edited and difference" in pictures(app)
    rerun(app.selectbox(key="run").select("beta"))
    assert "No edit yet." in texts(app)
    rerun(app.selectbox(key="run").select("alpha"))
    assert "Original, edited and difference" in pictures(app)


def test_units_are_ranked_by_their_effect_and_can_be_switched_off(planted: dict[str, Run]) -> None:
    run = planted["alpha"]
    app = opened(LAYERS, **{"run": "alpha", "start": "Seed", "layer-tabs": "Units that matter"})
    until(app, lambda a: len(a.dataframe) > 0)
    stage = next(s.address for s in analysis.stages_of(run.model) if len(s.shape) == 3 and s.shape[1] >= 8)
    expected = analysis.rank_units(run.model, stage, n=16, seed=0)
    table = app.dataframe[0].value
    assert list(table["unit"]) == [int(expected.units[i]) for i in expected.order]
    np.testing.assert_allclose(table["effect"], np.sort(expected.effect)[::-1], rtol=1e-4, atol=1e-7)
    best = int(expected.units[expected.order[0]])
    rerun(app.button(key=f"off-{stage}-{best}").click())
    assert app.session_state["edits"][run.digest] == (Edit(stage=stage, units=(best,)),)


def test_the_stage_that_is_looked_at_is_in_the_address(planted: dict[str, Run]) -> None:
    """Catches an address that is read for the stage but never says which one is open."""
    run = planted["alpha"]
    default, *others = (
        s.address for s in analysis.stages_of(run.model) if len(s.shape) == 3 and s.shape[1] >= 8
    )
    app = opened(LAYERS, run="alpha", start="Seed")
    assert "stage" not in app.query_params
    revision = f"{run.digest[:12]}-seed-0-0"
    app.session_state["open"] = layers_held(run, [], revision, others[0])
    assert rerun(app).query_params["stage"] == others[0]
    app.session_state["open"] = layers_held(run, [], revision, default)
    assert "stage" not in rerun(app).query_params
    choices = {"run": "alpha", "start": "Seed", "stage": others[0], "layer-tabs": "Units that matter"}
    app = opened(LAYERS, **choices)
    assert f"Each unit of **{others[0]}**" in texts(app)
    assert app.query_params["stage"] in (others[0], [others[0]])


def test_loaded_edits_that_do_not_fit_are_refused_with_a_sentence(planted: dict[str, Run]) -> None:
    app = opened(LAYERS, **{"run": "alpha", "start": "Seed", "layer-tabs": "Edits"})
    app.text_area(key="edits-json").input('[{"stage": "generator.nowhere"}]')
    rerun(app)
    rerun(next(b for b in app.button if b.label == "Apply").click())
    assert len(app.error) == 1 and "No stage 'generator.nowhere' in this model; it has " in app.error[0].value
    app.text_area(key="edits-json").input("not json")
    rerun(app)
    rerun(next(b for b in app.button if b.label == "Apply").click())
    assert len(app.error) == 1 and "\n" not in app.error[0].value
    assert not state_edits(app)


def state_edits(app: AppTest) -> bool:
    return "edits" in app.session_state and any(app.session_state["edits"].values())


# -- map -----------------------------------------------------------------------------------------


def on_map(name: str, **choices: object) -> AppTest:
    app = opened(MAP, run=name, points=2000, **choices)
    return until(app, lambda a: "Neighbours kept" in page_html(a))


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_a_point_of_the_map_shows_its_image_and_what_this_run_makes_of_it(
    planted: dict[str, Run], name: str
) -> None:
    run = planted[name]
    app = on_map(name)
    app.session_state["map"] = {"pick": {"point": 7, "serial": 1}}
    app.session_state["places"] = {f"{run.digest[:12]}-pca-2000": {"point": 7}}
    rerun(app)
    encoding = analysis.encode_dataset(run.model, run.dataset(), 2000, seed=0)
    index = int(encoding.indices[7])
    image = run.dataset().images(np.array([index])).numpy()[0]
    decoded = analysis.decode_latents(run.model, encoding.mean[7][None])[0]
    shown = pictures(app)
    np.testing.assert_array_equal(shown[f"Image {index} of the data"], rgb(viz.to_pil(image, 3)))
    np.testing.assert_array_equal(shown[f"Reconstruction of image {index}"], rgb(viz.to_pil(decoded, 3)))
    link = app.get("page_link")[0].proto
    assert (link.page, link.query_string) == ("traverse", f"to-start=Image&to-image={index}")


def test_empty_space_is_decoded_with_its_support(planted: dict[str, Run]) -> None:
    run = planted["alpha"]
    app = on_map("alpha")
    far = [90.0, -70.0]
    app.session_state["places"] = {f"{run.digest[:12]}-pca-2000": {"position": far}}
    rerun(app)
    encoding = analysis.encode_dataset(run.model, run.dataset(), 2000, seed=0)
    projection = analysis.project(encoding, "pca")
    code = projection.lift(np.array([far]))[0]
    expected = viz.to_pil(analysis.decode_latents(run.model, code[None])[0], 3)
    np.testing.assert_array_equal(pictures(app)["Image decoded at the clicked position"], rgb(expected))
    assert "Far from all data: the model makes this up." in texts(app)
    assert app.get("page_link")[0].proto.query_string.startswith("to-start=Numbers&to-z=")
    near = projection.points[:1].astype(float).tolist()[0]
    app.session_state["places"] = {f"{run.digest[:12]}-pca-2000": {"position": near}}
    assert "The data support this image." in texts(rerun(app))


def test_the_map_of_a_run_without_its_data_says_what_is_missing() -> None:
    app = opened(MAP, run="homeless")
    assert len(app.error) == 1 and "folder" in app.error[0].value


def test_the_map_of_a_model_with_one_latent_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a map that asks for a plane in one dimension and shows the refusal of the function below it."""
    run = small_run(tmp_path / "runs" / "thin", latents=1)
    monkeypatch.setenv(server.RUNS_VARIABLE, str(run.path.parent))
    app = opened(MAP, run="thin")
    assert not app.error and "A map needs two latents; this model has one." in texts(app)
    for page in (TRAVERSE, LAYERS):
        assert not opened(page, run="thin").error


def test_a_job_that_fails_says_so_and_can_be_tried_again(planted: dict[str, Run]) -> None:
    run, tries = planted["alpha"], []

    def work(report) -> str:
        tries.append(1)
        report(2.0, "trying")
        if len(tries) == 1:
            raise OSError("The disk is full.")
        return "done"

    first = state.job(run, "test-of-jobs", (1,), work)
    assert (
        first.wait(10) and first.error == "The disk is full." and first.result is None and first.share == 1.0
    )
    assert state.job(run, "test-of-jobs", (1,), work) is first
    state.forget_job(run, "test-of-jobs", (1,))
    second = state.job(run, "test-of-jobs", (1,), work)
    assert second.wait(10) and second.result == "done" and not second.error


# -- the process that lays maps out --------------------------------------------------------------


def test_maps_laid_out_in_another_process_are_the_same_and_survive_its_death(planted: dict[str, Run]) -> None:
    run = planted["alpha"]
    encoding = analysis.encode_dataset(run.model, run.dataset(), 200, seed=0)
    process = LayoutProcess()
    try:
        here, there = analysis.project(encoding, "pca"), process.project(encoding.mean, "pca")
        np.testing.assert_allclose(there.points, here.points, atol=1e-5)
        with pytest.raises(ValueError, match="nonsense"):
            process.project(encoding.mean, "nonsense")
        process._process.kill()
        process._process.wait()
        np.testing.assert_allclose(process.project(encoding.mean, "pca").points, here.points, atol=1e-5)
    finally:
        process.close()
