"""Nets of 2013 (V0) and 2014 (V1) -> today's form, as upgrade_proto.cpp does it.

Where Caffe loses something on the way we lose it too, with a warning; where it gives up we raise.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from caffe_fcn.errors import CaffeWarning, PrototxtError, nearest
from caffe_fcn.formats import caffe_pb2
from caffe_fcn.formats.fork_types import todays_type
from caffe_fcn.formats.text import Origin, short

V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}

# The layers of 2013, as V1 names them. "padding" is none: it becomes the pad of the layer after it.
_V0_TO_V1 = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}
V0_TYPES = {v0: V1_TYPES[v1] for v0, v1 in _V0_TO_V1.items()}

# Which message takes the parameters of a V0 type, and which; under their V0 names.
_V0_PARAMS = {
    "concat": ("concat_param", {"concat_dim"}),
    "conv": (
        "convolution_param",
        {"num_output", "biasterm", "weight_filler", "bias_filler", "pad", "kernelsize", "group", "stride"},
    ),
    "data": ("data_param", {"source", "batchsize", "rand_skip"}),
    "dropout": ("dropout_param", {"dropout_ratio"}),
    "hdf5_data": ("hdf5_data_param", {"source", "batchsize"}),
    "images": (
        "image_data_param",
        {"source", "batchsize", "rand_skip", "shuffle_images", "new_height", "new_width"},
    ),
    "infogain_loss": ("infogain_loss_param", {"source"}),
    "innerproduct": ("inner_product_param", {"num_output", "biasterm", "weight_filler", "bias_filler"}),
    "lrn": ("lrn_param", {"local_size", "alpha", "beta", "k"}),
    "pool": ("pooling_param", {"pad", "kernelsize", "stride", "pool"}),
    "window_data": (
        "window_data_param",
        {
            "source",
            "batchsize",
            "det_fg_threshold",
            "det_bg_threshold",
            "det_fg_fraction",
            "det_context_pad",
            "det_crop_mode",
        },
    ),
}
_V0_RENAMED = {
    "biasterm": "bias_term",
    "kernelsize": "kernel_size",
    "batchsize": "batch_size",
    "shuffle_images": "shuffle",
    "det_fg_threshold": "fg_threshold",
    "det_bg_threshold": "bg_threshold",
    "det_fg_fraction": "fg_fraction",
    "det_context_pad": "context_pad",
    "det_crop_mode": "crop_mode",
    "meanfile": "mean_file",
    "cropsize": "crop_size",
}
_V0_TRANSFORM = {"scale", "meanfile", "cropsize", "mirror"}  # of any type
_V0_SAME = {"name", "blobs", "blobs_lr", "weight_decay"}

_V1_TRANSFORMED = {"DATA": "data_param", "IMAGE_DATA": "image_data_param", "WINDOW_DATA": "window_data_param"}
_TRANSFORM = ("scale", "mean_file", "crop_size", "mirror")
_V1_TYPE_NAMES = caffe_pb2.V1LayerParameter.DESCRIPTOR.enum_types_by_name["LayerType"].values_by_number
# What V1 keeps in lists beside each other, and today's ParamSpec in one message per parameter.
_V1_PARAM = {
    "param": "name",
    "blob_share_mode": "share_mode",
    "blobs_lr": "lr_mult",
    "weight_decay": "decay_mult",
}


def upgrade(
    net: caffe_pb2.NetParameter, origins: list[Origin] | None = None, inputs: Origin | None = None
) -> tuple[caffe_pb2.NetParameter, list[Origin]]:
    """A copy of the net in today's form, and the origin of each of its layers (UpgradeNetAsNeeded).

    `origins` are those of `net.layers`, then of `net.layer`; `inputs` that of the first `input:` field. The
    Input layer made of such fields comes first. PrototxtError for `layer` beside V1 `layers`, for V0 types
    and padding that Caffe does not know, for inputs without their dims; CaffeWarning for what gets lost.
    """
    upgraded = caffe_pb2.NetParameter()
    upgraded.CopyFrom(net)
    if origins is None:
        origins = [Origin() for _ in range(len(net.layers) + len(net.layer))]
    if any(layer.HasField("layer") for layer in net.layers):
        upgraded, origins = _upgrade_v0(upgraded, origins)
    if upgraded.layers:
        _move_transforms(upgraded)
        _upgrade_v1(upgraded, origins)
    if upgraded.input:
        origins = _upgrade_inputs(upgraded, origins, inputs)
    for layer in upgraded.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:
            for param in layer.param:  # statistics are not learned
                param.lr_mult = param.decay_mult = 0
    return upgraded, origins


def _upgrade_v0(
    net: caffe_pb2.NetParameter, origins: list[Origin]
) -> tuple[caffe_pb2.NetParameter, list[Origin]]:
    """V0 layers to V1 (UpgradeV0Net, which takes over only the fields that a net of 2013 had)."""
    for field in ("layer", "input_shape", "state", "debug_info"):
        if field in (descriptor.name for descriptor, _ in net.ListFields()):
            _warn(f"{origins[0].path}: '{field}' is lost, as in Caffe: a net with V0 layers cannot have it")
    upgraded = caffe_pb2.NetParameter(input=net.input, input_dim=net.input_dim)
    for field in ("name", "force_backward"):
        if net.HasField(field):
            setattr(upgraded, field, getattr(net, field))
    kept = []
    for layer, origin in _fold_padding(net, origins):
        kept.append(Origin(origin.path, origin.line, {**origin.fields, **origin.fields.get("layer", {})}))
        kept[-1].fields.pop("layer", None)
        _upgrade_v0_layer(layer, upgraded.layers.add(), origin)
    return upgraded, kept


def _fold_padding(net: caffe_pb2.NetParameter, origins: list[Origin]) -> Iterator[tuple[Any, Origin]]:
    """The layers but for padding, whose pad goes to the layer that reads it (UpgradeV0PaddingLayers)."""
    makers: dict[str, Any] = dict.fromkeys(net.input)
    for layer, origin in zip(net.layers, origins, strict=False):
        for i, bottom in enumerate(layer.bottom):
            if bottom not in makers:
                raise _error(origin, layer, f"no layer before it makes its bottom {short(bottom)}")
            maker = makers[bottom]
            if maker is not None and maker.layer.type == "padding":
                if layer.layer.type not in ("conv", "pool") or len(layer.bottom) != 1:
                    problem = f"reads the padding layer {short(maker.layer.name)}"
                    raise _error(
                        origin, layer, problem, "only a conv or pool of one bottom can follow padding"
                    )
                if len(maker.bottom) != 1 or len(maker.top) != 1:
                    raise _error(origin, maker, "padding takes one bottom and makes one top")
                layer.layer.pad = maker.layer.pad
                layer.bottom[i] = maker.bottom[0]
        makers.update(dict.fromkeys(layer.top, layer))
        if layer.layer.type != "padding":
            yield layer, origin


def _upgrade_v0_layer(old: Any, new: Any, origin: Origin) -> None:
    """Fill a V1 layer from one that holds a V0 layer (UpgradeV0LayerParameter)."""
    new.bottom.extend(old.bottom)
    new.top.extend(old.top)
    if not old.HasField("layer"):
        _warn(
            f"{origin}: layer '{old.name}': all but bottom and top is lost, as in Caffe: not V0 in a V0 net"
        )
        return
    kind = old.layer.type
    if old.layer.HasField("type"):
        if kind not in _V0_TO_V1:
            raise _error(origin, old, f"no V0 layer has the type {short(kind)}", nearest(kind, _V0_TO_V1))
        new.type = getattr(caffe_pb2.V1LayerParameter, _V0_TO_V1[kind])
    param, own = _V0_PARAMS.get(kind, ("", set()))
    for field, value in old.layer.ListFields():
        name = _V0_RENAMED.get(field.name, field.name)
        if field.name in own:
            _assign(getattr(new, param), name, value)
        elif field.name in _V0_TRANSFORM:
            _assign(new.transform_param, name, value)
        elif field.name in _V0_SAME or (kind, name) == ("hdf5_output", "hdf5_output_param"):
            _assign(new, name, value)
        elif name != "type":
            where = f"{origin}: layer '{old.layer.name}'"
            _warn(f"{where}: '{name}' is lost, as in Caffe: it says nothing in a V0 layer of type '{kind}'")


def _move_transforms(net: caffe_pb2.NetParameter) -> None:
    """What data layers do to images moves to transform_param (UpgradeNetDataTransformation)."""
    params = [
        (getattr(layer, name), layer.transform_param)
        for layer in net.layers
        if (name := _V1_TRANSFORMED.get(_V1_TYPE_NAMES[layer.type].name))
    ]
    if not any(param.HasField(field) for param, _ in params for field in _TRANSFORM):
        return
    for param, transform in params:
        # If one layer needs it all get both messages, if empty: so they come out of Caffe.
        param.SetInParent()
        transform.SetInParent()
        for field in _TRANSFORM:
            if param.HasField(field):
                setattr(transform, field, getattr(param, field))
                param.ClearField(field)


def _upgrade_v1(net: caffe_pb2.NetParameter, origins: list[Origin]) -> None:
    """V1 layers to today's, in place (UpgradeV1Net)."""
    if net.layer:
        raise PrototxtError(
            f"{origins[len(net.layers)]}: the net has both `layer` and, at {origins[0]}, the older `layers`",
            'write all as `layer` with a type in quotes, as in layer { type: "Convolution" }',
        )
    for old, origin in zip(net.layers, origins, strict=True):
        new = net.layer.add()
        for field, value in old.ListFields():
            if field.name in _V1_PARAM:
                for i, entry in enumerate(value):
                    setattr(
                        new.param[i] if i < len(new.param) else new.param.add(), _V1_PARAM[field.name], entry
                    )
            elif field.name != "type":
                _assign(new, field.name, value)
        if old.HasField("type"):
            new.type = V1_TYPES[_V1_TYPE_NAMES[old.type].name]
        elif "type" in origin.fields:  # one that the schema lacks: a fork's
            name = str(origin.fields.pop("type"))
            new.type = V1_TYPES.get(name) or todays_type(name) or name
    net.ClearField("layers")


