"""Names of runs and model files that are valid on every file system."""

import re
from datetime import date
from pathlib import Path

# Windows forbids these characters. They are refused everywhere, as folders are copied
# between computers.
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


# File systems allow 255 bytes, including the suffix.
_LONGEST = 200
_LONGEST_LABEL = 40


def check_name(name: str) -> None:
    """Check that a text is a plain file name.

    Raises
    ------
    ValueError
        If it is not; the message gives the reason.
    """
    if not name.strip():
        raise ValueError("a run needs a name; the given one is empty")
    if len(name.encode()) > _LONGEST:
        raise ValueError(f"the name {name[:20]!r}... is too long; shorten it to {_LONGEST} bytes")
    forbidden = _FORBIDDEN.search(name)
    if forbidden:
        raise ValueError(f"{name!r} cannot be a name: it contains {forbidden[0]!r}; leave it out")
    if name != name.strip() or name[0] == "." or name[-1] == "." or _DEVICES.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be a name: names neither start with a dot or space nor end with "
            "one, and Windows reserves some, such as CON; choose another"
        )


def plain_label(text: str) -> str:
    """Replace what names must not contain, and cut a long text; may be empty."""
    return _FORBIDDEN.sub("-", text)[:_LONGEST_LABEL].strip(" .")


def new_run_path(folder: Path, kind: str, label: str = "", *, suffix: str = "") -> Path:
    """Choose a name for a new run, without creating anything.

    Parameters
    ----------
    folder : Path
        Where the runs lie; it need not exist.
    kind : str
        What the run does, for instance ``"finetune"``.
    label : str
        Subject of the run. Forbidden characters are replaced, and a long label is cut.
    suffix : str
        Suffix of a file, for instance ``".safetensors"``; empty for a folder.

    Returns
    -------
    Path
        For instance ``folder / "2026-11-25 finetune mito"``; with a number if
        that exists.
    """
    name = " ".join(filter(None, [date.today().isoformat(), kind, plain_label(label)]))
    path, count = folder / f"{name}{suffix}", 1
    while path.exists():
        count += 1
        path = folder / f"{name} {count}{suffix}"
    return path
