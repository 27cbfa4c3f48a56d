"""Other files that hold what an HDF5 file shows."""

import posixpath
from pathlib import Path

import h5py

from napari_affmae.data.formats.files.foreign import Surroundings

# HDF5 gives up after so many links, too.
_MOST_LINKS = 16


def check_links(
    file: h5py.File, name: str, surroundings: Surroundings, left: int = _MOST_LINKS
) -> None:
    """Refuse a name that leads through links to files that are not to be read.

    Raises
    ------
    ValueError
        If a linked file is outside the folder or not there, or the links do not end.
    """
    if not left:
        raise ValueError(f"its links at {name} do not end")
    parts = [part for part in name.split("/") if part]
    for count in range(1, len(parts) + 1):
        link = file.get("/" + "/".join(parts[:count]), getlink=True)
        if link is None:
            return
        if isinstance(link, h5py.HardLink):
            continue
        rest = parts[count:]
        if isinstance(link, h5py.SoftLink):
            target = posixpath.join("/", *parts[: count - 1], link.path, *rest)
            check_links(file, target, surroundings, left - 1)
            return
        with h5py.File(_there(link.filename, file, surroundings), "r") as other:
            check_links(other, posixpath.join("/", link.path, *rest), surroundings, left - 1)
        return


def check_storage(
    dataset: h5py.Dataset, surroundings: Surroundings, left: int = _MOST_LINKS
) -> None:
    """Refuse a dataset whose pixels are in files that are not to be read.

    Raises
    ------
    ValueError
        If one of them is outside the folder or not there, or they refer to each
        other without end.
    """
    if not left:
        raise ValueError(f"its virtual dataset {dataset.name} does not end")
    for name, *_ in dataset.external or ():
        # HDF5 looks for these from the working folder.
        if surroundings.check(name, Path.cwd()) is None:
            raise ValueError(f"it holds {dataset.name} in the file {name}, which is not there")
    if not dataset.is_virtual:
        return
    for name, source in {(one.file_name, one.dset_name) for one in dataset.virtual_sources()}:
        if "%" in name:  # a pattern of names
            surroundings.check(name, Path(dataset.file.filename).parent)
        elif name == ".":
            _check_source(dataset.file, source, surroundings, left)
        else:
            with h5py.File(_there(name, dataset.file, surroundings), "r") as other:
                _check_source(other, source, surroundings, left)


def _check_source(file: h5py.File, name: str, surroundings: Surroundings, left: int) -> None:
    check_links(file, name, surroundings)
    source = file.get(name)
    if isinstance(source, h5py.Dataset):
        check_storage(source, surroundings, left - 1)


def _there(name: str, file: h5py.File, surroundings: Surroundings) -> Path:
    path = surroundings.check(name, Path(file.filename).parent)
    if path is None:
        raise ValueError(f"it names the file {name}, which is not there")
    return path
