"""Say what is installed, which devices really start, and what to do where one does not."""

from __future__ import annotations

import argparse
import json
import platform
from importlib import metadata

from caffe_fcn.errors import CaffeError
from caffe_fcn.runtime import Session, cuda_driver

PACKAGES = (
    "caffe-fcn",
    "numpy",
    "protobuf",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "h5py",
    "pillow",
    "lmdb",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    versions = {name: _version(name) for name in PACKAGES}
    devices = {device: _starts(device) for device in ("cpu", "cuda")}
    advice = _advice(versions, devices)
    if args.json:
        found = {
            "python": platform.python_version(),
            "packages": versions,
            "devices": devices,
            "advice": advice,
        }
        print(json.dumps(found, indent=2))
        return 0
    print(f"python {platform.python_version()} on {platform.platform()}")
    for name, version in versions.items():
        print(f"  {name:16} {version or '-'}")
    for device, problem in devices.items():
        print(f"{device}: {'starts' if problem is None else problem}")
    for line in advice:
        print(f"advice: {line}")
    return 0 if devices["cpu"] is None else 1


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _starts(device: str) -> str | None:
    """None if a session really runs there, else what went wrong; tried on a net of one node."""
    import numpy as np

    from caffe_fcn.export.graph import Graph, Node, Value
    from caffe_fcn.export.write import to_model

    graph = Graph("probe", [Value("x", (1,))], [Value("y", (1,))], [Node("Relu", ["x"], ["y"], {}, "y", "y")])
    try:
        model = to_model(graph, opset=17).SerializeToString()
        session = Session(model, device)  # type: ignore[arg-type]
        session.run({"x": np.ones(1, np.float32)})
    except (CaffeError, ImportError) as error:
        return str(error).splitlines()[0]
    return None


def _advice(versions: dict[str, str | None], devices: dict[str, str | None]) -> list[str]:
    lines = []
    if versions["onnxruntime"] and versions["onnxruntime-gpu"]:
        lines.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
        )
    elif not versions["onnxruntime"] and not versions["onnxruntime-gpu"]:
        lines.append("no onnxruntime is installed: pip install onnxruntime-gpu (onnxruntime on macOS)")
    if devices["cuda"] is not None:
        if not cuda_driver():
            lines.append("no NVIDIA driver answers: this machine runs on the CPU")
        elif not versions["onnxruntime-gpu"]:
            lines.append("a GPU is here, but onnxruntime is the CPU build: pip install onnxruntime-gpu")
        else:
            lines.append("a GPU is here, but CUDA or cuDNN is missing or of another version: "
                         "pip install 'caffe-fcn[cuda]' brings both")  # fmt: skip
    return lines
