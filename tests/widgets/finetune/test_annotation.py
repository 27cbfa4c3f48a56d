"""Pairs of layers and the table of classes, in the dock that fine-tunes."""

from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtWidgets import QMessageBox

from napari_affmae.data import default_class, default_classes
from napari_affmae.widgets.finetune.dock import FinetuneDock
from napari_affmae.widgets.finetune.painted import Square
from napari_affmae.widgets.layers.label_layers import RESULT, empty_labels, show_classes


class TestPairs:
    def test_first_image_and_fitting_labels_with_classes_are_offered(
        self, viewer: Any, image: Any, qtbot: Any
    ) -> None:
        viewer.add_labels(np.zeros((4, 128, 160), np.uint8), name="anything")
        for shape in ((4, 128, 128), (4, 128, 160)):
            fitting = viewer.add_labels(np.zeros(shape, np.uint8))
            show_classes(fitting, default_classes([1, 2]))

        dock = FinetuneDock(viewer)
        qtbot.addWidget(dock)

        assert dock.pairs.pairs() == [(image, fitting)]

    def test_an_image_that_is_opened_later_is_offered(
        self, viewer: Any, volume: tuple[np.ndarray, np.ndarray], qtbot: Any
    ) -> None:
        dock = FinetuneDock(viewer)
        qtbot.addWidget(dock)
        image = viewer.add_image(volume[0])
        dock.pairs.new_button.click()
        assert [pair[0] for pair in dock.pairs.pairs()] == [image]

    def test_labels_opened_later_are_offered_under_the_names_of_their_images(
        self, viewer: Any, image: Any, qtbot: Any
    ) -> None:
        dock = FinetuneDock(viewer)
        qtbot.addWidget(dock)
        other = viewer.add_image(image.data, name="other")
        dock.pairs.add_button.click()
        result = self.open(viewer, image, "em: classes", metadata=RESULT)
        theirs = [self.open(viewer, image, f"{one.name} labels") for one in (other, image)]
        assert dock.pairs.pairs() == [(image, theirs[1]), (other, theirs[0])]

        viewer.layers.remove(theirs[1])
        dock.pairs.table.cellWidget(1, 1).setCurrentIndex(0)
        assert dock.pairs.pairs() == []
        nameless = self.open(viewer, image, "strokes")
        assert dock.pairs.pairs() == [(image, nameless)]
        for row in (0, 1):
            combo = dock.pairs.table.cellWidget(row, 1)
            combo.setCurrentIndex(combo.findText(result.name))
        with pytest.raises(ValueError, match="'em: classes' are chosen for two images"):
            dock.pairs.check()

    def open(self, viewer: Any, image: Any, name: str, **others: Any) -> Labels:
        """Open labels with classes, as samples come."""
        layer = Labels(np.zeros(image.data.shape, np.uint8), name=name, **others)
        show_classes(layer, default_classes([1, 2]))
        return viewer.add_layer(layer)

    def test_an_incomplete_pair_that_is_removed_holds_up_no_training(
        self, dock: FinetuneDock, viewer: Any, labels: Any, qtbot: Any
    ) -> None:
        dock.pairs.add_button.click()
        dock.quick.predict_button.setChecked(True)
        assert "Pair 2 is empty" in dock.quick.status.text()
        dock.pairs.remove_button.click()
        qtbot.waitUntil(lambda: "Nothing is painted" in dock.quick.status.text())

    def test_only_what_is_chosen_is_dressed_and_measures_stay(
        self, dock: FinetuneDock, viewer: Any, image: Any
    ) -> None:
        measured = viewer.add_labels(
            np.zeros(image.data.shape, np.uint8), features={"index": [2, 7], "area": [5.0, 6.0]}
        )
        viewer.add_points(np.zeros((1, 3)))
        assert not dock.pairs.pairs()
        assert list(measured.features) == ["index", "area"]

        dock.pairs.set_pair(image, measured)
        dock.classes.choose(1)
        dock.classes.remove_button.click()

        table = measured.features.set_index("index")
        assert table["area"].to_dict() == {2: 5, 7: 6}
        assert table["class"].dropna().to_dict() == {2: "structure"}

    def test_follow_names_and_removal(self, dock: FinetuneDock, viewer: Any, labels: Any) -> None:
        labels.name = "membranes"
        combo = dock.pairs.table.cellWidget(0, 1)
        assert combo.currentText() == "membranes"
        viewer.layers.move(viewer.layers.index(labels), 0)
        assert combo.currentText() == "membranes"

        viewer.layers.remove(labels)

        assert not dock.pairs.pairs()
        with pytest.raises(ValueError, match="'em' has no labels"):
            dock.pairs.check()

    def test_new_labels_lie_on_their_image_ready_to_be_painted(
        self, viewer: Any, image: Any, labels: Any
    ) -> None:
        assert labels.data.shape == image.data.shape
        assert labels.data.dtype == np.uint8
        np.testing.assert_array_equal(labels.extent.world, image.extent.world)
        assert labels.units == image.units
        assert labels.mode == "paint"
        assert labels.n_edit_dimensions == 2
        assert labels.selected_label == 1
        assert viewer.layers.selection.active is labels

    def test_a_second_pair_and_its_removal(
        self, dock: FinetuneDock, viewer: Any, labels: Any
    ) -> None:
        flat = viewer.add_image(np.zeros((64, 64)), name="flat")
        dock.pairs.add_button.click()
        dock.pairs.new_button.click()
        assert [image.name for image, _ in dock.pairs.pairs()] == ["em", "flat"]

        dock.pairs.table.selectRow(0)
        dock.pairs.remove_button.click()

        assert [image for image, _ in dock.pairs.pairs()] == [flat]
        assert labels in viewer.layers

    def test_huge_images_get_labels_that_take_no_memory(self) -> None:
        labels = Labels(empty_labels((100, 20_000, 20_000)))
        labels.n_edit_dimensions = 2
        labels.paint((50, 10_000, 300), 3)
        assert labels.data[50, 10_000, 300] == 3


