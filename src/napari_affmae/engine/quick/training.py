"""Quick training: a light head learns painted strokes on features that are computed once."""

import math
from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from napari_affmae.config import LabelClass, NormalizationConfig, QuickConfig, distinct_classes
from napari_affmae.data import (
    ImageSource,
    LabelEncoder,
    NormalizationRecord,
    NormalizedSource,
    normalize_sources,
    require_channels,
)
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.compute.seeds import Stream, generator, seeded
from napari_affmae.engine.events import Event, HeldOut, StepDone, TileDone, ViewPredicted
from napari_affmae.engine.inference.pixel_sizes import common_pixel_size
from napari_affmae.engine.inference.uncertainty import uncertainty
from napari_affmae.engine.quick.features import FeatureStore, TileCount
from napari_affmae.engine.quick.head_training import BATCH, train_head
from napari_affmae.engine.quick.held_out import judge_held_out
from napari_affmae.engine.quick.kept_cells import KeptCells
from napari_affmae.engine.quick.strokes import (
    Block,
    QuickView,
    Samples,
    StrokeSamples,
    painted_blocks,
)
from napari_affmae.engine.quick.view import predict_view
from napari_affmae.engine.store.kept_features import KeptFeatures
from napari_affmae.engine.store.metadata import ModelMetadata, learned_from
from napari_affmae.engine.store.model_files import load_model, model_bytes
from napari_affmae.engine.store.starting_weights import Start, find_origin
from napari_affmae.errors import AffmaeError, DataError, TooFewClassesError
from napari_affmae.files import replace_bytes
from napari_affmae.model import AFFMAE, AFFSegmenter, QuickSegmenter, preset

__all__ = ["QuickTraining", "QuickView"]

_PRESET = "nano"
_CROP = 256
_ADAPTED_TO = 4096  # number of cells, and of pixels
_LATER = 3  # a later training makes this fraction of the steps: 1 / _LATER


