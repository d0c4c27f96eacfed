"""scenes-growing: a small VAE of a ray-traced room that keeps the steps of its training.

Claim: what its units know grows while it trains. By `analysis.emergence_over_training` (64 images) the best unit of the
decoder overlaps with a colour by 0.02 beyond chance at the start, no more than with shuffled masks, and by 0.06 at the
end; in the encoder by 0.07 and 0.10, since random filters tell colours apart already. Parts and wholes stay at chance:
it is small, so that its kept steps fit into the package. Time: three minutes of one CPU core.
"""

from latentlab.config import BetaVAE, DataConfig, Experiment, VAEConfig

EXPERIMENT = Experiment(
    name="scenes-growing",
    data=DataConfig("scenes", {"image_size": 32}),
    model=VAEConfig(latents=10, network="burgess", width=16, hidden=64, likelihood="gaussian", scale=0.1),
    objective=BetaVAE(beta=1.0),
    max_steps=6_000,
    batch_size=64,
    learning_rate=1e-3,
    preview_every=2000,
    checkpoint_every=1000,
)

if __name__ == "__main__":
    import sys

    from latentlab.cli import main

    raise SystemExit(main(["train", EXPERIMENT.name, *sys.argv[1:]]))
