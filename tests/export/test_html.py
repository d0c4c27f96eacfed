"""The page of a run as a file: what is in it, how large it is, and that nothing in it can reach out or break out."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn

from latentlab import cli
from latentlab.analysis import encode_dataset
from latentlab.analysis.direction import Direction
from latentlab.config import (
    Adversarial,
    BetaVAE,
    ConditionalGANConfig,
    ConditionalVAEConfig,
    Experiment,
    GANConfig,
    InfoGANConfig,
    LadderVAEConfig,
    StyleGANConfig,
    VAEConfig,
    VQVAEConfig,
)
from latentlab.export import export_html
from latentlab.export.axes import axes_of, factor_labels
from latentlab.export.markdown import headline_of, to_html
from latentlab.models.build import build_model
from latentlab.runs import Run, zoo_runs

MEGABYTE = 1e6


def encoded(run: Run, count: int = 256):
    """A small encoding of a run's data, so that a test takes no time."""
    return encode_dataset(run.model, run.dataset(), count)


def content_of(page: Path) -> dict:
    (text,) = re.findall(
        r'<script type="application/json" id="content">(.*?)</script>', page.read_text("utf-8"), re.S
    )
    return json.loads(text)


@pytest.fixture(scope="module")
def sprites(tmp_path_factory):
    """The page of a shipped run with factors, and the run."""
    run = Run.open("zoo:sprites-beta-vae", device="cpu")
    path = tmp_path_factory.mktemp("page") / "deep" / "explorer.html"
    assert export_html(run, path, encoding=encoded(run, 1000)) == path
    return run, path


def test_a_page_holds_all_and_asks_for_nothing(sprites):
    """Would catch a library from a network address, a font, a picture beside the file."""
    text = sprites[1].read_text("utf-8")
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:,|https?://)""", text), "files beside the page"
    loads = re.findall(
        r"""<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)\s*=\s*["']?([^"'>\s]+)""", text
    )
    assert loads == ["data:,"]
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)[0]
    assert (
        policy.startswith("default-src 'none'")
        and "connect-src" not in policy
        and "'unsafe-eval'" not in policy
    )


def test_the_policy_names_every_script_by_its_digest(sprites):
    """Would catch a script that the browser refuses, and a card's script that it would run."""
    text = sprites[1].read_text("utf-8")
    scripts = re.findall(r"<script(?: id=\"engine\")?>(.*?)</script>", text, re.S)
    assert len(scripts) == 3
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in text


def test_sliders_carry_the_names_of_factors(sprites):
    axes = content_of(sprites[1])["axes"]
    named = {axis["name"]: axis["meaning"] for axis in axes if axis["meaning"]}
    assert named["z0"] == "y" and named["z7"] == "scale" and {named["z6"], named["z8"]} == {"x"}
    assert [axis["inactive"] for axis in axes] == [False] * 4 + [True] * 6
    kl = [axis["kl"] for axis in axes]
    assert kl == sorted(kl, reverse=True)
    assert all(axis["low"] < axis["default"] < axis["high"] for axis in axes)
    assert all(abs(axis["default"]) < 0.3 and 0.7 < axis["std"] < 1.3 for axis in axes), (
        "the dice draw the prior"
    )


def test_names_of_shuffled_factors_are_none():
    """The fake: labels from mere bias. Shuffled factors leave the codes nothing to know."""
    run = Run.open("zoo:sprites-beta-vae", device="cpu")
    found = encoded(run, 600)
    assert len(factor_labels(found)) == 4
    shuffled = np.random.default_rng(1).permutation(found.factors)
    object.__setattr__(found, "factors", shuffled)
    assert factor_labels(found) == {}


def test_a_persons_names_and_given_labels_go_first():
    run = Run.open("zoo:sprites-beta-vae", device="cpu")
    z = np.zeros(10, np.float32)
    axes = axes_of(
        run.model, z, labels={"z1": ("wall_hue", 1.2), "z2": ("x", 0.5)}, names={"z2": "left or right"}
    )
    found = {axis["name"]: (axis["meaning"], axis["help"]) for axis in axes}
    assert found["z1"] == ("wall hue", "z1 knows most of wall_hue: mutual information 1.20 nats")
    assert found["z2"][0] == "left or right" and found["z3"] == ("", "")
    assert all(axis["kl"] is None and not axis["inactive"] for axis in axes)


