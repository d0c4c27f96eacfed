"""digits-gan: handwritten digits drawn from nothing but chance, in a few minutes on a CPU.

Claim: a classifier fitted on the real training digits finds each of the ten digits in at least 4 % of the samples, and
its certainty of them lies nearer to that of real held-out digits than to that of two digits overlaid. Expected:
certainty 0.78 (real digits 0.89, overlaid pairs 0.55), each digit in 9 to 11 % of the samples, D(real) 0.53, D(fake)
0.48, diversity about 1. Time: two and a half minutes of one CPU core.
"""

from latentlab.config import Adversarial, DataConfig, Experiment, GANConfig

EXPERIMENT = Experiment(
    name="digits-gan",
    data=DataConfig("digits", {"split": "train"}),
    model=GANConfig(latents=16, width=16, spectral_norm=True),
    objective=Adversarial(loss="non-saturating", penalty="none", ema=0.995, beta1=0.5),
    max_steps=3000,
    batch_size=64,
    learning_rate=1e-3,
    preview_every=1000,
    checkpoint_every=500,
)

if __name__ == "__main__":
    import sys

    from latentlab.cli import main

    raise SystemExit(main(["train", EXPERIMENT.name, *sys.argv[1:]]))
