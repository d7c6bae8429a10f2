"""The published nets: which data each learns from, with which labels, and how its solver is set.

`files(name)` gives a net's prototxts; tools/make_prototxts.py writes them to prototxts/. The data layers are
the published Python layers (voc_layers and so on), their paths the published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from caffe_fcn.formats import caffe_pb2
from caffe_fcn.models import caffenet, vgg16
from caffe_fcn.models.fcn import Head, alexnet, early_fusion, fcn, late_fusion, vgg
from caffe_fcn.net_spec import NetSpec
from caffe_fcn.net_spec import layers as L  # noqa: N812 (pycaffe's custom)

SEED = 1337
SIZE = (500, 500)  # of the deploy nets' inputs, for example's sake: they work at any


class Split(NamedTuple):
    """The Python layer that reads one part of a data set, and what it is told."""

    layer: str
    told: Mapping[str, Any]


class DataSet(NamedTuple):
    """What a net reads and predicts."""

    module: str  # of the Python layers
    splits: Mapping[str, Split]  # by the name of the prototxt: first for training, then for testing
    heads: Sequence[Head]
    inputs: Mapping[str, int]  # blob -> channels
    solver: Mapping[str, Any]


class Model(NamedTuple):
    """A published net: its data, its layers, and what its solver has of its own."""

    data: DataSet
    layers: Callable[[NetSpec, Sequence[Head], bool], None]
    solver: Mapping[str, Any]


_SOLVER = {
    "test_interval": 999999999,  # the solver makes a test net, but never runs it: the scripts do
    "display": 20,
    "average_loss": 20,
    "lr_policy": "fixed",
    "momentum": 0.99,
    "iter_size": 1,
    "max_iter": 300000,
    "weight_decay": 0.0005,
    "test_initialization": False,
}
_SNAPSHOTS = {"snapshot": 4000, "snapshot_prefix": "snapshot/train"}


def _voc(data: str = "../data", **head: Any) -> DataSet:
    more = {"seed": SEED, "split": "train", "mean": (104.00699, 116.66877, 122.67892)}
    splits = {
        "train": Split("SBDDSegDataLayer", {"sbdd_dir": f"{data}/sbdd/dataset", **more}),
        "val": Split("VOCSegDataLayer", {"voc_dir": f"{data}/pascal/VOC2011", **more, "split": "seg11valid"}),
    }
    solver = {"test_iter": [736], "max_iter": 100000, **_SNAPSHOTS}
    return DataSet("voc_layers", splits, [Head(21, **head)], {"data": 3}, solver)


def _nyud(tops: Mapping[str, int], inputs: Mapping[str, int] | None = None) -> DataSet:
    """`tops`: what the data layer reads, and its channels; `inputs`: the same under the net's names."""
    told = {"tops": [*tops, "label"], "seed": SEED, "nyud_dir": "../data/nyud"}
    splits = {name: Split("NYUDSegDataLayer", {**told, "split": name}) for name in ("trainval", "test")}
    solver = {"test_iter": [654], **_SNAPSHOTS, "snapshot": 2000}
    return DataSet("nyud_layers", splits, [Head(40)], inputs or tops, solver)


def _siftflow() -> DataSet:
    told = {"siftflow_dir": "../data/sift-flow", "seed": SEED}
    splits = {name: Split("SIFTFlowSegDataLayer", {**told, "split": name}) for name in ("trainval", "test")}
    # The first loss has the plain name that the scoring script looks for.
    heads = [Head(33, "sem", "_sem"), Head(3, "geo", "_geo", "loss_geo")]
    return DataSet("siftflow_layers", splits, heads, {"data": 3}, {"test_iter": [200]})


def _pascalcontext() -> DataSet:
    voc, context = "../../data/pascal", "../../data/pascal-context"

    def told(split: str) -> dict[str, Any]:
        return {"context_dir": context, "seed": SEED, "split": split, "voc_dir": voc}

    splits = {name: Split("PASCALContextSegDataLayer", told(name)) for name in ("train", "val")}
    solver = {"test_iter": [5105], **_SNAPSHOTS}
    return DataSet("pascalcontext_layers", splits, [Head(60)], {"data": 3}, solver)


_at_once = partial(fcn, stride=8, scales={4: 0.01, 3: 0.0001})
_alexnet = partial(fcn, kernel=63, features=alexnet)
_alexnet_solver = {"base_lr": 1e-4, "momentum": 0.9, "iter_size": 20}

