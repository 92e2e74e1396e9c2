"""A small transformer encoder: the two layers of BERT-Tiny. Weights are seeded."""

from __future__ import annotations

import math

import onnx

from workloads.zoo.builder import ModelBuilder

#: LayerNormalization is an operator of its own from here on.
_OPSET = 17


def build_encoder_tiny(seed: int = 0) -> onnx.ModelProto:
    """Encoder of BERT-Tiny (Turc et al. 2019: 2 layers, width 128, 2 heads) on 64 embedded tokens (1, 64, 128)."""
    tokens, width = 64, 128
    model = ModelBuilder("encoder_tiny", seed, (1, tokens, width), opset=_OPSET)
    x = model.input
    for layer in (1, 2):
        x = _encoder_layer(model, x, f"layer{layer}", tokens, (width, 2, 4 * width))
    return model.model(x, (1, tokens, width))


def _encoder_layer(model: ModelBuilder, x: str, name: str, tokens: int, sizes: tuple[int, int, int]) -> str:
    """Self-attention and two dense layers, each summed with its input and normalised; sizes (width, heads, inner)."""
    width, heads, inner = sizes
    y = _attention(model, x, f"{name}.attention", tokens, (width, heads))
    x = model.layer_norm(model.node("Add", [x, y], f"{name}.add1"), f"{name}.norm1", width)
    y = _gelu(model, model.linear(x, f"{name}.inner", (width, inner)), f"{name}.gelu")
    y = model.linear(y, f"{name}.outer", (inner, width))
    return model.layer_norm(model.node("Add", [x, y], f"{name}.add2"), f"{name}.norm2", width)


def _attention(model: ModelBuilder, x: str, name: str, tokens: int, sizes: tuple[int, int]) -> str:
    """softmax(Q K^T / sqrt(d)) V for every head (Vaswani et al. 2017), `sizes` (width, heads)."""
    width, heads = sizes
    depth = width // heads
    split = {}
    # keys are transposed for the product right away
    for key, order in (("query", (0, 2, 1, 3)), ("key", (0, 2, 3, 1)), ("value", (0, 2, 1, 3))):
        y = model.linear(x, f"{name}.{key}", (width, width))
        y = model.reshape(y, f"{name}.{key}.heads", (1, tokens, heads, depth))
        split[key] = model.transpose(y, f"{name}.{key}.split", order)
    scores = model.node("MatMul", [split["query"], split["key"]], f"{name}.scores")
    scores = model.node("Mul", [scores, model.constant(f"{name}.scale", 1 / math.sqrt(depth))], f"{name}.scaled")
    weights = model.node("Softmax", [scores], f"{name}.softmax", axis=-1)
    mixed = model.node("MatMul", [weights, split["value"]], f"{name}.mix")
    mixed = model.reshape(model.transpose(mixed, f"{name}.merge", (0, 2, 1, 3)), f"{name}.joined", (1, tokens, width))
    return model.linear(mixed, f"{name}.output", (width, width))


def _gelu(model: ModelBuilder, x: str, name: str) -> str:
    """x (1 + erf(x / sqrt 2)) / 2, in the operators that exporters write before opset 20."""
    y = model.node("Div", [x, model.constant(f"{name}.sqrt2", math.sqrt(2))], f"{name}.div")
    y = model.node("Erf", [y], f"{name}.erf")
    y = model.node("Add", [y, model.constant(f"{name}.one", 1)], f"{name}.plus1")
    return model.node("Mul", [model.node("Mul", [x, y], f"{name}.mul"), model.constant(f"{name}.half", 0.5)], name)
