"""Sets of record ids in eight bytes each, so that 800,000 of them cost 6 MB and a million comparisons a second.

An id stands in them as a 64-bit hash. Two of 800,000 ids share one with a probability of 2e-8: an `IdSet` would then
take the one for the other, while `repeated_ids` compares the ids themselves.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


class IdSet:
    """Which ids are there.

    Args:
        ids: read once.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._hashes = np.unique(_hashes(ids))

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, record_id: str) -> bool:
        number = np.uint64(_hash(record_id))
        position = int(np.searchsorted(self._hashes, number))
        return position < len(self._hashes) and bool(self._hashes[position] == number)


def repeated_ids(ids: Callable[[], Iterable[str]]) -> list[str]:
    """Return the ids that come more than once.

    Args:
        ids: gives all of them; called a second time only if two seem to be equal.
    """
    hashes = np.sort(_hashes(ids()))
    suspects = {int(number) for number in hashes[1:][hashes[1:] == hashes[:-1]]}
    if not suspects:
        return []
    times = Counter(record_id for record_id in ids() if _hash(record_id) in suspects)
    return [record_id for record_id, number in times.items() if number > 1]


def _hashes(ids: Iterable[str]) -> NDArray[np.uint64]:
    numbers = array("Q", map(_hash, ids))
    return np.frombuffer(numbers, np.uint64) if numbers else np.empty(0, np.uint64)


def _hash(record_id: str) -> int:
    return int.from_bytes(blake2b(record_id.encode(), digest_size=8).digest(), "little")
