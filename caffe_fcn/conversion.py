"""prototxt + caffemodel -> ONNX file, verified before it gets its name."""

from __future__ import annotations

import hashlib
import mmap
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from caffe_fcn import surgery
from caffe_fcn.deploy import Deploy, pruned, to_deploy
from caffe_fcn.errors import CaffeError, VerifyError, nearest
from caffe_fcn.formats.files import target_of
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import TEST, Net

PathLike = str | os.PathLike[str]


@dataclass
class Options:
    """What `convert` can be told; the defaults are the command's."""

    outputs: Sequence[str] = ()  # blobs to stop at; [] for the net's own
    input_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)  # fixed in the file
    softmax: bool = False
    argmax: bool = False
    preprocess: bool = False
    mean: Sequence[float] | None = None  # B, G, R; None: the data layer's, else ImageNet's
    scale: float | None = None  # what (pixel - mean) is multiplied by
    fp16: bool = False
    keep_fp32: Sequence[str] = ()  # layers that compute in float32 all the same
    init_missing: bool = False
    opset: int = 17
    ir_version: int = 9
    external_data: bool = False
    skip_passes: Sequence[str] = ()  # names of rewrites to leave out; "all" for the plain graph
    verify: bool = True


@dataclass
class Result:
    """What was written, and how it was found to be."""

    path: str
    bytes: int
    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]]
    filled: list[str]  # what a weights file left empty, and what filled it
    ignored: list[str]  # layers of the weights file that the net lacks
    dropped: list[str]  # layers that no output depends on
    fixed: dict[str, str]  # extents that had to be fixed, and the layer that needs it
    variants: dict[str, int]  # what layers were taken for whose name forks share, and how many
    verified: Any = None  # verify.Report, or None

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return {**vars(self), "verified": self.verified and self.verified.to_dict()}


def convert(
    prototxt: PathLike,
    caffemodel: PathLike | None,
    out: PathLike,
    options: Options | None = None,
    progress: Callable[[str, int], Any] | None = None,
    **changes: Any,
) -> Result:
    """Write the net of `prototxt` with the weights of `caffemodel` (None: without) as the ONNX file `out`.

    `options`, or its fields by name, say how. `progress(what, total)` returns a context manager that gets
    the bytes written. The file is compared with the reference forward pass before it gets its name.

    Raises:
        CaffeError: anything wrong with the input or the output; nothing is left behind but, if the comparison
            failed, the file under `out` + ".rejected".
    """
    o = options or Options(**changes)
    target_of(out)  # or it is said at once what would fail after the work
    with ThreadPoolExecutor(1) as beside:  # hashing runs while the net is built
        sources = beside.submit(_sources, prototxt, caffemodel)
        cut = pruned(to_deploy(read_net(prototxt), o.input_shapes), o.outputs)
        net = load(cut, caffemodel, o.input_shapes)
        filled = surgery.fill_missing(net, o.init_missing) if caffemodel is not None else []
        return _export(net, cut, sources, out, o, filled, progress)


def load(cut: Deploy, caffemodel: PathLike | None, shapes: Mapping[str, Sequence[int]]) -> Net:
    """The net of a deploy text, with weights and at the shapes given."""
    import warnings

    net = Net(cut.text, TEST)
    if caffemodel is not None:
        with warnings.catch_warnings():  # what is missing is dealt with by name, in fill_missing
            warnings.simplefilter("ignore")
            net.copy_from(caffemodel)
    for name, shape in shapes.items():
        if name not in net.inputs:
            raise CaffeError(
                f"{net.path}: no input '{name}'; the inputs are {', '.join(net.inputs)}",
                nearest(name, net.inputs),
            )
        want, have = net.blobs[name].shape, tuple(shape)
        if len(want) == len(have) == 4 and want[1] != have[1]:
            raise CaffeError(
                f"{net.path}: input '{name}' has {want[1]} channels, --input-shape gives {have[1]}: {have}"
            )
        net.blobs[name].reshape(*shape)
    net.reshape()
    return net


