from collections import Counter

import h5py
import numpy as np
import pytest
import zarr
from PIL import Image, ImageDraw

from napari_affmae.data import checks
from napari_affmae.data.appearance import bar_height
from napari_affmae.data.checks import check_pairs, check_sources
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.labels import default_classes
from napari_affmae.data.sources.layout import Layout
from napari_affmae.data.sources.source import ImageSource
from napari_affmae.data.synthetic import synthetic_em
from napari_affmae.errors import DataError


@pytest.fixture(scope="module")
def volume():
    return synthetic_em((6, 160, 200), seed=0)[0]


def with_bar(plane, height, background=0, text=255):
    """A plane with an information bar drawn over its bottom rows."""
    picture = Image.fromarray(plane.copy())
    draw = ImageDraw.Draw(picture)
    top = picture.height - height
    draw.rectangle([0, top, picture.width, picture.height], fill=background)
    draw.text((10, top + 3), "HV 20 kV  WD 5.1 mm  x 20000", fill=text)
    draw.rectangle([130, top + 6, 190, top + 8], fill=text)
    return np.asarray(picture)


def messages(findings, level=None):
    return [finding.message for finding in findings if level in (None, finding.level)]


def test_nothing_to_say_about_good_images(volume):
    sources = [open_source(volume, name="a"), open_source(volume[:3], name="b")]
    assert check_sources(sources, crop=64, batch=8) == []


def test_constant_planes_are_named(volume):
    stack = volume.copy()
    stack[2], stack[4] = 0, 255
    (finding,) = check_sources([open_source(stack, name="a.tif")])
    assert finding.level == "warning"
    assert finding.source == "a.tif"
    assert "planes 2, 4 with only one value" in finding.message
    (finding,) = check_sources([open_source(np.zeros((64, 64)), name="a.tif")])
    assert finding.level == "error"


@pytest.mark.parametrize("border", [0, 255, np.nan])
def test_borders_are_told_with_their_share(volume, border):
    bordered = volume.astype(np.float32 if np.isnan(border) else np.uint8)
    bordered[:, :, :84] = border
    found = messages(check_sources([open_source(bordered)]), "warning")
    assert any("about 40 % of it is of one value" in message for message in found)
    bordered[:, :, 20:84] = volume[:, :, 20:84]
    found = messages(check_sources([open_source(bordered)]), "warning")
    assert not any("of one value" in message for message in found)


def test_what_is_found_alike_of_several_images_is_one_finding(volume):
    flat = [open_source(np.zeros((64, 64)), name=f"{number}.tif") for number in range(5)]
    (finding,) = check_sources([*flat, open_source(volume)])
    assert finding.sources == tuple(flat)
    assert finding.source == "0.tif, 1.tif, 2.tif and 2 more"
    assert not any(source.name in finding.message for source in flat)
    wrong = [pair for label in (7, 7, 8) for pair in pairs(volume, np.full(volume.shape, label))]
    findings = check_pairs(wrong, classes=default_classes([0, 1]))
    assert [len(item.sources) for item in findings if item.level == "error"] == [2, 1]
    assert "7 (384000 px); add classes for them, or make" in messages(findings, "error")[0]


def test_not_finite_values_are_named(volume):
    stack = volume.astype(np.float32)
    stack[1, 5, 5], stack[3, 2, 2] = np.nan, np.inf
    (finding,) = check_sources([open_source(stack, name="a")])
    assert "NaN or infinite values in planes 1, 3" in finding.message
    stack[:] = np.nan
    (finding,) = check_sources([open_source(stack, name="a")])
    assert (finding.level, finding.source) == ("error", "a")


@pytest.mark.parametrize(
    ("dtype", "largest"), [(np.float16, 6e4), (np.float32, 3e38), (np.float64, 1e308)]
)
def test_extreme_values_are_no_trouble(volume, dtype, largest):
    array = ((volume / 127.5 - 1) * largest).astype(dtype)
    assert check_sources([open_source(array)]) == []


