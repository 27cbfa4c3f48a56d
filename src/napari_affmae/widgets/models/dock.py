"""The dock that lists runs and models, and renames, deletes, exports and imports them."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import napari
from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QInputDialog,
    QLabel,
    QMessageBox,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QWidget,
)

from napari_affmae.engine.events import Event
from napari_affmae.engine.store.housekeeping import delete_run, export_model, rename_run
from napari_affmae.engine.store.registry import RunSummary
from napari_affmae.widgets.layers.napari_private import real_viewer
from napari_affmae.widgets.models.import_dialog import ImportDialog
from napari_affmae.widgets.models.package_dialog import PackageDialog
from napari_affmae.widgets.parts.curves import Curves, load_plots
from napari_affmae.widgets.parts.error_text import in_words
from napari_affmae.widgets.parts.forms import SettingsForm
from napari_affmae.widgets.parts.messages import Messages
from napari_affmae.widgets.parts.preferences import (
    Preferences,
    kept_features,
    load_preferences,
    remember,
)
from napari_affmae.widgets.running.background_job import BackgroundJob
from napari_affmae.widgets.running.base_dock import ScrollingSections
from napari_affmae.widgets.running.loading import loading
from napari_affmae.widgets.running.model_card import ModelCard
from napari_affmae.widgets.running.run_listing import Listing, RunListing

_HEIGHT = 190
_NARROWEST = 30
_DATE = 4
_MODELS = "Models (*.safetensors)"
_PACKAGES = "Packages for other programs (*.zip)"


@dataclass(frozen=True)
class _Log(Event):
    """The metrics of a run."""

    lines: list[dict[str, Any]]


@dataclass(frozen=True)
class _Changed(Event):
    """A run or model was changed on disk; `path` is the one to choose now."""

    path: Path | None


class ModelsDock(ScrollingSections):
    """A list of runs and models, and a description and actions for the chosen one.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that it belongs to.
    """

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        napari_viewer = real_viewer(napari_viewer)
        super().__init__(napari_viewer)
        self._runs: tuple[RunSummary, ...] = ()
        self._wanted: Path | None = None
        self._listing = RunListing(self)
        self._listing.listed.connect(self._show_runs)
        self.folder = QLabel("looking for runs and models ...")
        self.folder.setWordWrap(True)
        self.list = QTreeWidget()
        self.list.setHeaderLabels(["Name", "Kind", "State", "IoU", "Date"])
        self.list.setRootIsDecorated(False)
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        header = self.list.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(_NARROWEST)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.list.setFixedHeight(_HEIGHT)
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.list.currentItemChanged.connect(self._take_choice)
        self.card = ModelCard()
        self.curves = Curves("loss", logarithmic=True)
        self.messages = Messages()
        self._log = BackgroundJob(self, loads_torch=False)
        self._log.happened.connect(self._draw)
        self._log.failed.connect(self._fail)
        self._change = BackgroundJob(self)
        self._change.happened.connect(self._take_change)
        self._change.failed.connect(self._fail)
        self._change.ended.connect(self._end_change)
        self._import = BackgroundJob(self)
        self._import.failed.connect(self._fail)
        self._import.ended.connect(self._end_import)
        self._importing: Path | None = None
        self._limiting = BackgroundJob(self, loads_torch=False)
        self._limiting.failed.connect(self._fail)
        self.limits = SettingsForm(Preferences, basic=("features_gb",))
        # While 20 is typed, it must not delete all but 2.
        self.limits.control("features_gb").setKeyboardTracking(False)
        self.limits.set_values({"features_gb": load_preferences().features_gb})
        self.limits.changed.connect(self._limit)
        self._arrange()
        self.refresh()

    def _arrange(self) -> None:
        self.change_button = _button("Change ...", "Another folder for runs and models.")
        self.change_button.clicked.connect(self._ask_for_folder)
        self.refresh_button = _button("Refresh", "Looks again what is there.")
        self.refresh_button.clicked.connect(self.refresh)
        self.rename_button = _button("Rename ...", "Gives the chosen one another name.")
        self.rename_button.clicked.connect(self._ask_for_name)
        self.delete_button = _button("Delete ...", "Deletes the chosen one for good.")
        self.delete_button.clicked.connect(self._ask_to_delete)
        self.open_button = _button("Open folder", "Shows its files.")
        self.open_button.clicked.connect(self._open_folder)
        self.export_button = _button(
            "Export ...",
            "Copies its model to one file, to be shared, or makes a package for other programs.",
        )
        self.export_button.clicked.connect(self._ask_where)
        self.import_button = _button(
            "Import ...", "Makes a model of a checkpoint of the paper's own program."
        )
        self.import_button.clicked.connect(self._ask_for_checkpoint)
        top = QWidget()
        row = QHBoxLayout(top)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.folder, 1)
        row.addWidget(self.change_button)
        self._of_chosen = (
            self.rename_button,
            self.delete_button,
            self.open_button,
            self.export_button,
        )
        buttons = QWidget()
        grid = QGridLayout(buttons)
        grid.setContentsMargins(0, 0, 0, 0)
        every = (*self._of_chosen, self.import_button, self.refresh_button)
        for number, button in enumerate(every):
            grid.addWidget(button, number // 3, number % 3)
        self.add_section("Folder", top, self.limits)
        self.add_section("Runs and models", self.list, buttons)
        self.add(self.messages, self.card, self.curves)
        self.add_stretch()

    def showEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Refresh the list: other docks may have made runs."""
        super().showEvent(event)
        self.refresh()

    def refresh(self) -> None:
        """Read the list again, and keep the choice."""
        self._listing.read()

    def choose(self, path: Path | None) -> None:
        """Read the list again, and then choose a run or model if it is in the list."""
        self._wanted = path
        self.refresh()

    def _show_runs(self, listing: Listing) -> None:
        self.folder.setText(str(listing.folder))
        self._runs = listing.runs
        self.list.blockSignals(True)
        self.list.clear()
        for run in self._runs:
            self.list.addTopLevelItem(_item(run))
        paths = [run.path for run in self._runs]
        wanted = self._wanted
        chosen = self.list.topLevelItem(paths.index(wanted)) if wanted in paths else None
        self.list.setCurrentItem(chosen)
        self.list.blockSignals(False)
        self._show_chosen()

    def _take_choice(self) -> None:
        self._wanted = self.path()
        self._show_chosen()

    def run(self) -> RunSummary | None:
        """Return the chosen run or model."""
        row = self.list.indexOfTopLevelItem(self.list.currentItem())
        return self._runs[row] if 0 <= row < len(self._runs) else None

    def path(self) -> Path | None:
        """Return the folder or file of the chosen run or model."""
        run = self.run()
        return None if run is None else run.path

    def _show_chosen(self) -> None:
        run = self.run()
        self.card.show_run(run)
        self._enable_buttons()
        self._log.stop()
        self.curves.clear()
        self.curves.setVisible(False)
        if run is not None and run.path.is_dir():
            path = run.path
            self._log.run(lambda: _read_log(path))

    def _enable_buttons(self) -> None:
        run, is_free = self.run(), not self._change.is_running
        for button in self._of_chosen:
            button.setEnabled(run is not None and is_free)
        self.export_button.setEnabled(run is not None and run.problem is None and is_free)
        self.change_button.setEnabled(is_free)

    def _draw(self, log: _Log) -> None:
        names = {"step": "training", "validation": "validation"}
        for line in log.lines:
            if line["event"] in names:
                self.curves.add(line["step"], {names[line["event"]]: line["loss"]})
        self.curves.setVisible(bool(log.lines))

    def _fail(self, error: Exception) -> None:
        self.messages.add(in_words(error), "error")

    def _ask_for_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(
            self, "Folder for runs and models", str(load_preferences().runs)
        )
        if name:
            self._do(lambda: remember(runs=Path(name)))

    def _limit(self) -> None:
        """Remember how much may be kept for painting, and delete what is more."""
        limits = self.limits.values()
        self._limiting.run(lambda: _limit(limits))

    def _ask_for_name(self) -> None:
        run = self.run()
        if run is None:
            return
        name, agreed = QInputDialog.getText(self, "Rename", "New name", text=run.name)
        if agreed:
            self._do(lambda: rename_run(run.path, name))

    def _ask_to_delete(self) -> None:
        run = self.run()
        if run is None:
            return
        what = "the model file" if run.path.is_file() else "the run with its models and pictures"
        answer = QMessageBox.question(
            self, "Delete", f"Delete {what}\n{run.path}\nfor good? This cannot be undone."
        )
        if answer == QMessageBox.StandardButton.Yes:
            self._do(lambda: delete_run(run.path))

    def _open_folder(self) -> None:
        run = self.run()
        if run is not None:
            folder = run.path if run.path.is_dir() else run.path.parent
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))

    def _ask_where(self) -> None:
        run = self.run()
        if run is None:
            return
        name, kind = QFileDialog.getSaveFileName(
            self, "Export the model", f"{run.name}.safetensors", f"{_MODELS};;{_PACKAGES}"
        )
        if name:
            # The file dialog has asked whether to replace an existing file.
            target = Path(name)
            if not target.suffix:
                target = target.with_suffix(".zip" if kind == _PACKAGES else ".safetensors")
            if target.suffix == ".zip":
                self._ask_for_terms(run.path, target)
                return
            self._do(lambda: export_model(run.path, target, overwrite=True))

    def _ask_for_terms(self, model: Path, target: Path) -> None:
        """Export a package for other programs, in a dialog."""
        self.messages.clear()
        dialog = PackageDialog(model, target, self)
        if dialog.exec():
            self.messages.add(f"exported as {target}")
        dialog.deleteLater()

    def _do(self, change: Callable[[], object]) -> None:
        """Change something on disk in the background, then refresh the list."""
        self.messages.clear()
        self._change.run(lambda: _do(change))
        self._enable_buttons()

    def _take_change(self, changed: _Changed) -> None:
        self._wanted = changed.path

    def _end_change(self) -> None:
        self._enable_buttons()
        self.refresh()

    def _ask_for_checkpoint(self) -> None:
        dialog = ImportDialog(load_preferences().runs, self)
        if dialog.exec():
            self.import_file(*dialog.chosen())
        dialog.deleteLater()

    def import_file(self, checkpoint: Path, out: Path, task: str) -> None:
        """Convert a checkpoint of the paper's own program to a model file, in the background."""
        self.messages.clear()
        self.messages.add(f"importing {checkpoint.name} ...")
        self.import_button.setEnabled(False)
        self._importing = out
        self._import.run(lambda: _import(checkpoint, out, task))

    def _end_import(self) -> None:
        self.import_button.setEnabled(True)
        failed = [text for level, text in self.messages.texts if level == "error"]
        if not failed:
            self.messages.clear()
            self.messages.add(f"imported as {self._importing}")
        self.choose(self._importing)


