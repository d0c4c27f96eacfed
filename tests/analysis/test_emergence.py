import numpy as np
import pytest
import torch
from planted import gated
from planted.boxes import Boxes
from planted.composed import composed_network, pictures
from torch import nn

from latentlab.analysis import ConceptMasks, activations, emergence, emergence_over_training, load_result
from latentlab.models.adapt import adapt
from latentlab.models.staged import StagedNetwork

EDGE, PART, WHOLE = range(3)


@pytest.fixture(scope="module")
def shown():
    return pictures(96)


@pytest.fixture(scope="module")
def planted(shown):
    return emergence(composed_network(), inputs=shown[0], concepts=shown[1])


def _shuffled(concepts, seed=3):
    order = np.random.default_rng(seed).permutation(len(concepts))
    return ConceptMasks(concepts.names, concepts.levels, concepts.masks[order])


def _rises_and_peaks(score):
    """The check: wholes grow with depth to the third stage, edges peak at the first, parts at the second."""
    return (
        score[2, WHOLE] > 0.9 > score[:2, WHOLE].max()
        and score[:, EDGE].argmax() == 0
        and score[:, PART].argmax() == 1
    )


def _is_flat(score):
    """The check on shuffled labels: no stage knows anything of any level."""
    return np.abs(score).max() < 0.05


def test_edges_parts_and_wholes_emerge_where_they_are_planted(planted):
    """Fails a table whose stages or levels are exchanged."""
    assert planted.stages == ("lines", "corners", "wholes", "code") and planted.level_names == (
        "edge",
        "part",
        "whole",
    )
    assert _rises_and_peaks(planted.score)
    for level, stage in ((EDGE, 0), (PART, 1), (WHOLE, 2)):
        assert planted.iou[stage, level] == 1.0
    assert planted.certificate["peaks"] == "edge lines, part corners, whole wholes"
    assert planted.concept_unit[1, 2:7].tolist() == [0, 1, 2, 3, 4]
    assert planted.probe[2:, WHOLE] == pytest.approx(1.0) and planted.probe[0, WHOLE] < 0.9
    assert np.isnan(planted.probe[:, EDGE]).all()  # there are lines in every image


def test_shuffled_labels_are_flat_at_chance(shown):
    """Fails IoU without its null, written below, on the same check: what is often at one place overlaps by chance."""
    images, concepts = shown
    net = composed_network()
    found = emergence(net, inputs=images, concepts=_shuffled(concepts))
    assert _is_flat(found.score)
    assert found.certificate["shuffled_score"] < 0.05 and found.certificate[
        "shuffled_probe"
    ] == pytest.approx(0.5, abs=0.1)
    middle = np.zeros((96, 20, 20), dtype=bool)
    middle[:, 6:14, 6:14] = np.random.default_rng(0).random((96, 1, 1)) < 0.9
    fixed = ConceptMasks.of({"middle": middle})
    bump = torch.exp(-((torch.arange(20) - 9.5) ** 2) / 50)
    place = StagedNetwork({"place": _Times(bump[:, None] * bump[None])}, "encoder")
    ones = torch.ones(96, 1, 20, 20) + 0.01 * torch.rand(
        96, 1, 20, 20, generator=torch.Generator().manual_seed(0)
    )
    by_place = emergence(place, inputs=ones, concepts=_shuffled(fixed))
    assert _is_flat(by_place.score) and not _is_flat(by_place.iou)


class _Times(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, h):
        return h * self.weight


def test_the_probe_is_the_area_under_a_held_out_curve(shown):
    """Fails an area that counts ties as hits, and a probe scored on the images that it was fitted to."""
    from sklearn.metrics import roc_auc_score

    from latentlab.analysis.emergence import _area

    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 5, (50, 3)).astype(float), rng.random((50, 3)) < 0.4
    expected = [roc_auc_score(labels[:, c], scores[:, c]) for c in range(3)]
    assert _area(scores, labels) == pytest.approx(expected)
    noise = rng.standard_normal((60, 200, 1, 1)).astype(np.float32)
    net = StagedNetwork({"noise": nn.Identity()}, "net")
    masks = np.broadcast_to((rng.random(60) < 0.5)[:, None, None], (60, 4, 4))
    found = emergence(net, inputs=noise, concepts=ConceptMasks.of({"coin": masks}))
    assert 0.2 < found.probe[0, 0] < 0.8  # 200 units fit 36 images perfectly


def test_a_decoder_is_scored_without_being_turned_round():
    """Units of F1's maps draw glyphs: they match where they are drawn, and the flat gates only tell whether."""
    model = gated.gated_model()
    z = np.where(np.random.default_rng(0).random((60, 5)) < 0.3, 6.0, -1.8).astype(np.float32)
    masks = {f"glyph {u}": (z[:, u] > 0)[:, None, None] & gated.support(u).numpy() for u in range(5)}
    found = emergence(model, "generator", inputs=z, concepts=ConceptMasks.of(masks, "part"))
    assert found.stages == ("gates", "maps", "output") and found.probe[:2] == pytest.approx(1.0)
    assert found.score[1, 0] > 10 * found.score[0, 0]