@pytest.mark.parametrize("height", [12, 24, 40])
@pytest.mark.parametrize(("background", "text"), [(0, 255), (255, 0), (120, 250)])
def test_information_bar_is_found(volume, height, background, text):
    plane = with_bar(volume[0], height, background, text)
    assert bar_height(plane[80:]) == height
    (finding,) = check_sources([open_source(plane, name="a")])
    assert f"the bottom {height} rows of the image look like an information bar" in finding.message


def test_bar_on_noisy_background_is_found(volume):
    noise = np.random.default_rng(0).integers(0, 3, (24, 200), dtype=np.uint8)
    plane = with_bar(volume[0], 24)
    plane = plane.copy()
    plane[-24:] = np.maximum(plane[-24:], noise)
    assert bar_height(plane[80:]) == 24


def test_images_without_bar_have_none(volume):
    for plane in volume:
        assert bar_height(plane[80:]) == 0
    assert bar_height(np.full((90, 90), 3)) == 0


def test_inverted_contrast_between_sources(volume):
    sources = [open_source(volume[i : i + 2], name=f"s{i}") for i in (0, 2)]
    inverted = open_source(255 - volume[4:], name="odd")
    (finding,) = check_sources([*sources, inverted])
    assert "membranes look bright in odd, unlike in 2 others" in finding.message
    assert finding.source is None


def test_pixel_sizes_that_differ(volume):
    sizes = {"a": (4.0, 4.0), "b": (10.0, 10.0), "c": (5.0, 9.0), "d": None}
    sources = [open_source(volume, name=name, pixel_size=size) for name, size in sizes.items()]
    found = messages(check_sources(sources))
    assert found[0] == "pixels of 5 x 9 nm"
    assert "from 4 nm (a) to 10 nm (b)" in found[1]
    assert len(found) == 2
    assert check_sources([sources[0], open_source(volume, pixel_size=(5.0, 5.0))]) == []


def test_grey_images_stored_as_colours(volume):
    grey = np.repeat(volume[0, :, :, None], 4, axis=2)
    grey[..., 3] = 255
    (finding,) = check_sources([open_source(grey)])
    assert "colour channels are equal; choose channel 0" in finding.message


def test_too_few_crops_and_small_images(volume):
    (finding,) = check_sources([open_source(volume, name="a")], crop=128, batch=16)
    assert finding.level == "warning"
    assert "hold 6 separate crops of 128 px, fewer than the batch of 16" in finding.message
    (finding,) = check_sources([open_source(volume, name="a")], crop=256)
    assert finding.level == "info"
    assert "smaller than the crop of 256 px" in finding.message


def test_large_stacks_are_only_sampled():
    read = []
    noise = np.random.default_rng(0).integers(0, 255, (4500, 2048), dtype=np.uint8)

    class Huge:
        shape, dtype = (5000, 9000, 9000), np.dtype(np.uint8)

        def __getitem__(self, index):
            _, rows, columns = index
            size = (rows.stop - rows.start, columns.stop - columns.start)
            read.append(size[0] * size[1])
            return noise[: size[0], : size[1]]

    check_sources([open_source(Huge())])
    assert sum(read) < 120e6


def pairs(volume, labels):
    return [(open_source(volume, name="em"), open_source(labels, name="truth"))]


def test_good_pairs(volume):
    labels = np.zeros_like(volume)
    labels[:, ::2] = 1
    assert check_pairs(pairs(volume, labels), classes=default_classes([0, 1])) == []


