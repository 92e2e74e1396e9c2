"""From graphs to kernels: what is fused, what is free, and that no work is lost on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gpu_graphs import GraphDraft, residual_block

from accelerators.gpu.lower import FUSIONS, lower_graph
from accelerators.gpu.shapes import conv_shape
from dse.compiler import prepare
from dse.core.errors import ModelError
from dse.flow.workload import load_workload
from dse.ir import Graph, Op, Tensor
from dse.ir.loopnest import op_macs


def test_an_epilogue_takes_shortcut_activation_and_gate() -> None:
    labels = [kernel.label for kernel in lower_graph(residual_block())]
    assert labels == ["conv", "conv+relu", "conv", "conv+add+sigmoid", "max_pool", "gemm", "softmax"]


def test_without_fusion_every_bias_and_activation_is_a_kernel() -> None:
    kernels = lower_graph(residual_block(), fusion="none")
    assert [kernel.label for kernel in kernels].count("bias and activation") == 5
    assert "add+relu" in [kernel.label for kernel in kernels]
    assert [kernel.label for kernel in kernels].count("sigmoid") == 1


def test_elementwise_fusion_joins_chains_but_no_layer() -> None:
    labels = [kernel.label for kernel in lower_graph(residual_block(), fusion="elementwise")]
    assert "bias and activation+add+sigmoid" in labels
    assert not any(label.startswith("conv+") for label in labels)


def test_a_value_that_others_read_or_that_leaves_is_not_fused_away() -> None:
    draft = GraphDraft((1, 4, 6, 6))
    y = draft.conv("x", 4)
    left = draft.same("relu", y)
    draft.same("add", left, y, activation="none")
    assert [kernel.label for kernel in lower_graph(draft.graph())] == ["conv", "relu+add"]
    other = GraphDraft((1, 4, 6, 6))
    kept = other.conv("x", 4)
    last = other.same("relu", kept)
    assert len(lower_graph(other.graph(kept, last))) == 2


def test_an_op_joins_the_later_of_its_two_producers() -> None:
    """The earlier kernel could not wait for a value that comes after it."""
    draft = GraphDraft((1, 4, 6, 6))
    first, second = draft.conv("x", 4), draft.conv("x", 4, 1)
    draft.same("add", first, second, activation="none")
    assert [kernel.label for kernel in lower_graph(draft.graph())] == ["conv", "conv+add"]


def test_reshapes_cost_no_kernel() -> None:
    draft = GraphDraft((2, 12))
    y = draft.op("reshape", ("x",), (2, 3, 4), shape=(2, 3, 4))
    draft.same("relu", y)
    assert [kernel.label for kernel in lower_graph(draft.graph())] == ["relu"]


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("model", ["resnet50", "mobilenet_v2", "crnn", "encoder_tiny", "shufflenet", "unet_small"])
def test_all_multiplications_of_a_network_are_in_its_kernels(model: str, fusion: str) -> None:
    graph = prepare(load_workload(f"zoo:{model}", Path()))
    kernels = lower_graph(graph, batch=3, fusion=fusion)
    assert sum(kernel.macs for kernel in kernels) == 3 * sum(op_macs(graph, op) for op in graph.ops)
    products = [kernel for kernel in kernels if kernel.form == "gemm"]
    assert all(np.prod([kernel.shape[d] for d in "mnk"]) * kernel.shape["batch"] == kernel.macs for kernel in products)


def test_uneven_padding_and_dilation_keep_the_output_size() -> None:
    draft = GraphDraft((1, 4, 11, 9))
    draft.conv("x", 6, 3, stride=2, dilation=2, pads=(1, 0, 2, 1))
    graph = draft.graph()
    form, shape = conv_shape(graph, graph.ops[0], 5)
    height = (shape["height"] + 2 * shape["pad_height"] - shape["kernel_height"]) // shape["stride_height"] + 1
    width = (shape["width"] + 2 * shape["pad_width"] - shape["kernel_width"]) // shape["stride_width"] + 1
    assert (form, shape["batch"], height, width) == ("conv", 5, *graph[graph.outputs[0]].shape[2:])


def test_spiking_networks_are_refused_by_op() -> None:
    tensors = {"x": Tensor("x", (1, 4)), "y": Tensor("y", (1, 4)), "k": Tensor("k", (4,), data=np.ones(4, np.float32))}
    op = Op("n", "neuron", ("x", "k", "k", "k", "k", "k", ""), ("y",), {})
    with pytest.raises(ModelError, match=r"op 'n' \(neuron\) is of a spiking network, which the gpu family"):
        lower_graph(Graph("spikes", tensors, (op,), ("x",), ("y",)))
