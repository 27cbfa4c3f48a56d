"""bioimage.io's own library, which checks and packs descriptions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_affmae.engine.export.description import DESCRIPTION, Terms
from napari_affmae.errors import ExportError


@dataclass(frozen=True)
class Specification:
    """The library, once it is known to be installed.

    Attributes
    ----------
    library : module
        `bioimageio.spec`, which is no dependency of this program.
    """

    library: Any

    @classmethod
    def load(cls) -> "Specification":
        """Import the library.

        Raises
        ------
        ExportError
            If it is not installed.
        """
        try:
            # An extra. The others are what torch converts to ONNX with, and checks it.
            import bioimageio.spec  # noqa: PLC0415
            import onnxruntime  # noqa: F401, PLC0415
            import onnxscript  # noqa: F401, PLC0415
        except ModuleNotFoundError as error:
            raise ExportError(
                f"this needs the package {error.name}, which is not installed; install it with "
                'pip install "napari-affmae[bioimageio]"'
            ) from error
        return cls(bioimageio.spec)

    @property
    def version(self) -> str:
        """Version of the format that the library writes."""
        return str(self._newest.ModelDescr.implemented_format_version)

    @property
    def _newest(self) -> Any:
        return self.library.model.v0_5

    def check(self, terms: Terms) -> None:
        """Check authors and licence before anything is computed.

        Raises
        ------
        ValueError
            If they are not allowed.
        """
        for author in terms.authors:
            if not author.strip() or "/" in author or "\\" in author:
                raise ValueError(f"an author is a name without slashes, got {author!r}")
        if terms.license_id is None:
            return
        try:
            self.library.generic.v0_3.LicenseId(terms.license_id)
        except ValueError as error:
            raise ValueError(
                "a licence is an SPDX identifier, such as CC-BY-4.0 or CC0-1.0 (see "
                f"spdx.org/licenses), got {terms.license_id!r}"
            ) from error

    def write(self, description: dict[str, Any], folder: Path) -> None:
        """Check a description, and write it beside the files that it names.

        Parameters
        ----------
        description : dict
            From `describe`.
        folder : Path
            Where the files lie.

        Raises
        ------
        ExportError
            If the library refuses it.
        """
        # It would look up addresses in the network, and leave files open that it reads.
        context = self.library.ValidationContext(
            root=folder, file_name=DESCRIPTION, perform_io_checks=False
        )
        with context:
            checked = self.library.build_description(description)
            if isinstance(checked, self.library.InvalidDescr):
                raise ExportError(f"bioimage.io refuses the package: {checked.get_reason()}")
            self.library.save_bioimageio_yaml_only(checked, folder / DESCRIPTION)
