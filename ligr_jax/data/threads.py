"""Work in threads with results in order. NumPy, polars and Arrow release the interpreter's lock."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Yield function(item) in the order of the items.

    The calling thread iterates over the items, while `workers` threads apply the function. At most
    workers + 1 items are in memory. Errors are raised in order too: an error of an earlier item
    precedes an error of the iterator.

    Args:
        function: thread-safe function.
        items: arguments of the function.
        workers: number of threads.
    """
    pending: deque[Future[R]] = deque()
    iterator: Iterator[T] | None = iter(items)
    error: Exception | None = None
    with ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                while iterator is not None and len(pending) <= workers:
                    try:
                        pending.append(pool.submit(function, next(iterator)))
                    except StopIteration:
                        iterator = None
                    except Exception as e:
                        iterator, error = None, e
                if not pending:
                    break
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
    if error:
        raise error
