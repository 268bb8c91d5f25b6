"""ReNet layers as ONNX: the map's patches as sequences, and LSTM, GRU or RNN in both directions over them.

ONNX's LSTM gives no cell memories but the last, and OpenVINO's leaves peepholes out, without a word. So an LSTM with
either goes step by step, in a Scan for each direction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from caffe.proto import caffe_pb2
from onnx import GraphProto, TensorProto, helper, numpy_helper

from renet.exchange.graph import Converter, Graph, Layer, Size

_HIDDEN = caffe_pb2.ReNetParameter.HIDDEN
# Rows of ours that stand where ONNX has its own: i, o, f, c of i, f, o, g; z, r, h; the one of an IRNN
_GATES = {"LSTM": (0, 2, 1, 3), "GRU": (0, 1, 2), "RNN": (0,)}


def _renet(operator: str) -> Converter:
    def convert(graph: Graph, layer: Layer) -> list[str]:
        parameter = layer.parameter.renet_param
        sequences, count, crosswise = _sequences(graph, layer)
        half = len(layer.weights) // 2
        scans = [layer.weights[:half], layer.weights[half:]]
        d = parameter.num_output
        if operator == "LSTM" and (parameter.peephole or parameter.output != _HIDDEN):
            hidden = parameter.output == _HIDDEN
            zero = graph.add("ConstantOfShape", graph.join([graph.size(sequences, 1), d]))
            both = [_scan(graph, sequences, zero, scan, hidden, way) for way, scan in enumerate(scans)]
            states = graph.add("Concat", *both, axis=2)
        else:
            states = _both_ways(graph, operator, sequences, scans, d)
        lines: list[Size] = [0, count, crosswise, 2 * d]
        vertical = parameter.direction == caffe_pb2.ReNetParameter.VERTICAL
        return [graph.transpose(graph.reshape(states, lines), (1, 3, 0, 2) if vertical else (1, 3, 2, 0))]

    return convert


def _sequences(graph: Graph, layer: Layer) -> tuple[str, str, Size]:
    """The map as sequences of patches, (steps, N * lines, P), with N and the number of lines."""
    parameter = layer.parameter.renet_param
    s, t = parameter.patch_height, parameter.patch_width
    value, channels = layer.bottoms[0], layer.shapes[0][1]
    vertical = parameter.direction == caffe_pb2.ReNetParameter.VERTICAL
    count = graph.size(value, 0)
    if (s, t) == (1, 1):
        value = graph.transpose(value, (2, 0, 3, 1) if vertical else (3, 0, 2, 1))
        return graph.reshape(value, [0, -1, channels]), count, -1
    patch = graph.constant([s, t])
    size = graph.size(value, 2, 4)
    grid = graph.add("Div", graph.add("Add", size, graph.constant([s - 1, t - 1])), patch)
    missing = graph.add("Sub", graph.add("Mul", grid, patch), size)
    value = graph.add("Pad", value, graph.join([0, 0, 0, 0, 0, 0, missing]))
    rows, columns = (
        graph.add("Slice", grid, graph.constant([axis]), graph.constant([axis + 1])) for axis in (0, 1)
    )  # fmt: skip
    value = graph.reshape(value, [0, channels, rows, s, columns, t])
    value = graph.transpose(value, (2, 0, 4, 1, 3, 5) if vertical else (4, 0, 2, 1, 3, 5))
    return graph.reshape(value, [0, -1, channels * s * t]), count, -1


def _both_ways(graph: Graph, operator: str, sequences: str, scans: Sequence[Sequence[np.ndarray]], d: int) -> str:
    """The states of both scans, (steps, N * lines, 2d), by one of ONNX's own recurrent operators."""

    def ordered(blob: np.ndarray) -> np.ndarray:
        gates = blob.reshape(len(_GATES[operator]), d, *blob.shape[1:])
        return gates[list(_GATES[operator])].reshape(blob.shape)

    of_inputs = np.stack([ordered(scan[0]) for scan in scans])
    of_states = np.stack([ordered(scan[2]) for scan in scans])
    # ONNX adds one bias to the inputs' product and another to the states'
    biases = np.stack([np.concatenate([ordered(scan[1]), np.zeros_like(scan[1])]) for scan in scans])
    more = {"GRU": {"linear_before_reset": 0}, "RNN": {"activations": ["Relu", "Relu"]}}
    states = graph.add(
        operator,
        sequences,
        *(graph.constant(array) for array in (of_inputs, of_states, biases)),
        direction="bidirectional",
        hidden_size=d,
        **more.get(operator, {}),
    )
    return graph.reshape(graph.transpose(states, (0, 2, 1, 3)), [0, 0, 2 * d])


