"""Surgery: the original's results, and what a weights file left empty."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from caffe_fcn import surgery
from caffe_fcn.cli import call
from caffe_fcn.errors import CaffeError, CaffeWarning
from caffe_fcn.formats import caffemodel
from caffe_fcn.formats.weights import load
from caffe_fcn.net import Net
from caffe_fcn.net_spec import NetSpec
from caffe_fcn.net_spec import layers as L  # noqa: N812
from tests.reference_cases import cases


def net_of(classes=3, **up):
    """score: a 1x1 convolution to the classes; up: a Deconvolution."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 2, 6, 6]})
    n.score = L.Convolution(n.data, num_output=classes, kernel_size=1)
    up = {"num_output": classes, "kernel_size": 4, "stride": 2, "bias_term": False, **up}
    n.up = L.Deconvolution(n.score, convolution_param=up)
    return Net(n.to_proto())


def stored(net, leave_out=(), **arrays):
    """The layers of a weights file: those of `net`, all ones but for `arrays`."""
    return [
        caffemodel.StoredLayer(
            name,
            net.layer_dict[name].param.type,
            [caffemodel.StoredBlob(np.asarray(a, np.float32), False) for a in arrays.get(name, ones(blobs))],
        )
        for name, blobs in net.params.items()
        if name not in leave_out
    ]


def ones(blobs):
    return [np.ones(blob.shape) for blob in blobs]


def loaded(net, **file):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.copy_from(stored(net, **file))
    return net


# --- kernels


TENTS = {
    1: [1],
    2: [0.5, 0.5],
    3: [0.5, 1, 0.5],
    4: [0.25, 0.75, 0.75, 0.25],
    5: [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3],
}


@pytest.mark.parametrize(("size", "tent"), TENTS.items())
def test_upsample_filt(size, tent):
    np.testing.assert_allclose(surgery.upsample_filt(size), np.outer(tent, tent), rtol=1e-15)


@pytest.mark.parametrize("size", [63, 64])
def test_upsample_filt_of_the_published_nets(size):
    kernel = surgery.upsample_filt(size)
    assert kernel.shape == (size, size)
    np.testing.assert_array_equal(kernel, kernel.T)
    np.testing.assert_allclose(kernel, kernel[::-1])
    # the weights that a Deconvolution of stride 32 adds up in a pixel are 1 together
    tent = np.zeros(64)
    tent[:size] = np.sqrt(np.diag(kernel))
    np.testing.assert_allclose(tent[:32] + tent[32:], 1)


def test_interp_writes_the_diagonal_and_nothing_else():
    net = net_of()
    net.params["up"][0].data[...] = 7
    surgery.interp(net, ["up"])
    for i in range(3):
        for j in range(3):
            kernel = surgery.upsample_filt(4) if i == j else np.full((4, 4), 7)
            np.testing.assert_array_equal(net.params["up"][0].data[i, j], kernel.astype(np.float32))
    assert "up" in net.filled


def test_interp_of_a_grouped_layer():
    net = net_of(group=3)
    surgery.interp(net, ["up"])
    assert net.params["up"][0].shape == (3, 1, 4, 4)
    np.testing.assert_array_equal(net.params["up"][0].data[2, 0], surgery.upsample_filt(4))


@pytest.mark.parametrize(
    ("up", "problem"),
    [
        ({"num_output": 2}, "layer 'up': cannot interpolate: 3 and 2 channels: they have to be as many"),
        ({"kernel_size": [4, 6]}, "layer 'up': cannot interpolate: its kernel 4x6 is not square"),
    ],
)
def test_what_interp_refuses(up, problem):
    with pytest.raises(CaffeError, match=problem):
        surgery.interp(net_of(**up), ["up"])


def test_interp_of_a_layer_that_is_not_there():
    with pytest.raises(CaffeError, match=r"no layer 'upp' with parameters in the net\n  did you mean up"):
        surgery.interp(net_of(), ["upp"])


