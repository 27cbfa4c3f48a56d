"""Whether images have pixels of the size that a network was trained on."""

from collections.abc import Generator, Iterable

from napari_affmae.data import ImageSource
from napari_affmae.data.sources.source import PixelSize
from napari_affmae.engine.events import Notice

# Augmentation scales by less than this; structures that differ more look unfamiliar.
_FACTOR = 1.5
# Pixel sizes of the same microscope differ by rounding and calibration.
_SAME = 1.05


def common_pixel_size(sources: Iterable[ImageSource]) -> PixelSize | None:
    """Return the pixel size of all images; None if it is unknown or differs between them.

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
    """Report images whose pixels are much larger or smaller than in training.

    Parameters
    ----------
    sources : iterable of ImageSource
        The images; those of unknown pixel size are skipped.
    trained : (float, float) or None
        (row, column) in nanometres of the training images, if known.

    Yields
    ------
    Notice
        At most one; it names the first image.
    """
    if trained is None:
        return
    for source in sources:
        size = source.pixel_size
        if size is not None and not fit_in_size(size, trained):
            yield Notice(
                f"its pixels are {size_words(size)} but the model was trained on "
                f"{size_words(trained)}, so structures look larger or smaller than in training; "
                "scale the images to about that size, or pretrain on images like these",
                source=source.name,
            )
            return


def fit_in_size(size: PixelSize | None, trained: PixelSize | None) -> bool:
    """Return whether structures look as large as in training, as far as sizes are known."""
    return size is None or trained is None or _ratio(size, trained) <= _FACTOR


def _ratio(size: PixelSize, other: PixelSize) -> float:
    return max(max(a / b, b / a) for a, b in zip(size, other, strict=True))


def size_words(size: PixelSize) -> str:
    """Say the (row, column) size of a pixel."""
    return f"{size[0]:g} x {size[1]:g} nm"
