"""Operations on a net's parameters: bilinear kernels, weights of other shapes, what a file left empty.

`upsample_filt`, `interp`, `transplant` and `expand_score` are those of the FCN repository's surgery.py, with
its signatures; what that printed, `transplant` returns.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from caffe_fcn.errors import CaffeError, CaffeWarning, nearest
from caffe_fcn.fillers import bilinear

if TYPE_CHECKING:
    from caffe_fcn.layers import Layer
    from caffe_fcn.net import Blob, Net

__all__ = [
    "Moved",
    "expand_score",
    "fill_missing",
    "interp",
    "interp_missing",
    "interpolates",
    "mixing",
    "transplant",
    "unfilled",
    "upsample_filt",
]


class Moved(NamedTuple):
    """What `transplant` did with a parameter; a layer dropped as a whole has no number and no shapes."""

    action: Literal["copied", "coerced", "dropped"]
    layer: str  # of the source
    number: int | None = None
    to: str = ""  # layer of the target
    shape: tuple[int, ...] | None = None
    new_shape: tuple[int, ...] | None = None

    def __str__(self) -> str:
        where = self.layer if self.number is None else f"{self.layer}[{self.number}]"
        if self.action == "dropped":
            return f"dropped {where}: the target has none"
        change = "" if self.action == "copied" else f", {_text(self.shape)} as {_text(self.new_shape)}"
        return f"{self.action} {where} to {self.to}{change}"


def upsample_filt(size: int) -> np.ndarray:
    """(size, size) kernel, float64, with which a Deconvolution of stride (size + 1) // 2 is bilinear."""
    return bilinear(size)


def interp(net: Net, layers: Iterable[str]) -> None:
    """Write the bilinear kernel into each of these layers, from every channel to itself.

    The planes between different channels are left as they are, which is zero in a Deconvolution without a
    filler. Raises CaffeError for a layer whose kernel is not square, or not as many channels in as out.
    """
    for name in layers:
        weight = _params(net, name)[0]
        problem = _not_interpolating(weight.shape)
        if problem:
            raise CaffeError(f"layer '{name}': cannot interpolate: {problem}")
        m, k = weight.shape[:2]
        weight.data[range(m), range(k)] = upsample_filt(weight.shape[2])
        net.filled.add(name)


def transplant(new_net: Net, net: Net, suffix: str = "") -> list[Moved]:
    """Copy the parameters of `net` into the layers of `new_net` of the same names, with `suffix` behind them.

    A parameter of another shape but as many elements is copied in memory order: that makes a fully connected
    layer (O, C * H * W) the convolution (O, C, H, W). What `new_net` lacks is dropped. Returns what was done
    with each parameter. Raises CaffeError, with nothing written, if the number of elements differs.
    """
    moves: list[tuple[Moved, Blob | None, Blob | None]] = []
    for name, blobs in net.params.items():
        new = new_net.params.get(name + suffix)
        if new is None:
            moves.append((Moved("dropped", name), None, None))
            continue
        for i, old in enumerate(blobs):
            move = _move(name, i, old, name + suffix, new[i]) if i < len(new) else Moved("dropped", name, i)
            moves.append((move, old, new[i] if i < len(new) else None))
    for move, old_blob, new_blob in moves:
        if old_blob is not None and new_blob is not None:
            new_blob.data[...] = old_blob.data.reshape(new_blob.shape)
            if move.layer in net.filled:  # what the source itself never got is still missing
                new_net.filled.add(move.to)
    return [move for move, _, _ in moves]


def expand_score(new_net: Net, new_layer: str, net: Net, layer: str) -> None:
    """Copy a score layer into one of more classes: the first are the old ones, the others stay as they are.

    Raises CaffeError if the new layer has fewer classes, or other inputs.
    """
    for new, old in zip(_params(new_net, new_layer), _params(net, layer), strict=False):
        old_data = old.data.reshape(-1) if len(new.shape) == 1 else old.data  # old files have 4-D biases
        classes = len(old_data)
        if classes > new.shape[0] or old_data.shape[1:] != new.shape[1:]:
            raise CaffeError(
                f"cannot expand '{layer}' {_text(old.shape)} to '{new_layer}' {_text(new.shape)}: "
                "only the first axis may grow"
            )
        new.data[:classes] = old_data
    new_net.filled.add(new_layer)


def unfilled(net: Net) -> list[str]:
    """Layers that no weights file filled: absent from it, or a Deconvolution that is all zero there."""
    filled = {id(blob) for name in net.filled for blob in net.params.get(name, ())}
    return [
        name
        for name, blobs in net.params.items()
        # A layer that shares the parameters of one that is filled is filled.
        if any(id(blob) not in filled for blob in blobs) or _is_zero(net.layer_dict[name])
    ]


