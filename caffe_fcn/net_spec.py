"""Nets written in Python, as with pycaffe's net_spec: `NetSpec`, `layers as L`, `params as P`, `to_proto`.

    n = NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 3, 500, 500]))
    n.conv1 = L.Convolution(n.data, kernel_size=3, num_output=64, weight_filler=dict(type="xavier"))
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.pool1 = L.Pooling(n.relu1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    print(n.to_proto())

Which parameters a type has, the schema says: `kernel_size` of a Convolution goes into convolution_param, for
that is a ConvolutionParameter. `ntop` says how many tops a layer makes (0: none), `in_place` that its top is
its bottom. Every other name belongs to the LayerParameter itself: `name`, `loss_weight`, `include`, `param`,
`transform_param`. Semantics: python/caffe/net_spec.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from caffe_fcn.errors import CaffeError, LayerError, nearest
from caffe_fcn.formats import caffe_pb2
from caffe_fcn.layers import LAYERS, Layer

__all__ = ["Function", "NetSpec", "NotATopError", "Top", "UnknownTopError", "layers", "params", "to_proto"]

# "Convolution" -> "convolution_param"
_SETTINGS = {
    field.message_type.name.removesuffix("Parameter"): field.name
    for field in caffe_pb2.LayerParameter.DESCRIPTOR.fields
    if field.name.endswith("_param")
}


class NotATopError(CaffeError, TypeError):
    """Something else stands where a top has to."""


class UnknownTopError(CaffeError, AttributeError, KeyError):
    """A NetSpec has no top of that name."""

    __str__ = Exception.__str__  # a KeyError would put the message in quotes


class Top:
    """One output of a layer."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn, self.n = fn, n

    def to_proto(self) -> Any:
        """The NetParameter of all layers that this top needs; names are made up."""
        return to_proto(self)

    def __repr__(self) -> str:
        return f"<Top {self.n} of {self.fn}>"


class Function:
    """A layer: its type, the tops that it reads, its parameters, and `tops`, what it makes."""

    def __init__(self, type_name: str, inputs: Sequence[Top], params: Mapping[str, Any]) -> None:
        for i, top in enumerate(inputs):
            if not isinstance(top, Top):
                raise NotATopError(f"{type_name} input {i} is not a Top (type is {type(top)})")
        self.type_name, self.inputs, self.params = type_name, tuple(inputs), dict(params)
        self.ntop: int = self.params.pop("ntop", 1)
        self.in_place: bool = self.params.pop("in_place", False)
        if self.in_place and self.ntop > len(inputs):
            raise CaffeError(
                f"{type_name}: ntop is {self.ntop}, but in place the tops are the {len(inputs)} bottoms"
            )
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def to_layer(self, name: str = "", bottoms: Sequence[str] = (), tops: Sequence[str] = ()) -> Any:
        """The LayerParameter under these names. LayerError for a parameter that the type does not have."""
        layer = caffe_pb2.LayerParameter(name=name, type=self.type_name, bottom=bottoms, top=tops)
        settings = _SETTINGS.get(self.type_name) or LAYERS.get(self.type_name, Layer).settings
        own = getattr(layer, settings) if settings else layer
        for key, value in self.params.items():
            message = own if key in own.DESCRIPTOR.fields_by_name else layer
            known = {**own.DESCRIPTOR.fields_by_name, **layer.DESCRIPTOR.fields_by_name}
            if key not in known:
                problem = f"there is no parameter '{key}'"
                raise LayerError("<NetSpec>", layer.name, self.type_name, problem, nearest(key, known))
            try:
                _assign(message, key, value)
            except (CaffeError, TypeError, ValueError) as error:
                raise LayerError("<NetSpec>", layer.name, self.type_name, f"'{key}': {error}") from error
        return layer

    def __repr__(self) -> str:
        return f"{self.type_name} layer"


