"""Choosing among the runs and models that there are."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QMessageBox, QPushButton, QWidget

from napari_affmae.engine.store.registry import RunSummary
from napari_affmae.widgets.parts.eliding_combo import ElidingCombo
from napari_affmae.widgets.running.model_card import KINDS
from napari_affmae.widgets.running.run_listing import Listing, RunListing

#: The entry for random weights, where a training starts from something.
NOTHING_LEARNED = "nothing learned yet (random weights)"


class _RefreshingCombo(ElidingCombo):
    """Asks for a new list whenever it is opened: other docks make runs too."""

    def __init__(self, refresh: Callable[[], None]) -> None:
        super().__init__()
        self._refresh = refresh

    def showPopup(self) -> None:  # noqa: N802 - Qt's name
        """Open with the list that is known, and refresh it."""
        super().showPopup()
        self._refresh()

    def fill(self, texts: list[str], index: int) -> None:
        """Show another list; if the old one is open, open the new one in its place."""
        is_open = self.view().isVisible()
        blocker = QSignalBlocker(self)
        self.clear()
        self.addItems(texts)
        self.setCurrentIndex(index)
        del blocker
        if is_open:
            super().showPopup()


class RunChoice(QWidget):
    """A list of runs, newest first, with an entry for none and a button to look elsewhere.

    Weights that come with the program, where they are offered, stand before all others.

    The list is read in the background. Until it comes, the former one is shown, and what
    was chosen stays chosen.

    Parameters
    ----------
    none : str
        Text of the entry that stands for no run: "new run", "random weights".
    kinds : collection of str
        Kinds of runs to offer; see `RunSummary`.
    resumable : bool
        Offer only runs that can be resumed, and folders only.
    segmenting : bool or None
        Offer only models that know classes, or only those that do not; None offers both.
    preferred : Callable[[Sequence[RunSummary]], RunSummary or None], optional
        Says which of the runs, newest first, is chosen until the user chooses.
    """

    changed = Signal()
    """Another run is chosen."""

    def __init__(
        self,
        none: str,
        kinds: Collection[str],
        *,
        resumable: bool = False,
        segmenting: bool | None = None,
        preferred: Callable[[Sequence[RunSummary]], RunSummary | None] | None = None,
    ) -> None:
        super().__init__()
        self._none, self._kinds, self._resumable = none, kinds, resumable
        self._segmenting, self._preferred = segmenting, preferred
        self._is_settled = preferred is None
        self._runs: list[RunSummary | None] = []
        self._elsewhere: list[Path] = []
        self._wanted: Path | None = None  # to be chosen when the list comes
        self._browsed: Path | None = None
        self._listing = RunListing(self)
        self._listing.listed.connect(self._show)
        self.combo = _RefreshingCombo(self.refresh)
        self.combo.currentIndexChanged.connect(self._take_choice)
        self.combo.activated.connect(self._settle)
        self.browse = QPushButton("...")
        self.browse.setToolTip("Another folder or model file")
        self.browse.setMaximumWidth(32)
        self.browse.clicked.connect(self._ask)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.combo, 1)
        layout.addWidget(self.browse)
        self._fill([None], None)
        self.refresh()

    @property
    def is_listing(self) -> bool:
        """Whether the list is being read."""
        return self._listing.is_reading

    def refresh(self, *, wanted: Path | None = None) -> None:
        """Read again which runs there are, and keep the choice that was made.

        Parameters
        ----------
        wanted : Path, optional
            Choose this run instead when the list has come, if it can be chosen. One from
            another folder joins the list.
        """
        if wanted is not None:
            self._is_settled, self._wanted = True, wanted
        more = [] if self._wanted is None else [self._wanted]
        self._listing.read([*self._elsewhere, *more])

    def when_listed(self, action: Callable[[], None]) -> None:
        """Call an action when the choice is final: at once unless the list is being read."""
        self._listing.when_read(action)

    def _show(self, listing: Listing) -> None:
        """Show a new list, with what is wanted, what was chosen, or the preferred run chosen."""
        before, wanted = self.path(), self._wanted
        self._wanted = None
        weights, others = (
            [run for run in listed if self._refusal(run) is None]
            for listed in (listing.weights, listing.runs)
        )
        runs = [*weights, None, *others]
        paths = _paths(runs)
        if wanted is not None and wanted in paths:
            if wanted.parent != listing.folder and wanted not in self._elsewhere:
                self._elsewhere.append(wanted)
            self._fill(runs, wanted)
        else:
            self._fill(runs, before if self._is_settled else self._preferred_of(runs))
        if self.path() != before:
            self.changed.emit()
        if wanted is not None and wanted not in paths and wanted == self._browsed:
            run = next((run for run in listing.runs if run.path == wanted), None)
            QMessageBox.information(
                self, "Another run", f"{wanted} cannot be chosen: {self._refusal(run)}."
            )

    def _fill(self, runs: list[RunSummary | None], chosen: Path | None) -> None:
        paths = _paths(runs)
        is_same = paths == _paths(self._runs)
        self._runs = runs
        index = paths.index(chosen if chosen in paths else None)
        if not is_same or index != self.combo.currentIndex():
            self.combo.fill([self._none if run is None else run.name for run in runs], index)
            for row, run in enumerate(runs):
                tip = self._none if run is None else str(run.path)
                self.combo.setItemData(row, tip, Qt.ItemDataRole.ToolTipRole)

    def preferred(self) -> Path | None:
        """Return the run that is chosen by itself."""
        return self._preferred_of(self._runs)

    def prefer_again(self) -> None:
        """Choose the preferred run, which may be another now, unless the user has chosen."""
        chosen = self._preferred_of(self._runs)
        if not self._is_settled and chosen != self.path():
            self._fill(self._runs, chosen)
            self.changed.emit()

    def _preferred_of(self, runs: list[RunSummary | None]) -> Path | None:
        if self._preferred is None:
            return None
        run = self._preferred([run for run in runs if run is not None])
        return None if run is None else run.path

    def _refusal(self, run: RunSummary | None) -> str | None:
        """Return why a run cannot be chosen, or None if it can."""
        if run is None:
            return "no run or model is there"
        if run.problem is not None:
            return run.problem
        if run.kind not in self._kinds:
            return f"it is a {KINDS[run.kind]}"
        if self._segmenting is not None and self._segmenting != bool(run.classes):
            return "it segments already" if run.classes else "it knows no classes"
        if self._resumable and not run.resumable:
            return "it is finished"
        return None

    def run(self) -> RunSummary | None:
        """Return the chosen run, or None."""
        index = self.combo.currentIndex()
        return self._runs[index] if 0 <= index < len(self._runs) else None

    def path(self) -> Path | None:
        """Return the folder or file of the chosen run, or None."""
        run = self.run()
        return None if run is None else run.path

    def choose(self, path: Path | None) -> None:
        """Choose a run by its path: now if it is listed, else once a new list has it."""
        paths = _paths(self._runs)
        if path in paths:
            self._settle()
            self.combo.setCurrentIndex(paths.index(path))
        else:
            self.refresh(wanted=path)

    def _ask(self) -> None:
        if self._resumable:
            name = QFileDialog.getExistingDirectory(self, "A run folder")
        else:
            name, _ = QFileDialog.getOpenFileName(
                self, "A model file", "", "Models (*.safetensors)"
            )
        if name:
            self._browsed = Path(name)
            self.choose(self._browsed)

    def _take_choice(self) -> None:
        self._settle()
        self.changed.emit()

    def _settle(self) -> None:
        self._is_settled, self._wanted = True, None


def _paths(runs: list[RunSummary | None]) -> list[Path | None]:
    return [None if run is None else run.path for run in runs]
