"""The GPU's comparison runs to its end on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import HERE, REFERENCE

NET = REFERENCE / "nets" / "fcn8s-thin-1px"


def test_on_the_cpu(tmp_path):
    pytest.importorskip("torch")
    script, out = HERE.parent / "tools" / "bench" / "gpu.py", tmp_path / "figures.json"
    words = [
        f"{NET}.prototxt",
        f"{NET}.caffemodel",
        "--device",
        "cpu",
        "--sizes",
        "40x48",
        "--batches",
        "1",
        "2",
    ]
    done = subprocess.run(
        [sys.executable, script, *words, "--rounds", "1", "--json", out], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 2 * 10
    for row in rows:
        assert "error" not in row, row
        assert row["median_ms"] > 0
        assert row.get("labels", 1) > 0.98, row
