"""Random nets, most of them wrong: any layer type, any parameter of the schema, mostly small.

Everything is drawn from a `random.Random`, so that hypothesis, a fuzzer's bytes and a seed can all steer it.
"""

from __future__ import annotations

from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from caffe_fcn.errors import CaffeError
from caffe_fcn.fillers import FILLERS
from caffe_fcn.formats import caffe_pb2
from caffe_fcn.formats.prototxt import format as format_
from caffe_fcn.layers import LAYERS
from caffe_fcn.net import Net

INTS = (2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**40, 65537, 1000, -1, -2, 0)
FLOATS = (float("nan"), float("inf"), float("-inf"), 3.4e38, -3.4e38, 1e-45, -0.0, 1e9)
NAMES = (
    "", "a/b", "..", "../../x", "new\nline", "tab\t", "nul\0", "\u00e9\u4e2d\U0001f600", "a" * 300,
    "%s{0}", '"', "\\",
    "data", "preprocess/Cast", "const_1", "const_2", "image", "_split_0", "data_data_0_split_0", "<x>&",
    "a b",
    "(automatic)", "e\u0301", "-", "\u202e", "x.weight", "CON",
)  # fmt: skip
LIMITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
#: Parameters that are not called after the type that reads them.
SETTINGS = {
    "LSTM": ("recurrent_param",), "RNN": ("recurrent_param",),
    "SoftmaxWithLoss": ("softmax_param", "loss_param"),
    "SigmoidCrossEntropyLoss": ("loss_param",), "InfogainLoss": ("infogain_loss_param", "loss_param"),
    "DetectionOutput": ("detection_output_param",), "ReLU6": ("relu6_param",),
}  # fmt: skip


def random_net(rng: Random, folder: str = ".", wild: float | None = None) -> str:
    """The text of a net; files that it names are in `folder`. `wild` is the share of extreme values."""
    return _Nets(rng, folder, rng.choice((0.0, 0.02, 0.2)) if wild is None else wild).net()


def builds(net: Any, layer: Any) -> bool:
    """Whether a net can be built with one layer more, or fails otherwise than it may."""
    longer = caffe_pb2.NetParameter()
    longer.CopyFrom(net)
    longer.layer.append(layer)
    try:
        Net(longer)
    except CaffeError:
        return False
    except Exception:  # noqa: BLE001 - kept
        return True
    return True


class _Nets:
    def __init__(self, rng: Random, folder: str, wild: float) -> None:
        self.rng, self.folder, self.wild = rng, folder, wild
        self.blobs: list[str] = []
        self.serial = 0

    def strange(self) -> bool:
        return self.rng.random() < self.wild

    def net(self) -> str:
        net = caffe_pb2.NetParameter(name=self.name("net"))
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            net.layer.append(self.input())
        for _ in range(self.rng.choice((1, 1, 2, 3, 6))):
            type_ = self.rng.choice(sorted(LAYERS))
            for _ in range(self.rng.choice((1, 12))):
                layer = self.layer(type_)
                if builds(net, layer) or self.rng.random() < 0.02:  # at times one that cannot be built
                    net.layer.append(layer)
                    self.blobs += layer.top
                    break
        return format_(net)

    def name(self, stem: str) -> str:
        self.serial += 1
        return self.rng.choice(NAMES) if self.strange() else f"{stem}{self.serial}"

    def input(self) -> Any:
        top = self.name("in")
        layer = caffe_pb2.LayerParameter(name=top, type="Input", top=[top])
        rank = self.rng.choice((4, 4, 4, 4, 2, 1, 3, 5, 0))
        layer.input_param.shape.add(dim=[self.size() for _ in range(rank)])
        self.blobs.append(top)
        return layer

    def size(self) -> int:
        return self.rng.choice(INTS) if self.strange() else self.rng.choice((1, 2, 3, 4, 4, 6, 8))

    def layer(self, type_: str) -> Any:
        kind, layer = LAYERS[type_], caffe_pb2.LayerParameter(name=self.name("layer"), type=type_)
        if self.strange():
            layer.name = self.rng.choice(NAMES)
        few = [n for n in range(7) if n in kind.bottoms] or [2]
        for _ in range(self.rng.choice((0, 1, 2, 3, 9)) if self.strange() else self.rng.choice(few)):
            layer.bottom.append(
                self.rng.choice([*NAMES, *self.blobs] if self.strange() else self.blobs or ["x"])
            )
        few = [n for n in range(5) if n in kind.tops] or [2]
        for i in range(self.rng.choice((0, 1, 2, 3, 9)) if self.strange() else self.rng.choice(few)):
            in_place = self.rng.random() < 0.1 and i < len(layer.bottom)
            layer.top.append(layer.bottom[i] if in_place else self.name("top"))
        self.parameters(layer)
        return layer

    def parameters(self, layer: Any) -> None:
        fields = {f.name: f for f in layer.DESCRIPTOR.fields if f.message_type and f.name.endswith("_param")}
        named = [n for n in fields if n.replace("_", "") == f"{layer.type.lower()}param"]
        wanted = [LAYERS[layer.type].settings, *SETTINGS.get(layer.type, ()), *named]
        if self.strange():
            wanted.append(self.rng.choice(sorted(fields)))
        if LAYERS[layer.type].role == "data":
            wanted.append("transform_param")
        for name in dict.fromkeys(n for n in wanted if n):
            self.fill(getattr(layer, name), 0)
        if self.rng.random() < 0.1 or self.strange():
            for name in ("param", "include", "exclude", "loss_weight", "phase", "propagate_down", "blobs"):
                if self.rng.random() < 0.2:
                    self.set(layer, layer.DESCRIPTOR.fields_by_name[name], 0)

    def fill(self, message: Message, depth: int) -> None:
        message.SetInParent()
        share = self.rng.choice((0.1, 0.4, 0.8))
        for field in message.DESCRIPTOR.fields:
            if self.rng.random() < share or field.name in ("num_output", "kernel_size", "tiles"):
                self.set(message, field, depth)

    def set(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        if depth > 4:
            return
        value = getattr(message, field.name)
        if hasattr(value, "extend"):
            for _ in range(
                self.rng.choice((0, 9, 3)) if self.strange() else self.rng.choice((1, 1, 1, 2, 4))
            ):
                if field.message_type:
                    self.fill(value.add(), depth + 1)
                else:
                    value.append(self.scalar(field))
        elif field.message_type:
            self.fill(value, depth + 1)
        else:
            setattr(message, field.name, self.scalar(field))

    def scalar(self, field: FieldDescriptor) -> Any:
        rng, kind = self.rng, field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            return rng.choice(field.enum_type.values).number
        if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
            return rng.choice(FLOATS) if self.strange() else rng.choice((0.5, 1.0, 2.0, 0.0, -1.0, 0.25))
        if kind == FieldDescriptor.CPPTYPE_STRING:
            text = self.text(field)
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        low, high = LIMITS[kind]
        value = rng.choice(INTS) if self.strange() else rng.choice((1, 1, 1, 2, 2, 3, 0, 4, 6))
        return min(max(value, low), high)

    def text(self, field: FieldDescriptor) -> str:
        if field.name == "type" and field.containing_type.name == "FillerParameter":
            return self.rng.choice((*sorted(FILLERS), "nonsense") if self.strange() else sorted(FILLERS))
        if field.name in ("source", "mean_file", "file_name", "root_folder") or "file" in field.name:
            return f"{self.folder}/{self.rng.choice(('none', 'list.txt', 'data.h5', 'any.bin'))}"
        return self.rng.choice(NAMES)