FAMILY: dict[str, Model] = {
    "voc-fcn32s": Model(_voc(), fcn, {"base_lr": 1e-10}),
    "voc-fcn16s": Model(_voc("../../data"), partial(fcn, stride=16), {"base_lr": 1e-12}),
    "voc-fcn8s": Model(_voc(), partial(fcn, stride=8), {"base_lr": 1e-14}),
    "voc-fcn8s-atonce": Model(_voc(), _at_once, {"base_lr": 1e-10, "max_iter": 300000}),
    "voc-fcn-alexnet": Model(_voc(normalize=True), _alexnet, _alexnet_solver),
    "nyud-fcn32s-color": Model(_nyud({"color": 3}, {"data": 3}), fcn, {"base_lr": 1e-10}),
    "nyud-fcn32s-hha": Model(_nyud({"hha": 3}, {"data": 3}), fcn, {"base_lr": 1e-10}),
    "nyud-fcn32s-color-d": Model(_nyud({"color": 3, "depth": 1}), early_fusion, {"base_lr": 1e-10}),
    "nyud-fcn32s-color-hha": Model(_nyud({"color": 3, "hha": 3}), late_fusion, {"base_lr": 1e-12}),
    "siftflow-fcn32s": Model(_siftflow(), fcn, {"base_lr": 1e-10}),
    "siftflow-fcn16s": Model(_siftflow(), partial(fcn, stride=16), {"base_lr": 1e-12}),
    "siftflow-fcn8s": Model(_siftflow(), partial(fcn, stride=8), {"base_lr": 1e-12}),
    "pascalcontext-fcn32s": Model(_pascalcontext(), fcn, {"base_lr": 1e-10}),
    "pascalcontext-fcn16s": Model(_pascalcontext(), partial(fcn, stride=16), {"base_lr": 1e-12}),
    "pascalcontext-fcn8s": Model(_pascalcontext(), partial(fcn, stride=8), {"base_lr": 1e-14}),
}


def deploy(name: str) -> Any:
    """The NetParameter that a net of the family is used with: Inputs for the data, no Dropout, no loss."""
    model = FAMILY[name]
    return _deploy(model.layers, model.data.heads, model.data.inputs)


def fcn8s(classes: int, widths: Sequence[int], fc: int, size: Sequence[int] = SIZE) -> Any:
    """voc-fcn8s' deploy net for other classes and of other widths: conv1 to conv5, and fc6 and fc7."""
    layers = partial(fcn, stride=8, features=partial(vgg, widths=widths, fc=fc))
    return _deploy(layers, [Head(classes)], {"data": 3}, size)


def _deploy(
    layers: Callable[[NetSpec, Sequence[Head], bool], None],
    heads: Sequence[Head],
    inputs: Mapping[str, int],
    size: Sequence[int] = SIZE,
) -> Any:
    n = NetSpec()
    for blob, channels in inputs.items():
        layer = "input" if len(inputs) == 1 else f"input_{blob}"
        n[blob] = L.Input(name=layer, shape={"dim": [1, channels, *size]})
    layers(n, heads, False)
    return n.to_proto()


def train(name: str, split: str) -> Any:
    """The net that learns ("train" or "trainval", as its data set has it) or is tested ("val" or "test")."""
    model = FAMILY[name]
    data = model.data
    n = NetSpec()
    blobs = [*data.inputs, *(head.label for head in data.heads)]
    layer, told = data.splits[split]
    tops = L.Python(module=data.module, layer=layer, ntop=len(blobs), param_str=str(dict(told)))
    for blob, top in zip(blobs, tops, strict=True):
        n[blob] = top
    model.layers(n, data.heads, True)
    return n.to_proto()


def solver(name: str) -> Any:
    """The SolverParameter that a net of the family was trained with."""
    model = FAMILY[name]
    learn, test = (f"{split}.prototxt" for split in model.data.splits)
    settings = {**_SOLVER, **model.data.solver, **model.solver}
    return caffe_pb2.SolverParameter(train_net=learn, test_net=[test], **settings)


def files(name: str) -> dict[str, Any]:
    """All prototxts of a net, messages by file name. `name` is one of `NAMES`."""
    if name in _DEPLOYED:
        return {"deploy.prototxt": _DEPLOYED[name]()}
    splits = {f"{split}.prototxt": train(name, split) for split in FAMILY[name].data.splits}
    return {"deploy.prototxt": deploy(name), **splits, "solver.prototxt": solver(name)}


_DEPLOYED: dict[str, Callable[[], Any]] = {
    "shapes-fcn8s": partial(fcn8s, classes=7, widths=(16, 24, 48, 64, 64), fc=96),  # the demo
    "vgg16": vgg16.classifier,
    "caffenet": caffenet.classifier,
}
NAMES = (*FAMILY, *_DEPLOYED)
