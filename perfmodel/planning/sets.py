"""Changes taken together: sets of so many of which no two exclude each other."""

from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from typing import TypeVar

Item = TypeVar("Item")


def sets_of(items: Iterable[Item], size: int, excludes: Callable[[Item, Item], bool]) -> Iterator[tuple[Item, ...]]:
    """Yield the sets of some size of items that go together, those of the first items first.

    >>> list(sets_of([2, 3, 4], 2, lambda one, two: one + two == 6))
    [(2, 3), (3, 4)]
    """
    for several in combinations(items, size):
        if not any(excludes(one, two) for one, two in combinations(several, 2)):
            yield several
