"""Hostile input for a bounded time (`make fuzz`): read, refused with a CaffeError, or kept as a finding.

    python tools/fuzz.py --target prototxt --seconds 60

With atheris (the extra `fuzz`) what is tried next follows what the code did; without it, real files are
changed at random. Exit 1 if something else than a CaffeError came out, or one input took too long or too much
memory: the input then lies in --save, and its name as an argument runs it again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
TARGETS = ("caffemodel", "prototxt", "binaryproto", "hdf5", "npz", "image", "net")
LONGEST = 20  # seconds for one input


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inputs", nargs="*", metavar="FILE", help="run these, and nothing else")
    parser.add_argument("--target", choices=TARGETS, default="prototxt")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the changes without atheris")
    parser.add_argument("--memory", type=float, default=4, metavar="GIB", help="of address space")
    parser.add_argument("--save", default="out/fuzz", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--plain", action="store_true", help="do without atheris")
    args = parser.parse_args()
    Path(args.save).mkdir(parents=True, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_AS, (int(args.memory * 2**30),) * 2)
    with tempfile.TemporaryDirectory() as folder:
        atheris = None if args.plain or args.inputs else _atheris()
        if atheris is not None:
            return _guided(atheris, args, Path(folder))
        from tests.hostile_changes import changed, seeds

        run = _runner(args.target, Path(folder))
        if args.inputs:
            return max(_tried(run, Path(name).read_bytes(), args) for name in args.inputs)
        rng, start, count = Random(args.seed), time.monotonic(), 0
        while time.monotonic() - start < args.seconds:
            content = changed(rng.choice(seeds(args.target)), rng, args.target)
            if _tried(run, content, args):
                return 1
            count += 1
        print(f"{args.target}: {count} inputs in {args.seconds} s, nothing found")
        return 0


def _atheris() -> Any:
    try:
        import atheris
    except ImportError:
        print("without atheris (pip install '.[fuzz]'): real files are changed at random")
        return None
    return atheris


def _runner(target: str, folder: Path) -> Callable[[bytes], str]:
    from tests.hostile import TARGETS, refused

    return lambda content: refused(TARGETS[target], content, folder)


def _tried(run: Callable[[bytes], str], content: bytes, args: argparse.Namespace) -> int:
    """1 if the input is a finding, which is told and saved."""
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LONGEST)
    try:
        run(content)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        signal.alarm(0)
        path = Path(args.save) / f"{args.target}-{hashlib.sha256(content).hexdigest()[:12]}"
        path.write_bytes(content)
        traceback.print_exc()
        print(f"{path}: {type(error).__name__}", file=sys.stderr)
        return 1
    finally:
        signal.alarm(0)
    return 0


def _too_long(*_: object) -> None:
    raise TimeoutError(f"one input took more than {LONGEST} s")


def _guided(atheris: Any, args: argparse.Namespace, folder: Path) -> int:
    """Hand over to libFuzzer; it ends the process, with 77 if it found something."""
    with atheris.instrument_imports(include=["caffe_fcn"]):
        run = _runner(args.target, folder)
    from tests.hostile_changes import changed, seeds

    corpus = folder / "corpus"
    corpus.mkdir()
    for content in seeds(args.target):
        (corpus / hashlib.sha256(content).hexdigest()).write_bytes(content)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        if seed % 2:
            return atheris.Mutate(data, most)
        return changed(bytes(data), Random(seed), args.target)[:most]

    options = [
        f"-max_total_time={args.seconds}", f"-timeout={LONGEST}",
        f"-artifact_prefix={args.save}/{args.target}-",
        f"-rss_limit_mb={int(args.memory * 1024)}", "-max_len=65536", "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], run, custom_mutator=mutate)
    with contextlib.suppress(FileNotFoundError):
        atheris.Fuzz()
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
