"""What every test shares: where the reference cases lie, and what is skipped when."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from caffe_fcn.errors import CaffeWarning

HERE = Path(__file__).resolve().parent
REFERENCE = HERE / "reference"  # what real Caffe computed; see its README
SHARED = HERE.parent.parent / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run what takes minutes or 500 MB")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="takes minutes or 500 MB: pytest --slow"))
        if "shared" in item.keywords and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason="reads ../shared, which is not here"))
        if "gpu" in item.keywords:
            from caffe_fcn.runtime import cuda_driver

            if not cuda_driver():
                item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU here"))


@pytest.fixture(autouse=True)
def _quiet_notes() -> None:
    """Our own warnings are part of what is tested only where a test says so."""
    warnings.simplefilter("ignore", CaffeWarning)
