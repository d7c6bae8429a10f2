"""What a layer learns, and where its weights come from. Only names, shapes and flags are looked at."""

from __future__ import annotations

from typing import NamedTuple

from caffe_fcn import surgery
from caffe_fcn.net import Net
from caffe_fcn.tracing.sizes import numbers
from caffe_fcn.tracing.walk import Walk


class Learning(NamedTuple):
    """The parameters of one layer."""

    parameters: int  # numbers of its own
    frozen: int  # of these, how many nothing ever changes
    shared: list[str]  # layers that own parameters it shares
    lr_mult: list[float]  # one per parameter blob
    source: str


def learn(walked: Walk, given: bool) -> list[Learning]:
    """For every layer; `given` says whether there were weights to fill the net from."""
    net = walked.net
    empty = set(surgery.unfilled(net)) if given else set()
    owners: dict[str, str] = {}  # a parameter's name -> the layer that owns it
    result = []
    for i, layer in enumerate(net.layers):
        specs = list(layer.param.param)
        rates = [specs[k].lr_mult if k < len(specs) else 1.0 for k in range(len(layer.blobs))]
        if layer.param.type == "BatchNorm":  # statistics, which it keeps itself (batch_norm_layer.cpp)
            rates = [0.0] * len(rates)
        own, frozen, shared = 0, 0, []
        for k, (blob, rate) in enumerate(zip(layer.blobs, rates, strict=True)):
            name = specs[k].name if k < len(specs) else ""
            if name and owners.setdefault(name, layer.name) != layer.name:
                shared.append(owners[name])
                continue
            own += blob.count
            frozen += blob.count if rate == 0 else 0
        source = ""
        if layer.blobs:
            source = f"shared with {shared[0]}" if shared and not own else _source(walked, i, given, empty)
        result.append(Learning(own, frozen, list(dict.fromkeys(shared)), rates, source))
    return result


def state(rates: list[float]) -> str:
    """Whether all, some or none of the parameters change in training; "" where there are none."""
    if not rates:
        return ""
    return "learned" if all(rates) else "partly" if any(rates) else "frozen"


def missing(net: Net, given: bool) -> list[str]:
    """A line for the layers that the weights leave empty, and that no bilinear kernel fills."""
    empty = surgery.unfilled(net) if given else []
    names = [name for name in empty if not surgery.interpolates(net.layer_dict[name])]
    if not names:
        return []
    return [f"the weights hold nothing for {', '.join(names)}: a conversion needs --init-missing"]


def _source(walked: Walk, index: int, given: bool, empty: set[str]) -> str:
    layer = walked.net.layers[index]
    if not given:
        return "not given"
    if layer.name not in empty:
        return "caffemodel"
    if surgery.interpolates(layer):
        return "bilinear on conversion"
    filler = layer.parameters([numbers(s) for s in walked.bottoms[index]])[0].filler
    if filler is None or (filler.type == "constant" and filler.value == 0):
        return "zero"
    return f"filler {filler.type}"
