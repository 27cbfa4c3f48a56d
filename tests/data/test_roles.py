import pytest

from napari_affmae.data.roles import NamedRole, folder_role


@pytest.mark.parametrize(
    "name",
    ["labels", "Masks", "labelsTr", "GT", "Ground truth", "train_masks", "mask2D", "cp_masks"],
)
def test_folders_of_labels(name):
    assert folder_role(name) == "labels"


@pytest.mark.parametrize("name", ["images", "imagesTr", "IMG", "raw", "em", "test-images"])
def test_folders_of_images(name):
    assert folder_role(name) == "image"


@pytest.mark.parametrize("name", ["unlabelled", "labels and images", "mouse mask", "3", "", "d01"])
def test_folders_whose_names_say_nothing(name):
    assert folder_role(name) is None


def belong(image, labels):
    keys = set(NamedRole.of(image).keys())
    role = NamedRole.of(labels)
    return role.role == "labels" and not keys.isdisjoint(role.wanted())


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("s0", "s0_mask"),
        ("s0", "s0-labels"),
        ("s0", "mask_s0"),
        ("s0", "s0_cp_masks"),
        ("s0", "s0_Simple Segmentation"),
        ("s0", "s0_mito_mask"),
        ("s0", "s0_probabilities"),
        ("image1", "label1"),
        ("s1_raw", "s1_gt"),
        ("s1/image", "s1/mask"),
        ("s0", "Labels/s0"),
        ("imagesTr/a_0000", "labelsTr/a"),
        ("a/s0", "a/annotations/s0"),
    ],
)
def test_labels_and_their_image(image, labels):
    assert belong(image, labels)
    assert not belong(labels, image)


@pytest.mark.parametrize(
    ("image", "labels"),
    [("s0", "s1_mask"), ("a/s0", "b/s0_mask"), ("s", "s1_mask"), ("s0", "s0_b"), ("s0", "Masks")],
)
def test_names_that_do_not_belong_together(image, labels):
    assert not belong(image, labels)
