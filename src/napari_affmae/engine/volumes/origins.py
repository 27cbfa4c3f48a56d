"""Names what segmentations of many images with one model come from."""

import hashlib
from pathlib import Path

from napari_affmae.config import SegmentConfig
from napari_affmae.data import ImageSource
from napari_affmae.engine.results.origin import Origin
from napari_affmae.engine.store.metadata import model_path, read_metadata
from napari_affmae.errors import CheckpointError


class Origins:
    """Makes the origin of each image's segmentation; reads the model file once.

    Attributes
    ----------
    file : Path
        The model file; that of a run may be another one tomorrow.
    model : str
        Fingerprint of the model file.

    Parameters
    ----------
    model : str or Path
        Model file or run folder.
    config : SegmentConfig
        Tiles and directions.

    Raises
    ------
    CheckpointError
        If there is no model.
    """

    def __init__(self, model: str | Path, config: SegmentConfig) -> None:
        self.file = model_path(Path(model))
        crop = read_metadata(self.file).crop
        self._tile = crop if config.tile == "auto" else config.tile
        self._overlap = config.overlap
        self._directions = 3 if config.three_directions else 1
        try:
            with self.file.open("rb") as opened:
                self.model = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"cannot read the model {self.file}: {error}") from error

    def of(self, source: ImageSource, precision: str) -> Origin:
        """Name what the segmentation of an image comes from.

        Parameters
        ----------
        source : ImageSource
            The image.
        precision : str
            Of the network's matrix products.

        Raises
        ------
        UnreadableFileError
            If the image's file is damaged.
        """
        return Origin(
            image=source.fingerprint(),
            model=self.model,
            tile=self._tile,
            overlap=self._overlap,
            precision=precision,
            directions=self._directions,
        )