def test_a_category_is_one_row_of_choices():
    run = Run.open("zoo:digits-m2", device="cpu")
    found = encoded(run)
    z = np.eye(16, dtype=np.float32)[3]
    (digit, *styles) = axes_of(run.model, z, encoding=found)
    assert digit["choices"] == [str(i) for i in range(10)] and digit["index"] == 0 and digit["default"] == 3
    assert len(styles) == 6 and {axis["group"] for axis in styles} == {"style"}


def test_the_reference_is_what_torch_decodes(sprites):
    """Would catch a page that compares the engine with itself."""
    run, page = sprites
    content = content_of(page)
    assert len(content["reference"]) == 2
    for z, text in zip(content["examples"], content["reference"], strict=False):
        with torch.inference_mode():
            image = run.model.decode(torch.tensor([z]))[0].permute(1, 2, 0).numpy()
        levels = np.frombuffer(base64.b64decode(text), "<u2").reshape(image.shape)
        assert np.abs(levels / 65535 - image).max() < 1e-4


def test_every_shipped_run_has_a_small_page(tmp_path):
    """At most 3 MB, whatever the precision. Would catch weights that travel twice, or the encoder's."""
    for summary in zoo_runs():
        run = Run.open(summary.name, device="cpu")
        found = None if not hasattr(run.model, "encoder") or run.model.encoder is None else encoded(run, 64)
        sizes = {}
        for precision in ("f32", "f16", "int8"):
            page = export_html(run, tmp_path / "page.html", precision=precision, encoding=found)
            sizes[precision] = page.stat().st_size / MEGABYTE
        told = ", ".join(f"{name} {size:.2f}" for name, size in sizes.items())
        print(f"\n{summary.name}: {told} MB")
        assert sizes["f32"] <= 3.0 and sizes["int8"] < sizes["f16"] < sizes["f32"]


def test_a_card_and_a_name_can_not_break_out(tmp_path):
    """The fake: a run from elsewhere whose card is a script."""
    run = Run.open("zoo:digits-m2", device="cpu")
    found = encoded(run)

    class Evil:
        name = "<img src=x onerror=alert(1)>"
        card = (
            "# t\n\n<script>alert(1)</script> [x](javascript:alert(1)) `</template><b>`\n\n"
            "| <i> |\n| --- |\n| </script> |\n"
        )
        annotations = MappingProxyType({"names": {"style0": "</script><script>alert(1)</script>"}})
        model, config = run.model, run.config

        @staticmethod
        def dataset():
            return run.dataset()

    text = export_html(Evil, tmp_path / "page.html", encoding=found).read_text("utf-8")
    assert "<script>alert" not in text and "<img" not in text and "</template><b>" not in text
    assert 'href="javascript' not in text
    assert text.count("<script") == 4 and text.count("</script>") == 4
    assert content_of(tmp_path / "page.html")["axes"]


def test_a_run_without_data_or_encoder_has_a_page(tmp_path):
    run = Run.open("zoo:sprites-beta-vae", device="cpu")

    class Homeless:
        name, card, annotations, model, config = run.name, "", {}, run.model, run.config

        @staticmethod
        def dataset():
            raise OSError("gone")

    content = content_of(export_html(Homeless, tmp_path / "a.html"))
    assert all(axis["kl"] is None and axis["meaning"] == "" for axis in content["axes"])
    assert len(content["examples"]) == 8
    assert np.allclose(content["examples"], run.model.sample_codes(8, 0).numpy(), atol=1e-5)


