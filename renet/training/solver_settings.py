"""The fields of a solver: who looks after each, and what is refused, with the reason, before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from caffe.proto import caffe_pb2

from renet.common.errors import UserError

# Caffe's solver gets these as they are written.
LEFT_TO_CAFFE = frozenset(
    {
        *("type", "base_lr", "lr_policy", "gamma", "power", "stepsize", "stepvalue", "max_iter", "iter_size"),
        *("momentum", "momentum2", "rms_decay", "delta", "weight_decay", "regularization_type", "clip_gradients"),
        *("random_seed", "train_state", "snapshot_diff", "debug_info", "display", "layer_wise_reduce"),
        *("average_loss", "solver_mode", "device_id", "warmup_iter", "warmup_start_lr", "average_decay"),
    }
)
# A run's folder has files of its own for them (see TrainingFiles.write).
FILES_OF_THE_RUN = frozenset(
    {
        *("net", "net_param", "train_net", "train_net_param", "test_net", "test_net_param"),
        *("snapshot_prefix", "snapshot_format"),
    }
)
# train.py does these itself, so that Caffe's solver is built without them.
DONE_WITHOUT_CAFFE = frozenset(
    {
        *("test_state", "test_iter", "test_interval", "test_initialization", "test_compute_loss"),
        *("snapshot", "snapshot_after_train", "weights"),
    }
)
OLD_SPELLINGS = frozenset({"solver_type"})  # read as its successor, see renet/runtime/prototxt.py

SOLVERS = ("AdaDelta", "AdaGrad", "Adam", "AdamW", "Nesterov", "RMSProp", "SGD")
POLICIES = ("cosine", "exp", "fixed", "inv", "multistep", "poly", "sigmoid", "step")
REGULARIZATIONS = ("L1", "L2")


def check(solver: caffe_pb2.SolverParameter, file: Path) -> None:
    """Make sure that a solver can train.

    Args:
        solver: as read, old spellings replaced.
        file: for the message.

    Raises:
        UserError: names the field, what it has and what it may have.
    """
    for descriptor, _ in solver.ListFields():
        if descriptor.name not in LEFT_TO_CAFFE | FILES_OF_THE_RUN | DONE_WITHOUT_CAFFE:
            raise UserError(f"{file}: train.py does not know what to do with the field {descriptor.name}")
    if solver.max_iter < 1:
        raise UserError(f"{file}: needs max_iter, the number of iterations")
    if not solver.lr_policy or not solver.HasField("base_lr") or solver.base_lr < 0:
        raise UserError(f'{file}: needs base_lr and lr_policy, such as lr_policy: "fixed"')
    for field, known in (("type", SOLVERS), ("lr_policy", POLICIES), ("regularization_type", REGULARIZATIONS)):
        _check_name(file, field, getattr(solver, field), known)
    for field, least in (
        *(("average_loss", 1), ("iter_size", 1), ("display", 0), ("snapshot", 0), ("test_interval", 0)),
        *(("warmup_iter", 0), ("warmup_start_lr", 0), ("weight_decay", 0), ("delta", 0)),
    ):
        if getattr(solver, field) < least:
            raise UserError(f"{file}: {field} is {getattr(solver, field):g}, and must be {least} or more")
    for field in ("average_decay", "momentum", "momentum2", "rms_decay"):
        if not 0 <= getattr(solver, field) < 1:
            raise UserError(f"{file}: {field} is {getattr(solver, field):g}, and must be at least 0 and below 1")
    if solver.clip_gradients == 0:
        raise UserError(f"{file}: clip_gradients is 0, which leaves nothing of the gradients; no limit: leave it out")
    _check_rates(solver, file)
    if solver.type == "AdamW" and solver.regularization_type == "L1":
        raise UserError(f'{file}: type: "AdamW" has its own weight decay, which is L2: leave out regularization_type')
    if solver.snapshot_format == caffe_pb2.SolverParameter.HDF5:
        raise UserError(
            f"{file}: snapshot_format: HDF5 is not supported: every snapshot is looked into before an older one goes,"
            " and only Caffe's own format can be; leave the field out (net.save_hdf5 of pycaffe converts weights)"
        )
    if any(batches < 1 for batches in solver.test_iter):
        raise UserError(f"{file}: test_iter is {', '.join(map(str, solver.test_iter))}; a test is of 1 batch or more")


def _check_rates(solver: caffe_pb2.SolverParameter, file: Path) -> None:
    """Make sure that the policy gives a rate for every iteration, and not 0 for want of a field."""
    policy = f'{file}: lr_policy: "{solver.lr_policy}"'
    if solver.lr_policy == "step" and solver.stepsize < 1:
        raise UserError(f"{policy} needs stepsize, iterations with the same rate")
    if solver.lr_policy == "multistep" and (
        not solver.stepvalue or solver.stepvalue[0] < 1 or list(solver.stepvalue) != sorted(solver.stepvalue)
    ):
        raise UserError(f"{policy} needs stepvalue, the iterations at which the rate changes, in rising order")
    if solver.lr_policy in ("exp", "step", "multistep") and solver.gamma <= 0:
        raise UserError(f"{policy} needs gamma over 0, the factor of the rate; it is {solver.gamma:g}")
    if solver.lr_policy == "inv" and solver.gamma < 0:
        raise UserError(f"{policy}: gamma is {solver.gamma:g}, and must be 0 or more")
    if solver.lr_policy == "poly" and solver.power < 0:
        raise UserError(f"{policy}: power is {solver.power:g}, and must be 0 or more")


def _check_name(file: Path, field: str, name: str, known: Sequence[str]) -> None:
    if name in known:
        return
    by_small_letters = {one.lower(): one for one in known}
    close = get_close_matches(name.lower(), by_small_letters, n=1)
    meant = f" (did you mean {by_small_letters[close[0]]}?)" if close else ""
    raise UserError(f'{file}: {field}: "{name}" is none of {", ".join(known)}{meant}')