# --- transplant


def classifier():
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, 4, 4]})
    n.conv = L.Convolution(n.data, num_output=2, kernel_size=3, pad=1, weight_filler={"type": "xavier"})
    n.fc = L.InnerProduct(n.conv, num_output=5, weight_filler={"type": "xavier"})
    n.last = L.InnerProduct(n.fc, num_output=4)
    return n.to_proto()


def convolutional(suffix="", channels=3, fc="fc", bias=True):
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, channels, 4, 4]})
    n["conv" + suffix] = top = L.Convolution(n.data, num_output=2, kernel_size=3, pad=1, bias_term=bias)
    n[fc + suffix] = top = L.Convolution(top, num_output=5, kernel_size=4)
    n.score = L.Convolution(top, num_output=3, kernel_size=1)
    n.up = L.Deconvolution(n.score, convolution_param={"num_output": 3, "kernel_size": 4, "bias_term": False})
    return n.to_proto()


def test_a_fully_connected_layer_becomes_a_convolution():
    old, new = Net(classifier()), Net(convolutional())
    moves = surgery.transplant(new, old)
    data = np.random.default_rng(0).standard_normal((1, 3, 4, 4))
    expected = old.forward(data=data, blobs=["fc"])["fc"]
    result = new.forward(data=data, blobs=["fc"])["fc"]
    np.testing.assert_allclose(result.reshape(1, 5), expected, rtol=1e-5)
    assert [str(move) for move in moves] == [
        "copied conv[0] to conv",
        "copied conv[1] to conv",
        "coerced fc[0] to fc, 5x32 as 5x2x4x4",
        "copied fc[1] to fc",
        "dropped last: the target has none",
    ]


def test_a_suffix_goes_behind_the_names():
    old, new = Net(classifier()), Net(convolutional("color"))
    surgery.transplant(new, old, suffix="color")
    np.testing.assert_array_equal(new.params["convcolor"][0].data, old.params["conv"][0].data)
    assert {move.action for move in surgery.transplant(new, old)} == {"dropped"}


def test_a_parameter_that_the_target_lacks_is_dropped():
    moves = surgery.transplant(Net(convolutional(bias=False)), Net(classifier()))
    assert str(moves[1]) == "dropped conv[1]: the target has none"


def test_another_number_of_values_is_refused_and_nothing_written():
    new = Net(convolutional(channels=4))
    with pytest.raises(CaffeError) as error:
        surgery.transplant(new, Net(classifier()))
    assert str(error.value) == (
        "cannot transplant parameter 0 of layer 'conv': "
        "it is 2x3x3x3 (54 values), the target's 2x4x3x3 (72)\n"
        "  give the target's layer another name, and it is left as it is"
    )
    assert not any(blob.data.any() for blobs in new.params.values() for blob in blobs)


def test_what_the_source_never_got_is_still_missing():
    old, new = loaded(Net(classifier()), leave_out=["fc"]), Net(convolutional())
    surgery.transplant(new, old)
    assert surgery.unfilled(new) == ["fc", "score", "up"]


def test_expand_score():
    old, new = net_of(3), net_of(5)
    rng = np.random.default_rng(0)
    for blob in (*old.params["score"], *new.params["score"]):
        blob.data[...] = rng.standard_normal(blob.shape)
    before = [blob.data.copy() for blob in new.params["score"]]
    surgery.expand_score(new, "score", old, "score")
    for was, source, blob in zip(before, old.params["score"], new.params["score"], strict=True):
        np.testing.assert_array_equal(blob.data[:3], source.data)
        np.testing.assert_array_equal(blob.data[3:], was[3:])
    assert "score" in new.filled
    with pytest.raises(CaffeError, match="'score' 5x2x1x1 to 'score' 3x2x1x1: only the first axis may grow"):
        surgery.expand_score(old, "score", new, "score")


# --- what a file left empty


