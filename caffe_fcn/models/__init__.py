"""The FCN family, VGG-16 and CaffeNet, written with NetSpec; prototxts/ is generated from here."""

from caffe_fcn.models.family import FAMILY, NAMES, deploy, fcn8s, files, solver, train

__all__ = ["FAMILY", "NAMES", "deploy", "fcn8s", "files", "solver", "train"]
