"""What a run will take on this machine: measured before it starts."""

from pathlib import Path

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel

from napari_affmae.config import FinetuneConfig, PretrainConfig
from napari_affmae.engine import events as ev
from napari_affmae.widgets.errand import Errand
from napari_affmae.widgets.run_panel import in_words

_SETTLE_MILLISECONDS = 1200


class PlanLine(QLabel):
    """Device, memory and time of the settings that are offered.

    A moment after the last change, a few steps are made in the background and
    timed; another change stops that.
    """

    def __init__(self) -> None:
        super().__init__("")
        self.setWordWrap(True)
        self._config: PretrainConfig | FinetuneConfig | None = None
        self._pretrained: Path | None = None
        self._classes = 2
        self._errand = Errand(self)
        self._errand.happened.connect(self._take)
        self._errand.failed.connect(self._fail)
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
        """Measure these settings soon, unless they were measured last."""
        if (config, classes, pretrained) == (self._config, self._classes, self._pretrained):
            return
        self.stop()
        self._config, self._classes, self._pretrained = config, classes, pretrained
        self._timer.start()

    def refuse(self, why: str) -> None:
        """Show what is wrong with the settings."""
        self.stop()
        self._config = None
        self.setText(why)

    def stop(self) -> None:
        """Measure no longer: a run needs the machine."""
        if self._timer.isActive() or self._errand.is_running:
            self._config = None
            self.clear()
        self._timer.stop()
        self._errand.stop()

    def _measure(self) -> None:
        config, classes, pretrained = self._config, self._classes, self._pretrained
        if config is None:
            return
        self.setText("measuring time and memory ...")

        def measure() -> object:
            from napari_affmae.engine import measure_plan

            return measure_plan(config, classes=classes, pretrained=pretrained)

        self._errand.run(measure)  # type: ignore[arg-type]

    def _take(self, event: ev.Event) -> None:
        if isinstance(event, ev.PlanMeasured):
            from napari_affmae.engine import describe_plan

            self.setText(describe_plan(event))

    def _fail(self, error: Exception) -> None:
        self.setText(in_words(error))
