"""The command line: `napari-affmae COMMAND`.

It calls the engine, shows its events, and turns errors into one line and an
exit code: 0 done, 1 a state that the user can act on, 2 wrong arguments, 130
stopped by the user.
"""

import sys

from typer.exceptions import TyperException

from napari_affmae.cli.app import app
from napari_affmae.errors import AffmaeError


def main() -> None:
    """Run the command line and exit the process with its code."""
    try:
        code = app(prog_name="napari-affmae", standalone_mode=False)
    except TyperException as error:
        message = error.format_message().rstrip(".")
        sys.stderr.write(f"napari-affmae: {message}; see napari-affmae --help\n")
        sys.exit(error.exit_code)
    except AffmaeError as error:
        sys.stderr.write(f"napari-affmae: {error}\n")
        sys.exit(1)
    sys.exit(code)