FAMILIES = {
    "vae": VAEConfig(latents=3, width=8, hidden=16),
    "ladder-vae": LadderVAEConfig(levels=[2, 2], width=8, hidden=16),
    "vq-vae": VQVAEConfig(codes=8, code_dim=4, width=8),
    "conditional-vae": ConditionalVAEConfig(width=8, hidden=16),
    "gan": GANConfig(latents=4, width=6),
    "conditional-gan": ConditionalGANConfig(width=6),
    "info-gan": InfoGANConfig(width=6),
    "style-gan": StyleGANConfig(latents=4, styles=6, width=4),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_page(tmp_path, family):
    """With no data behind it. Would catch sliders that know normal latents only."""
    config = FAMILIES[family]
    objective = Adversarial() if config.kind == "adversarial" else BetaVAE()

    class Fresh:
        name, card, annotations = family, "", MappingProxyType({})
        model = build_model(FAMILIES[family], (1, 32, 32))

        @staticmethod
        def dataset():
            raise OSError("none")

    Fresh.config = Experiment(name="fresh", model=config, objective=objective)
    assert config.family == family
    content = content_of(export_html(Fresh, tmp_path / "page.html"))
    ways = [a["index"] for a in content["axes"] if a["group"] == "directions"]
    dim = Fresh.model.latent_space.dim
    assert sorted(ways) == ([*range(dim, dim + 6)] if family == "style-gan" else [])
    covered = [i for a in content["axes"] for i in range(a["index"], a["index"] + max(1, len(a["choices"])))]
    assert sorted(covered) == list(range(dim + len(ways)))
    assert all(axis["low"] < axis["high"] for axis in content["axes"])
    assert np.array(content["examples"]).shape == (8, dim + len(ways))


def test_the_command_writes_a_page(tmp_path, capsys):
    path = tmp_path / "page.html"
    arguments = ["export", "zoo:digits-stylegan", "--html", str(path), "--precision", "int8", "--quiet"]
    assert cli.main([*arguments, "--runs", str(tmp_path)]) == 0
    assert "it opens from disk, without a server or a network." in capsys.readouterr().out
    assert content_of(path)["program"]["precision"] == "int8"


def test_the_command_takes_saved_directions(tmp_path):
    one = Direction("slant", tuple(np.eye(16)[12]), space="z", step=0.5, method="mine")
    one.save(tmp_path / "ways.json")
    path = tmp_path / "page.html"
    arguments = ["export", "zoo:digits-m2", "--html", str(path), "--directions", str(tmp_path / "ways.json")]
    assert cli.main([*arguments, "--quiet", "--runs", str(tmp_path)]) == 0
    slant, *others = content_of(path)["axes"]
    assert (slant["name"], slant["index"], slant["help"]) == ("slant", 16, "a direction of Z, mine")
    assert {axis["group"] for axis in others} == {"code", "style"} and len(
        content_of(path)["examples"][0]
    ) == 17


def test_what_the_engine_does_not_know_leaves_no_file(tmp_path):
    run = Run.open("zoo:sprites-beta-vae", device="cpu")
    run.model.generator.stages["deconv1"].append(nn.Softplus())
    with pytest.raises(
        ValueError, match=r"Stage 'generator\.deconv1' can't run in a browser: the engine knows no Softplus"
    ):
        export_html(run, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_a_card_as_html():
    card = (
        "---\ntags: [vae]\n---\n# name\n\nname: a claim\nover two lines.\n\n![picture](a.png)\n\n## Figures\n\n"
        "- KL 1 < 2, ``z0``\n- see [paper](https://example.org/a_b)\n\n| a | b |\n| --- | ---: |\n| 1 | **2** |\n\n"
        "```python\nx = '<b>'\n```\n"
    )
    assert headline_of(card) == "A claim over two lines."
    assert to_html(card) == (
        "<p>name: a claim over two lines.</p>\n<h2>Figures</h2>\n"
        "<ul><li>KL 1 &lt; 2, <code>z0</code></li>"
        '<li>see <a href="https://example.org/a_b" rel="noreferrer noopener">paper</a></li></ul>\n'
        '<div class="ll-table"><table><thead><tr><th>a</th><th>b</th></tr></thead>'
        "<tbody><tr><td>1</td><td><b>2</b></td></tr></tbody></table></div>\n"
        "<pre><code>x = &#x27;&lt;b&gt;&#x27;</code></pre>"
    )
    assert to_html("") == headline_of("") == ""