def _upgrade_inputs(
    net: caffe_pb2.NetParameter, origins: list[Origin], inputs: Origin | None
) -> list[Origin]:
    """`input:` and its dims to one Input layer before all others, in place (UpgradeNetInput)."""
    where = inputs or Origin(origins[0].path if origins else "<net>")
    layer = caffe_pb2.LayerParameter(name="input", type="Input", top=net.input)
    for i, name in enumerate(net.input):
        if i < len(net.input_shape):
            layer.input_param.shape.add().CopyFrom(net.input_shape[i])
        elif not net.input_shape and len(net.input_dim) >= 4 * i + 4:
            layer.input_param.shape.add(dim=net.input_dim[4 * i : 4 * i + 4])
        elif net.input_shape or net.input_dim:
            given = f"{len(net.input_shape)} input_shape and {len(net.input_dim)} input_dim"
            raise PrototxtError(
                f"{where}: no dims are left for input {short(name)}: {len(net.input)} inputs, but {given}",
                "give one input_shape, or four input_dim, for each input",
            )
    told = layer.HasField("input_param")
    if (
        inputs and not told
    ):  # Caffe drops those, but where no layer makes them a user can still tell the shape
        made = {top for each in net.layer for top in each.top}
        del layer.top[:]
        layer.top.extend(name for name in net.input if name not in made)
        way_out = (
            f"give it: --input-shape {net.input[0]}:1,3,HEIGHT,WIDTH" if layer.top else "a layer makes it"
        )
        _warn(f"{where}: input {short(net.input[0])} has no input_shape; {way_out}")
    if told or (inputs and layer.top):
        net.layer.insert(0, layer)
        origins = [where, *origins]
    for field in ("input", "input_dim", "input_shape"):
        net.ClearField(field)
    return origins


def _assign(message: Any, name: str, value: Any) -> None:
    """Set a field of any kind; one value for a repeated field becomes its only one."""
    held = getattr(message, name)
    if hasattr(held, "SetInParent"):
        held.SetInParent()
        held.CopyFrom(value)
    elif hasattr(held, "extend"):
        held.extend(value if hasattr(value, "extend") else [value])
    else:
        setattr(message, name, value)


def _error(origin: Origin, layer: Any, problem: str, hint: str = "") -> PrototxtError:
    return PrototxtError(f"{origin}: layer '{layer.layer.name}': {problem}", hint)


def _warn(message: str) -> None:
    warnings.warn(message, CaffeWarning, stacklevel=4)
