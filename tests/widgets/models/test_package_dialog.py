"""Packages for other programs, through the dialog."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bioimageio.spec
import pytest
from qtpy.QtWidgets import QDialog, QWidget

from napari_affmae.widgets.models.package_dialog import PackageDialog


@pytest.fixture
def dialog(model: Path, tmp_path: Path, qtbot: Any) -> Iterator[PackageDialog]:
    parent = QWidget()
    qtbot.addWidget(parent)
    dialog = PackageDialog(model, tmp_path / "package.zip", parent)
    dialog.graphs.setChecked(False)
    dialog.show()
    yield dialog
    dialog.reject()


@pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning"
)  # the library leaves the files open that it checks
def test_a_package_is_exported_with_authors_and_licence(
    dialog: PackageDialog, tmp_path: Path, qtbot: Any
) -> None:
    dialog.authors.setText("Ada, Grace ,")
    dialog.license.setCurrentText("CC0-1.0")
    with qtbot.waitSignal(dialog.accepted, timeout=120_000):
        dialog.ok_button.click()
        assert not dialog.ok_button.isEnabled()
    described = bioimageio.spec.load_model_description(
        tmp_path / "package.zip", format_version="latest"
    )
    assert [author.name for author in described.authors] == ["Ada", "Grace"]
    assert described.license == "CC0-1.0"


def test_what_is_wrong_is_told_and_can_be_corrected(
    dialog: PackageDialog, tmp_path: Path, qtbot: Any
) -> None:
    dialog.license.setCurrentText("mine")
    dialog.ok_button.click()
    qtbot.waitUntil(lambda: "SPDX" in dialog.state.text(), timeout=120_000)
    assert dialog.isVisible()
    dialog.license.setCurrentText("")
    with qtbot.waitSignal(dialog.accepted, timeout=120_000):
        dialog.ok_button.click()
    assert zipfile.is_zipfile(tmp_path / "package.zip")


def test_cancelling_leaves_no_package(dialog: PackageDialog, tmp_path: Path, qtbot: Any) -> None:
    dialog.ok_button.click()
    qtbot.waitUntil(lambda: dialog.state.text().endswith("..."), timeout=120_000)
    worker = dialog._job._worker
    assert worker is not None
    with qtbot.waitSignal(worker.finished, timeout=120_000):
        dialog.cancel_button.click()
    assert dialog.result() == QDialog.DialogCode.Rejected
    assert not (tmp_path / "package.zip").exists()
