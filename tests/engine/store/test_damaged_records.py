"""Random damages to records; ``benchmarks/reliability`` makes as many more as are asked for."""

from pathlib import Path

import pytest
from reliability.records import hunt


def test_damaged_records_give_values_or_documented_errors(
    finetuned: tuple[Path, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert hunt(finetuned[0], 40) == []
    assert "\x1b" not in capsys.readouterr().out