def test_labels_of_another_shape_or_with_colours(volume):
    (finding,) = check_pairs(pairs(volume, np.zeros((6, 160, 160), np.uint8)))
    assert finding.level == "error"
    assert "(6, 160, 200), its labels truth have (6, 160, 160)" in finding.message
    # Nothing was seen of these labels, so nothing is said of their classes.
    wrong = pairs(volume, np.zeros((6, 160, 160), np.uint8))
    assert len(check_pairs(wrong, classes=default_classes([0, 1]))) == 1
    colours = np.zeros((6, 160, 200, 3), np.uint8)
    (finding,) = check_pairs(pairs(volume, colours))
    assert "one channel is read" in finding.message
    colours[..., 0] = 1
    assert "not colours" in messages(check_pairs(pairs(volume, colours)), "error")[0]


def test_values_without_class_and_classes_without_values(volume):
    labels = np.zeros_like(volume)
    labels[3, :2, :5] = 7
    findings = check_pairs(pairs(volume, labels), classes=default_classes([0, 1]))
    assert "values that no class has: 7 (10 px)" in messages(findings, "error")[0]
    scattered = labels.copy()
    scattered[0, 0, :12] = 100 + np.arange(12)
    (message,) = messages(check_pairs(pairs(volume, scattered), classes=default_classes([0])))
    assert "JPEG" in message
    assert "no pixel has the class class 1" in messages(findings, "warning")[0]
    assert (
        messages(check_pairs(pairs(volume, labels), classes=default_classes([0]), ignore_value=7))
        == []
    )


def test_strokes_on_a_few_planes_of_a_stack_are_seen():
    image = np.random.default_rng(0).integers(0, 255, (70, 64, 64), np.uint8)
    strokes = np.zeros_like(image)
    strokes[33, :20] = 1
    strokes[52, 30:40] = 2
    classes = default_classes([1, 2])
    assert check_pairs(pairs(image, strokes), classes=classes, ignore_value=0) == []
    # The only stroke of a class may be on a plane that the sample of labelled planes leaves out.
    strokes[:, 50:] = 1
    assert check_pairs(pairs(image, strokes), classes=classes, ignore_value=0) == []
    strokes[52, 30:40] = 0
    (found,) = messages(check_pairs(pairs(image, strokes), classes=classes, ignore_value=0))
    assert found == "no pixel has the class class 2; it cannot be learned"


def test_what_a_sample_does_not_hold_may_be_on_other_planes():
    image = np.random.default_rng(0).integers(0, 255, (70, 64, 64), np.uint8)
    (found,) = messages(check_pairs(pairs(image, image * 0), classes=default_classes([0, 1])))
    assert found.endswith("it cannot be learned, unless other planes have it")


def test_labels_that_are_no_classes(volume):
    numbered = np.arange(volume.size).reshape(volume.shape) % 500
    named = default_classes(range(500))
    for classes in ((), named):
        found = messages(check_pairs(pairs(volume, numbered), classes=classes))
        assert "look like numbered objects" in found[0]
    few = np.repeat(np.arange(10) * np.ones((160, 1), int), 20, axis=1)[None] + np.zeros((6, 1, 1))
    assert "10 values; they look like" in messages(check_pairs(pairs(volume, few)))[0]
    assert messages(check_pairs(pairs(volume, few % 3))) == []
    fractions = np.full(volume.shape, 0.5)
    assert "not whole numbers" in messages(check_pairs(pairs(volume, fractions)), "error")[0]
    negative = np.full(volume.shape, -1)
    assert "at least 0" in messages(check_pairs(pairs(volume, negative)), "error")[0]
    empty = np.zeros_like(volume)
    found = messages(check_pairs(pairs(volume, empty), ignore_value=0), "warning")
    assert found[0] == "no pixel is labelled"


def test_of_very_many_images_some_are_looked_at(volume, monkeypatch):
    monkeypatch.setattr(checks, "_MOST_SOURCES", 4)
    monkeypatch.setattr(checks, "_MOST_CONTRASTS", 3)
    read = Counter()

    class Noting:
        shape, dtype = volume[0].shape, volume.dtype

        def __init__(self, number):
            self.number = number

        def __getitem__(self, index):
            read[self.number] += 1
            return 255 - volume[0][index] if self.number == 9 else volume[0][index]

    sources = [open_source(Noting(number), name=f"{number}") for number in range(10)]
    found = check_sources(sources)
    assert sorted(read) == [0, 3, 6, 9]
    assert messages(found, "info") == ["the pixels of 4 of the 10 images were checked"]
    (warning,) = messages(found, "warning")
    assert "look bright in 9, unlike in 2 others of the 3 images looked at" in warning


