"""Whether a result can be begun, continued or left out, where something may be already."""

from contextlib import suppress
from pathlib import Path

from napari_affmae.data import ImageSource
from napari_affmae.engine.results.new_file import writing
from napari_affmae.engine.results.origin import Origin, why_not_of
from napari_affmae.engine.results.plan import BlockPlan, Plan, ProbabilityType
from napari_affmae.engine.results.volume import Place, Volume, is_complete, read_plan
from napari_affmae.errors import UnreadableFileError, UnwritableError
from napari_affmae.files import remove_entry, scratch_path

ZARR = ".zarr"


def is_zarr_target(target: Path) -> bool:
    """Whether a result of this name is an OME-Zarr folder, and no TIFF file."""
    return target.suffix.lower() == ZARR


def probabilities_path(target: Path) -> Path:
    """Return the path of the class probabilities of a label image."""
    suffix = ZARR if is_zarr_target(target) else ".tif"
    return target.with_name(f"{target.stem}_probabilities{suffix}")


def is_unfinished(target: Path) -> bool:
    """Whether an OME-Zarr result was begun and is not complete."""
    try:
        return read_plan(target) is not None and not is_complete(target)
    except UnreadableFileError:
        return False


def clear_parts(target: Path) -> None:
    """Remove the parts of a complete result, which a kill between completing it and that left.

    Parameters
    ----------
    target : Path
        The complete result.
    """
    parts = scratch_path(target)
    if not parts.exists():
        return
    with suppress(UnwritableError), writing(target):  # not while another process makes it anew
        remove_entry(parts)


def begin(place: Place, plan: BlockPlan, target: Path, *, anew: bool) -> Volume:
    """Make a volume, or open the one of this plan that was begun, be it complete.

    Parameters
    ----------
    place : Place
        Its folders.
    plan : BlockPlan
        What it is to be.
    target : Path
        The result that the user asked for; names the image, and what a message is about.
    anew : bool
        Whether to replace a volume of another plan.

    Raises
    ------
    UnwritableError
        If something else is there, which stays.
    """
    if _may_continue(place, plan, target, anew=anew):
        return Volume(place)
    return begin_anew(place, plan, target)


def begin_anew(place: Place, plan: BlockPlan, target: Path) -> Volume:
    """Make a volume where `begin` has found one of this program, or nothing."""
    for folder in place.folders:
        if folder.exists():
            remove_entry(folder)
    return Volume.create(place, plan, target.stem)


def _may_continue(place: Place, plan: BlockPlan, target: Path, *, anew: bool) -> bool:
    """Whether there is a volume of this plan; else what is there may be removed."""
    for folder in place.folders:
        if folder.is_symlink() or (folder.exists() and read_plan(folder) is None):
            raise UnwritableError(
                f"{folder} is no result of this program, so it is not replaced; "
                "choose another name",
                folder,
            )
    # Where there are probabilities alone, a kill came before the labels' folder was made.
    plans = [read_plan(folder) for folder in place.folders if folder.exists()]
    differences = [words for there in plans if there for words in there.differences(plan)]
    if differences and not anew:
        raise UnwritableError(
            f"{target} was begun with {' and '.join(dict.fromkeys(differences))}; repeat the "
            "command that began it, choose another name, or let it be overwritten",
            target,
        )
    return len(plans) == len(place.folders) and not differences


def refuse_complete(target: Path, plan: BlockPlan, *, overwrite: bool) -> None:
    """Refuse to replace a complete result, or remove it.

    Raises
    ------
    UnwritableError
        If it is complete, and not to be overwritten.
    """
    there = target.exists()
    if there and is_zarr_target(target):  # of what is something else, `begin` says what it is
        same = not target.is_symlink() and read_plan(target) == plan
        there = same and is_complete(target)
    if there and not overwrite:
        raise UnwritableError(
            f"{target} is complete, perhaps by another process meanwhile; leave it out, or let it "
            "be overwritten",
            target,
        )
    if there and is_zarr_target(target):
        remove_entry(target)


def why_not_result(
    target: Path, source: ImageSource, origin: Origin, probabilities: ProbabilityType | None
) -> str | None:
    """Say why a result is not that of an image, a model and settings; see `why_not_of`.

    Parameters
    ----------
    target : Path
        The result.
    source : ImageSource
        The image.
    origin : Origin
        What it should come from.
    probabilities : str or None
        Type that probabilities in OME-Zarr should have, if there should be any.
    """
    if not is_zarr_target(target):
        return why_not_of(target, source, origin)
    try:
        plan = read_plan(target)
        if not isinstance(plan, Plan):
            return "it does not say what it was made from"
        chances = plan.probabilities if probabilities is None else probabilities
        wanted = plan.model_copy(update={"origin": origin, "probabilities": chances})
        differences = plan.differences(wanted)
        if differences:
            return f"it was made with {' and '.join(differences)}"
        complete = is_complete(target)
    except UnreadableFileError as error:
        return f"it cannot be read ({error})"
    return None if complete else "it is not complete"