class QuickTraining:
    """Interactive training on strokes, repeated while the user paints.

    Attributes
    ----------
    classes : tuple of LabelClass
        In the order of their indices.
    started : RunStarted
        Device, precision and backend.
    notes : tuple of str
        Messages for the user, for instance that no pretrained network was given.

    Parameters
    ----------
    pretrained : Start
        Whose encoder and decoder give the features: the name of weights that come with
        the program, or ``"auto"`` for the smallest of them, if they take the channels of
        the images; the model file or run folder of a
        pretrained or fine-tuned network, or of one trained quickly, whose
        head goes on learning if its classes are the same. None takes random
        weights, which know less.
    sources : sequence of ImageSource
        At least one image; more can be added later.
    classes : sequence of LabelClass
        At least two.
    config : QuickConfig
        Settings.
    ignore_value : int or None
        Label value of pixels that are not painted.
    kept : KeptFeatures, optional
        Where features are kept on disk, so that another training with the same network need not
        compute them again. With a CUDA GPU, which computes those of a view within a second,
        nothing is kept.

    Raises
    ------
    CheckpointError
        If there is no model, or no weights of this name.
    DataError
        If images have other channels than the model, or there are none.
    DeviceUnavailableError
        If the device is not there.
    UnreadableFileError
        If an image's file is damaged.
    ValueError
        If there are fewer than two classes, or two share a value or a name.
    """

    def __init__(
        self,
        pretrained: Start,
        sources: Sequence[ImageSource],
        classes: Sequence[LabelClass],
        config: QuickConfig,
        *,
        ignore_value: int | None = 0,
        kept: KeptFeatures | None = None,
    ) -> None:
        if not sources:
            raise DataError("there is no image to train on: give at least one")
        plan = plan_device(config.device, config.precision)
        self.classes = distinct_classes(classes)
        self._encoder = LabelEncoder(self.classes, ignore_value)
        self._config, self._ignore_value = config, ignore_value
        self._origin = find_origin(pretrained, _PRESET, sources[0].n_channels)
        self._since_start = 0
        self._updates = 0
        self._blocks: Sequence[Block] = ()
        with seeded(config.seed, Stream.WEIGHTS, 0, torch.device("cpu")):
            self._load(sources[0].n_channels)
        self._normalized: dict[ImageSource, NormalizedSource] = {}
        for source in sources:
            self.normalize(source)
        self._runtime = Runtime(plan)
        self.notes += tuple(notice.message for notice in self._runtime.first_pass())
        on_disk = None
        if kept is not None and plan.device.type != "cuda":
            on_disk = KeptCells(kept, self._module, plan)
        with plan.active():
            self._module.to(self._runtime.plan.device)
        self._store = FeatureStore(self._module, self._runtime, self._crop, on_disk=on_disk)
        self._samples = StrokeSamples(self._store)
        self.started = self._runtime.started(self._module, BATCH, BATCH, total_steps=config.steps)

    def _load(self, channels: int) -> None:
        """Make the network and read its metadata."""
        network: AFFMAE | AFFSegmenter | QuickSegmenter
        config, count = self._config, len(self.classes)
        self._record: NormalizationRecord | None = None
        if self._origin.path is None:
            network = AFFMAE(preset(_PRESET, channels))
            self._crop, self._size = _CROP, _PRESET
            note = (
                f"{self._origin.words}: the features come from a {_PRESET} network that knows "
                "nothing and from plain filters. Pretrain on your images for better ones"
            )
            self.notes: tuple[str, ...] = (note,)
        else:
            network, metadata = load_model(self._origin.path)
            self._record, self._crop = metadata.normalization, metadata.crop
            self._size, self.notes = str(metadata.training.get("preset", "base")), ()
        self._module = QuickSegmenter.from_network(network, count, config.hidden, config.smoothness)
        self._module.eval()
        if (
            isinstance(network, QuickSegmenter)
            and [item.value for item in metadata.classes] == [item.value for item in self.classes]
            and metadata.quick is not None
            and metadata.quick.hidden == config.hidden
        ):
            self._module.head.load_state_dict(network.head.state_dict())
            self._since_start = config.steps

    def normalize(self, source: ImageSource) -> NormalizedSource:
        """Normalise an image by the pretrained network's record, or by its own statistics.

        Parameters
        ----------
        source : ImageSource
            The image.

        Raises
        ------
        DataError
            If its channels are not the model's.
        UnreadableFileError
            If the file is damaged.
        """
        if source not in self._normalized:
            require_channels(source, self._module.config.in_channels)
            settings = NormalizationConfig()
            self._normalized[source] = normalize_sources([source], settings, self._record)[0]
        return self._normalized[source]

    def rename(self, classes: Sequence[LabelClass]) -> None:
        """Change the names and colours of the classes, without training.

        Parameters
        ----------
        classes : sequence of LabelClass
            With the same values in the same order.

        Raises
        ------
        ValueError
            If the values differ, or two classes have the same name.
        """
        values = [item.value for item in self.classes]
        if [item.value for item in classes] != values:
            raise ValueError(
                f"the classes have the values {values}, got {[item.value for item in classes]}; "
                "other values need another training"
            )
        self.classes = distinct_classes(classes)

    def update(self, strokes: Sequence[QuickView], show: QuickView) -> Generator[Event, None, None]:
        """Train the head on all strokes, and predict the shown view.

        Training continues from the current head, or starts anew if the painted
        classes have changed. Closing the generator between events
        is safe; the next update goes on.

        Parameters
        ----------
        strokes : sequence of QuickView
            All painted views, with labels.
        show : QuickView
            The view to predict; its labels are not used.

        Yields
        ------
        Event
            `TileDone` while the features of the painted and shown views are
            computed, `StepDone` while the head trains, `TileDone` again while it
            predicts, and finally `ViewPredicted`.

        Raises
        ------
        TooFewClassesError
            If nothing or only one class is painted. The features are computed
            before, so that the next update is fast.
        DataError
            If a label has no class.
        OutOfMemoryError
            If memory runs out.
        UnreadableFileError
            If an image's file is damaged.
        ValueError
            If a view is empty, or labels have another shape than their view.
        """
        bounds = show.bounds()
        blocks = painted_blocks(strokes, self._encoder, self._config.seed)
        # Users paint one class after the other; features are computed while there is only one.
        yield from self._prepare(blocks)
        progress = TileCount(len(self._store.missing(show.source, show.plane, *bounds)))
        yield from self._store.fill(show.source, show.plane, *bounds, progress)
        painted = self._painted(blocks)
        yield from self._train(blocks, painted)
        yield from self.predict(show)

    def save(self, path: Path) -> Path:
        """Write a model file that `segment`, `evaluate` and `finetune` take.

        Parameters
        ----------
        path : Path
            The file; replaced if it is there.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        AffmaeError
            If nothing has been trained yet.
        DiskFullError
            If the disk has no room.
        """
        if not self._since_start:
            raise AffmaeError("there is nothing to save yet: paint two classes and train first")
        metadata = ModelMetadata(
            kind="quick",
            model=self._module.config,
            normalization=NormalizationRecord.of(list(self._normalized.values())),
            crop=self._crop,
            classes=self.classes,
            ignore_value=self._ignore_value,
            quick=self._config,
            pixel_size=common_pixel_size(self._normalized),
            training={
                "preset": self._size,
                "pretrained": self._origin.name,
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                **learned_from([source.name for source in self._normalized]),
            },
        )
        path = Path(path)
        replace_bytes(path, model_bytes(self._module, metadata))
        return path

    def _painted(self, blocks: Sequence[Block]) -> Tensor:
        """Return which classes are painted: (classes,) bool."""
        painted = torch.zeros(len(self.classes), dtype=torch.bool)
        for block in blocks:
            painted[torch.from_numpy(block.classes)] = True
        if painted.sum() < 2:
            names = ", ".join(repr(item.name) for item in self.classes)
            only = [
                repr(item.name)
                for item, is_painted in zip(self.classes, painted, strict=True)
                if is_painted
            ]
            raise TooFewClassesError(
                f"{'only ' + only[0] if only else 'nothing'} is painted so far; paint strokes of "
                f"at least two of the classes {names}, so that there is something to tell apart"
            )
        return painted

    def _prepare(self, blocks: Sequence[Block]) -> Generator[TileDone, None, None]:
        """Compute and sample the features of the painted blocks that are new."""
        new = [block for block in blocks if block not in self._samples]
        missing = {
            key for block in new for key in self._store.missing(*self._samples.region(block))
        }
        progress = TileCount(len(missing))
        for block in new:
            yield from self._store.fill(*self._samples.region(block), progress)
            with self._store.working():
                self._samples.get(block)
            yield progress.event(block.view.plane)
        self._samples.keep(blocks)

    def judge(self) -> Generator[StepDone | HeldOut, None, None]:
        """Score what was learned in the last update on strokes that are held out.

        Closing the generator between events is safe.

        Yields
        ------
        StepDone or HeldOut
            Steps of heads that are trained for this alone, and at last the score.

        Raises
        ------
        AffmaeError
            If nothing has been trained yet.
        OutOfMemoryError
            If memory runs out.
        """
        if not self._since_start or not self._blocks:
            raise AffmaeError("there is nothing to judge yet: paint two classes and train first")
        yield from judge_held_out(
            self._module.head,
            self._blocks,
            self._gathered(self._blocks),
            self.classes,
            self._config,
            self._store,
        )

    def _gathered(self, blocks: Sequence[Block]) -> Samples:
        parts = [self._samples.get(block) for block in blocks]
        return Samples(
            torch.cat([part.cells for part in parts]),
            torch.cat([part.pixels for part in parts]),
            torch.cat([part.classes for part in parts]),
        )

    def _train(self, blocks: Sequence[Block], painted: Tensor) -> Generator[StepDone, None, None]:
        config, head = self._config, self._module.head
        samples = self._gathered(blocks)
        self._updates += 1
        random = generator(config.seed, Stream.HEAD, self._updates)
        if not self._since_start or not torch.equal(painted, head.learned.cpu()):
            self._start_anew(painted, random)
        self._blocks = blocks
        steps = max(math.ceil(config.steps / _LATER), config.steps - self._since_start)
        number = self._updates * config.steps
        for event in train_head(
            head, samples, config, self._store, random, steps=steps, number=number
        ):
            self._since_start += 1
            yield event

    def _start_anew(self, painted: Tensor, random: torch.Generator) -> None:
        head = self._module.head
        head.adapt(*self._store.samples(_ADAPTED_TO, random))
        with seeded(self._config.seed, Stream.WEIGHTS, 0, self._runtime.plan.device):
            head.reset_parameters()
        head.learned.copy_(painted)
        self._since_start = 0

    def predict(self, view: QuickView) -> Generator[TileDone | ViewPredicted, None, None]:
        """Predict a view with what was learned, without learning more; see `update`."""
        probabilities = yield from predict_view(self._module, self._store, view)
        values = np.array([item.value for item in self.classes])
        labels = values.astype(np.min_scalar_type(values.max()))[probabilities.argmax(0)]
        yield ViewPredicted(labels, probabilities, uncertainty(probabilities))
