"""Which devices of a virtual rollout share a pair of controls: as many as there are controls for, each control in one block only.

As in the real store a block's size follows from the sizes of the waves alone, and a block counts, by its mean, when it is full or when
nobody else is on the way. Here a device is in one block for all gates, and blocks are not kept apart by hardware model.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_server.rollout.betting import CONTROLS_OF_A_PAIR, pairs_possible
from fleet_server.simulate.cells import Ints, Mask

NOBODY: Final = -1


def block_size(exposed: int, controls: int) -> int:
    """Devices of a block such that the controls that are left by the waves serve the devices of the open ones."""
    if controls < CONTROLS_OF_A_PAIR or not exposed:
        return 1
    return -(-exposed // pairs_possible(exposed, controls))


class Blocks:
    """Blocks, numbered as they are formed.

    Args:
        devices: How many there are.
        pool: Devices that may be controls, in the order in which they are taken.

    Attributes:
        of: [N] block of each device, -1 before it has one.
        alone: [N] devices for which no control was left.
        pairs: [B, 2] controls of each block.
        sizes: [B] devices of each full block.
    """

    def __init__(self, devices: int, pool: Ints) -> None:
        self.of: Ints = np.full(devices, NOBODY, np.int64)
        self.alone: Mask = np.zeros(devices, bool)
        self.pairs: Ints = np.empty((0, CONTROLS_OF_A_PAIR), np.int64)
        self.sizes: Ints = np.empty(0, np.int64)
        self._pool, self._room = pool, 0
        self._members: Ints = np.empty(0, np.int64)  # [B] devices that a block has
        self._began: NDArray[np.float64] = np.empty(0)  # [B] sum of the ticks at which these began

    def exclude(self, exposed: Mask) -> None:
        """[N] devices that were given the release are controls no longer; where no control is left, nobody waits for one."""
        self._pool = self._pool[~exposed[self._pool]]
        if not self._room and not pairs_possible(1, len(self._pool)):
            self.alone |= self.of == NOBODY

    def join(self, devices: Ints, began: Ints, size: int) -> Mask:
        """Whether devices have a block; who has none joins the open one, or leads one of so many devices.

        Args:
            devices: [D] that can be compared.
            began: [D] tick at which each of them began.
            size: Devices of a new block.
        """
        new = (self.of[devices] == NOBODY) & ~self.alone[devices]
        fresh = devices[new]
        joining = fresh[: self._room]
        self.of[joining] = len(self.sizes) - 1
        self._room -= len(joining)
        fresh = fresh[len(joining) :]
        count = pairs_possible(-(-len(fresh) // size), len(self._pool))
        if count:
            self.of[fresh[: count * size]] = len(self.sizes) + np.arange(min(len(fresh), count * size)) // size
            self._room = max(count * size - len(fresh), 0)
            taken = CONTROLS_OF_A_PAIR * count
            self.pairs = np.concatenate([self.pairs, self._pool[:taken].reshape(count, -1)])
            self.sizes, self._pool = np.concatenate([self.sizes, np.full(count, size)]), self._pool[taken:]
        self.alone[fresh[count * size :]] = True
        has: Mask = self.of[devices] != NOBODY
        self._count(self.of[devices[new & has]], began[new & has])
        return has

    def began(self, blocks: Ints) -> NDArray[np.float64]:
        """[B] mean of the ticks at which the devices of blocks began."""
        return self._began[blocks] / self._members[blocks]

    def begin_anew(self) -> None:
        """The open block was counted as it is: who comes later leads another one."""
        self._room = 0

    def _count(self, block: Ints, began: Ints) -> None:
        """[D] blocks of devices that have one now, and the ticks at which they began."""
        more = np.zeros(len(self.sizes) - len(self._members), np.int64)
        self._members = np.concatenate([self._members, more]) + np.bincount(block, minlength=len(self.sizes))
        self._began = np.concatenate([self._began, more]) + np.bincount(block, began, minlength=len(self.sizes))


class Filling:
    """How far the blocks of one gate are filled.

    Args:
        columns: Of the gate.
    """

    def __init__(self, columns: int) -> None:
        self._sums: NDArray[np.float64] = np.zeros((0, columns))
        self._counts: Ints = np.zeros(0, np.int64)
        self._open: Mask = np.zeros(0, bool)

    def add(self, block: Ints, own: NDArray[np.float64], blocks: int) -> None:
        """[D] blocks of devices, and [D, columns] what changed on them."""
        more = blocks - len(self._counts)
        self._sums = np.concatenate([self._sums, np.zeros((more, self._sums.shape[1]))])
        self._counts = np.concatenate([self._counts, np.zeros(more, np.int64)])
        self._open = np.concatenate([self._open, np.ones(more, bool)])
        np.add.at(self._sums, block, own)
        self._counts += np.bincount(block, minlength=blocks)

    def closed(self, block: Ints) -> Mask:
        """[D] whether a device's block has been counted; its controls cannot be used again."""
        known = (block != NOBODY) & (block < len(self._open))
        found: Mask = known & ~self._open[np.where(known, block, 0)] if len(self._open) else known
        return found

    def close(self, sizes: Ints, *, rest: bool) -> tuple[Ints, Ints, NDArray[np.float64]]:
        """Blocks that count now, their devices, and the means of these; `rest`: also those that nobody will fill."""
        known = len(self._counts)
        over = self._open & (self._counts > 0) & ((self._counts >= sizes[:known]) | rest)
        which = np.flatnonzero(over)
        self._open[which] = False
        return which, self._counts[which], self._sums[which] / self._counts[which, None]
