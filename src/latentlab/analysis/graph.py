"""The graph of a network: its stages, and which of them reads which, found from the numbers that flow.

A stage b reads a stage a directly when b's own state moves as a alone is moved and every other stage is held. One run
a stage tells all of its readers: each stage is held at its state by an edit that first notes what the stage would
have given. So foreign modules, skips and style inputs are traced alike, and a drawn graph can be held against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from latentlab.analysis.inference import check_seed, inference
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.subject import subject_of
from latentlab.models.edits import Edit

INPUT = "input"
_ROWS = 8


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class NetworkGraph(Result):
    """The stages of a network and the flow between them.

    Attributes:
        names: stages in running order.
        modules: what each is made of, such as "Conv2d + ReLU".
        shapes: shape of each one's state without the batch.
        parameters: number of weights of each that belong to no other stage.
        edges: (from, to), in running order; "input" is the network's own input.
        claimed: the edges that were held against the flow: those given, or those the network declares; () where
            it declares none.
        outputs: the stages that the network's output reads.
        depths: longest way from the input to each stage, in edges.
        skips: edges that pass a stage by: a longer way leads from the one to the other.
        input_shape: shape of the network's input without the batch.
        network: name of the network.

    The certificate holds ``edges_missed``, edges that flow and are not claimed; ``edges_invented``, claimed ones that
    nothing flows along (both missing where none are claimed); ``held_difference``, how far stages move when all are
    held and nothing is perturbed (0: what moves below is the perturbation); and ``parameters_left``, the network's
    weights less those of all stages.
    """

    names: tuple[str, ...]
    modules: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    parameters: tuple[int, ...]
    edges: tuple[tuple[str, str], ...]
    claimed: tuple[tuple[str, str], ...]
    outputs: tuple[str, ...]
    depths: tuple[int, ...]
    skips: tuple[tuple[str, str], ...]
    input_shape: tuple[int, ...]
    network: str


def network_graph(
    model: Any,
    network: str = "generator",
    inputs: Any = None,
    *,
    claimed: Sequence[tuple[str, str]] | None = None,
    n: int = _ROWS,
    seed: int = 0,
) -> NetworkGraph:
    """Traces which stage of a network reads which.

    Args:
        model: a model, or a staged network itself (an adapted foreign one, too).
        network: name of the model's network.
        inputs: codes (n, dim) for a network that reads codes, images for one that reads images; None is ``n`` prior
            draws, or images of noise.
        claimed: edges (from, to) to hold against the flow in place of those that the network declares.
        n: number of inputs where none are given; several, since one may miss a flow through units that are silent.
        seed: decides draws and perturbations.

    Raises:
        ValueError: on an unknown network, or a claimed edge of a stage that it does not have.
        TypeError: on a stage that gives no single tensor, so that it can't be held.
    """
    subject = subject_of(model, network)
    chance = torch.Generator().manual_seed(check_seed(seed))
    if inputs is None and subject.whole and subject.reads is None:
        inputs = torch.rand(n, *model.image_shape, generator=chance)
    h = subject.inputs(inputs, seed, n)
    runner, names = subject.network, tuple(subject.network.names)
    with inference(model if isinstance(model, nn.Module) else runner):
        base = runner.activations(h)
        for name, state in base.items():
            if not isinstance(state, Tensor):
                raise TypeError(
                    f"Stage '{subject.name}.{name}' gives a {type(state).__name__}, so it can't be held as one tensor."
                )

        def own(moved: str | None) -> tuple[dict[str, Tensor], Any]:
            """Every stage's own state and the output while all stages are held, but one that is moved."""
            seen: dict[str, Tensor] = {}
            held = {k: _moved(s, chance) if k == moved else s for k, s in base.items()}
            edits = [
                _Held(stage=f"{subject.name}.{k}", name=k, state=s.clone(), seen=seen)
                for k, s in held.items()
            ]
            output = runner.run(_moved(h, chance) if moved == INPUT else h, edits)
            return seen, output

        still, output = own(None)
        drift = max(_distance(still[k], base[k]) for k in names)
        edges, outputs = [], []
        for k in (INPUT, *names):
            seen, result = own(k)
            edges += [(k, b) for b in names if b != k and _distance(seen[b], still[b]) > 0.0]
            if isinstance(output, Tensor) and k != INPUT and _distance(result, output) > 0.0:
                outputs.append(k)
        described = runner.describe(h[:1])
    declared = _declared(runner, names) if claimed is None else tuple((str(a), str(b)) for a, b in claimed)
    for end in {end for edge in declared for end in edge} - {INPUT, *names}:
        raise ValueError(
            f"A claimed edge names {end!r}; network {subject.name!r} has {INPUT}, {', '.join(names)}."
        )
    order = {k: i for i, k in enumerate((INPUT, *names))}
    edges.sort(key=lambda e: (order[e[1]], order[e[0]]))
    depths = {INPUT: 0}
    for k in names:
        depths[k] = 1 + max((depths[a] for a, b in edges if b == k), default=-1)
    parameters, left = _parameters(runner, names, [s.parameters for s in described])
    certificate: dict[str, Any] = {"held_difference": drift, "parameters_left": left}
    if declared:
        missed, invented = set(edges) - set(declared), set(declared) - set(edges)
        certificate = {"edges_missed": len(missed), "edges_invented": len(invented), **certificate}
    return NetworkGraph(
        names=names,
        modules=tuple(s.kind for s in described),
        shapes=tuple(s.shape for s in described),
        parameters=parameters,
        edges=tuple(edges),
        claimed=declared,
        outputs=tuple(outputs),
        depths=tuple(depths[k] for k in names),
        skips=tuple((a, b) for a, b in edges if _reaches(a, b, edges)),
        input_shape=tuple(h.shape[1:]),
        network=subject.name,
        certificate=certificate,
        provenance=provenance(
            model, {"network": subject.name, "inputs": h, "claimed": claimed, "n": n}, seed
        ),
    )


