"""Runs units of work as tasks of a Ray cluster. A worker that is lost costs its unit, which Ray gives to another one.

Ray starts without usage statistics, dashboard and logs in the terminal. What it writes is removed with a local cluster.
"""

from __future__ import annotations

import gc
import logging
import os
import secrets
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from .cluster_address import LOCAL
from .errors import UserError, summarize_error
from .executor import Check
from .threads import count_cores

T = TypeVar("T")
R = TypeVar("R")

MAX_RETRIES = 3  # of a unit whose worker is lost
UNITS_PER_CORE = 2  # that are submitted at once: the next one is there when a core is free
OBJECT_STORE_BYTES = 2**28  # of a local cluster: results are small, or files
PACKAGE = __name__.partition(".")[0]
CHECK_TIMEOUT_S = 300.0  # for a worker to start on each machine
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
LOCAL_SETTINGS = {
    "RAY_worker_niceness": "0",  # that of the command
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # Ray would store a token in the home folder
}

logger = logging.getLogger(__name__)


LoggedWarning = tuple[str, int, str]
"""The name of a logger, a level and a message."""


class TaskResult(NamedTuple):
    """What a task returns.

    Attributes:
        result: What the function returned.
        problem: The message of the UserError that it raised.
        warnings: What was logged meanwhile.
    """

    result: Any
    problem: str | None
    warnings: list[LoggedWarning]


