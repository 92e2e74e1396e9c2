"""The table of the zoo's networks, `data/networks.yaml`: what each is and what it must count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

import yaml


@dataclass(frozen=True)
class Network:
    """A row of the table.

    Parameters
    ----------
    input
        Shape of its input.
    macs
        Multiply-accumulates of one inference: convolutions, dense and recurrent layers, products of attention; no
        bias, pooling or elementwise work.
    parameters
        Trained values: weights and biases, embeddings, scale and shift of norms.
    statistics
        Mean and variance of batch norms.
    published
        Figures as their source prints them, by kind: macs, flops (two a MAC), parameters, parameters_and_statistics,
        folded_parameters (batch norms folded into the layer before). Empty for own designs.
    source
        Where the published figures, or the sizes of an own design, come from.
    operators
        ONNX operators it is written in.
    correct
        Of trained networks: correct test images out of 450, for every seed of stored weights, in float.
    """

    name: str
    description: str
    input: tuple[int, ...]
    macs: int
    parameters: int
    statistics: int
    source: str
    operators: tuple[str, ...]
    published: Mapping[str, str] = field(default_factory=dict)
    correct: tuple[int, ...] = ()


@cache
def networks() -> Mapping[str, Network]:
    """Every network of the zoo by name, in the order of the table."""
    text = resources.files("workloads.zoo").joinpath("data", "networks.yaml").read_text(encoding="utf-8")
    rows = []
    for row in yaml.safe_load(text):
        lists = {key: tuple(row[key]) for key in ("input", "operators", "correct") if key in row}
        rows.append(Network(**{**row, **lists}))
    return {row.name: row for row in rows}
