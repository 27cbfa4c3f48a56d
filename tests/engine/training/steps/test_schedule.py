import pytest

from napari_affmae.config import PretrainConfig
from napari_affmae.engine.compute.timing import Pace, Spacing, Stopwatch
from napari_affmae.engine.store.run_length import Length
from napari_affmae.engine.training.steps.schedule import learning_rate


def test_warm_up_is_linear_and_the_rest_a_cosine():
    def rate(progress):
        return learning_rate(progress, peak=1.0, final=0.1, warmup=0.2)

    assert rate(0) == pytest.approx(0.1)
    assert rate(0.1) == pytest.approx(0.55)
    assert rate(0.2) == pytest.approx(1.0)
    assert rate(0.6) == pytest.approx(0.55)
    assert rate(1) == pytest.approx(0.1)
    values = [rate(0.2 + 0.8 * step / 50) for step in range(51)]
    assert values == sorted(values, reverse=True)


def test_without_warm_up_it_starts_at_the_peak():
    assert learning_rate(0, 1.0, 0.0, 0.0) == 1.0


def test_a_run_by_steps():
    length = Length.of(PretrainConfig(steps=10))
    assert length.progress(10, 1e9) == 1
    assert length.progress(5, 0) == 0.5
    assert not length.over(9, 1e9)
    assert length.over(10, 0)
    assert length.total_steps(3, 0, None) == 10
    assert length.seconds_left(4, 0, 2.0) == 12
    assert length.seconds_left(4, 0, None) is None


def test_a_run_by_time():
    length = Length.of(PretrainConfig(minutes=2))
    assert length.progress(99, 30) == 0.25
    assert length.progress(99, 300) == 1
    assert not length.over(10**6, 119)
    assert length.over(1, 120)
    assert length.total_steps(10, 60, 6.0) == 20
    assert length.total_steps(0, 0, None) is None
    assert length.seconds_left(10, 50, None) == 70


def test_the_first_step_is_left_out_when_there_are_others():
    meter = Pace()
    assert meter.seconds_per_step is None
    meter.add(100)
    assert meter.seconds_per_step == 100
    meter.add(2)
    assert meter.seconds_per_step == pytest.approx(2)
    for _ in range(200):
        meter.add(4)
    assert meter.seconds_per_step == pytest.approx(4, rel=1e-3)


def test_one_slow_step_does_not_rule_the_estimate():
    meter = Pace()
    for seconds in [1.0] * 50 + [10.0]:
        meter.add(seconds)
    assert meter.seconds_per_step < 2


def test_a_stopped_watch_stands(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("napari_affmae.engine.compute.timing.perf_counter", lambda: now[0])
    watch = Stopwatch(10)
    watch.start()
    now[0] = 3
    assert watch.elapsed == 13
    watch.stop()
    now[0] = 100
    assert watch.elapsed == 13
    watch.start()
    now[0] = 101
    assert watch.elapsed == 14


def test_what_costs_time_is_spaced_by_its_share_of_it():
    spacing = Spacing(10.0, 0.01, growth=0.1)
    assert spacing.is_due(0.0)
    spacing.done(0.0, 0.05)
    assert not spacing.is_due(9.9)
    assert spacing.is_due(10.0)
    spacing.done(10.0, 2.0)
    assert not spacing.is_due(209.0)
    assert spacing.is_due(210.0)
    spacing.done(10_000.0, 2.0)
    assert not spacing.is_due(10_999.0)
    assert spacing.is_due(11_000.0)


def test_what_was_done_once_only_does_not_put_off_the_second_time():
    spacing = Spacing(10.0, 0.01)
    spacing.wait(5.0)
    assert not spacing.is_due(14.9)
    assert spacing.is_due(15.0)
    spacing.done(20.0, 4.0)
    assert not spacing.is_due(59.0)
    assert spacing.is_due(60.0)
    spacing.done(60.0, 4.0)
    assert not spacing.is_due(459.0)
    assert spacing.is_due(460.0)