def test_many_large_stacks_are_read_less_each(volume, monkeypatch):
    monkeypatch.setattr(checks, "_MOST_PIXELS", 2**21)
    read = Counter()
    noise = np.random.default_rng(0).integers(0, 255, (4096, 2048), dtype=np.uint8)

    class Huge:
        shape, dtype = (500, 9000, 9000), np.dtype(np.uint8)

        def __init__(self, number):
            self.number = number

        def __getitem__(self, index):
            _, rows, columns = index
            size = (rows.stop - rows.start, columns.stop - columns.start)
            read[self.number] += size[0] * size[1]
            return noise[: size[0], : size[1]]

    monkeypatch.setattr(checks, "_MOST_CONTRASTS", 1)
    sources = [open_source(Huge(number), name=f"{number}") for number in range(8)]
    assert check_sources(sources) == []
    assert set(read) == set(range(8))
    # One window, a strip for the bar, and the corners that the fingerprint is made of.
    assert all(read[number] < 2**21 for number in range(1, 8))


def test_findings_come_in_the_order_of_the_images(volume):
    sources = [open_source(np.full((40, 40), number), name=f"{number}") for number in range(40)]
    (finding,) = check_sources(sources)
    assert finding.sources == tuple(sources)


def test_a_file_that_breaks_where_only_membranes_look_is_an_error(volume):
    class Torn:
        shape, dtype = (9000, 9000), np.dtype(np.uint8)

        def __getitem__(self, index):
            if index[0].stop - index[0].start == 256:
                raise OSError("torn")
            return np.random.default_rng(0).integers(
                0, 255, [part.stop - part.start for part in index], dtype=np.uint8
            )

    (finding,) = check_sources([open_source(Torn(), name="a")])
    assert (finding.level, finding.source) == ("error", "a")
    assert "torn" in finding.message


def test_an_image_with_other_channels_than_the_model_is_refused(volume):
    source = open_source(volume, axes="CYX", name="a")
    checks.require_channels(source, 6)
    with pytest.raises(DataError, match="a has 6 channels and the model takes 1"):
        checks.require_channels(source, 1)


def test_an_empty_border_or_plane_makes_no_image_constant(volume, monkeypatch):
    """However little of each image is looked at, it is not left out for what was not seen."""
    monkeypatch.setattr(checks, "_MOST_PIXELS", 1)
    rng = np.random.default_rng(0)
    mosaic = np.zeros((1, 2000, 2000), np.uint8)
    mosaic[0, 100:400, 100:1900] = rng.integers(0, 255, (300, 1800))
    stack = np.zeros((9, 600, 600), np.uint8)
    stack[7] = rng.integers(0, 255, (600, 600))
    found = check_sources([open_source(mosaic, name="mosaic"), open_source(stack, name="stack")])
    assert messages(found, "error") == []
    (warning,) = [item for item in found if "only one value" in item.message]
    assert warning.source == "stack"
    assert messages(check_sources([open_source(0 * mosaic)]), "error")


class SparseSource(ImageSource):
    """A large stack that holds something in some rows of a few planes, made when it is read."""

    def __init__(self, shape, planes, rows=(0, 0), background=0):
        super().__init__("sparse", Layout(shape, "ZYX"), np.dtype(np.float32))
        self.held, self.rows, self.background, self.seen = planes, rows, background, set()

    def _fetch(self, index):
        plane, rows, columns = index
        self.seen.add(plane)
        block = np.full((rows.stop - rows.start, columns.stop - columns.start), self.background)
        if plane in self.held and self.rows[0] <= rows.start < self.rows[1]:
            block[::3], block[1::3] = 7, 8
        return block.astype(self.stored_dtype)