def diagonal(weight):
    """Whether a weight is the bilinear kernel on the diagonal, and zero elsewhere."""
    expected = np.zeros(weight.shape)
    expected[range(len(weight)), range(weight.shape[1])] = surgery.upsample_filt(weight.shape[2])
    return np.array_equal(weight, expected.astype(np.float32))


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ({"leave_out": ["up"]}, "not in the file"),
        ({"up": []}, "not in the file"),
        ({"up": [np.zeros((3, 3, 4, 4))]}, "all zero in the file"),
    ],
    ids=["absent", "without blobs", "zero"],
)
def test_an_empty_deconvolution_gets_the_bilinear_kernel(file, why):
    net = loaded(net_of(), **file)
    assert surgery.unfilled(net) == ["up"]
    assert surgery.fill_missing(net) == [f"up: bilinear kernel 4x4 ({why})"]
    assert diagonal(net.params["up"][0].data)
    assert surgery.unfilled(net) == surgery.fill_missing(net) == []


def test_a_learned_deconvolution_stays():
    net = loaded(net_of())
    assert surgery.fill_missing(net) == []
    assert (net.params["up"][0].data == 1).all()


def test_noise_between_the_channels_is_not_left():
    net = loaded(net_of(weight_filler={"type": "xavier"}), leave_out=["up"])
    surgery.fill_missing(net)
    assert diagonal(net.params["up"][0].data)


def test_other_missing_layers_are_an_error():
    net = loaded(net_of(), leave_out=["score", "up"])
    with pytest.raises(CaffeError) as error:
        surgery.fill_missing(net)
    assert str(error.value).startswith("<net>: no weights for score 3x2x1x1\n")
    assert "--init-missing" in str(error.value)
    assert not net.params["up"][0].data.any()
    assert surgery.fill_missing(net, init_missing=True) == [
        "up: bilinear kernel 4x4 (not in the file)",
        "score: left at the prototxt's fillers",
    ]
    assert surgery.unfilled(net) == []


def test_the_error_names_what_the_file_has_instead():
    net = net_of()
    file = [layer._replace(name="score59") if layer.name == "score" else layer for layer in stored(net)]
    net.copy_from(file)
    with pytest.raises(CaffeError, match="the file has score59 instead; are they of one net"):
        surgery.fill_missing(net)


def test_a_deconvolution_that_cannot_interpolate_is_missing_too():
    net = loaded(net_of(kernel_size=[4, 6]), leave_out=["up"])
    with pytest.raises(CaffeError, match="no weights for up 3x3x4x6"):
        surgery.fill_missing(net)


def test_shared_parameters_are_filled_once():
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 2, 6, 6]})
    n.a = L.Convolution(n.data, num_output=2, kernel_size=1, bias_term=False, param={"name": "w"})
    n.b = L.Convolution(n.a, num_output=2, kernel_size=1, bias_term=False, param={"name": "w"})
    assert surgery.unfilled(loaded(Net(n.to_proto()), leave_out=["b"])) == []