class TestClasses:
    def test_names_and_colours_go_to_the_layer(self, dock: FinetuneDock, labels: Any) -> None:
        dock.classes.add_button.click()
        dock.classes.table.item(1, 1).setText("membrane")
        dock.classes.set_color(2, "#ff8000")

        assert [item.name for item in dock.annotation.classes()][1] == "membrane"
        assert list(labels.features["class"])[1] == "membrane"
        np.testing.assert_allclose(labels.get_color(2)[:3], (1, 128 / 255, 0), atol=1e-3)
        assert labels.selected_label == 3

    def test_two_classes_of_one_name_are_refused(self, dock: FinetuneDock) -> None:
        """Scores are told by name."""
        dock.classes.table.item(1, 1).setText("background")
        assert "'structure' keeps its name" in dock.quick.messages.texts[0][1]
        assert [item.name for item in dock.classes.classes()] == ["background", "structure"]
        dock.classes.set_classes(
            [item.model_copy(update={"name": "one"}) for item in dock.classes.classes()],
            ignore_value=0,
        )
        with pytest.raises(ValueError, match=r"^Classes: two classes are named 'one'; give"):
            dock.full.config()

    def test_row_and_brush_follow_each_other(self, dock: FinetuneDock, labels: Any) -> None:
        dock.classes.table.selectRow(1)
        assert labels.selected_label == 2
        labels.selected_label = 1
        assert dock.classes.chosen_value() == 1

    def test_unpainted_can_be_a_class(self, dock: FinetuneDock) -> None:
        dock.classes.zero.setCurrentText("background")
        assert dock.classes.ignore_value is None
        assert [item.value for item in dock.classes.classes()] == [0, 1, 2]
        assert dock.full.config().classes[0].name == "unpainted"
        dock.classes.zero.setCurrentText("unknown")
        assert dock.classes.ignore_value == 0
        assert [item.value for item in dock.classes.classes()] == [1, 2]

    def test_painted_pixels_are_counted_and_undone(
        self, dock: FinetuneDock, labels: Any, qtbot: Any
    ) -> None:
        for place in ((1, 50, 50), (3, 100, 150)):
            labels.paint(place, 2)
        qtbot.waitUntil(lambda: self.shown(dock) == ["0", f"{(labels.data == 2).sum()}"])
        labels.undo()
        qtbot.waitUntil(lambda: self.shown(dock) == ["0", f"{(labels.data == 2).sum()}"])
        assert labels.data.any()

    def test_strokes_from_before_can_be_undone_and_redone(
        self, dock: FinetuneDock, viewer: Any, image: Any, qtbot: Any
    ) -> None:
        labels = viewer.add_labels(np.zeros(image.data.shape, np.uint8))
        labels.paint((1, 20, 20), 1)
        dock.pairs.set_pair(image, labels)
        qtbot.waitUntil(lambda: self.shown(dock) == [f"{labels.data.sum()}", "0"])
        revision = dock.annotation.painted(labels).source.revision(1)
        labels.undo()
        qtbot.waitUntil(lambda: self.shown(dock) == ["0", "0"])
        assert dock.annotation.painted(labels).source.revision(1) > revision
        labels.redo()
        qtbot.waitUntil(lambda: self.shown(dock) == [f"{labels.data.sum()}", "0"])

    def test_only_what_changed_is_counted_again(self, viewer: Any, qtbot: Any) -> None:
        viewer.add_image(np.zeros((600, 600), np.uint8))
        dock = FinetuneDock(viewer)
        qtbot.addWidget(dock)
        dock.pairs.new_button.click()
        ((_, labels),) = dock.pairs.pairs()
        painted = dock.annotation.painted(labels)
        labels.paint((20, 20), 1)
        labels.paint((500, 500), 1)
        qtbot.waitUntil(lambda: len(painted.squares()) == 2 and not painted.pending())
        labels.refresh()
        assert not painted.pending()
        labels.undo()
        assert painted.pending() == {Square(0, 1, 1)}

    def test_labels_bring_their_classes_and_whether_0_is_one(
        self, viewer: Any, image: Any, qtbot: Any
    ) -> None:
        labels = viewer.add_labels(np.zeros(image.data.shape, np.uint8))
        classes = default_classes([0, 1, 4])
        show_classes(labels, classes)
        labels.show_selected_label = True
        dock = FinetuneDock(viewer)
        qtbot.addWidget(dock)
        assert dock.classes.classes() == classes
        assert dock.classes.ignore_value is None

        dock.pairs.new_button.click()

        assert dock.classes.classes() == classes[1:]
        assert dock.classes.ignore_value == 0

    def test_existing_labels_bring_their_values(
        self, viewer: Any, image: Any, volume: tuple[np.ndarray, np.ndarray], qtbot: Any
    ) -> None:
        labels = viewer.add_labels(volume[1], name="truth")
        dock = FinetuneDock(viewer)
        qtbot.addWidget(dock)
        dock.pairs.set_pair(image, labels)

        expected = np.bincount(volume[1].ravel())[1:]
        qtbot.waitUntil(lambda: self.shown(dock) == [f"{count:,}" for count in expected])

    def test_values_of_ready_made_labels_name_no_class_and_go_with_them(
        self, dock: FinetuneDock, viewer: Any, image: Any, qtbot: Any
    ) -> None:
        mask = viewer.add_labels(image.data > 100, name="mask")
        dock.pairs.set_pair(image, mask)
        qtbot.waitUntil(lambda: bool(dock.quick.messages.texts))
        assert "'Unpainted: background'" in dock.quick.messages.texts[0][1]
        assert [item.name for item in dock.classes.classes()] == ["class 1"]
        dock.quick.predict_button.setChecked(True)
        assert "'Unpainted: background'" in dock.quick.status.text()
        dock.quick.switch_off()
        dock.classes.zero.setCurrentText("background")
        assert [item.name for item in dock.classes.classes()] == ["background", "class 1"]
        dock.annotation.check()

        viewer.layers.remove(mask)

        assert [item.name for item in dock.classes.classes()] == ["background", "structure"]
        assert dock.classes.ignore_value == 0

    def test_numbered_objects_are_no_classes_and_said_once(
        self, dock: FinetuneDock, viewer: Any, image: Any, qtbot: Any
    ) -> None:
        data = np.zeros(image.data.shape, np.uint32)
        data[0, :10] = 3
        data[1:] = np.arange(128)[:, None]
        labels = viewer.add_labels(data)
        dock.pairs.set_pair(image, labels)
        qtbot.waitUntil(lambda: bool(dock.quick.messages.texts))
        labels.paint((0, 60, 60), 7)
        qtbot.waitUntil(lambda: not dock.annotation.painted(labels).pending())
        ((_, text),) = dock.quick.messages.texts
        assert "numbered objects" in text
        assert [item.value for item in dock.classes.classes()] == [1, 2]

    def test_a_large_value_costs_no_more_than_a_small_one(self) -> None:
        assert default_class(2**31).name == "class 2147483648"

    def test_removing_a_class_erases_it_and_undo_brings_both_back(
        self, dock: FinetuneDock, labels: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        labels.paint((1, 50, 50), 2)
        labels.paint((0, 20, 20), 1)
        qtbot.waitUntil(lambda: "0" not in self.shown(dock))
        dock.classes.choose(2)
        for answer, left in (("Cancel", [1, 2]), ("Ok", [1])):
            button = QMessageBox.StandardButton[answer]
            monkeypatch.setattr(QMessageBox, "question", lambda *_, button=button: button)
            dock.classes.remove_button.click()
            qtbot.waitUntil(lambda: not dock.annotation.painted(labels).pending())
            assert [item.value for item in dock.classes.classes()] == left
            assert set(np.unique(labels.data)) == {0, *left}

        labels.undo()

        qtbot.waitUntil(lambda: [item.value for item in dock.classes.classes()] == [1, 2])

    def test_other_classes_leave_the_brush(self, dock: FinetuneDock, labels: Any) -> None:
        dock.classes.choose(2)
        dock.classes.set_classes(default_classes([1, 2, 3]), ignore_value=0)
        assert labels.selected_label == 2

    def shown(self, dock: FinetuneDock) -> list[str]:
        table = dock.classes.table
        return [table.item(row, 3).text() for row in range(table.rowCount())]