def _scan(graph: Graph, sequences: str, zero: str, scan: Sequence[np.ndarray], hidden: bool, backward: int) -> str:
    """The outputs of one scan of an LSTM step by step, (steps, N * lines, d)."""
    inputs = graph.add("MatMul", sequences, graph.constant(scan[0].T))
    inputs = graph.add("Add", inputs, graph.constant(scan[1]))
    body = _lstm_step(scan[2], scan[3] if len(scan) == 4 else None, hidden)
    last = graph.add(
        "Scan",
        zero,
        zero,
        inputs,
        outputs=3,
        num_scan_inputs=1,
        body=body,
        scan_input_directions=[backward],
        scan_output_directions=[backward],
    )
    return f"{last}:2"


def _lstm_step(of_states: np.ndarray, peepholes: np.ndarray | None, hidden: bool) -> GraphProto:
    """One step: from h, c and the inputs' product to the next h and c, and the output."""
    d = of_states.shape[1]
    nodes = [
        helper.make_node("Constant", [], ["W_h"], value=numpy_helper.from_array(np.ascontiguousarray(of_states.T))),
        helper.make_node("MatMul", ["h", "W_h"], ["of_states"]),
        helper.make_node("Add", ["inputs", "of_states"], ["sums"]),
        helper.make_node("Split", ["sums"], ["i", "f", "o", "g"], axis=1),
    ]

    def gate(name: str, row: int, cell: str) -> None:
        total = name
        if peepholes is not None:
            weights = numpy_helper.from_array(np.ascontiguousarray(peepholes[row]))
            nodes.append(helper.make_node("Constant", [], [f"p_{name}"], value=weights))
            nodes.append(helper.make_node("Mul", [cell, f"p_{name}"], [f"{name}_cell"]))
            nodes.append(helper.make_node("Add", [name, f"{name}_cell"], [f"{name}_sum"]))
            total = f"{name}_sum"
        nodes.append(helper.make_node("Sigmoid", [total], [f"{name}_gate"]))

    gate("i", 0, "c")
    gate("f", 1, "c")
    nodes += [
        helper.make_node("Tanh", ["g"], ["g_gate"]),
        helper.make_node("Mul", ["f_gate", "c"], ["kept"]),
        helper.make_node("Mul", ["i_gate", "g_gate"], ["new"]),
        helper.make_node("Add", ["kept", "new"], ["next_c"]),
    ]
    gate("o", 2, "next_c")
    nodes += [
        helper.make_node("Tanh", ["next_c"], ["squashed"]),
        helper.make_node("Mul", ["o_gate", "squashed"], ["next_h"]),
        helper.make_node("Identity", ["next_h" if hidden else "next_c"], ["output"]),
    ]
    given = [("h", d), ("c", d), ("inputs", 4 * d)]
    return helper.make_graph(
        nodes,
        "lstm_step",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size]) for name, size in given],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, d]) for name in ("next_h", "next_c", "output")],
    )


CONVERTERS: dict[str, Converter] = {
    "ReNetLSTM": _renet("LSTM"),
    "ReNetGRU": _renet("GRU"),
    "ReNetIRNN": _renet("RNN"),
}
