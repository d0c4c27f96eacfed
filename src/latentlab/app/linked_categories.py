"""Linked categories: which category of one model takes which of another along, in words."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from latentlab.app import controls

if TYPE_CHECKING:
    from latentlab.analysis.matching import LatentMatching
    from latentlab.runs import Run


def choices(run: Run, name: str) -> tuple[str, ...]:
    """Names of the categories of a model's category ``name``."""
    block = next(block for block in run.model.latent_space.blocks if block.name == name)
    return controls.choices_of(run, block)


def moves(mine: Sequence[str], theirs: Sequence[str], partners: np.ndarray, between: str = ", ") -> str:
    """Each category and the one that it takes along, "0 → 7, 1 → stays"."""
    pairs = zip(mine, partners, strict=True)
    return between.join(f"{text} → {theirs[int(k)] if k >= 0 else 'stays'}" for text, k in pairs)


def describe(first_name: str, first: Run, name: str, other: Run, match: LatentMatching) -> None:
    """Which category goes with which, how many images agree, and which categories have no partner and why."""
    for mine, table in match.contingency.items():
        where = match.names_a.index(mine)
        theirs, partners = match.names_b[match.permutation[where]], match.categories[mine]
        words = moves(choices(first, mine), choices(other, theirs), partners, " · ")
        names = [controls.plainly(n) for n in (mine, theirs, words)]
        st.markdown("**{}** takes **{}** along: {}".format(*names))
        taken = partners[partners >= 0]
        told = [
            f"{match.agreement(mine):.0%} of the images lie in categories paired one to one; of shuffled images at "
            f"most {np.quantile(match.categories_null[mine], 0.95):.0%}."
        ]
        if shared := len(taken) - len(set(taken.tolist())):
            told.append(
                f"{shared} of the {table.shape[0]} have no category of {theirs} ({table.shape[1]}) to themselves and "
                "lead where most of their images lie."
            )
        if not match.sure[where]:
            told.append("This is no sure pair, so nothing is linked.")
        st.caption(controls.plainly(" ".join(told)))
    partners_of_b = {match.names_b[match.permutation[match.names_a.index(n)]] for n in match.contingency}
    alone = [f"{n} of {first_name}" for n in unpaired(first, match.contingency)]
    alone += [f"{n} of {name}" for n in unpaired(other, partners_of_b)]
    if alone:
        told = controls.plainly(" and ".join(alone))
        st.caption(
            f"Without a partner: {told}. A category is linked with a category only: what a continuous "
            "latent knows of the same, its slider can't follow, for categories have no order."
        )


def unpaired(run: Run, paired: Collection[str]) -> list[str]:
    """The categories of a model that are in no pair."""
    from latentlab.latents import Categorical

    blocks = run.model.latent_space.blocks
    return [b.name for b in blocks if isinstance(b.prior, Categorical) and b.name not in paired]
