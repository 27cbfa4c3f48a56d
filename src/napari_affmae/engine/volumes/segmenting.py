"""Segments images into files, block by block, and goes on where it was stopped."""

from collections.abc import Generator, Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from napari_affmae.config import SegmentConfig
from napari_affmae.data import ImageSource, NormalizedSource
from napari_affmae.engine.events import Event, ResultBegun
from napari_affmae.engine.inference.pixel_sizes import note_pixel_sizes
from napari_affmae.engine.inference.segmentation import Segmenter
from napari_affmae.engine.results.new_file import writing
from napari_affmae.engine.results.ome_tiff import PlaneFile
from napari_affmae.engine.results.plan import (
    DEFAULT_SIZES,
    BlockPlan,
    BlockSizes,
    Plan,
    ProbabilityType,
)
from napari_affmae.engine.results.target import (
    begin,
    is_zarr_target,
    probabilities_path,
    refuse_complete,
)
from napari_affmae.engine.results.volume import Place, Volume
from napari_affmae.engine.volumes.block_order import Focus
from napari_affmae.engine.volumes.blocks import BlockJob, BlockWork
from napari_affmae.engine.volumes.directions import (
    Direction,
    average,
    compute_directions,
    cube_sizes,
    directions_of,
    note_unequal_sizes,
    side_sizes,
)
from napari_affmae.engine.volumes.executor import Executor, Threads, compute_blocks
from napari_affmae.engine.volumes.origins import Origins
from napari_affmae.files import remove_entry, scratch_path


class VolumeSegmenter:
    """Segments images into files; its memory does not grow with the images.

    A run that was stopped or killed goes on with the blocks that it lacks, if it is
    started again with the same image, model and settings.

    Parameters
    ----------
    origins : Origins
        The model file.
    config : SegmentConfig
        Tiles, device and precision.
    executor : Executor
        Where blocks are computed: in `Threads` of this process, or by a `Cluster`.
    sizes : BlockSizes
        How results are divided; a TIFF file is not, but what it is made from.

    Raises
    ------
    CheckpointError
        If there is no segmentation model.
    DeviceUnavailableError
        If the device is not there.
    """

    def __init__(
        self,
        origins: Origins,
        config: SegmentConfig,
        *,
        executor: Executor | None = None,
        sizes: BlockSizes = DEFAULT_SIZES,
    ) -> None:
        self._executor = executor or Threads()
        remote = self._executor.precision(config)
        # What others compute needs no device here, and is in their precision.
        local = {} if remote is None else {"device": "cpu", "precision": "auto"}
        self._segmenter = Segmenter(origins.file, config.model_copy(update=local))
        self._origins = origins
        precision = remote or self._segmenter.precision
        self._config = config.model_copy(update={"precision": precision})
        self._sizes = sizes

    def segment(
        self,
        source: ImageSource,
        target: Path,
        *,
        overwrite: bool = False,
        focus: Focus | None = None,
    ) -> Generator[Event, None, None]:
        """Segment every plane of an image or stack.

        Parameters
        ----------
        source : ImageSource
            The image.
        target : Path
            An OME-Zarr folder (``.zarr``), which grows, or an OME-TIFF, which appears when
            it is complete: till then its parts lie beside it. Probabilities go beside it too.
        overwrite : bool
            Whether to replace a complete result, or one that was begun otherwise.
        focus : callable, optional
            Asked for the part of the image that is to come first.

        Yields
        ------
        Event
            `RunStarted` and any `Notice` first. Then `ResultBegun`, `TilesDone` and
            `BlockDone`.

        Raises
        ------
        AffmaeError
            As `segment`; `UnwritableError` also if something else is in the way, or another
            process writes the result.
        """
        work = _ImageWork(
            self._segmenter, source, self._origins, self._config, self._executor, focus, self._sizes
        )
        yield self._segmenter.started
        yield from self._segmenter.notices
        yield from note_pixel_sizes([source], self._segmenter.metadata.pixel_size)
        if self._config.three_directions:
            yield from note_unequal_sizes(source)
        write = self._to_zarr if is_zarr_target(target) else self._to_tiff
        yield from write(work, target, overwrite)

    def _to_zarr(
        self, work: "_ImageWork", target: Path, overwrite: bool
    ) -> Generator[Event, None, None]:
        wanted = self._config.probabilities
        sizes = cube_sizes(self._sizes) if self._config.three_directions else self._sizes
        plan = work.plan(self._config.probability_type if wanted else None, sizes)
        place = Place(target, probabilities_path(target) if wanted else None)
        with writing(target):
            refuse_complete(target, plan, overwrite=overwrite)
            volume = begin(place, plan, target, anew=overwrite)
            folders = [*place.folders, scratch_path(target)]
            yield from work.compute(volume, target, folders, anew=overwrite)
        remove_entry(scratch_path(target))

    def _to_tiff(
        self, work: "_ImageWork", target: Path, overwrite: bool
    ) -> Generator[Event, None, None]:
        """Compute the planes into a folder beside the file, and put them together."""
        wanted = self._config.probabilities
        # A plane a block, so that a kill costs no finished plane.
        sizes = replace(self._sizes, depth=1)
        if self._config.three_directions:
            sizes = cube_sizes(self._sizes)
        plan = work.plan("float32" if wanted else None, sizes, pyramid=False)
        scratch = scratch_path(target)
        place = Place(scratch / "labels.zarr", scratch / "probabilities.zarr" if wanted else None)
        with ExitStack() as files:
            # Left in the other order, so that labels mean that the probabilities are there too.
            about = (work.source, work.origin, plan.classes)
            labels = files.enter_context(PlaneFile.like(target, *about))
            probabilities = None
            if wanted:
                other = PlaneFile.like(probabilities_path(target), *about)
                probabilities = files.enter_context(other)
            refuse_complete(target, plan, overwrite=overwrite)
            if scratch.is_symlink():
                scratch.unlink()
            volume = begin(place, plan, target, anew=overwrite)
            yield from work.compute(volume, target, [scratch], anew=overwrite)
            for plane in range(work.source.n_planes):
                labels.write(volume.label_plane(plane))
                if probabilities is not None:
                    channels = volume.probability_planes(plane)
                    probabilities.write_channels(channels, len(volume.plan.classes))
        remove_entry(scratch)


