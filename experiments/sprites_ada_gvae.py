"""sprites-ada-gvae: pairs of sprites that differ in some factors, nobody says in which (Ada-GVAE).

Claim: the method's own, that such pairs suffice for latents which hold one factor each. All else is as in
`sprites-beta-tcvae`: train both, and `latentlab evaluate` of the two runs puts the claim to the test. The second image
of a pair has the first one's factors but for one to four of them, drawn anew; latents whose posteriors hardly differ
within the pair are taken for the shared ones. Time: about 70 minutes on 2 CPU cores.
"""

from latentlab.config import DataConfig, Experiment, PairVAE, VAEConfig

EXPERIMENT = Experiment(
    name="sprites-ada-gvae",
    data=DataConfig("sprites"),
    model=VAEConfig(latents=10, network="burgess", likelihood="bernoulli"),
    objective=PairVAE(beta=1.0),
    max_steps=36_000,
    batch_size=64,
    learning_rate=1e-3,
    preview_every=5000,
    checkpoint_every=1000,
)

if __name__ == "__main__":
    import sys

    from latentlab.cli import main

    raise SystemExit(main(["train", EXPERIMENT.name, *sys.argv[1:]]))
