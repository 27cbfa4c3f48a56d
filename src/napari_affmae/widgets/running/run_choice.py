"""Choosing among the runs and models that there are."""

from collections.abc import Callable, Collection
from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QMessageBox, QPushButton, QWidget

from napari_affmae.engine.store.registry import RunSummary, list_runs
from napari_affmae.widgets.parts.preferences import load_preferences
from napari_affmae.widgets.running.model_card import KINDS


class _FreshCombo(QComboBox):
    """Looks what there is whenever it is opened: other docks make runs too."""

    def __init__(self, refresh: Callable[[], None]) -> None:
        super().__init__()
        self._refresh = refresh

    def showPopup(self) -> None:  # noqa: N802 - Qt's name
        """Refresh, then open."""
        self._refresh()
        super().showPopup()


class RunChoice(QWidget):
    """A list of runs, newest first, with an entry for none and a button to look elsewhere.

    Parameters
    ----------
    none : str
        Words of the entry that stands for no run: "new run", "random weights".
    kinds : collection of str
        Kinds of runs to offer; see `RunSummary`.
    resumable : bool
        Offer only runs that can go on, and folders only.
    segmenting : bool
        Offer only what knows classes.
    newest : str, optional
        Kind of run of which the newest is chosen until the user chooses.
    """

    changed = Signal()

    def __init__(
        self,
        none: str,
        kinds: Collection[str],
        *,
        resumable: bool = False,
        segmenting: bool = False,
        newest: str | None = None,
    ) -> None:
        super().__init__()
        self._none, self._kinds, self._resumable = none, kinds, resumable
        self._segmenting, self._newest = segmenting, newest
        self._is_settled = newest is None
        self._runs: list[RunSummary | None] = []
        self._elsewhere: list[Path] = []
        self.combo = _FreshCombo(self.refresh)
        self.combo.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.combo.setMinimumContentsLength(18)
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
        self.refresh()

    def refresh(self) -> None:
        """Read again which runs there are, and keep the choice that was made."""
        before = self.path()
        found = list_runs(load_preferences().runs)
        listed = {run.path for run in found}
        found += filter(None, (_look_at(path) for path in self._elsewhere if path not in listed))
        self._runs = [None, *(run for run in found if self._refusal(run) is None)]
        chosen = before if self._is_settled else self.newest()
        self.combo.blockSignals(True)
        self.combo.clear()
        for index, run in enumerate(self._runs):
            self.combo.addItem(self._none if run is None else run.name)
            if run is not None and run.path == chosen:
                self.combo.setCurrentIndex(index)
        self.combo.blockSignals(False)
        if self.path() != before:
            self.changed.emit()

    def newest(self) -> Path | None:
        """Return the newest run of the kind that is chosen by itself."""
        return next((run.path for run in self._runs if run and run.kind == self._newest), None)

    def _refusal(self, run: RunSummary | None) -> str | None:
        """Say why a run cannot be chosen; None if it can."""
        if run is None:
            return "no run or model is there"
        if run.problem is not None:
            return run.problem
        if run.kind not in self._kinds:
            return f"it is a {KINDS[run.kind]}"
        if self._segmenting and not run.classes:
            return "it knows no classes"
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

    def choose(self, path: Path | None) -> str | None:
        """Choose a run by its path; one that lies elsewhere joins the list.

        Returns
        -------
        str or None
            Why it cannot be chosen, if so.
        """
        if path not in self._paths():
            self.refresh()
        if path is not None and path not in self._paths():
            refusal = self._refusal(_look_at(path))
            if refusal is not None:
                return refusal
            self._elsewhere.append(path)
            self.refresh()
        self.combo.setCurrentIndex(self._paths().index(path))
        return None

    def _paths(self) -> list[Path | None]:
        return [None if run is None else run.path for run in self._runs]

    def _ask(self) -> None:
        if self._resumable:
            name = QFileDialog.getExistingDirectory(self, "A run folder")
        else:
            name, _ = QFileDialog.getOpenFileName(
                self, "A model file", "", "Models (*.safetensors)"
            )
        refusal = self.choose(Path(name)) if name else None
        if refusal is not None:
            QMessageBox.information(self, "Another run", f"{name} cannot be chosen: {refusal}.")

    def _take_choice(self) -> None:
        self._settle()
        self.changed.emit()

    def _settle(self) -> None:
        self._is_settled = True


def _look_at(path: Path) -> RunSummary | None:
    return next((run for run in list_runs(path.parent) if run.path == path), None)
