"""A model's generator or encoder as ONNX, with any batch size, checked against torch."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentlab.analysis.inference import (
    carry,
    check_edits,
    decoded,
    device_of,
    draw_codes,
    inference,
    input_spaces,
    needs_encoder,
    to_numpy,
)
from latentlab.analysis.results import provenance
from latentlab.models.contract import space_of
from latentlab.models.edits import Edit

TOLERANCE = 1e-5
_LARGEST_BATCH = 4096
_CHECKED = (1, 7)  # batches of other sizes than the traced one


@dataclass(frozen=True)
class OnnxModel:
    """A network as the content of an ONNX file.

    Attributes:
        content: the file, weights included.
        inputs: name of the input: "z", codes (batch, dim), or "x", images (batch, channels, height, width) in [0, 1].
        outputs: names of the outputs: "image" of a generator, images in [0, 1]; of an encoder "code" (batch, dim),
            what a generator takes, and the posterior's "mean" and "variance".
        metadata: what the file says of itself: weights' digest, space, names of the latents, edits, versions.
        certificate: ``difference``, the largest one between torch and ONNX Runtime over the batches of
            ``batches`` images each, in outputs of size up to 1 absolute and beyond relative.
    """

    content: bytes = field(repr=False)
    inputs: str
    outputs: tuple[str, ...]
    metadata: Mapping[str, str]
    certificate: Mapping[str, Any]


class _Generator(nn.Module):
    outputs = ("image",)

    def __init__(self, model: Any, space: str, edits: Sequence[Edit]) -> None:
        super().__init__()
        self.model, self.space, self.edits = model, space, edits

    def forward(self, z: Tensor) -> Tensor:
        return decoded(self.model, z, self.edits, self.space)


class _Encoder(nn.Module):
    outputs = ("code", "mean", "variance")

    def __init__(self, model: Any, edits: Sequence[Edit]) -> None:
        super().__init__()
        self.model, self.edits = model, edits

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        posterior = self.model.encode(x, edits=self.edits)
        return posterior.code(), posterior.mean, posterior.variance


def to_onnx(
    model: Any,
    network: str = "generator",
    *,
    edits: Sequence[Edit] = (),
    space: str | None = None,
    seed: int = 0,
) -> OnnxModel:
    """Writes a generator, from codes to images, or an encoder, from images to codes, as ONNX.

    The file holds what ``model.decode`` and ``model.encode`` do, likelihood and edits included, not the bare network.

    Args:
        model: a generative model on the CPU.
        network: "generator" or "encoder".
        edits: edits of the network, which become part of the file.
        space: name of the space whose codes the generator reads, the model's first one where it is not given.
        seed: of the codes that the file is checked with.

    Raises:
        ValueError: without the onnx extra; for a model off the CPU or without that network; if torch can't trace it
            with a free batch size, an operation has no ONNX form, or ONNX Runtime gives other numbers.
    """
    onnx, runtime = _libraries()
    if device_of(model).type != "cpu":
        raise ValueError(f"ONNX is written from a model on the CPU; this one is on {device_of(model)}.")
    place = space_of(model, space).name
    codes = draw_codes(model, max(_CHECKED), seed)
    if network == "generator":
        reads = (name for name, its in input_spaces(model).items() if its == place)
        traced: nn.Module = _Generator(model, place, check_edits(edits, "generator", *reads))
        examples, name = carry(model, codes, place), "z"
    elif network == "encoder":
        needs_encoder(model)
        traced, name = _Encoder(model, check_edits(edits, "encoder")), "x"
        with inference(model):
            examples = model.decode(codes).clamp(0.0, 1.0)
    else:
        raise ValueError(f"network must be 'generator' or 'encoder'; got {network!r}.")
    # Inference tensors can't be traced.
    examples = examples.detach().clone()
    outputs: tuple[str, ...] = traced.outputs  # type: ignore[assignment]
    with inference(model):
        wanted = [_several(traced(examples[:n])) for n in _CHECKED]
    about = _about(model, network, place, edits)
    content = _written(onnx, traced, examples[:2], name, outputs, about)
    session = _session(runtime, content)
    differences = []
    for n, arrays in zip(_CHECKED, wanted, strict=True):
        found = session.run(None, {name: examples[:n].numpy()})
        differences += [_difference(f, w) for f, w in zip(found, arrays, strict=True)]
    difference = max(differences)
    if not difference <= TOLERANCE:
        raise ValueError(
            f"ONNX Runtime and torch differ by {difference:.2g} on the {network}'s outputs, more than "
            f"{TOLERANCE:g}, so no ONNX is written."
        )
    certificate = {"difference": difference, "batches": _CHECKED}
    return OnnxModel(content, name, outputs, about, certificate)


def _libraries() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise ValueError(
            f"Writing ONNX needs the package {error.name}: pip install 'latentlab[onnx]'."
        ) from None
    return onnx, onnxruntime


def _several(outputs: Any) -> list[np.ndarray]:
    return [to_numpy(o) for o in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, absolute up to outputs of 1 and relative beyond; NaN where a number is none."""
    if found.shape != wanted.shape:
        return float("inf")
    return float((np.abs(found - wanted) / np.maximum(np.abs(wanted), 1.0)).max(initial=0.0))