def fill_missing(net: Net, init_missing: bool = False) -> list[str]:
    """Fill what a weights file left empty; returns a line for each layer that says how.

    A Deconvolution is filled as by `interp_missing`; another layer is left at the prototxt's fillers, if
    `init_missing` says so.

    Raises:
        CaffeError: other layers are missing. Nothing is written then.

    Warns:
        CaffeWarning: a Deconvolution mixes its channels (`mixing`).
    """
    others = [name for name in unfilled(net) if not interpolates(net.layer_dict[name])]
    if others and not init_missing:
        raise _missing(net, others)
    lines = [*interp_missing(net), *(f"{name}: left at the prototxt's fillers" for name in others)]
    net.filled.update(others)
    for name in mixing(net):
        classes = net.layer_dict[name].param.convolution_param.num_output
        warnings.warn(
            f"layer '{name}' (Deconvolution): its kernel is bilinear from every class to every class: "
            f"it mixes the classes; needs group: {classes}",
            CaffeWarning,
            stacklevel=2,
        )
    return lines


def interp_missing(net: Net) -> list[str]:
    """Write the kernel of `interp` into each Deconvolution that is unfilled; returns a line for each.

    None is stored where none was learned (lr_mult 0), and zeros would give all-zero scores.
    """
    lines = []
    for name in unfilled(net):
        layer = net.layer_dict[name]
        if not interpolates(layer):
            continue
        weight = layer.blobs[0]
        if layer.param.convolution_param.weight_filler.type != "bilinear":
            weight.data[...] = 0  # a filler's noise between the channels would stay there
        why = "all zero in the file" if name in net.filled else "not in the file"
        interp(net, [name])
        lines.append(f"{name}: bilinear kernel {_text(weight.shape[2:])} ({why})")
    return lines


def mixing(net: Net) -> list[str]:
    """Deconvolutions that add up all their channels: dense, with a bilinear kernel from each to each.

    So the `bilinear` filler leaves them where `group` is not the number of channels.
    """
    return [name for name, layer in net.layer_dict.items() if _is_deconvolution(layer) and _mixes(layer)]


def _mixes(layer: Layer) -> bool:
    weight = layer.blobs[0].data
    if weight.ndim != 4 or weight.shape[:2] == (1, 1) or weight.shape[2] != weight.shape[3]:
        return False
    dense = layer.param.convolution_param.group == 1
    return (
        dense
        and np.allclose(weight[0, -1], bilinear(weight.shape[2]))
        and bool((weight == weight[0, 0]).all())
    )


def _is_deconvolution(layer: Layer) -> bool:
    return layer.param.type == "Deconvolution"


def _is_zero(layer: Layer) -> bool:
    return _is_deconvolution(layer) and not layer.blobs[0].data.any()


def interpolates(layer: Layer) -> bool:
    """Whether a layer is a Deconvolution that can hold a bilinear kernel for each of its channels."""
    return _is_deconvolution(layer) and not _not_interpolating(layer.blobs[0].shape)


def _not_interpolating(shape: tuple[int, ...]) -> str:
    """Why a weight of this shape cannot hold a bilinear kernel for each channel; "" if it can."""
    if len(shape) != 4:
        return f"its weight is {_text(shape)}, not 4-D"
    m, k, h, w = shape
    if m != k and k != 1:
        return f"{m} and {k} channels: they have to be as many, or the second 1"
    return "" if h == w else f"its kernel {h}x{w} is not square"


def _move(name: str, i: int, old: Blob, new_name: str, new: Blob) -> Moved:
    if math.prod(old.shape) != math.prod(new.shape):
        raise CaffeError(
            f"cannot transplant parameter {i} of layer '{name}': it is {_text(old.shape)} "
            f"({math.prod(old.shape):,} values), the target's {_text(new.shape)} ({math.prod(new.shape):,})",
            "give the target's layer another name, and it is left as it is",
        )
    action: Literal["copied", "coerced"] = "copied" if old.shape == new.shape else "coerced"
    return Moved(action, name, i, new_name, old.shape, new.shape)


def _missing(net: Net, names: list[str]) -> CaffeError:
    listed = ", ".join(f"{name} {_text(net.params[name][0].shape)}" for name in names)
    hint = "are they of one net? --init-missing starts these layers from the prototxt's fillers"
    if net.ignored:
        hint = f"the file has {', '.join(net.ignored)} instead; " + hint
    return CaffeError(f"{net.path}: no weights for {listed}", hint)


def _params(net: Net, name: str) -> Any:
    if name not in net.params:
        raise CaffeError(f"no layer '{name}' with parameters in the net", nearest(name, net.params))
    return net.params[name]


def _text(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape or ())) or "scalar"
