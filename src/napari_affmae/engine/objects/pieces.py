"""Finds the pieces of objects in a block of classes, and which of them belong together."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, generate_binary_structure
from scipy.ndimage import label as connected
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

Numbers = NDArray[np.int32]
#: Numbers of pieces that belong together, (2, count).
Pairs = NDArray[np.int64]


def find_pieces(
    classes: NDArray[np.integer[Any]], values: Iterable[int], *, solid: bool, separation: float
) -> Numbers:
    """Give a number to each connected piece of each class.

    Parameters
    ----------
    classes : ndarray, (P, H, W), integer
        Class values of planes.
    values : iterable of int
        The classes whose pieces are wanted; a piece never joins two.
    solid : bool
        Whether pieces extend over several planes.
    separation : float
        How much thinner than their middles pieces are where they are divided, pixels; 0
        divides none.

    Returns
    -------
    ndarray, as `classes`, int32
        0 where there is no piece, else 1 to the number of pieces.
    """
    touching = generate_binary_structure(3, 1)
    if not solid:
        touching[[0, 2]] = False
    numbers = np.zeros(classes.shape, np.int32)
    found = np.empty(classes.shape, np.int32)
    count = 0
    for value in sorted(set(values)):
        mask = classes == value
        more = int(connected(mask, touching, output=found))
        if separation and more:
            more = _separate(mask, found, separation, solid=solid)
        found += count
        np.copyto(numbers, found, where=mask)
        count += more
    return numbers


def contacts(
    first: NDArray[np.integer[Any]], second: NDArray[np.integer[Any]]
) -> tuple[Pairs, NDArray[np.int64]]:
    """List which pieces lie on each other, and on how many pixels.

    Parameters
    ----------
    first, second : ndarray, (rows, columns), integer
        Numbers of pieces on two planes, 0 for none.

    Returns
    -------
    pairs : ndarray, (2, count), int64
        Numbers of the pieces.
    pixels : ndarray, (count,), int64
        How many pixels they share.
    """
    both = (first > 0) & (second > 0)
    shape = (int(first.max(initial=0)) + 1, int(second.max(initial=0)) + 1)
    ones = np.ones(np.count_nonzero(both), np.int64)
    table = coo_array((ones, (first[both], second[both])), shape=shape).tocsr().tocoo()
    return np.stack([table.row, table.col]).astype(np.int64), table.data


def overlaps(classes: NDArray[np.integer[Any]], pieces: Numbers) -> tuple[Pairs, NDArray[np.int64]]:
    """List which pieces of the same class lie on each other in neighbouring planes.

    Parameters
    ----------
    classes : ndarray, (P, H, W), integer
        Class values.
    pieces : ndarray, as `classes`, int32
        From `find_pieces`.

    Returns
    -------
    pairs, pixels
        As `contacts`; numbers are those of `pieces`.
    """
    pairs: list[Pairs] = []
    pixels = [np.zeros(0, np.int64)]
    for plane in range(len(pieces) - 1):
        same = classes[plane] == classes[plane + 1]
        part, count = contacts(np.where(same, pieces[plane], 0), pieces[plane + 1])
        pairs.append(part)
        pixels.append(count)
    return pairs_of(pairs), np.concatenate(pixels)


def pairs_of(parts: Sequence[Pairs]) -> Pairs:
    """Put lists of pairs together."""
    return np.concatenate([np.zeros((2, 0), np.int64), *parts], axis=1)


def joined(count: int, pairs: Pairs) -> NDArray[np.int32]:
    """Give pieces that belong together, be it through others, one number from 0 on.

    Parameters
    ----------
    count : int
        Number of pieces.
    pairs : ndarray, (2, pairs), int64
        Pieces, counted from 0.

    Returns
    -------
    ndarray, (count,), int32
    """
    ones = np.ones(pairs.shape[1], np.int8)
    graph = coo_array((ones, (pairs[0], pairs[1])), shape=(count, count))
    numbers: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return numbers


def linked(
    sizes: NDArray[np.int64], pairs: Pairs, pixels: NDArray[np.int64], least: float
) -> NDArray[np.int32]:
    """Join flat objects of neighbouring planes that cover each other well.

    Parameters
    ----------
    sizes : ndarray, (count,), int64
        Pixels of each object.
    pairs, pixels : ndarray
        Objects that lie on each other, counted from 0, and on how many pixels; a pair may
        come in several parts.
    least : float
        Smallest intersection over union (IoU).

    Returns
    -------
    ndarray, (count,), int32
        Objects that belong together have one number, from 0 on.
    """
    parts = coo_array((pixels, (pairs[0], pairs[1])), shape=(len(sizes), len(sizes)))
    table = parts.tocsr().tocoo()
    shared = table.data / (sizes[table.row] + sizes[table.col] - table.data)
    kept = shared >= least
    return joined(len(sizes), np.stack([table.row[kept], table.col[kept]]).astype(np.int64))


def numbered(
    objects: NDArray[np.int32],
    sizes: NDArray[np.int64],
    first: NDArray[np.int64],
    min_size: int,
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Give numbers to the objects that are large enough, in the order of their first pixels.

    Parameters
    ----------
    objects : ndarray, (pieces,), int32
        The object of each piece, from 0 on.
    sizes : ndarray, (pieces,), int64
        Pixels of each piece.
    first : ndarray, (pieces,), int64
        Where each begins, counted along planes, rows and columns.
    min_size : int
        Smaller objects are dropped.

    Returns
    -------
    numbers : ndarray, (pieces,), uint32
        The number of each piece's object; 0 where it is dropped.
    begins : ndarray, (objects,), int64
        Where each object that is left begins, from number 1 on.
    """
    count = int(objects.max(initial=-1)) + 1
    whole = np.zeros(count, np.int64)
    np.add.at(whole, objects, sizes)
    begins = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(begins, objects, first)
    order = np.argsort(begins)
    order = order[whole[order] >= max(min_size, 1)]
    numbers = np.zeros(count, np.uint32)
    numbers[order] = np.arange(1, len(order) + 1, dtype=np.uint32)
    return numbers[objects], begins[order]


