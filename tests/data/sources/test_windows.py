import h5py
import numpy as np
import pytest

from napari_affmae.config import NormalizationConfig
from napari_affmae.data import NormalizationRecord, normalize_sources, open_source, window
from napari_affmae.errors import UnreadableFileError


@pytest.fixture
def source(stack):
    return open_source(stack, axes="ZYX", name="stack", pixel_size=(4.0, 5.0))


def read_all(source):
    return np.stack([source.read(plane) for plane in range(source.n_planes)])


@pytest.mark.parametrize(
    ("planes", "rows", "columns"),
    [
        (None, None, None),
        (slice(1, 4), slice(3, 30), None),
        (slice(None, None, -2), None, slice(-10, None)),
        ([4, 0, 0], slice(0, 3), slice(50, 99)),
    ],
)
def test_a_window_is_a_part_of_the_array(source, stack, planes, rows, columns):
    expected = stack if planes is None else stack[planes]
    expected = expected[:, rows or slice(None), columns or slice(None)]
    part = window(source, planes=planes, rows=rows, columns=columns)
    np.testing.assert_array_equal(read_all(part)[:, 0], expected)
    assert (part.n_planes, part.height, part.width) == expected.shape
    np.testing.assert_array_equal(
        part.read(part.n_planes - 1, slice(0, 9), slice(1, 9))[0], expected[-1, :9, 1:9]
    )


def test_a_window_keeps_what_is_known_of_the_source(source):
    part = window(source, rows=slice(3, 9))
    assert (part.name, part.pixel_size, part.dtype) == ("stack", (4.0, 5.0), np.uint8)
    assert part.whole is source


def test_a_window_of_a_window(source, stack):
    part = window(
        window(source, planes=[3, 1, 2], rows=slice(5, 35), columns=slice(10, 50)),
        planes=slice(1, 3),
        rows=slice(2, 12),
        columns=slice(1, 9),
    )
    np.testing.assert_array_equal(read_all(part)[:, 0], stack[1:3, 7:17, 11:19])
    assert part.whole is source
    assert part.locate(1, slice(0, 2), slice(3, 4)) == (2, slice(7, 9), slice(14, 15))


def test_channels_and_axes_of_planes_stay():
    pixels = np.random.default_rng(0).integers(0, 99, (2, 3, 4, 20, 30)).astype(np.uint16)
    source = open_source(pixels, axes="TZCYX", name="colour", channels=[2, 0])
    part = window(source, columns=slice(5, 25))
    assert (part.plane_shape, part.n_channels) == ((2, 3), 2)
    np.testing.assert_array_equal(part.read(4), pixels[1, 1][[2, 0]][:, :, 5:25])
    single = window(open_source(pixels[0, 0, 0], axes="YX", name="flat"), rows=slice(0, 3))
    assert single.plane_shape == ()
    np.testing.assert_array_equal(single.read(0)[0], pixels[0, 0, 0, :3])


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    path = tmp_path / "stack.h5"
    with h5py.File(path, "w") as file:
        file["raw"] = np.zeros((2, 90, 90), np.uint8)
    with open_source(path) as source:
        part = window(source, rows=slice(10, 20))
        assert part.path == path
    path.write_bytes(b"no longer a file")
    with pytest.raises(UnreadableFileError, match=r"stack\.h5"):
        part.read(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"planes": []}, "no plane of stack is chosen"),
        ({"planes": slice(5, 9)}, "no plane of stack is chosen"),
        ({"planes": [0, 5]}, "planes 0 to 4, asked for 5"),
        ({"planes": [-1]}, "asked for -1"),
        ({"rows": slice(40, 50)}, "holds no rows of stack, which has 40"),
        ({"columns": slice(9, 3)}, "holds no columns"),
        ({"rows": slice(0, 9, 2)}, "step 1"),
    ],
)
def test_windows_that_are_refused(source, arguments, message):
    with pytest.raises(ValueError, match=message):
        window(source, **arguments)


def test_planes_that_a_window_lacks(source):
    with pytest.raises(IndexError, match="planes 0 to 1, asked for 2"):
        window(source, planes=[0, 3]).read(2)


@pytest.mark.parametrize("clahe", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_a_window_is_normalised_as_the_whole(clahe, known):
    """Up to its border, where CLAHE looks beyond it, and whether the model knows the source."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(np.linspace(60, 180, 300)[:, None], 20, (2, 300, 320)).clip(0, 255)
    source = open_source(pixels.astype(np.uint8), axes="ZYX", name="slope")
    config = NormalizationConfig(clahe=clahe)
    (whole,) = normalize_sources([source], config)
    stored = None
    if known:  # other numbers than a new fit would give
        changed = whole.statistics.model_copy(update={"mean": (0.25,), "std": (2.0,)})
        stored = NormalizationRecord(config=config, statistics={source.fingerprint(): changed})
        (whole,) = normalize_sources([source], config, stored)
    part = window(source, planes=[1], rows=slice(200, 290), columns=slice(7, 130))
    (ours,) = normalize_sources([part], config, stored)
    np.testing.assert_array_equal(ours.read(0), whole.read(1, slice(200, 290), slice(7, 130)))
    inner = ours.read(0, slice(80, 99), slice(0, 20))
    np.testing.assert_array_equal(inner, whole.read(1, slice(280, 290), slice(7, 27)))


def test_a_model_that_learned_from_a_window_knows_the_whole(source):
    part = normalize_sources([window(source, rows=slice(0, 20))], NormalizationConfig())
    record = NormalizationRecord.of(part)
    assert list(record.statistics) == [source.fingerprint()]
    (whole,) = normalize_sources([source], record.config, record)
    assert whole.statistics == part[0].statistics
