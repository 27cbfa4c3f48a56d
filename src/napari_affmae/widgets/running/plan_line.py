"""The time and memory that a run will take, measured before it starts."""

from pathlib import Path

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel

from napari_affmae.config import FinetuneConfig, PretrainConfig
from napari_affmae.engine import events as ev
from napari_affmae.widgets.parts.error_text import in_words
from napari_affmae.widgets.running.background_job import BackgroundJob

_SETTLE_MILLISECONDS = 1200


class PlanLine(QLabel):
    """Shows the device, memory and time that a run with the entered settings will take.

    A moment after the last change of settings, a few steps are made in the background and
    timed; another change stops them. While the line is hidden, nothing is measured, so that
    a run has the machine to itself.
    """

    def __init__(self) -> None:
        super().__init__("")
        self.setWordWrap(True)
        self._offered: tuple[PretrainConfig | FinetuneConfig, int, Path | None] | None = None
        self._job = BackgroundJob(self)
        self._job.happened.connect(self._take)
        self._job.failed.connect(self._fail)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MILLISECONDS)
        self._timer.timeout.connect(self._measure)

    def offer(
        self,
        config: PretrainConfig | FinetuneConfig,
        *,
        classes: int = 2,
        pretrained: Path | None = None,
    ) -> None:
        """Measure these settings soon, unless they are the ones measured last."""
        offered = (config, classes, pretrained)
        if offered != self._offered:
            self.refuse()
            self._offered = offered
            self._schedule()

    def refuse(self, why: str = "") -> None:
        """Show why the settings cannot be measured; by default, show nothing."""
        self._stop()
        self._offered = None
        self.setText(why)

    def showEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Measure the settings that were offered while this was hidden."""
        super().showEvent(event)
        self._schedule()

    def hideEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Stop measuring."""
        super().hideEvent(event)
        self._stop()

    def _schedule(self) -> None:
        if self._offered is not None and not self.text() and self.isVisible():
            self._timer.start()

    def _stop(self) -> None:
        if self._job.is_running:
            self.clear()
        self._timer.stop()
        self._job.stop()

    def _measure(self) -> None:
        if self._offered is None:
            return
        config, classes, pretrained = self._offered
        self.setText("measuring time and memory ...")

        def measure() -> object:
            from napari_affmae.engine import measure_plan

            return measure_plan(config, classes=classes, pretrained=pretrained)

        self._job.run(measure)  # type: ignore[arg-type]

    def _take(self, event: ev.Event) -> None:
        if isinstance(event, ev.PlanMeasured):
            from napari_affmae.engine import describe_plan

            self.setText(describe_plan(event))

    def _fail(self, error: Exception) -> None:
        self.setText(in_words(error))
