"""Latency on a GPU: float32, TF32 and float16, beside the arithmetic limit and plain PyTorch.

    python tools/bench/gpu.py [PROTOTXT CAFFEMODEL] [--sizes 500x500 1024x2048] [--batches 1 8] [--json FILE]

Contenders: what convert-fcn writes with --input-shape, in float32, with --tf32, with --fp16 and with this and
CUDA's channels-last layout, and the float16 file of open sizes; PyTorch runs the net's own layers, in float32
and in channels-last float16 with torch.compile. Inputs and outputs stay on the device. All take turns, and so
does a large matrix product of PyTorch in each precision, whose rate is the limit; multiply-accumulates are
those of `caffe-fcn trace`. Labels of the first picture are compared with those of the CPU provider.

Without files the net is voc-fcn8s with weights by tools/recipe_weights.py. `--device cpu --sizes 64x64` runs
all of it without a GPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from recipe_weights import voc_fcn8s  # noqa: E402

from caffe_fcn import Net, trace  # noqa: E402
from caffe_fcn.conversion import Options, convert  # noqa: E402
from caffe_fcn.errors import CaffeError  # noqa: E402
from caffe_fcn.geometry import Window  # noqa: E402
from caffe_fcn.runtime import Session  # noqa: E402
from caffe_fcn.symbols import hint  # noqa: E402

WARMUP = 3
SIDE = {"cuda": 8192, "cpu": 256}  # of the matrices whose product is the limit
PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16}
LINE = (
    "  {name:16} median {median_ms:8.2f} ms  p95 {p95_ms:8.2f} ms  {tmacs:7.2f} TMAC/s {share:7.1%} {labels}"
)

Run = Callable[[], Any]


def onnxruntime(path: Path, x: np.ndarray, args: argparse.Namespace, **options: Any) -> tuple[Run, Run]:
    """A pass on buffers that lie on the device, and what it makes of them, as an array."""
    from onnxruntime import OrtValue

    session = Session(path, args.device, **options)
    place, binding = (session.device, 0), session.session.io_binding()
    (name,), (top,) = session.inputs, session.outputs
    binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(x, *place))
    binding.bind_output(top, *place)
    session.session.run_with_iobinding(binding, session.run_options())
    (value,) = binding.get_outputs()
    binding.bind_ortvalue_output(top, value)  # from here on nothing moves: a CUDA graph needs fixed addresses
    options = session.run_options(1)

    def run() -> None:
        with session.turn():
            session.session.run_with_iobinding(binding, options)
            binding.synchronize_outputs()

    return run, value.numpy


class Plain(torch.nn.Module):
    """The net's layers as PyTorch's functions, one by one, as anybody would write them."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.steps, self.result = [], net.blob_index[net.outputs[0]]
        for i, layer in enumerate(net.layers):
            names = [f"layer{i}_blob{j}" for j in range(len(layer.blobs))]
            for name, blob in zip(names, layer.blobs, strict=True):
                self.register_buffer(name, torch.from_numpy(blob.data.copy()))
            shapes = [tuple(net.blob_list[b].shape) for b in net.bottom_ids[i]]
            self.steps.append((function_of(layer, shapes), names, net.bottom_ids[i], net.top_ids[i]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {}
        for function, names, bottoms, tops in self.steps:
            read = [values[b] for b in bottoms] or [x]
            values.update(dict.fromkeys(tops, function(*read, *(getattr(self, name) for name in names))))
        return values[self.result]


def function_of(layer: Any, shapes: list[tuple[int, ...]]) -> Callable[..., torch.Tensor]:
    """What a layer does to its bottoms, which its weights follow."""
    kind, p = layer.param.type, layer.param
    windows = layer.windows(shapes) if kind in ("Convolution", "Deconvolution", "Pooling") else []
    kernel, stride, pad, dilation = ([getattr(w, k) for w in windows] for k in Window._fields)
    if kind == "Convolution":
        group = p.convolution_param.group
        return lambda x, w, b=None: functional.conv2d(x, w, b, stride, pad, dilation, group)
    if kind == "Deconvolution":
        group = p.convolution_param.group
        return lambda x, w, b=None: functional.conv_transpose2d(x, w, b, stride, pad, 0, group, dilation)
    if kind == "Pooling" and layer.maximum:
        return lambda x: functional.max_pool2d(x, kernel, stride, pad, ceil_mode=True)
    if kind == "Crop":
        dy, dx = (list(p.crop_param.offset) * 2)[:2]
        return lambda x, y: x[:, :, dy : dy + y.shape[2], dx : dx + y.shape[3]]
    simple = {"ReLU": functional.relu, "Eltwise": torch.add}
    if kind in simple:
        return simple[kind]
    if kind not in ("Input", "Dropout", "Split"):
        sys.exit(f"the PyTorch implementation has no {kind}")
    return lambda x: x


def pytorch(net: Net, x: np.ndarray, args: argparse.Namespace, dtype: torch.dtype) -> tuple[Run, Run]:
    layout = torch.channels_last if dtype == torch.float16 else torch.contiguous_format
    module: Any = Plain(net).eval().to(args.device, dtype, memory_format=layout)
    if dtype == torch.float16 and args.device == "cuda":
        torch.compiler.reset()
        module = torch.compile(module, mode="reduce-overhead", fullgraph=True)  # with CUDA graphs, as ours
    data = torch.from_numpy(x).to(args.device, dtype, memory_format=layout)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            found = module(data)
        wait(args)
        return found

    return run, lambda: run().float().cpu().numpy()


def product(precision: str, args: argparse.Namespace) -> tuple[Run, Run]:
    """A plain matrix product; it has no labels."""
    side = SIDE[args.device]
    matrix = torch.randn(side, side, device=args.device).to(PRECISIONS[precision])

    def run() -> None:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        matrix @ matrix
        wait(args)

    return run, lambda: np.zeros(0)


def wait(args: argparse.Namespace) -> None:
    if args.device == "cuda":
        torch.cuda.synchronize()


def compare(size: str, batch: int, args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """All contenders at one size, in turns; what does not fit into memory, or does not run, says so."""
    shape = (batch, 3, *map(int, size.split("x")))
    net = Net(args.prototxt, args.caffemodel)
    (name,) = net.inputs
    net.blobs[name].reshape(*shape)
    net.reshape()
    macs = sum(hint(row.macs) for row in trace(net).rows)
    x = np.random.default_rng(0).normal(0, 60, shape).astype(np.float32)

    def file(stem: str, **options: Any) -> Path:
        path = folder / f"{stem}.onnx"
        convert(args.prototxt, args.caffemodel, path, Options(verify=False, **options))
        return path

    sizes = {name: shape}
    fixed, half = file("fixed", input_shapes=sizes), file("half", input_shapes=sizes, fp16=True)
    open_ = file("open-half", fp16=True)
    cpu = Session(file("open"), "cpu")
    expected = next(iter(cpu.run({name: x[:1]}).values())).argmax(1)
    makers: dict[str, Callable[[], tuple[Run, Run]]] = {
        **{f"product {p}": lambda p=p: product(p, args) for p in PRECISIONS},  # type: ignore[misc]
        "fp32": lambda: onnxruntime(fixed, x, args),
        "tf32": lambda: onnxruntime(fixed, x, args, tf32=True),
        "fp16": lambda: onnxruntime(half, x, args),
        "NHWC fp16": lambda: onnxruntime(half, x, args, cuda={"prefer_nhwc": "1"}),
        "open sizes fp16": lambda: onnxruntime(open_, x, args),
        "PyTorch fp32": lambda: pytorch(net, x, args, torch.float32),
        "PyTorch fp16": lambda: pytorch(net, x, args, torch.float16),
    }
    rows: dict[str, Any] = {n: {"size": size, "batch": batch, "name": n, "times": []} for n in makers}
    runs: dict[str, tuple[Run, Run]] = {}
    for turn in range(-WARMUP, args.rounds):
        for n in [n for n in makers if "error" not in rows[n]]:
            try:
                runs[n] = runs.get(n) or makers[n]()
                start = time.perf_counter()
                runs[n][0]()
            except (CaffeError, RuntimeError) as error:
                rows[n]["error"] = str(error).splitlines()[0]
                continue
            if turn >= 0:
                rows[n]["times"].append(time.perf_counter() - start)
    for n, (_, result) in runs.items():
        if "error" not in rows[n] and not n.startswith("product"):
            rows[n]["labels"] = float((result()[:1].argmax(1) == expected).mean())
    return finished(rows, macs, args)


def finished(rows: dict[str, dict[str, Any]], macs: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The figures of each contender."""
    limits: dict[str, float] = {}
    for n, row in rows.items():
        if "error" in row:
            print(f"  {n:16} {row['error']}")
            continue
        row["macs"] = SIDE[args.device] ** 3 if n.startswith("product") else macs
        row["median_ms"], row["p95_ms"] = (1e3 * float(np.quantile(row["times"], q)) for q in (0.5, 0.95))
        row["tmacs"] = row["macs"] / statistics.median(row.pop("times")) / 1e12
        limit = limits.setdefault(n.split()[-1], row["tmacs"])  # the product's, which comes first
        row["share"] = row["tmacs"] / limit
        print(LINE.format(**{**row, "labels": f"same labels {row['labels']:.4%}" if "labels" in row else ""}))
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("prototxt", nargs="?")
    parser.add_argument("caffemodel", nargs="?")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--sizes", nargs="+", default=["500x500", "1024x2048"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", help="write the figures there too")
    args = parser.parse_args()
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = False, True
    device = torch.cuda.get_device_name() if args.device == "cuda" else platform.machine()
    about = {"device": device, "torch": torch.__version__, "rounds": args.rounds}
    found = []
    with tempfile.TemporaryDirectory(prefix="caffe-fcn-bench.") as name:
        if not args.caffemodel:
            args.prototxt, args.caffemodel = voc_fcn8s(name)
        for size in args.sizes:
            for batch in args.batches:
                print(f"{size}, batch {batch}, {device}, torch {torch.__version__}", flush=True)
                found += compare(size, batch, args, Path(name))
    if args.json:
        Path(args.json).write_text(json.dumps({**about, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
