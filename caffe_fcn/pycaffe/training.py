"""The parts of pycaffe that train: there by name, so that a script fails where it trains and says why."""

from __future__ import annotations

from typing import Any, NoReturn

from caffe_fcn.errors import CaffeError


def _refuse(what: str) -> NoReturn:
    raise CaffeError(f"caffe.{what}: training is out of scope", "train with Caffe; its weights run here")


class Solver:
    """Not there: raises CaffeError."""

    def __init__(self, *_: Any, **__: Any) -> None:
        _refuse(type(self).__name__)


class SGDSolver(Solver):
    """Not there: raises CaffeError."""


class NesterovSolver(SGDSolver):
    """Not there: raises CaffeError."""


class AdaGradSolver(SGDSolver):
    """Not there: raises CaffeError."""


class RMSPropSolver(SGDSolver):
    """Not there: raises CaffeError."""


class AdaDeltaSolver(SGDSolver):
    """Not there: raises CaffeError."""


class AdamSolver(SGDSolver):
    """Not there: raises CaffeError."""


class NCCL(Solver):
    """Not there: raises CaffeError."""

    @staticmethod
    def new_uid() -> NoReturn:
        """Not there: raises CaffeError."""
        _refuse("NCCL")


def get_solver(*_: Any) -> NoReturn:
    """Not there: raises CaffeError."""
    _refuse("get_solver")


def has_nccl() -> bool:
    """False: nothing is trained on several GPUs."""
    return False


def solver_count() -> int:
    """Of solvers that share the work: 1."""
    return 1


def solver_rank() -> int:
    """The number of this one among them: 0."""
    return 0


def set_solver_count(count: int) -> None:
    """Only 1 can be set."""
    if count != 1:
        _refuse("set_solver_count")


def set_solver_rank(rank: int) -> None:
    """Only 0 can be set."""
    if rank != 0:
        _refuse("set_solver_rank")


def set_multiprocess(several: bool) -> None:
    """Only False can be set."""
    if several:
        _refuse("set_multiprocess")
