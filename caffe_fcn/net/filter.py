"""Which layers take part: include and exclude rules against phase, level and stages (Net::FilterNet)."""

from __future__ import annotations

from typing import Any

from caffe_fcn.errors import LayerError


def takes_part(layer: Any, state: Any, where: Any) -> bool:
    """Whether a LayerParameter belongs to the net in this NetState."""
    if layer.include and layer.exclude:
        problem = "has both include and exclude rules"
        raise LayerError(str(where), layer.name, layer.type, problem, "Caffe takes one kind or the other")
    if layer.include:
        return any(meets(state, rule) for rule in layer.include)
    return not any(meets(state, rule) for rule in layer.exclude)


def meets(state: Any, rule: Any) -> bool:
    """Whether a NetState meets every part of a NetStateRule (Net::StateMeetsRule)."""
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and all(stage in state.stage for stage in rule.stage)
        and not any(stage in state.stage for stage in rule.not_stage)
    )
