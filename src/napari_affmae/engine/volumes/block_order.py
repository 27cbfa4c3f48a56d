"""Which block of a volume is computed next."""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import takewhile

from napari_affmae.engine.inference.tiles import Region
from napari_affmae.engine.results.plan import BlockPlan
from napari_affmae.engine.results.tree import children, made_from_alone, parent, touching
from napari_affmae.engine.results.volume import Volume

#: Asked for the part of the image that the user looks at; None if that is not known.
Focus = Callable[[], Region | None]


class BlockOrder:
    """Hands out the missing blocks of a volume, each once.

    A block of a smaller level comes as soon as those below it are complete, so that a
    viewer has what it shows from afar; then what the user looks at; then the rest in turn.
    With each block come those of smaller levels that are made from it alone, so that it is
    made smaller while it is in memory.

    Parameters
    ----------
    volume : Volume
        The result.
    together : int
        Most blocks of the full resolution that are handed out at a time.
    focus : callable, optional
        Asked again and again where the user looks.
    """

    def __init__(self, volume: Volume, together: int, focus: Focus | None = None) -> None:
        self._plan, self._ledger = volume.plan, volume.ledger
        self._together, self._focus = together, focus
        self._running: set[int] = set()
        first, last = self._plan.first(1), self._plan.first(self._plan.levels)
        self._rest = self._ledger.missing(range(first))
        begun = range(first, last) if self._ledger.done else range(0)
        self._ready = deque(filter(self._is_ready, begun))

    def take(self) -> list[int]:
        """Return the numbers of the next blocks; none if all the rest must wait.

        They are of one level. Behind them follow, for one after the other, the blocks of
        smaller levels that are made from it alone.
        """
        if self._ready:
            numbers = [self._ready.popleft()]
        else:
            numbers = self._in_focus()[: self._together]
            while len(numbers) < self._together:
                number = next(self._rest, None)
                if number is None:
                    break
                if number not in self._running and number not in numbers:
                    numbers.append(number)
        numbers += [above for number in numbers for above in self._made_from(number)]
        self._running.update(numbers)
        return numbers

    def completed(self, number: int) -> None:
        """Note that a block was marked."""
        self._running.discard(number)
        above = parent(self._plan, number)
        if above is not None and above not in self._running and self._is_ready(above):
            self._ready.append(above)

    def _made_from(self, number: int) -> Iterator[int]:
        return takewhile(
            lambda above: not self._ledger.has(above), made_from_alone(self._plan, number)
        )

    def _is_ready(self, number: int) -> bool:
        below = children(self._plan, number)
        return not self._ledger.has(number) and all(map(self._ledger.has, below))

    def _in_focus(self) -> list[int]:
        region = None if self._focus is None else self._focus()
        if region is None:
            return []
        touching = dict.fromkeys(_touching(self._plan, region))
        return [n for n in touching if not (self._ledger.has(n) or n in self._running)]


def _touching(plan: BlockPlan, region: Region) -> Iterator[int]:
    """Return the blocks of the full resolution that touch a part of the image."""
    for plane in region.planes:
        lead = (slice(n, n + 1) for n in plan.position(plane))
        yield from touching(plan, 0, (*lead, region.rows, region.columns))
