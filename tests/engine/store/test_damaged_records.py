"""Random damages to records; the script makes as many more as are asked for."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "damage_records.py"


def test_damaged_records_give_values_or_documented_errors(
    finetuned: tuple[Path, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert runpy.run_path(str(SCRIPT))["hunt"](finetuned[0], 40) == []
    assert "\x1b" not in capsys.readouterr().out