@dataclass(frozen=True)
class _Held(Edit):
    """Notes what a stage gives, and holds it at a given state. ``seen`` belongs to one run."""

    name: str = ""
    state: Tensor = field(default_factory=lambda: torch.empty(0), compare=False)
    seen: dict[str, Tensor] = field(default_factory=dict, compare=False)

    def apply(self, h: Tensor, other: Tensor | None = None) -> Tensor:
        self.seen[self.name] = h.clone()
        return self.state


def _moved(state: Tensor, chance: torch.Generator) -> Tensor:
    """A state with noise of three times its own size, so that rounded and thresholded readers move, too."""
    scale = 3.0 * float(state.float().square().mean().sqrt()) + 1.0
    return state + scale * torch.randn(state.shape, generator=chance).to(state)


def _distance(a: Any, b: Any) -> float:
    return float((a - b).abs().max()) if isinstance(a, Tensor) and a.shape == b.shape else float(a is not b)


def _declared(network: Any, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    inputs = getattr(network, "inputs", None) or {}
    return tuple((a, b) for b in names for a in inputs.get(b, ()))


def _reaches(a: str, b: str, edges: Sequence[tuple[str, str]]) -> bool:
    """Whether a way of two or more edges leads from a to b."""
    front, seen = {y for x, y in edges if x == a and y != b}, set()
    while front:
        node = front.pop()
        seen.add(node)
        nexts = {y for x, y in edges if x == node}
        if b in nexts:
            return True
        front |= nexts - seen
    return False


def _parameters(network: Any, names: Sequence[str], counts: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """Each stage's weights that no other stage holds, and how many of the network's are in no stage."""
    modules = dict((getattr(network, "module", None) or network).named_modules())
    held = [modules.get(name.split("@")[0], modules.get(f"stages.{name}")) for name in names]
    if any(module is None for module in held):
        return tuple(counts), sum(p.numel() for p in network.parameters()) - sum(counts)
    owner: dict[int, int] = {}
    sizes = {id(p): p.numel() for p in network.parameters()}
    # The innermost module owns a weight, and of several calls of it the first.
    for i in sorted(range(len(names)), key=lambda i: (-names[i].count("."), i)):
        for p in held[i].parameters():  # pyright: ignore[reportOptionalMemberAccess]
            owner.setdefault(id(p), i)
    own = [sum(size for p, size in sizes.items() if owner.get(p) == i) for i in range(len(names))]
    return tuple(own), sum(size for p, size in sizes.items() if p not in owner)
