from typing import Any

import pytest
from qtpy.QtCore import QLocale
from qtpy.QtWidgets import QCheckBox, QComboBox, QLabel, QLineEdit, QSpinBox

from napari_affmae.config import PretrainConfig, SegmentConfig
from napari_affmae.widgets.parts.forms import SettingsForm
from napari_affmae.widgets.parts.length import LengthEdit

BASIC = ("preset", "crop", "mask_ratio", "batch")
ADVANCED = ("learning_rate", "clip", "normalization", "augmentation")


@pytest.fixture
def form(qtbot: Any) -> SettingsForm[PretrainConfig]:
    form = SettingsForm(PretrainConfig, basic=BASIC, advanced=ADVANCED)
    qtbot.addWidget(form)
    return form


def test_an_untouched_form_gives_the_defaults(form: SettingsForm[PretrainConfig]) -> None:
    assert form.build(steps=10) == PretrainConfig(steps=10)


def test_controls_follow_the_fields(form: SettingsForm[PretrainConfig]) -> None:
    crop, batch = form.control("crop"), form.control("batch")
    assert isinstance(crop, QSpinBox)
    assert crop.minimum() == 64
    assert crop.toolTip() == PretrainConfig.model_fields["crop"].description
    assert isinstance(batch, QSpinBox)
    assert batch.text() == "auto"
    assert isinstance(form.control("preset"), QComboBox)
    assert isinstance(form.control("normalization.clahe"), QCheckBox)
    assert isinstance(form.control("learning_rate"), QLineEdit)


def test_what_is_entered_is_built(form: SettingsForm[PretrainConfig], qtbot: Any) -> None:
    with qtbot.waitSignal(form.changed):
        form.control("crop").setValue(128)
    form.control("batch").setValue(4)
    form.control("preset").setCurrentText("small")
    form.control("learning_rate").setText("2.5e-4")
    form.control("normalization.clahe").setChecked(True)
    config = form.build(minutes=5)
    assert (config.crop, config.batch, config.preset) == (128, 4, "small")
    assert config.learning_rate == 2.5e-4
    assert config.normalization.clahe
    # A group's other fields keep the owner's defaults, not the group's.
    assert config.augmentation == PretrainConfig(steps=1).augmentation


def test_values_come_back(form: SettingsForm[PretrainConfig]) -> None:
    config = PretrainConfig(steps=1, crop=192, batch=2, clip=0.25)
    form.set_values(config.model_dump() | {"gone": 1})
    assert form.build(steps=1) == config
    form.set_values({"batch": "auto"})
    assert form.build(steps=1).batch == "auto"


def test_what_differs_from_the_defaults_is_marked_and_reset(
    form: SettingsForm[PretrainConfig], qtbot: Any
) -> None:
    form.show()
    label = next(one for one in form.findChildren(QLabel) if one.text() == "Square size (crop)")
    assert label.toolTip() == PretrainConfig.model_fields["crop"].description
    assert form.reset_button.isHidden()
    form.control("crop").setValue(128)
    form.control("normalization.clahe").setChecked(True)
    assert label.font().bold()
    assert form.control("normalization.clahe").font().bold()
    assert form.differing() == [("crop",), ("normalization", "clahe")]
    assert form.reset_button.isVisible()
    with qtbot.waitSignal(form.changed):
        form.reset_button.click()
    assert form.build(steps=1) == PretrainConfig(steps=1)
    assert not label.font().bold()
    assert form.reset_button.isHidden()


def test_only_how_the_computer_is_used_lasts(qtbot: Any) -> None:
    form = SettingsForm(PretrainConfig, basic=("crop", "device"), advanced=("memory_share",))
    qtbot.addWidget(form)
    form.recall({"crop": 64, "device": "cpu", "memory_share": 0.1, "gone": 1})
    expected = {"device": "cpu", "memory_share": 0.1}
    assert form.build(steps=1) == PretrainConfig(steps=1, **expected)
    assert form.lasting() == expected


def test_errors_name_the_field(form: SettingsForm[PretrainConfig]) -> None:
    form.control("learning_rate").setText("0.")
    form.control("clip").clear()
    with pytest.raises(ValueError, match=r"Learning rate: .*\nLargest change \(gradient clip\): "):
        form.build(steps=1)
    with pytest.raises(ValueError, match="either steps or minutes"):
        SettingsForm(PretrainConfig, basic=BASIC).build()


def test_errors_name_the_field_of_a_group(form: SettingsForm[PretrainConfig]) -> None:
    form.control("normalization.low").setText("60")
    with pytest.raises(ValueError, match="Low percentile: "):
        form.build(steps=1)


def test_what_was_left_half_typed_is_skipped(
    form: SettingsForm[PretrainConfig], qtbot: Any
) -> None:
    form.control("learning_rate").setText("1e")
    form.control("clip").setText("0.25")
    form.control("crop").setValue(128)
    other = SettingsForm(PretrainConfig, basic=BASIC, advanced=ADVANCED)
    qtbot.addWidget(other)
    other.set_values(form.values() | {"mask_ratio": "abc", "batch": "many"})
    assert other.build(steps=1) == PretrainConfig(steps=1, crop=128, clip=0.25)


def test_numbers_have_a_point_whatever_the_locale(qtbot: Any) -> None:
    before = QLocale()
    QLocale.setDefault(QLocale("de_DE"))
    try:
        form = SettingsForm(PretrainConfig, basic=("mask_ratio",))
        qtbot.addWidget(form)
        control = form.control("mask_ratio")
        assert control.text() == "0.5"
        for typed in ("0.6", "0,6"):
            control.clear()
            qtbot.keyClicks(control, typed)
            assert form.build(steps=1).mask_ratio == 0.6
    finally:
        QLocale.setDefault(before)


def test_a_whole_number_can_be_typed(form: SettingsForm[PretrainConfig], qtbot: Any) -> None:
    control = form.control("crop")
    assert control.minimum() > 12
    control.selectAll()
    qtbot.keyClicks(control, "128")
    assert form.build(steps=1).crop == 128


def test_other_devices_than_those_suggested_can_be_typed(qtbot: Any) -> None:
    form = SettingsForm(SegmentConfig, basic=("device",))
    qtbot.addWidget(form)
    form.control("device").clearEditText()
    with qtbot.waitSignal(form.changed):
        qtbot.keyClicks(form.control("device"), "cuda:3")
    assert form.build().device == "cuda:3"
    form.set_values({"device": "cpu"})
    assert form.build().device == "cpu"


def test_words_are_no_numbers(form: SettingsForm[PretrainConfig]) -> None:
    form.control("mask_ratio").setText("half")
    with pytest.raises(ValueError, match=r"mask ratio\): .*number"):
        form.build(steps=1)


@pytest.mark.parametrize(
    ("steps", "minutes"), [(250, None), (None, 5.5), (None, 180), (None, 90.25), (None, 5 / 3)]
)
def test_lengths_come_back(qtbot: Any, steps: int | None, minutes: float | None) -> None:
    edit = LengthEdit(60, "minutes")
    qtbot.addWidget(edit)
    edit.set_values(steps, minutes)
    assert edit.values() == {"steps": steps, "minutes": minutes}


def test_there_is_no_run_of_no_steps(qtbot: Any) -> None:
    edit = LengthEdit(0.1, "minutes")
    qtbot.addWidget(edit)
    edit.unit.setCurrentText("steps")
    assert edit.values() == {"steps": 1, "minutes": None}
