"""Kinds of files by how their names end: who reads them, and which are not read."""

from pathlib import Path

_MRC = (".mrc", ".mrcs", ".rec", ".map", ".st", ".ali", ".preali", ".join", ".flip", ".ccp4")
#: The module that reads a kind of files, folders or addresses, below `data.formats`.
MODULES = {
    "dm": "single.dm",
    "encoded": "single.encoded",
    "hdf5": "hdf5.reader",
    "mrc": "single.mrc",
    "n5": "single.n5",
    "nifti": "single.nifti",
    "npy": "single.npy",
    "nrrd": "single.nrrd",
    "ome_zarr": "zarr.reader",
    "ser": "single.ser",
    "tiff": "tiff.reader",
    "zarr_web": "zarr.web",
    "zarr_zip": "zarr.zipped",
}

# Endings of the names of files; the other kinds are folders and addresses.
_ENDINGS = {
    "tiff": (".tif", ".tiff", ".btf", ".tf8"),
    "encoded": (".png", ".jpg", ".jpeg", ".bmp"),
    "mrc": (*_MRC, *(ending + packed for ending in _MRC for packed in (".gz", ".bz2"))),
    "hdf5": (".h5", ".hdf5", ".hdf", ".ims", ".emd", ".mat"),
    "zarr_zip": (".zarr.zip", ".ozx"),
    "npy": (".npy",),
    "nrrd": (".nrrd", ".nhdr"),
    "nifti": (".nii", ".nii.gz"),
    "dm": (".dm3", ".dm4"),
    "ser": (".ser",),
}
_KIND_OF = {ending: kind for kind, endings in _ENDINGS.items() for ending in endings}

#: Endings of the names of files that can be opened, in small letters.
SUFFIXES = tuple(_KIND_OF)

_BY_FIJI = "open it in Fiji (Plugins, Bio-Formats) and save it as TIFF"
_BY_PROGRAM = "save it as TIFF or OME-TIFF with the program that it comes from"
_BARE = "it holds bare pixels without their size; import it in Fiji (File, Import, Raw) as TIFF"
# What laboratories have and is not read, and what can be done.
_UNREAD = {
    **dict.fromkeys((".czi", ".lsm", ".zvi"), f"Zeiss light microscopy; {_BY_FIJI}"),
    **dict.fromkeys((".lif", ".lof", ".xlef", ".scn"), f"a Leica format; {_BY_FIJI}"),
    ".nd2": f"a Nikon format; {_BY_FIJI}",
    **dict.fromkeys((".oib", ".oif", ".oir", ".vsi"), f"an Olympus format; {_BY_FIJI}"),
    **dict.fromkeys((".svs", ".ndpi", ".mrxs", ".bif"), f"a slide scanner's format; {_BY_FIJI}"),
    **dict.fromkeys((".dcm", ".dicom"), f"DICOM; {_BY_FIJI}"),
    ".emi": "TIA's description of an experiment; its images are in the .ser files beside it",
    **dict.fromkeys((".stk", ".dv", ".r3d", ".ics", ".ids"), f"another format; {_BY_FIJI}"),
    **dict.fromkeys((".mha", ".mhd"), "MetaImage; save it as NRRD, for instance in 3D Slicer"),
    **dict.fromkeys((".img", ".hdr"), "Analyze; save it as NIfTI (.nii), for instance in FSL"),
    **dict.fromkeys((".am", ".vol", ".txm", ".txrm"), f"another format; {_BY_PROGRAM}"),
    **dict.fromkeys((".gif", ".webp", ".psd", ".xcf", ".jp2"), "a picture; save it as TIFF or PNG"),
    **dict.fromkeys((".raw", ".dat", ".bin"), _BARE),
    ".npz": "several arrays of numpy; save each with numpy.save",
    **dict.fromkeys((".zip", ".tar", ".gz", ".7z", ".rar"), "an archive; unpack it first"),
}


def ending_of(path: Path) -> str | None:
    """Return the known ending of a name, the longest that fits; None if it has none."""
    name = path.name.lower()
    dots = (place for place, letter in enumerate(name) if letter == "." and place)
    return next((name[place:] for place in dots if name[place:] in _KIND_OF), None)


def reader_of(path: Path) -> str | None:
    """Return the kind in `MODULES` of files of this name; None if there is none."""
    ending = ending_of(path)
    return None if ending is None else _KIND_OF[ending]


def stem_of(path: Path) -> str:
    """Return a file's name without its known ending, which may have two dots."""
    ending = ending_of(path) or path.suffix
    return path.name[: len(path.name) - len(ending)]


def why_not_read(path: Path) -> str | None:
    """Say what a file of this name is and what can be done, if it is known and not read."""
    return _UNREAD.get(path.suffix.lower())
