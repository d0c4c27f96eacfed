"""What a run from elsewhere may do to the gallery: nothing but show its own text and pictures."""

import re

import pytest
from PIL import Image

from latentlab.app.inside.recipe import check_fits
from latentlab.app.views.gallery import key_figures, own_pictures
from latentlab.app.views.traverse import code_for
from latentlab.config import Experiment, VAEConfig
from latentlab.models.build import build_model
from latentlab.models.edits import Edit
from latentlab.runs import Run, save_weights


@pytest.fixture
def run(tmp_path) -> Run:
    experiment = Experiment(name="a", model=VAEConfig(latents=2, width=4, hidden=8))
    run = Run.create(tmp_path / "a", experiment, (1, 32, 32))
    save_weights(build_model(experiment.model, (1, 32, 32)), run.weights_path)
    Image.new("L", (4, 4)).save(run.path / "samples.png")
    return Run.open(run.path, "cpu")


@pytest.mark.parametrize(
    "card",
    [
        "![a](http://evil.example/x.png)",
        "![a [b]](http://evil.example/x.png)",
        "![a][ref]\n\n[ref]: http://evil.example/x.png",
        "![![a](http://evil.example/1.png)](http://evil.example/2.png)",
        "![a](../secret.png) ![b](/etc/x.png)",
    ],
)
def test_a_card_can_not_fetch_a_picture(run, card):
    shown = own_pictures(run, card)
    assert not re.search(r"(?<!\\)!\[", shown), shown


def test_a_card_shows_the_runs_own_pictures(run):
    shown = own_pictures(run, "text ![samples](samples.png) more")
    assert shown.startswith("text ![samples](data:image/png;base64,") and shown.endswith(") more")
    (run.path / "samples.png").unlink()
    (run.path / "samples.png").symlink_to("/etc/hostname")
    assert "not shown" in own_pictures(run, "![samples](samples.png)")


def test_a_damaged_card_or_table_is_an_error_that_the_page_can_show(run):
    (run.path / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="should be a UTF-8 text"):
        key_figures(run)


def test_loaded_edits_of_either_network_must_fit_the_model(run):
    check_fits(run, (Edit("encoder.conv1", (3,)), Edit("generator.fc1", (7,))))
    for edit in (Edit("encoder.conv1", (9999,)), Edit("encoder.fc1", region=((1.0,),)), Edit("generator.x")):
        with pytest.raises(ValueError, match=r"names unit 9999|no spatial map|No stage"):
            check_fits(run, (edit,))


def test_the_code_that_is_taken_away_makes_the_picture_that_is_shown(run):
    import numpy as np

    import latentlab

    edits = (Edit("generator.deconv1", (1, 2)), Edit("generator.fc1", None, "scale", 2.0))
    text = code_for(run, [0.5, -1.0], edits, None)
    names: dict = {}
    exec(text.replace("latentlab.viz.show(strip)", "shown = strip"), names)
    expected = latentlab.traverse(run.model, np.array([0.5, -1.0]), edits=edits)
    assert np.allclose(names["shown"].images, expected.images, atol=1e-6)
    assert not np.allclose(expected.images, latentlab.traverse(run.model, np.array([0.5, -1.0])).images)