def test_levels_stages_and_data_are_chosen(left_as_found):
    net, (images, concepts) = composed_network(), pictures(12)
    foreign = adapt(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.zeros(1, 3, 16, 16))
    left_as_found(net)
    found = emergence(
        net, inputs=images, concepts=concepts, levels=["whole", "edge"], stages=["encoder.wholes", "lines"]
    )
    assert found.stages == ("wholes", "lines") and found.level_names == ("edge", "whole")
    assert len(found.concepts) == 4
    boxes = emergence(foreign, inputs=Boxes().images(range(10)))
    assert "colour" in boxes.level_names and boxes.certificate["images"] == 10
    with pytest.raises(ValueError, match=r"No concept of level \['texture'\]"):
        emergence(net, inputs=images, concepts=concepts, levels=["texture"])
    with pytest.raises(ValueError, match="n_draws must be at least 2"):
        emergence(net, inputs=images, concepts=concepts, n_draws=1)
    with pytest.raises(ValueError, match="Expected at least 2 images"):
        emergence(net, inputs=images, concepts=concepts, n_images=1)


def _learning(share):
    """The planted network with a share of its weights in place and the rest random."""
    net, g = composed_network(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(share * p + (1 - share) * torch.randn(p.shape, generator=g))
    return net.requires_grad_(False)


def test_emergence_over_training_follows_the_steps(shown, planted, tmp_path):
    """Fails models that are all scored at the last step, and steps in the order of their files."""
    images, concepts = pictures(48)
    pairs = ((step, _learning(share)) for step, share in ((100, 1.0), (0, 0.0), (10, 0.5)))
    found = emergence_over_training(pairs, inputs=images, concepts=concepts)
    assert found.steps.tolist() == [0, 10, 100] and found.score.shape == (3, 4, 3)
    assert _rises_and_peaks(found.score[-1]) and not _rises_and_peaks(found.score[0])
    last = emergence(composed_network(), inputs=images, concepts=concepts)
    assert np.array_equal(found.score[-1], last.score)
    assert len(set(found.digests)) == 3 and found.certificate["first_half"].endswith("whole 100")
    back = load_result(found.save(tmp_path / "t"))
    assert np.array_equal(back.score, found.score) and back.digests == found.digests
    again = load_result(planted.save(tmp_path / "e"))
    assert np.array_equal(again.score, planted.score) and again.certificate == planted.certificate


def test_trainings_without_checkpoints_or_of_two_networks_are_refused(shown):
    images, concepts = pictures(12)
    with pytest.raises(ValueError, match="Expected pairs of step and model; got none"):
        emergence_over_training([], inputs=images, concepts=concepts)
    with pytest.raises(ValueError, match="Expected different steps; got 1, 1"):
        emergence_over_training([(1, composed_network())] * 2, inputs=images, concepts=concepts)
    short = StagedNetwork({"lines": composed_network().stages["lines"]}, "encoder")
    with pytest.raises(ValueError, match="must have the same stages"):
        emergence_over_training([(1, composed_network()), (2, short)], inputs=images, concepts=concepts)
    seen = []
    emergence_over_training(
        [(1, short)], inputs=images, concepts=concepts, progress=lambda *a: seen.append(a)
    )
    assert seen == [(1, 1)]


def test_the_checkpoints_of_a_run_are_scored_step_by_step(tmp_path):
    """Fails a function that needs more of a run than pairs of step and model."""
    from safetensors.torch import save_file

    from latentlab.config import DataConfig, Experiment, VAEConfig
    from latentlab.models.build import build_model
    from latentlab.runs import Run

    experiment = Experiment(model=VAEConfig(latents=3), data=DataConfig("boxes"))
    run = Run.create(tmp_path / "run", experiment, (3, 32, 32))
    (run.path / "checkpoints").mkdir()
    for step in (1, 10):
        model = build_model(experiment.model, (3, 32, 32))
        save_file(model.state_dict(), run.path / "checkpoints" / f"step-{step}.safetensors")
    pairs = ((s, run.at(s).model) for s in run.steps)
    found = emergence_over_training(
        pairs, "encoder", Boxes(2), n_images=12, n_draws=2, levels=["part", "whole"]
    )
    assert found.steps.tolist() == [1, 10] and found.digests == tuple(run.at(s).digest for s in (1, 10))


def test_the_planted_network_is_what_it_says(shown):
    """The fixture itself: each stage's units are exactly the masks of their level."""
    images, concepts = shown
    states = activations(composed_network(), inputs=images).states
    assert np.array_equal(states["lines"] > 0, concepts.masks[:, :2])
    assert np.array_equal(states["corners"] > 0, concepts.masks[:, 2:7])
    assert np.array_equal(states["wholes"] > 0, concepts.masks[:, 7:])