class RayExecutor:
    """Runs units as tasks of a cluster, which it connects to, or starts, when there are some.

    Args:
        address: `HOST:PORT`, or `local`.
        make_check: Makes a check of the machines, which is run before the first units.
        memory: Bytes that the tasks of a local cluster may take together; None: what is free.
    """

    is_remote = True

    def __init__(
        self, address: str, make_check: Callable[[], AbstractContextManager[Check]], memory: int | None
    ) -> None:
        self._address, self._make_check, self._memory = address, make_check, memory
        self._stack = ExitStack()
        self._ray: Any = None

    def close(self) -> None:
        """Ends the connection; a local cluster stops."""
        self._stack.close()

    def map(
        self,
        prepare: Callable[[], Callable[[T], R]],
        items: Iterable[T],
        *,
        memory: int = 0,
        cores: int = 1,
        threads: bool = False,
    ) -> Iterator[R]:
        del threads
        ray = self._connect()
        _require_room(ray, memory, cores)
        limit = UNITS_PER_CORE * max(1, int(ray.cluster_resources()["CPU"]) // cores)
        task = ray.remote(num_cpus=cores, memory=memory, max_retries=MAX_RETRIES)(_run_unit)
        shared = ray.put((str(Path.cwd()), prepare))
        pending: deque[Any] = deque()
        reported: set[LoggedWarning] = set()
        try:
            for item in items:
                pending.append(task.remote([shared], item))
                if len(pending) == limit:
                    yield self._wait(pending.popleft(), reported)
            while pending:
                yield self._wait(pending.popleft(), reported)
        finally:
            for reference in pending if ray.is_initialized() else ():
                ray.cancel(reference, force=True)

    def _connect(self) -> Any:
        """Returns the module, connected to the cluster, whose machines have been checked."""
        if self._ray is None:
            self._ray = self._stack.enter_context(start_cluster(self._address, self._memory))
            with self._make_check() as check:
                check_machines(self._ray, check)
        return self._ray

    def _wait(self, reference: Any, reported: set[LoggedWarning]) -> Any:
        """Returns the result of a task, and logs its warnings unless another one had the same."""
        exceptions = self._ray.exceptions
        try:
            outcome: TaskResult = self._ray.get(reference)
        except (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError, exceptions.NodeDiedError) as error:
            raise UserError(
                f"A unit of work lost its Ray worker {MAX_RETRIES + 1} times ({summarize_error(error)[:80]}). Check "
                "the memory of the machines; the same command resumes."
            ) from error
        except exceptions.RayTaskError as error:
            raise error.cause from error
        for warning in outcome.warnings:
            if warning not in reported:
                reported.add(warning)
                name, level, message = warning
                logging.getLogger(name).log(level, "%s", message)
        if outcome.problem is not None:
            raise UserError(outcome.problem)
        return outcome.result


def _require_room(ray: Any, memory: int, cores: int) -> None:
    """Refuses tasks that would wait forever."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(room.get("CPU", 0) >= cores and room.get("memory", 0) >= memory for room in machines):
        raise UserError(
            f"No machine of the Ray cluster has the {cores} cores and {memory / 2**30:.1f} GiB of memory that a unit "
            "of work takes. Add a larger machine, or leave out --ray; of a local cluster, "
            "'edgepress quantize --max-memory' sets the memory."
        )


def check_machines(ray: Any, check: Check) -> None:
    """Runs a check on every machine of a cluster, after that of the current folder.

    Raises:
        UserError: Something is wrong with one of them.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    inspect = make_inspection(str(Path.cwd()), ray.cloudpickle.dumps(check))
    references = {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU"):
            pinned = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(num_cpus=1, scheduling_strategy=pinned)(inspect)
            references[node["NodeManagerAddress"]] = task.remote()
    for machine, reference in references.items():
        try:
            explanation = ray.get(reference, timeout=CHECK_TIMEOUT_S)
        except ray.exceptions.GetTimeoutError:
            explanation = f"did not answer in {CHECK_TIMEOUT_S:.0f} seconds. Wait until other work on it ends."
        if explanation:
            raise UserError(f"The Ray machine {machine} {explanation}")


def make_inspection(folder: str, check: bytes) -> Callable[[], str | None]:
    """Returns a function that runs a pickled check in a folder. Unpickling the function itself needs no edgepress.

    Args:
        folder: The current folder of this machine.
        check: Returns what is wrong, or None.
    """

    def inspect() -> str | None:  # as a nested function it is sent by its value
        import os
        import pickle

        try:
            function = pickle.loads(check)
        except (ImportError, AttributeError):
            return "has no edgepress, or another version of it. Install the version of this machine there."
        try:
            os.chdir(folder)
        except OSError:
            return f"does not have the folder {folder}. Work in a folder that all machines share."
        problem: str | None = function()
        return problem

    return inspect


# ---------------------------------------------------------------- the cluster


@contextmanager
def start_cluster(address: str, memory: int | None) -> Iterator[Any]:
    """Connects to a cluster, or starts one on this machine that stops at the end, also after an error or Ctrl-C.

    Args:
        address: `HOST:PORT`, or `local`.
        memory: Bytes that the tasks of a local cluster may take together; None: what is free.

    Yields:
        The module ray, connected.

    Raises:
        UserError: It cannot be connected to.
    """
    for name, value in (SETTINGS | (LOCAL_SETTINGS if address == LOCAL else {})).items():
        os.environ.setdefault(name, value)
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    folder = None
    if address == LOCAL:
        folder = tempfile.mkdtemp(prefix="edgepress-ray-")
        options |= {"num_cpus": count_cores(), "include_dashboard": False, "_temp_dir": folder}
        options |= {"object_store_memory": OBJECT_STORE_BYTES, "_memory": memory}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        try:
            ray.init(address=address, **options)
        except Exception as error:  # Ray raises anything, among it Exception itself
            raise _explain_connection(address, error) from error
        finally:
            _restore_handler(handler)
        yield ray
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _explain_connection(address: str, error: Exception) -> UserError:
    reason = summarize_error(error)
    if address == LOCAL:
        return UserError(f"Ray cannot start on this machine ({reason}). Free some memory, or leave out --ray.")
    return UserError(
        f"The Ray cluster {address} cannot be used from this machine ({reason}). Run 'ray start' here so that "
        "it joins, with the same versions of Python and Ray, and set RAY_AUTH_MODE=token if it has a token."
    )


def _restore_handler(handler: Any) -> None:
    """Sets the handler of SIGTERM again, which Ray replaces in the main thread."""
    try:
        signal.signal(signal.SIGTERM, handler)
    except (ValueError, TypeError):  # another thread, or a handler that is not Python's
        logger.debug("The handler of SIGTERM was left as it is.")


# ---------------------------------------------------------------- in a worker

_prepared: dict[str, Callable[[Any], Any]] = {}  # the function of the work that this process takes part in


def _run_unit(shared: list[Any], item: Any) -> TaskResult:
    """Applies the function to an item. `shared` holds a reference to it, which is read once in a process."""
    with _record_warnings() as warnings:
        try:
            return TaskResult(_get_function(shared[0])(item), None, warnings)
        except UserError as error:  # not every one of its subclasses can be pickled
            return TaskResult(None, str(error), warnings)


def _get_function(reference: Any) -> Callable[[Any], Any]:
    key = reference.hex()
    if key not in _prepared:
        import ray

        _prepared.clear()
        gc.collect()
        folder, prepare = ray.get(reference)
        os.chdir(folder)
        _prepared[key] = prepare()
    return _prepared[key]


@contextmanager
def _record_warnings() -> Iterator[list[LoggedWarning]]:
    """Records what edgepress logs meanwhile."""
    records: list[LoggedWarning] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append((record.name, record.levelno, record.getMessage()))  # type: ignore[method-assign]
    root = logging.getLogger(PACKAGE)
    root.addHandler(handler)
    try:
        yield records
    finally:
        root.removeHandler(handler)
