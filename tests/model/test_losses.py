"""Losses equal their formulas and never see what is not labelled."""

import pytest
import torch
import torch.nn.functional as F
from monai.losses.dice import DiceLoss
from monai.losses.focal_loss import FocalLoss

from napari_affmae.config import IGNORE_INDEX
from napari_affmae.model.losses import reconstruction_loss, segmentation_loss


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)


@pytest.fixture
def target() -> torch.Tensor:
    labels = torch.randint(0, 3, (2, 6, 5), generator=torch.Generator().manual_seed(1))
    labels[0, :3] = IGNORE_INDEX
    return labels


def by_formula(
    logits: torch.Tensor, target: torch.Tensor, weights: list[float], gamma: float
) -> torch.Tensor:
    probabilities = logits.double().softmax(1)
    dice, focal, labelled = [], torch.zeros((), dtype=torch.float64), 0
    for image, labels in zip(probabilities, target, strict=True):
        known = labels != IGNORE_INDEX
        labelled += int(known.sum())
        for index in range(len(weights)):
            p, y = image[index][known], (labels[known] == index).double()
            focal = focal - weights[index] * ((1 - p) ** gamma * p.log() * y).sum()
            if index:
                dice.append(1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))
    return torch.stack(dice).mean() + focal / labelled


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.2, 1.0, 3.0]])
def test_segmentation_loss_equals_its_formula(
    logits: torch.Tensor, target: torch.Tensor, weights: list[float], gamma: float
) -> None:
    loss = segmentation_loss(logits, target, torch.tensor(weights), gamma)
    expected = by_formula(logits, target, weights, gamma)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, logits)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-7)


def by_monai(
    logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor, gamma: float
) -> torch.Tensor:
    labels = target.unsqueeze(1)
    smoothing = {"smooth_nr": 1.0, "smooth_dr": 1.0, "ignore_index": IGNORE_INDEX}
    dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, **smoothing)
    focal = FocalLoss(
        gamma=gamma, to_onehot_y=True, use_softmax=True, reduction="none", ignore_index=IGNORE_INDEX
    )
    by_class = focal(logits, labels).sum(dim=(0, 2, 3)) * weights
    labelled = (target != IGNORE_INDEX).sum().clamp(min=1)
    return dice(logits, labels) + by_class.sum() / labelled


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.7])
@pytest.mark.parametrize("unlabelled", ["none", "some", "an image", "all"])
def test_segmentation_loss_equals_monai(classes: int, gamma: float, unlabelled: str) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = 3 * torch.randn(3, classes, 20, 17, generator=generator)
    logits.requires_grad_()
    target = torch.randint(classes, (3, 20, 17), generator=generator)
    weights = torch.rand(classes, generator=generator)
    if unlabelled == "some":
        target[torch.rand(target.shape, generator=generator) < 0.6] = IGNORE_INDEX
    elif unlabelled != "none":
        target[1 if unlabelled == "an image" else slice(None)] = IGNORE_INDEX
    losses = [f(logits, target, weights, gamma) for f in (segmentation_loss, by_monai)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in losses]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_certain_predictions_have_finite_gradients(gamma: float) -> None:
    labels = torch.tensor([[[0, 1, IGNORE_INDEX, 1]]])
    logits = torch.tensor([200.0, -200.0, 0.0, -200.0]).expand(1, 2, 1, 4).clone()
    logits[:, 1] *= -1
    logits.requires_grad_()
    segmentation_loss(logits, labels, gamma=gamma).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_values_that_are_no_class_are_refused(logits: torch.Tensor) -> None:
    for value in (-1, 3):
        with pytest.raises(RuntimeError, match="out of bounds"):
            segmentation_loss(logits, torch.full((2, 6, 5), value))


def test_ignored_pixels_never_enter(logits: torch.Tensor, target: torch.Tensor) -> None:
    loss = segmentation_loss(logits, target)
    (gradient,) = torch.autograd.grad(loss, logits)
    unknown = (target == IGNORE_INDEX).unsqueeze(1).expand_as(gradient)
    assert gradient[unknown].eq(0).all()
    assert gradient[~unknown].ne(0).all()
    changed = torch.where(unknown, 100 * torch.randn_like(logits), logits)
    assert torch.equal(segmentation_loss(changed, target), loss)


def test_without_labels_loss_and_gradient_are_zero(logits: torch.Tensor) -> None:
    loss = segmentation_loss(logits, torch.full((2, 6, 5), IGNORE_INDEX))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert gradient.eq(0).all()


def test_perfect_logits_cost_almost_nothing(target: torch.Tensor) -> None:
    labels = target.clamp(min=0)
    logits = 50 * F.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    assert segmentation_loss(logits, labels).item() == pytest.approx(0, abs=1e-6)


def test_losses_are_float32_inside_autocast(logits: torch.Tensor, target: torch.Tensor) -> None:
    low = logits.detach().bfloat16()
    outside = segmentation_loss(low.float(), target)
    patches = torch.randn(2, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        inside = segmentation_loss(low, target)
        error = reconstruction_loss(patches.bfloat16(), patches)
    assert inside.dtype == error.dtype == torch.float32
    assert torch.equal(inside, outside)
    assert torch.equal(error, F.mse_loss(patches.bfloat16().float(), patches))


def test_reconstruction_loss_averages_over_everything() -> None:
    predictions, targets = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    targets[1, 2, 3] = 12
    assert reconstruction_loss(predictions, targets).item() == pytest.approx(144 / 24)


def test_shapes_that_do_not_fit_are_refused(logits: torch.Tensor, target: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        segmentation_loss(logits[:, :1], target)
    with pytest.raises(ValueError, match=r"\(2, 6, 5\) like the logits, got \(2, 5, 6\)"):
        segmentation_loss(logits, target.transpose(1, 2))
    with pytest.raises(ValueError, match="one number for each of 3 classes"):
        segmentation_loss(logits, target, torch.ones(2))
