"""Layer types that V1 never had in Caffe itself, but in forks of it."""

from __future__ import annotations

#: Today's names; V1's are these in capitals. CROP is none of them: it begins elsewhere than today's Crop.
LATER_TYPES = (
    "BN", "BatchNorm", "DenseCRF", "DenseImageData", "EltwiseAccuracy", "ImageSegData", "Interp", "LSTM",
    "MatRead", "MatWrite", "MultiStageMeanfield", "Normalize", "PReLU", "Permute", "Python", "Reshape",
    "ROIPooling", "Scale", "SegAccuracy", "SPP", "Tile", "Unpooling", "Upsample", "WindowSegData",
)  # fmt: skip
_BY_V1 = {"CROP": "CROP", **{name.upper(): name for name in LATER_TYPES}}


def todays_type(v1: str) -> str | None:
    """The type that a V1 name such as IMAGE_SEG_DATA stands for; None if no fork is known for it."""
    return _BY_V1.get(v1.replace("_", ""))