@pytest.mark.parametrize("background", [0, np.nan])
@pytest.mark.parametrize(
    ("shape", "planes", "rows"),
    [
        ((50, 8192, 8192), (11, 12, 14, 15), (0, 8192)),
        ((50, 8192, 8192), (37,), (4000, 5000)),
        ((1, 40000, 40000), (0,), (1000, 12000)),
    ],
)
def test_what_is_sparse_is_not_taken_for_constant(shape, planes, rows, background):
    findings = check_sources([SparseSource(shape, planes, rows, background)])
    assert messages(findings, "error") == []


@pytest.mark.parametrize(
    ("background", "words", "level"),
    [(3, "all of one single", "warning"), (np.nan, "has a finite", "error")],
)
def test_in_how_many_places_nothing_was_found(background, words, level):
    source = SparseSource((50, 8192, 8192), (), background=background)
    message = messages(check_sources([source]), level)[0]
    assert f"{words} value in the {16 * 16 + 5 * 50} places looked at: " in message
    assert source.seen == set(range(50))
    small = open_source(np.full((3, 600, 600), background, np.float32), name="small")
    (message,) = messages(check_sources([small]), "error")
    assert f"{words} value: nothing" in message


def sparse_zarr(folder, volume_planes=(), zarr_format=2):
    """A large stack of zeros, of which only chunks with something else are stored."""
    shape, chunks = (40, 8192, 8192), (1, 256, 256)
    array = zarr.create_array(
        folder, shape=shape, chunks=chunks, dtype=np.uint8, zarr_format=zarr_format
    )
    tissue = np.random.default_rng(0).normal(120, 30, (256, 256)).clip(0, 255)
    for plane in volume_planes:
        array[plane, 7680:7936, 256:512] = tissue
    return open_source(folder)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_is_stored_is_looked_at_where_all_samples_are_constant(tmp_path, zarr_format):
    source = sparse_zarr(tmp_path / "a.zarr", (17, 23), zarr_format)
    found = source.stored_parts(10)
    assert sorted(found, key=lambda part: part[0]) == [
        (plane, slice(7680, 7936), slice(256, 512)) for plane in (17, 23)
    ]
    findings = check_sources([source])
    assert messages(findings, "error") == []
    assert not any("single value" in message for message in messages(findings, "warning"))


def test_a_file_that_stores_nothing_is_refused(tmp_path):
    source = sparse_zarr(tmp_path / "a.zarr")
    assert source.stored_parts(10) == []
    (message,) = messages(check_sources([source]), "error")
    assert "all of one single value: nothing" in message


def test_stored_chunks_of_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("raw", (6, 5000, 5000), "u1", chunks=(2, 500, 500))
        data[3, 4600:4800, 4600:4800] = 7
        file.create_dataset("flat", data=np.zeros((8, 8)))
    assert open_source(f"{tmp_path}/a.h5:/raw").stored_parts(9) == [
        (plane, slice(4500, 5000), slice(4500, 5000)) for plane in (2, 3)
    ]
    assert open_source(f"{tmp_path}/a.h5:/flat").stored_parts(9) is None


def test_images_that_look_like_labels_are_warned_of(volume):
    mask = (volume > 128).astype(np.uint8)
    areas = np.repeat(np.repeat(mask[:, :20, :20], 8, axis=1), 8, axis=2)
    objects = areas.astype(np.uint16) * np.arange(1, 161, dtype=np.uint16)[:, None] // 8
    for labels in (areas, objects):
        found = messages(check_sources([open_source(labels, name="a")]), "warning")
        assert any("like labels or a mask" in message for message in found)
    dots = np.random.default_rng(0).integers(0, 2, mask.shape, dtype=np.uint8)
    assert not any("labels" in item for item in messages(check_sources([open_source(dots)])))
