"""A light that says how good what was learned is, beside the button that segments everything."""

from enum import Enum
from html import escape

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QHBoxLayout, QLabel, QWidget

from napari_affmae.engine.events import Event, HeldOut
from napari_affmae.widgets.finetune.quick_session import QuickSession
from napari_affmae.widgets.parts.error_text import in_words
from napari_affmae.widgets.running.background_job import BackgroundJob

# Painting goes on after most predictions: then judging would only take time from the next one.
_MILLISECONDS = 1500
_GOOD, _POOR = 0.9, 0.7
# Few strokes may be right by chance: what very many would give must not be far below.
_SURELY = 0.75
_TIP = (
    "Some of your strokes are held out in turn: it learns from the others, and is asked for "
    "these (cross-validation by strokes). The number is the part of their pixels that gets the "
    "class you painted; each class counts alike.\n\n"
    "Strokes are mostly painted where it is clear what is there: the rest is harder, borders "
    "above all. Planes and images without strokes are not judged. So look at the prediction too."
)


class Light(Enum):
    """How good what was learned is, and the colour that says so."""

    UNKNOWN = "#8a8f98"
    POOR = "#e0524d"
    FAIR = "#e0a52e"
    GOOD = "#45a858"


class QualityLight(QWidget):
    """Has strokes held out and asked for, a while after the last one, and shows the score.

    Parameters
    ----------
    session : QuickSession
        What was learned.
    """

    def __init__(self, session: QuickSession) -> None:
        super().__init__()
        self._session = session
        self._is_due = True
        self.light = Light.UNKNOWN
        self._lamp, self.text = QLabel(), QLabel()
        self._lamp.setTextFormat(Qt.TextFormat.RichText)
        self.text.setTextFormat(Qt.TextFormat.RichText)
        self.text.setWordWrap(True)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._lamp)
        row.addWidget(self.text, 1)
        self.setToolTip(_TIP)
        self._job = BackgroundJob(self)
        self._job.happened.connect(self._take)
        self._job.failed.connect(self._fail)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_MILLISECONDS)
        self._timer.timeout.connect(lambda: self._job.run(session.judge))
        self._show(Light.UNKNOWN, "Is it good enough? It is judged once it has predicted.")

    @property
    def is_busy(self) -> bool:
        """Whether strokes are being judged, or soon will be."""
        return self._job.is_running or self._timer.isActive()

    def note_strokes(self) -> None:
        """Note that strokes have changed: what is shown is of the strokes before."""
        self._is_due = True

    def judge_soon(self) -> None:
        """Judge what was learned, unless it has been judged or something else is done soon."""
        if self._is_due:
            self._timer.start()

    def make_way(self) -> None:
        """Stop judging: the machine is needed for what the user waits for."""
        self._timer.stop()
        self._job.stop()

    def _take(self, event: Event) -> None:
        if isinstance(event, HeldOut):
            self._is_due = False
            self._show(*describe(event))

    def _fail(self, error: Exception) -> None:
        self._show(Light.UNKNOWN, f"It cannot be judged: {escape(in_words(error))}")

    def _show(self, light: Light, text: str) -> None:
        self.light = light
        self._lamp.setText(f'<span style="color:{light.value}; font-size:18pt">&#9679;</span>')
        self.text.setText(text)


def describe(held: HeldOut) -> tuple[Light, str]:
    """Judge a score, and say in HTML what it means.

    Parameters
    ----------
    held : HeldOut
        The score of strokes that were held out.
    """
    if held.score is None:
        names = " and ".join(f"'{escape(name)}'" for name in held.alone)
        return Light.UNKNOWN, (
            f"Is it good enough? Not judged yet: paint a second stroke of {names}, apart from "
            "the first."
        )
    light = Light.FAIR
    if held.score < _POOR:
        light = Light.POOR
    elif held.score >= _GOOD and held.low >= _SURELY:
        light = Light.GOOD
    word = {
        Light.POOR: "Not good yet",
        Light.FAIR: "Fair" if held.score < _GOOD else "Promising, but few strokes",
        Light.GOOD: "Good",
    }[light]
    planes = f"{held.planes} plane{'s' * (held.planes != 1)}"
    name, worst = min(held.by_class.items(), key=lambda item: item[1])
    alone = "".join(f" '{escape(name)}' has one stroke and is not judged." for name in held.alone)
    return light, (
        f"<b>{word}: {_percent(held.score)} of held-out strokes are recognised</b> "
        f"({held.strokes} strokes on {planes}; of very many such, likely {_percent(held.low)} to "
        f"{_percent(held.high)}). Weakest: '{escape(name)}', {_percent(worst)}.{alone}"
    )


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %"
