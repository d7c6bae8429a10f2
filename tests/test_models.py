"""The published family: our nets are theirs, message for message, and prototxts/ is up to date."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import pytest

from caffe_fcn import models
from caffe_fcn.deploy import to_deploy
from caffe_fcn.formats.prototxt import parse, read_net
from caffe_fcn.net import Net

ROOT = Path(__file__).resolve().parent.parent
PROTOTXTS = ROOT / "prototxts"

# SHA-256 (its first 12 digits) of the messages that the published files parse to: the FCN repository's, and
# CaffeNet's deploy file in BVLC/caffe.
PUBLISHED = {
    "voc-fcn32s": {"train": "449706ef2431", "val": "d1c624014678", "solver": "ba1e3070d889"},
    "voc-fcn16s": {"train": "520293db1f3f", "val": "a3108279f49b", "solver": "f92b65c4e5a1"},
    "voc-fcn8s": {
        "deploy": "5cebf4d89d5d",
        "train": "f0a52687af78",
        "val": "be0394b7faea",
        "solver": "3d29b29c742b",
    },
    "voc-fcn8s-atonce": {"train": "3fea6ff9784f", "val": "555428f63821", "solver": "4e997470c92d"},
    "voc-fcn-alexnet": {"train": "ab6ad516d659", "val": "3777683685a3", "solver": "3b92b9598e70"},
    "nyud-fcn32s-color": {"trainval": "d78ff01c0b38", "test": "c6ac025342bd", "solver": "ad49c546c102"},
    "nyud-fcn32s-hha": {"trainval": "6884edb748fd", "test": "6af1671cee3c", "solver": "ad49c546c102"},
    "nyud-fcn32s-color-d": {"trainval": "5a64b77055da", "test": "3a035e822fca", "solver": "ad49c546c102"},
    "nyud-fcn32s-color-hha": {"trainval": "510234279d7f", "test": "be3098e83bcb", "solver": "dd67ff5f70f9"},
    "siftflow-fcn32s": {"trainval": "1876896efa97", "test": "acbb782dc7e5", "solver": "baa6ff763cdc"},
    "siftflow-fcn16s": {"trainval": "7287c04fe35d", "test": "804019b06ce0", "solver": "452ae754572e"},
    "siftflow-fcn8s": {"trainval": "e727ddab65b0", "test": "8367eab2a1c6", "solver": "452ae754572e"},
    "pascalcontext-fcn32s": {"train": "3398dabfe7fc", "val": "bdd846ca4108", "solver": "c235b8a8b694"},
    "pascalcontext-fcn16s": {"train": "c4b6dd843ff3", "val": "175b24c8f8c4", "solver": "454c41811e49"},
    "pascalcontext-fcn8s": {"train": "906242c0e77d", "val": "ce00157d9464", "solver": "3be9517e52b7"},
    "caffenet": {"deploy": "64f4f78da68c"},
}
FILES = [(name, file) for name, files in PUBLISHED.items() for file in files]
# Of each net, the offsets of its Crops, in order.
OFFSETS = {
    "voc-fcn32s": [19],
    "voc-fcn16s": [5, 27],
    "voc-fcn8s": [5, 9, 31],
    "voc-fcn8s-atonce": [5, 9, 31],
    "voc-fcn-alexnet": [18],
    "nyud-fcn32s-color": [19],
    "nyud-fcn32s-hha": [19],
    "nyud-fcn32s-color-d": [19],
    "nyud-fcn32s-color-hha": [19],
    "siftflow-fcn32s": [19, 19],
    "siftflow-fcn16s": [5, 27, 5, 27],
    "siftflow-fcn8s": [5, 9, 31, 5, 9, 31],
    "pascalcontext-fcn32s": [19],
    "pascalcontext-fcn16s": [5, 27],
    "pascalcontext-fcn8s": [5, 9, 31],
    "shapes-fcn8s": [5, 9, 31],
}


def message(name, file):
    return models.files(name)[f"{file}.prototxt"]


def parameters(net):
    return {name: [blob.shape for blob in blobs] for name, blobs in net.params.items()}


@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_net_is_the_published_one(name, file):
    digest = hashlib.sha256(message(name, file).SerializeToString(deterministic=True)).hexdigest()
    assert digest.startswith(PUBLISHED[name][file])


@pytest.mark.parametrize("name", models.NAMES)
def test_the_files_say_what_the_models_do(name):
    for file, made in models.files(name).items():
        assert parse((PROTOTXTS / name / file).read_text(), type(made)) == made


def test_the_files_are_up_to_date(tmp_path):
    spec = importlib.util.spec_from_file_location("make_prototxts", ROOT / "tools" / "make_prototxts.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.main(tmp_path)
    written = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.prototxt")}
    committed = {path.relative_to(PROTOTXTS): path.read_text() for path in PROTOTXTS.rglob("*.prototxt")}
    assert written == committed, "run tools/make_prototxts.py"


@pytest.mark.parametrize(("name", "offsets"), OFFSETS.items())
def test_the_offsets_are_derived(name, offsets):
    crops = [layer for layer in message(name, "deploy").layer if layer.type == "Crop"]
    assert [list(layer.crop_param.offset) for layer in crops] == [[offset] for offset in offsets]
    assert all(layer.crop_param.axis == 2 for layer in crops)


@pytest.mark.parametrize("name", models.FAMILY)
def test_the_deploy_net_is_the_trained_one_without_its_ends(name):
    model = models.FAMILY[name]
    split = list(model.data.splits)[1]
    shapes = {blob: (1, channels, 500, 500) for blob, channels in model.data.inputs.items()}
    cut = to_deploy(read_net(message(name, split)), shapes)
    deploy, trained = Net(message(name, "deploy")), Net(cut.text)
    assert parameters(deploy) == parameters(trained)
    assert deploy.outputs == sorted(cut.outputs) == sorted(f"score{head.suffix}" for head in model.data.heads)
    assert deploy.inputs == trained.inputs == list(shapes)
    for net in (deploy, trained):
        sizes = [net.blobs[f"score{head.suffix}"].shape for head in model.data.heads]
        assert sizes == [(1, head.classes, 500, 500) for head in model.data.heads]


def test_the_nets_to_transplant_from():
    vgg16, caffenet = (Net(message(name, "deploy")) for name in ("vgg16", "caffenet"))
    assert parameters(vgg16)["fc6"] == [(4096, 25088), (4096,)]
    assert sum(blob.count for blobs in vgg16.params.values() for blob in blobs) == 138_357_544
    assert sum(blob.count for blobs in caffenet.params.values() for blob in blobs) == 60_965_224
    assert [net.blobs["prob"].shape for net in (vgg16, caffenet)] == [(10, 1000)] * 2
    assert (vgg16.name, caffenet.name) == ("VGG_ILSVRC_16_layers", "CaffeNet")


@pytest.mark.parametrize(
    ("source", "target"),
    [("vgg16", "voc-fcn32s"), ("vgg16", "siftflow-fcn8s"), ("caffenet", "voc-fcn-alexnet")],
)
def test_what_can_be_transplanted_has_as_many_values(source, target):
    old, new = (Net(message(name, "deploy")).params for name in (source, target))
    shared = [name for name in old if name in new]
    assert shared == [name for name in old if name != "fc8"]
    for name in shared:
        assert [blob.count for blob in old[name]] == [blob.count for blob in new[name]]


def test_narrower_nets_for_other_classes():
    net = Net(models.fcn8s(classes=4, widths=(2, 3, 4, 5, 6), fc=7, size=(31, 65)))
    assert parameters(net)["conv5_3"] == [(6, 6, 3, 3), (6,)]
    assert parameters(net)["fc6"] == [(7, 6, 7, 7), (7,)]
    assert parameters(net)["score_pool3"] == [(4, 4, 1, 1), (4,)]
    assert net.blobs["score"].shape == (1, 4, 31, 65)
    assert net.layer_names == Net(message("voc-fcn8s", "deploy")).layer_names
