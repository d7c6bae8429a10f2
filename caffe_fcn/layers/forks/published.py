"""Python layers that published nets have, computed here where their modules are not to be found."""

from __future__ import annotations

import ast
import math
import re
from functools import cached_property
from typing import Any

from caffe_fcn.layers.base import Array, Shape
from caffe_fcn.layers.forks.activation import _TrainingNoise
from caffe_fcn.layers.forks.proposal import RATIOS, SCALES, Plan, Proposal
from caffe_fcn.layers.python import PUBLISHED
from caffe_fcn.numeric.boxes import anchors


class _FasterProposal(Proposal):
    """Faster R-CNN's proposals, with the settings of its config.py (rpn/proposal_layer.py of py-faster-rcnn).

    `param_str` gives feat_stride, and scales, ratios and base_size if they are others. Unlike in `Proposal`,
    regions that are too small are left out, one scale holds for both sides, and the second top is (R, 1).
    R-FCN, PVANET and CTPN's kin have the same layer.
    """

    fork = "py-faster-rcnn, R-FCN, PVANET"
    variant = "the ProposalLayer of py-faster-rcnn with its settings for TEST"

    def setup(self) -> None:
        self.check(not self.training, "is computed with its settings for TEST only")
        bottoms, tops = len(self.param.bottom), len(self.param.top)
        self.check(
            bottoms == 3 and tops in (1, 2), f"takes 3 bottoms and 1 or 2 tops, got {bottoms} and {tops}"
        )

    @cached_property
    def plan(self) -> Plan:
        """From `param_str`."""
        told = {"ratios": RATIOS, "scales": SCALES, "base_size": 16, **self._told()}
        self.check("feat_stride" in told, "feat_stride is missing in param_str")
        stride, base = (self._whole(name, told[name]) for name in ("feat_stride", "base_size"))
        ratios, scales = (self._numbers(name, told[name]) for name in ("ratios", "scales"))
        return self._plan(anchors(base, ratios, scales), stride)

    @staticmethod
    def _plan(cell: Array, stride: int) -> Plan:
        """With the settings of config.py."""
        return Plan(cell, stride, 6000, 300, 0.7, 16, leave_out=True)

    def _told(self) -> dict[str, Any]:
        text = self.param.python_param.param_str.replace("!!python/tuple", "").strip(" {}\n")
        lines = re.sub(r",?\s*\n\s*(?=['\"]?\w+['\"]?\s*:)", ", ", text)  # as YAML has them, without commas
        quoted = re.sub(r"['\"]?(\w+)['\"]?\s*:", r"'\1':", lines)
        try:
            found = ast.literal_eval("{" + quoted + "}")
        except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
            found = None
        self.check(isinstance(found, dict), f"param_str {text[:80]!r} is no list of names and values")
        return dict(found)

    def _numbers(self, name: str, told: Any) -> list[float]:
        values = list(told) if isinstance(told, (list, tuple)) else [told]
        fits = bool(values) and all(isinstance(v, (int, float)) and 0 < v < math.inf for v in values)
        self.check(fits, f"{name} {told} in param_str must be positive and finite")
        return [float(v) for v in values]

    def _whole(self, name: str, told: Any) -> int:
        value, *more = self._numbers(name, told)
        self.check(value.is_integer() and not more, f"{name} {told} is no whole number")
        return int(value)

    def _shapes(self) -> list[Shape]:
        shapes: list[Shape] = [(self.plan.after, 5), (self.plan.after, 1)]
        return shapes[: len(self.param.top)]


class _SshProposal(_FasterProposal):
    """SSH's anchors, moved: the 1000 likeliest of each module, whatever they overlap (its proposal_layer.py).

    Its anchors are all at least 1 pixel long, so none is too small.
    """

    fork = "SSH"
    variant = "the ProposalLayer of SSH with its settings for TEST"

    @staticmethod
    def _plan(cell: Array, stride: int) -> Plan:
        return Plan(cell, stride, 1000, 1000, 1, 0, leave_out=True)


class _EnetDropout(_TrainingNoise):
    """ENet's spatial dropout (spatial_dropout.py), whose phase stands in `param_str`.

    Bottom: any shape. Top: the same.
    """

    fork = "ENet"
    variant = "the SpatialDropoutLayer of ENet"

    def setup(self) -> None:
        self.check(
            "TRAIN" not in self.param.python_param.param_str, "is random in phase TRAIN", "use phase TEST"
        )


PUBLISHED[("rpn.proposal_layer", "ProposalLayer")] = _FasterProposal
PUBLISHED[("SSH.layers.proposal_layer", "ProposalLayer")] = _SshProposal
PUBLISHED[("spatial_dropout", "SpatialDropoutLayer")] = _EnetDropout