def segment_to_file(
    source: ImageSource,
    model: Path,
    config: SegmentConfig,
    target: Path,
    *,
    overwrite: bool = False,
) -> Generator[Event, None, None]:
    """Segment every plane of an image or stack into a file; see `VolumeSegmenter.segment`.

    Parameters
    ----------
    source : ImageSource
        The image, with the channels that the model was trained on.
    model : Path
        Model file or folder of a fine-tuning run.
    config : SegmentConfig
        Tiles, device and precision.
    target : Path
        An OME-Zarr folder (``.zarr``) or an OME-TIFF.
    overwrite : bool
        Whether to replace what is there.

    Yields
    ------
    Event
        As `VolumeSegmenter.segment`.
    """
    volumes = VolumeSegmenter(Origins(model, config), config)
    yield from volumes.segment(source, target, overwrite=overwrite)


class _ImageWork:
    """An image that is segmented by a model."""

    def __init__(
        self,
        segmenter: Segmenter,
        source: ImageSource,
        origins: Origins,
        config: SegmentConfig,
        executor: Executor,
        focus: Focus | None,
        sizes: BlockSizes,
    ) -> None:
        self.source = source
        self.origin = origins.of(source, config.precision)
        self._file = origins.file
        self._segmenter = segmenter
        self._config = config
        self._executor, self._focus = executor, focus
        self._sizes = sizes
        self._normalized = segmenter.normalize(source)
        three = config.three_directions
        self._directions = directions_of(self._normalized) if three else []

    def plan(
        self,
        probabilities: ProbabilityType | None,
        sizes: BlockSizes,
        *,
        pyramid: bool = True,
    ) -> Plan:
        return Plan.of(
            self.source,
            self.origin,
            self._normalized.statistics,
            self._segmenter.metadata.classes,
            probabilities=probabilities,
            pyramid=pyramid,
            sizes=sizes,
        )

    def compute(
        self, volume: Volume, target: Path, folders: Iterable[Path], *, anew: bool
    ) -> Generator[Event, None, None]:
        """Compute what is missing; if that ends with nothing done, remove the folders."""
        begun = [volume]
        try:
            yield ResultBegun(volume.place.labels, volume.place.probabilities)
            if volume.ledger.is_complete or not self._directions:
                work = self._work(self._normalized, volume)
                yield from compute_blocks(work, volume, self._executor, self._focus)
                return
            begun += [self._begin(side, volume.plan, target, anew) for side in self._directions]
            works = [
                self._work(side.source, found)
                for side, found in zip(self._directions, begun[1:], strict=True)
            ]
            yield from compute_directions(works, begun[1:], self._executor)
            yield from average(self._directions, begun[1:], volume)
        finally:
            if not any(found.ledger.done for found in begun):
                for folder in folders:
                    remove_entry(folder)

    def _work(self, source: NormalizedSource, volume: Volume) -> BlockWork:
        job = BlockJob(source, self._file, self.origin, self._config, volume.place)
        return BlockWork(job, self._segmenter.predictor, volume)

    def _begin(self, side: Direction, whole: BlockPlan, target: Path, anew: bool) -> Volume:
        """Begin the result of a direction, or go on with it."""
        scratch = scratch_path(target)
        plan = Plan.of(
            side.source.source,
            self.origin.model_copy(update={"image": f"{self.origin.image} {side.name}"}),
            self._normalized.statistics,
            whole.classes,
            probabilities="float16",
            pyramid=False,
            sizes=side_sizes(self._sizes),
        )
        folders = (scratch / f"{side.name}{rest}.zarr" for rest in ("", "_probabilities"))
        return begin(Place(*folders), plan, target, anew=anew)
