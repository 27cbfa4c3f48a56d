"""The command line: `napari-affmae COMMAND`.

It calls the engine, shows its events, and turns errors into one line and an
exit code: 0 done, 1 a state that the user can act on, 2 wrong arguments, 130
stopped by the user or because the output was closed.
"""

import io
import sys
from contextlib import suppress

from typer.exceptions import TyperException
from typer.main import get_group

from napari_affmae.cli.app import app
from napari_affmae.cli.terminal import close_output, printable
from napari_affmae.errors import AffmaeError, RunExistsError

_SAVE_MEMORY = ("--crop", "--tile", "--batch")
_CLOSED = 130


def main() -> None:
    """Run the command line and exit the process with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # it may be unable to write every name of a file
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="napari-affmae", standalone_mode=False)
    except TyperException as error:
        _tell(f"{error.format_message().rstrip('.')}; see {_command()} --help")
        sys.exit(error.exit_code)
    except RunExistsError as error:
        _tell(f"{error} (--resume resumes it)")
        sys.exit(1)
    except AffmaeError as error:
        _tell(str(error))
        sys.exit(1)
    except BrokenPipeError:  # nobody reads the results any more
        close_output()
        sys.exit(_CLOSED)
    except OSError as error:
        _tell(_of_the_system(error))
        sys.exit(1)
    except MemoryError as error:
        asked = f" ({error})" if str(error) else ""
        _tell(
            f"the memory of this computer is not enough{asked}; close other programs, or take "
            f"smaller images{_smaller()}"
        )
        sys.exit(1)
    sys.exit(code)


def _command() -> str:
    """Name the command whose help answers."""
    words = [word for word in sys.argv[1:2] if word in get_group(app).commands]
    return " ".join(["napari-affmae", *words])


def _smaller() -> str:
    """Name the options of the command that save memory."""
    command = get_group(app).commands.get(_command().rpartition(" ")[2])
    options = {name for item in command.params for name in item.opts} if command else set()
    there = [name for name in _SAVE_MEMORY if name in options]
    return f", or a smaller {' or '.join(there)}" if there else ""


def _of_the_system(error: OSError) -> str:
    files = " -> ".join(str(name) for name in (error.filename, error.filename2) if name)
    reason = error.strerror or str(error)
    if not files:
        return f"{reason}; check the files and folders that were named"
    return f"{files}: {reason}; check that it is the right one and that you may use it"


def _tell(text: str) -> None:
    with suppress(OSError):  # nobody may read it any more
        sys.stderr.write(f"napari-affmae: {printable(text)}\n")