def _export(
    net: Net,
    cut: Deploy,
    sources: Future[dict[str, str]],
    out: PathLike,
    o: Options,
    filled: list[str],
    progress: Any,
) -> Result:
    from caffe_fcn.export import passes
    from caffe_fcn.export.exporter import export
    from caffe_fcn.export.finish import finish
    from caffe_fcn.export.passes import half
    from caffe_fcn.export.write import write

    exported = export(net, o.outputs or cut.outputs or None, static=o.input_shapes, opset=o.opset)
    graph = exported.graph
    passes.run(graph, o.skip_passes, _run)
    finish(
        graph, pixels(cut, o.mean, o.scale), softmax_=o.softmax, argmax_=o.argmax, preprocess_=o.preprocess
    )
    if o.fp16:
        half.apply(graph, o.keep_fp32, o.opset)
    graph.metadata.update(sources.result())
    with _staged(out) as path:
        with progress(f"writing {Path(out).name}", graph.nbytes) if progress else _silent() as step:
            size = write(
                graph, path, opset=o.opset, ir_version=o.ir_version, external=o.external_data, progress=step
            )
        report = None
        if o.verify:
            from caffe_fcn.verification import HALF_TOLERANCE, TOLERANCE, verify

            report = verify(net, path, tolerance=HALF_TOLERANCE if o.fp16 else TOLERANCE)
    return Result(
        os.fspath(out), size,
        {v.name: [str(n) if not isinstance(n, int) else n for n in v.shape] for v in graph.inputs},
        {v.name: [str(n) if not isinstance(n, int) else n for n in v.shape] for v in graph.outputs},
        filled, list(net.ignored), [*cut.dropped, *exported.dropped], exported.fixed, net.variants,
        report,
    )  # fmt: skip


def _run(graph: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a small graph, from onnxruntime."""
    from caffe_fcn.export.exporter import OPSET
    from caffe_fcn.export.write import to_model
    from caffe_fcn.runtime import Session

    return Session(to_model(graph, OPSET).SerializeToString(), "cpu").run(inputs)


def pixels(cut: Deploy, mean: Sequence[float] | None = None, scale: float | None = None) -> Any:
    """Mean and scale: as asked for, else as the data layer had them, else ImageNet's mean."""
    from caffe_fcn.export.finish import IMAGENET_MEAN, Pixels

    told = cut.transform
    if len(mean or ()) not in (0, 1, 3) or not np.isfinite([*(mean or ()), scale or 0]).all():
        raise CaffeError(f"mean {mean}, scale {scale}: one number or three (B, G, R), and a number")
    if mean is None:
        mean = list(told.mean_value) if told and told.mean_value else IMAGENET_MEAN
    return Pixels(mean, scale if scale is not None else told.scale if told else 1.0)


def _sources(prototxt: PathLike, caffemodel: PathLike | None) -> dict[str, str]:
    """Names and sha256 of what the file was made from."""
    found = {}
    for key, path in (("prototxt", prototxt), ("caffemodel", caffemodel)):
        if path is not None and Path(path).is_file():
            with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                found[f"{key}_sha256"] = hashlib.sha256(data).hexdigest()
            found[key] = Path(path).name
    return found


@contextmanager
def _silent() -> Iterator[None]:
    yield None


@contextmanager
def _staged(out: PathLike) -> Iterator[Path]:
    """A path of the same name in a temporary folder beside `out`; what is in it moves when the block ends.

    If the block raises VerifyError the file moves too, under `out` + ".rejected".
    """
    target = target_of(out)
    folder = target.parent / f".{target.name[:40]}.{secrets.token_hex(4)}"
    try:
        folder.mkdir()
    except OSError as error:
        raise CaffeError(f"{out}: cannot be written: {target.parent}: {error.strerror}") from error
    try:
        yield folder / target.name
        for made in folder.iterdir():
            made.replace(target.parent / made.name)
    except VerifyError as error:
        for made in folder.iterdir():
            made.replace(target.parent / (made.name + ".rejected"))
        problem = str(error).replace(str(folder / target.name), str(target))
        raise VerifyError(problem, f"the file is kept as {target.name}.rejected") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