def _button(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    return button


def _item(run: RunSummary) -> QTreeWidgetItem:
    score = "" if run.mean_iou is None else f"{run.mean_iou:.3f}"
    date = f"{run.created.astimezone():%y-%m-%d}"
    item = QTreeWidgetItem([run.name, run.kind, _state(run), score, date])
    item.setToolTip(0, str(run.path))
    item.setToolTip(_DATE, f"{run.created.astimezone():%Y-%m-%d %H:%M}")
    return item


def _state(run: RunSummary) -> str:
    """Return a short text for a narrow column; the card says more."""
    if run.problem is not None:
        return "cannot be used"
    return "finished" if run.finished else f"step {run.steps}"


def _do(change: Callable[[], object]) -> Generator[Event, None, None]:
    path = change()
    yield _Changed(path if isinstance(path, Path) else None)


def _limit(limits: dict[str, Any]) -> Generator[Event, None, None]:
    remember(**limits)
    kept_features().tidy()
    yield from ()


def _read_log(path: Path) -> Generator[Event, None, None]:
    from napari_affmae.engine import read_metrics

    with loading():
        load_plots()
    yield _Log(read_metrics(path))


def _import(checkpoint: Path, out: Path, task: Any) -> Generator[Event, None, None]:
    from napari_affmae.engine import import_checkpoint

    import_checkpoint(checkpoint, out, task)
    yield from ()
