from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_affmae.data import looking
from napari_affmae.engine.events import FilesLookedAt, Notice
from napari_affmae.widgets.pretrain.selection import Selection
from napari_affmae.widgets.pretrain.source_list import SourceList


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (3, 96, 100), dtype=np.uint8)


@pytest.fixture
def sources(viewer: Any, qtbot: Any) -> SourceList:
    sources = SourceList(viewer)
    qtbot.addWidget(sources)
    return sources


def test_layers_are_offered_and_followed(viewer: Any, sources: SourceList, image: Any) -> None:
    layer = viewer.add_image(image, name="stack")
    viewer.add_labels(image, name="labels")
    viewer.add_image(image, name="a preview", metadata={"napari-affmae": "shown"})
    items = sources._list
    assert [items.item(row).text() for row in range(items.count())] == ["stack"]
    layer.name = "renamed"
    assert items.item(0).text() == "renamed"
    # The first image is chosen, others are offered.
    other = viewer.add_image(image, name="other")
    assert [source.name for source in sources.selection().layers] == ["renamed"]
    sources.check_layer(layer, checked=False)
    assert not sources.selection()
    sources.check_layer(layer)
    assert items.item(0).toolTip() == "renamed"
    viewer.layers.remove(other)
    viewer.layers.remove(layer)
    assert items.count() == 0
    assert not sources.selection()


def test_a_closed_list_hears_nothing_more(viewer: Any, qtbot: Any) -> None:
    events = viewer.layers.events
    emitters = (events.inserted, events.removed, events.renamed)
    before = [len(emitter.callbacks) for emitter in emitters]
    sources = SourceList(viewer)
    gone: list[bool] = []
    # Not by `waitSignal`: it disconnects what is gone, which PySide does not allow.
    sources.destroyed.connect(lambda: gone.append(True))
    sources.deleteLater()
    qtbot.waitUntil(lambda: bool(gone))
    assert [len(emitter.callbacks) for emitter in emitters] == before


def test_the_choice_is_summed_up(
    viewer: Any, sources: SourceList, image: Any, tmp_path: Path, qtbot: Any
) -> None:
    layer = viewer.add_image(image, name="stack", scale=(30, 4, 4), units="nm")
    tifffile.imwrite(tmp_path / "plane.tif", image[0].astype(np.uint16))
    (tmp_path / "cut.tif").write_bytes(b"II*\0")
    sources.check_layer(layer)
    with qtbot.waitSignal(sources.summarized, timeout=30_000) as summarized:
        sources.add_paths([tmp_path])
    assert sources.summary.text() == summarized.args[0].text
    assert sources.summary.text().startswith("2 images, 4 planes of 96 x 100 px")
    assert "uint16, uint8" in sources.summary.text()
    assert "4 nm" in sources.summary.text()
    assert any("cut.tif" in text for _, text in sources.messages.texts)


def test_findings_are_shown(viewer: Any, sources: SourceList, qtbot: Any) -> None:
    sources.check_layer(viewer.add_image(np.zeros((96, 96), np.uint8), name="blank"))
    qtbot.waitUntil(lambda: bool(sources.messages.texts), timeout=30_000)
    assert any("blank" in text for _, text in sources.messages.texts)


def test_channels_can_be_chosen(viewer: Any, sources: SourceList, qtbot: Any) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    with qtbot.waitSignal(sources.summarized, timeout=30_000) as summarized:
        sources.check_layer(viewer.add_image(rgb, rgb=True))
    assert summarized.args[0].channels == 3
    assert not sources.channels.isHidden()
    sources.channels.edit.setText("1")
    with qtbot.waitSignal(sources.summarized, timeout=30_000) as summarized:
        sources.channels.edit.editingFinished.emit()
    assert summarized.args[0].channels == 1
    sources.channels.edit.setText("red")
    with pytest.raises(ValueError, match="numbers from 0 on"):
        sources.selection()


def test_a_path_that_is_gone_is_an_error_in_the_dock(
    sources: SourceList, tmp_path: Path, qtbot: Any
) -> None:
    sources.add_paths([tmp_path / "gone.tif"])
    qtbot.waitUntil(lambda: bool(sources.messages.texts), timeout=30_000)
    ((level, text),) = sources.messages.texts
    assert level == "error"
    assert "gone.tif does not exist" in text


def test_a_long_search_is_counted_and_ends_when_others_are_chosen(
    sources: SourceList, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "_FIRST_SECONDS", 0.0)
    monkeypatch.setattr(looking, "_SECONDS", 0.0)
    told: list[str] = []
    monkeypatch.setattr(sources.summary, "setText", told.append)
    for number in range(30):
        tifffile.imwrite(tmp_path / f"{number:02}.tif", np.eye(70, dtype=np.uint8))
    sources.add_paths([tmp_path])
    qtbot.waitUntil(lambda: any("30 so far" in text for text in told), timeout=20_000)
    assert any("1 so far" in text for text in told)
    search = selection_of(tmp_path).open()
    assert next(search) == FilesLookedAt(1)
    search.close()


def test_of_many_files_that_are_left_out_some_are_named(tmp_path: Path) -> None:
    for number in range(25):
        (tmp_path / f"{number:02}.tif").write_bytes(b"no image")
    tifffile.imwrite(tmp_path / "whole.tif", np.eye(70, dtype=np.uint8))
    notices = [event for event in selection_of(tmp_path).open() if isinstance(event, Notice)]
    assert len(notices) == 22
    assert notices[-2].message == "left out: 5 more files and folders"
    assert notices[-1].message == "files of other kinds: 1 .json (preferences.json)"


def selection_of(folder: Path) -> Selection:
    return Selection(paths=(folder,))