def _separate(mask: NDArray[np.bool_], found: Numbers, separation: float, *, solid: bool) -> int:
    """Divide touching pieces, in place; return how many there are then."""
    if solid:
        found[:] = _divided(mask, found, separation)
        return int(found.max())
    count = 0
    for plane, numbers in zip(mask, found, strict=True):
        if plane.any():
            parts = _divided(plane, label(plane, connectivity=1), separation)
            numbers[:] = parts + count
            count += int(parts.max())
    return count


def _divided(
    mask: NDArray[np.bool_], components: NDArray[np.integer[Any]], separation: float
) -> NDArray[np.integer[Any]]:
    """Divide by a watershed of the distance to the border."""
    distance = distance_transform_edt(mask).astype(np.float32)
    # Removes maxima that rise by less than `separation` above the saddle to a higher one.
    levelled = reconstruction(distance - np.float32(separation), distance)
    markers = _within(components, label(local_maxima(levelled) & mask))
    # An object that is thinner than `separation` has no maximum left; it is not divided.
    marked = np.zeros(components.max() + 1, bool)
    marked[components[markers > 0]] = True
    whole = mask & ~marked[components]
    markers[whole] = components[whole] + markers.max()
    cut: NDArray[np.integer[Any]] = watershed(-distance, markers, mask=mask)
    return cut


def _within(
    components: NDArray[np.integer[Any]], markers: NDArray[np.integer[Any]]
) -> NDArray[np.int32]:
    """Give markers other numbers, so that none is part of two pieces that touch at a corner."""
    there = markers > 0
    pairs = components[there].astype(np.int64) * (int(markers.max()) + 1) + markers[there]
    numbers = np.zeros(markers.shape, np.int32)
    numbers[there] = np.unique(pairs, return_inverse=True)[1] + 1
    return numbers