@pytest.mark.parametrize(("up", "mixes"), [({}, True), ({"group": 3}, False), ({"kernel_size": 5}, True)])
def test_the_bilinear_filler_without_group_mixes_the_classes(up, mixes):
    net = loaded(net_of(weight_filler={"type": "bilinear"}, **up), leave_out=["up"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        surgery.fill_missing(net)
    assert surgery.mixing(net) == ["up"] * mixes
    assert [str(w.message) for w in caught if w.category is CaffeWarning] == [
        "layer 'up' (Deconvolution): its kernel is bilinear from every class to every class: "
        "it mixes the classes; needs group: 3"
    ] * mixes


def test_what_does_not_mix():
    equal_planes = loaded(net_of())
    one_class = loaded(net_of(classes=1, weight_filler={"type": "bilinear"}), leave_out=["up"])
    in_groups = loaded(net_of(classes=4, group=2, kernel_size=1), up=[np.ones((4, 2, 1, 1))])
    for net in (equal_planes, one_class, in_groups):
        assert surgery.mixing(net) == []
    net = net_of()
    surgery.interp(net, ["up"])
    assert surgery.mixing(net) == []


@pytest.mark.parametrize("case", [c for c in cases("nets") if "fcn" in c.name], ids=lambda case: case.name)
def test_the_reference_nets_lack_only_deconvolutions(case):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = Net(case.prototxt, case.caffemodel)
    in_file = {layer.name for layer in load(case.caffemodel)}
    lacking = [name for name in net.params if name not in in_file]
    assert surgery.unfilled(net) == lacking
    assert [line.split(":")[0] for line in surgery.fill_missing(net)] == lacking
    assert all(diagonal(net.params[name][0].data) for name in lacking)


def test_the_file_is_never_written_to(tmp_path):
    net, path = net_of(), tmp_path / "w.caffemodel"
    zeros = [
        ("score", "Convolution", ones(net.params["score"])),
        ("up", "Deconvolution", [np.zeros((3, 3, 4, 4))]),
    ]
    caffemodel.write(path, "net", zeros)
    before = path.read_bytes()
    net.copy_from(path)
    surgery.fill_missing(net)
    net.params["score"][0].data[...] = 5
    assert net.params["up"][0].data.any()
    assert path.read_bytes() == before


# --- caffe-fcn transplant


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A classifier with its weights, and nets to carry them over to."""
    monkeypatch.chdir(tmp_path)
    nets = {
        "old": classifier(),
        "new": convolutional(),
        "color": convolutional("color"),
        "odd": convolutional(channels=4),
    }
    for name, net in nets.items():
        (tmp_path / f"{name}.prototxt").write_text(str(net))
    params = Net(nets["old"]).params
    caffemodel.write(
        "old.caffemodel", "old", [(n, "", [b.data for b in blobs]) for n, blobs in params.items()]
    )
    return tmp_path


def transplanted(*more, target="new", out="new.caffemodel"):
    return call(
        "transplant", ["old.prototxt", "old.caffemodel", f"{target}.prototxt", out, *more], "transplant"
    )


@pytest.mark.parametrize("out", ["new.caffemodel", "new.caffemodel.h5"])
def test_the_command(folder, capsys, out):
    assert transplanted(out=out) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: 3 parameters copied as they are",
        "  coerced fc[0] to fc, 5x32 as 5x2x4x4",
        "  dropped last: the target has none",
        "  filled up: bilinear kernel 4x4 (not in the file)",
        "  left out, to be learned: score",
    ]
    written = {layer.name: [blob.data for blob in layer.blobs] for layer in load(out)}
    old = {layer.name: [blob.data for blob in layer.blobs] for layer in load("old.caffemodel")}
    assert sorted(written) == ["conv", "fc", "up"]
    np.testing.assert_array_equal(written["fc"][0], old["fc"][0].reshape(5, 2, 4, 4))
    np.testing.assert_array_equal(written["conv"][1], old["conv"][1])
    assert diagonal(written["up"][0])


def test_the_command_with_a_suffix_onto_other_weights(folder, capsys):
    Path("first").write_bytes(b"")
    assert transplanted("--quiet", "--suffix", "color", target="color", out="first") == 0
    assert {layer.name for layer in load("first")} == {"convcolor", "fccolor", "up"}
    assert transplanted("--quiet", "--onto", "first", target="new", out="second") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (
            {"target": "color"},
            "no layer with parameters has a name of color.prototxt's (convcolor, fccolor, score ...)",
        ),
        ({"target": "odd"}, "cannot transplant parameter 0 of layer 'conv'"),
        ({"target": "absent"}, "absent.prototxt: cannot be read"),
        ({"out": "no/such/folder"}, "no/such/folder: cannot be written"),
    ],
)
def test_the_command_refuses(folder, capsys, more, problem):
    before = sorted(folder.iterdir())
    assert transplanted(**more) == 1
    assert problem in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before
