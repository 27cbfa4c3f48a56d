from pathlib import Path

from napari_affmae.widgets.parts import preferences


def test_what_cannot_be_read_gives_the_defaults(runs: Path) -> None:
    file = preferences.preferences_file()
    file.unlink()
    file.mkdir()  # no one can read this, whatever rights they have
    assert preferences.load_preferences().forms == {}
