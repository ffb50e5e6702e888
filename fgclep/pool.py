"""Work spread over processes: results in order, a bounded number of items in flight, no process left behind."""

import gc
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, TypeVar

from fgclep.errors import FgclepError

Item = TypeVar("Item")
Result = TypeVar("Result")

_ITEMS_PER_WORKER = 2


def map_in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[tuple[Item, Result], None, None]:
    """Apply a function to items in worker processes and yield each item with its result, in order.

    At most a few items per worker are worked on ahead, so memory does not depend on how many there are.

    Args:
        work: travels to every process once, so it may be an object of some size; it must pickle.
        items: consumed as needed.
        workers: processes; 0 works in this one.

    Raises:
        FgclepError: if a worker process dies.
    """
    if workers == 0:
        for item in items:
            yield item, work(item)
        return
    # spawn: the parent may hold a model's threads, and forking a process that has threads can deadlock.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(work,))
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            with _interrupts_held_back():  # submitting may start a worker
                waiting.append((item, pool.submit(_work_in_worker, item)))
            if len(waiting) > _ITEMS_PER_WORKER * workers:
                yield _first(waiting)
        while waiting:
            yield _first(waiting)
    except BrokenProcessPool as error:
        raise FgclepError(
            "A process that reads records died; most often the machine ran out of memory.",
            "Repeat the command with fewer --workers.",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _first(waiting: deque[tuple[Item, Future[Result]]]) -> tuple[Item, Result]:
    item, future = waiting.popleft()
    return item, future.result()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let a process that is started meanwhile inherit deaf ears: Ctrl-C would kill it before it could ignore it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker_function: Callable[[Any], Any] | None = None  # set once per process, so that it is not pickled with every item
_has_worked = False


def _start_worker(work: Callable[[Any], Any]) -> None:
    global _worker_function
    _worker_function = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """End this worker when the parent is killed: its queue would never tell."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _work_in_worker(item: Any) -> Any:
    global _has_worked
    assert _worker_function is not None
    result = _worker_function(item)
    if not _has_worked:
        gc.freeze()  # what the first item made it load stays: the collector walks through all of PyTorch in 13 ms
        _has_worked = True
    return result