class NetSpec:
    """Tops under names of one's choice: `n.conv1 = L.Convolution(n.data, ...)` names the blob and the layer.

    `n["conv1"]` is the same as `n.conv1`; `tops` holds them in the order of assignment. A layer without tops
    (`ntop=0`) is assigned to get its name.
    """

    tops: dict[str, Top | Function]

    def __init__(self) -> None:
        object.__setattr__(self, "tops", {})

    def __setattr__(self, name: str, value: Any) -> None:
        if not isinstance(value, (Top, Function)):
            hint = "a layer of several tops is assigned to several names: n.a, n.b = ..."
            raise NotATopError(f"n.{name}: is not a Top (type is {type(value)})", hint)
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.tops:
            raise UnknownTopError(f"no '{name}' in this NetSpec", nearest(name, self.tops))
        return self.tops[name]

    __setitem__, __getitem__ = __setattr__, __getattr__

    def to_proto(self) -> Any:
        """The NetParameter of all layers that the assigned tops need, in their order."""
        names = {top: name for name, top in self.tops.items()}
        return _net([top.fn if isinstance(top, Top) else top for top in names], names)


def to_proto(*tops: Top) -> Any:
    """The NetParameter of all layers that these tops need; names are made up: ReLU1, ReLU2 ..."""
    return _net([top.fn for top in tops], {})


def _net(targets: Iterable[Function], names: dict[Top | Function, str]) -> Any:
    net, blobs = caffe_pb2.NetParameter(), dict[Top, str]()
    made_up: Counter[str] = Counter()

    def name(what: Top | Function, type_name: str) -> str:
        if what not in names:
            made_up[type_name] += 1
            names[what] = f"{type_name}{made_up[type_name]}"
        return names[what]

    for fn in _in_order(targets):
        bottoms = [blobs[top] for top in fn.inputs]
        tops = bottoms if fn.in_place else [name(top, fn.type_name) for top in fn.tops]
        blobs.update(
            zip(fn.tops, tops, strict=False)
        )  # several bottoms in place make as many tops, whatever ntop
        net.layer.append(fn.to_layer(name(fn.tops[0] if fn.tops else fn, fn.type_name), bottoms, tops))
    return net


def _in_order(targets: Iterable[Function]) -> Iterable[Function]:
    """The layers that `targets` need, each after those that it reads; not recursive, for nets are deep."""
    order: dict[Function, None] = {}
    for target in targets:
        waiting = [target]
        while waiting:
            missing = next((top.fn for top in waiting[-1].inputs if top.fn not in order), None)
            if missing:
                waiting.append(missing)
            else:
                order[waiting.pop()] = None
    return order


def _assign(message: Any, name: str, value: Any) -> None:
    """Set a field from plain Python: a dict is a message, a list a repeated field, a value a list of one."""
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        known = message.DESCRIPTOR.fields_by_name
        raise CaffeError(f"{message.DESCRIPTOR.name} has no field '{name}'", nearest(name, known))
    present = getattr(message, name)
    if hasattr(present, "append"):
        for item in value if isinstance(value, (list, tuple, np.ndarray)) else [value]:
            if field.message_type:
                _merge(present.add(), item)
            else:
                present.append(_scalar(field, item))
    elif field.message_type:
        _merge(present, value)
    else:
        setattr(message, name, _scalar(field, value))


def _merge(message: Any, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise CaffeError(f"is a {message.DESCRIPTOR.name}: expected a dict, got {value!r}")
    for name, item in value.items():
        _assign(message, name, item)


def _scalar(field: Any, value: Any) -> Any:
    if field.enum_type and isinstance(value, str):
        numbers = {v.name: v.number for v in field.enum_type.values}
        if value not in numbers:
            raise CaffeError(f"'{value}' is none of {', '.join(numbers)}")
        return numbers[value]
    return value


class _Layers:
    """`L.TYPE(bottom, ..., **parameters)` makes a layer of any type and returns its top, or its tops."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return partial(_layer, name)


def _layer(type_name: str, *bottoms: Top, **parameters: Any) -> Any:
    fn = Function(type_name, bottoms, parameters)
    if fn.ntop == 0:
        return fn
    return fn.tops[0] if fn.ntop == 1 else fn.tops


class _Params:
    """`P.Pooling.MAX` is the constant of that name in PoolingParameter."""

    def __getattr__(self, name: str) -> Any:
        known = caffe_pb2.DESCRIPTOR.message_types_by_name
        if f"{name}Parameter" not in known:
            raise AttributeError(f"no {name}Parameter in the schema {nearest(f'{name}Parameter', known)}")
        return getattr(caffe_pb2, f"{name}Parameter")


layers, params = _Layers(), _Params()