def _about(model: Any, network: str, space: str, edits: Sequence[Edit]) -> dict[str, str]:
    place, origin = space_of(model, space), provenance(model, {})
    return {
        "latentlab.version": origin.versions["latentlab"],
        "latentlab.weights_digest": origin.weights_digest,
        "latentlab.model": type(model).__name__,
        "latentlab.network": network,
        "latentlab.space": json.dumps(place.to_dict()),
        "latentlab.latents": json.dumps(place.names),
        "latentlab.image_shape": json.dumps(list(model.image_shape)),
        "latentlab.edits": json.dumps([edit.to_dict() for edit in edits]),
    }


def _written(
    onnx: Any,
    traced: nn.Module,
    example: Tensor,
    name: str,
    outputs: tuple[str, ...],
    about: Mapping[str, str],
) -> bytes:
    """The content of the file, the same each time for the same model."""
    with _quiet():
        program = _program(traced, example)
        # What only checks arguments has no ONNX form.
        graph = program.graph_module.graph
        for node in [n for n in graph.nodes if "aten._assert_" in str(n.target) and not n.users]:
            graph.erase_node(node)
        graph.eliminate_dead_code()
        try:
            made = torch.onnx.export(
                program, input_names=[name], output_names=list(outputs), dynamo=True, verbose=False
            )
        except Exception as error:  # whatever torch's exporter meets
            raise ValueError(f"This model has no ONNX form: {_reason(error)}.") from None
    assert made is not None
    proto = made.model_proto
    for part in (proto.graph, *proto.functions):
        for entry in (
            *part.node,
            *part.value_info,
            *getattr(part, "input", ()),
            *getattr(part, "output", ()),
        ):
            # Stack traces name the folders of the machine that wrote them.
            for note in ("metadata_props", "doc_string"):
                if hasattr(entry, note):
                    entry.ClearField(note)
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for tensor in proto.graph.initializer:
        tensor.ClearField("metadata_props")
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, dict(about))
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString(deterministic=True)


def _program(traced: nn.Module, example: Tensor) -> Any:
    """The traced network with a free batch size.

    Raises:
        ValueError: with torch's own reason.
    """
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    failed: Exception | None = None
    # The plain way first, which is faster; where Python itself asks for the batch's size, the one that reads its code.
    for strict in (False, True):
        try:
            with torch.no_grad():
                return torch.export.export(
                    traced.eval(), (example,), dynamic_shapes=({0: batch},), strict=strict
                )
        except Exception as error:  # whatever torch's tracer meets
            failed = failed or error
    assert failed is not None
    raise ValueError(f"torch can't trace this model with a free batch size: {_reason(failed)}.") from None


def _reason(error: Exception) -> str:
    """The innermost reason's first line."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if "specialized it to be a constant" in str(error):
        return "its code reads the size of a batch as a Python number, such as by len(x), which fixes it"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".:")[:300]


def _session(runtime: Any, content: bytes) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's advice to its developers away from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
