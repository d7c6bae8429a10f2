"""The fuzzer without atheris: it runs for as long as it was told, and keeps what it finds."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import HERE


def fuzz(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """`code` is run before the tool, in its process."""
    start = f"import runpy, sys; sys.argv[:] = ['fuzz', *sys.argv[1:]]; sys.path.insert(0, '.'); {code}"
    start += "\nrunpy.run_path('tools/fuzz.py', run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", start, *arguments],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_second_of_it(tmp_path):
    done = fuzz("--plain", "--target", "binaryproto", "--seconds", "1", "--save", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "binaryproto: " in done.stdout
    assert "nothing found" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_is_found_is_kept_and_can_be_run_again(tmp_path):
    broken = "import tests.hostile as h; h.TARGETS['npz'] = lambda content, _: 1 / (len(content) % 2)"
    arguments = ["--plain", "--target", "npz", "--save", str(tmp_path)]
    done = fuzz(*arguments, "--seconds", "60", code=broken)
    (found,) = tmp_path.iterdir()
    assert done.returncode == 1
    assert f"{found}: ZeroDivisionError" in done.stderr
    assert fuzz(*arguments, str(found), code=broken).returncode == 1
    assert fuzz(*arguments, str(found)).returncode == 0
