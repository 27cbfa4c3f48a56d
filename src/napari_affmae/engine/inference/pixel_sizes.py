"""Whether images have pixels of the size that a network was trained on."""

from collections.abc import Generator, Iterable

from napari_affmae.data import ImageSource
from napari_affmae.data.sources.source import PixelSize
from napari_affmae.engine.events import Notice

# Augmentation scales by less; beyond it, structures look unlike those that were learned.
_FACTOR = 1.5
# Microscopes round, and calibrate anew.
_SAME = 1.05


def common_pixel_size(sources: Iterable[ImageSource]) -> PixelSize | None:
    """Return the pixel size of all images, None where it is not known or not one.

    Parameters
    ----------
    sources : iterable of ImageSource
        At least one.
    """
    first, *others = [source.pixel_size for source in sources]
    if first is None or any(size is None or _ratio(size, first) > _SAME for size in others):
        return None
    return first


def note_pixel_sizes(
    sources: Iterable[ImageSource], trained: PixelSize | None
) -> Generator[Notice, None, None]:
    """Tell of images whose pixels are much larger or smaller than in training.

    Parameters
    ----------
    sources : iterable of ImageSource
        Those whose pixel size is not known are passed over.
    trained : (float, float) or None
        (row, column) of the training images, nanometres, where known.

    Yields
    ------
    Notice
        At most one; it names the first image.
    """
    if trained is None:
        return
    for source in sources:
        size = source.pixel_size
        if size is not None and _ratio(size, trained) > _FACTOR:
            yield Notice(
                f"its pixels are {_words(size)} and those that the model was trained on "
                f"{_words(trained)}, so that what it knows looks larger or smaller here; scale "
                "the images to about that size, or pretrain on images like these",
                source=source.name,
            )
            return


def _ratio(size: PixelSize, other: PixelSize) -> float:
    return max(max(a / b, b / a) for a, b in zip(size, other, strict=True))


def _words(size: PixelSize) -> str:
    return f"{size[0]:g} x {size[1]:g} nm"
