"""Sessions of onnxruntime on the device asked for, never a silent fall-back. Its only importer."""

from caffe_fcn.runtime.bound import Bound
from caffe_fcn.runtime.devices import DEVICES, Device, cuda_driver
from caffe_fcn.runtime.session import Session

__all__ = ["DEVICES", "Bound", "Device", "Session", "cuda_driver"]
