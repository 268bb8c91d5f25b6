"""Layers of a network file by phase, level and stage: Caffe's rules of `include` and `exclude`."""

from __future__ import annotations

from caffe.proto import caffe_pb2


def state_of(network: caffe_pb2.NetParameter, phase: int, more: caffe_pb2.NetState | None = None) -> caffe_pb2.NetState:
    """Compute the state that Caffe's solver gives a network: the phase, then what the network's own `state` says, then
    the solver's `train_state` or `test_state`."""
    state = caffe_pb2.NetState(phase=phase)
    state.MergeFrom(network.state)
    if more is not None:
        state.MergeFrom(more)
    return state


def layers_in(network: caffe_pb2.NetParameter, state: caffe_pb2.NetState) -> list[caffe_pb2.LayerParameter]:
    """List the layers that Caffe builds in this state, in the file's order."""
    return [layer for layer in network.layer if _is_in(layer, state)]


def _is_in(layer: caffe_pb2.LayerParameter, state: caffe_pb2.NetState) -> bool:
    if layer.include:
        return any(_meets(state, rule) for rule in layer.include)
    return not any(_meets(state, rule) for rule in layer.exclude)


def _meets(state: caffe_pb2.NetState, rule: caffe_pb2.NetStateRule) -> bool:
    stages = set(state.stage)
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and stages.issuperset(rule.stage)
        and stages.isdisjoint(rule.not_stage)
    )
