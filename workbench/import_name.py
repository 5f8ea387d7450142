"""Whether this package alone owns the import name `workbench`: a distribution of that name is on PyPI."""

from functools import cache
from importlib import metadata

from workbench.errors import WorkbenchError

DISTRIBUTION, OTHER_DISTRIBUTION = "quantization-workbench", "workbench"


@cache
def check_import_name() -> None:
    """Raise WorkbenchError where another installed distribution writes its files into the same folder."""
    try:
        version = metadata.version(OTHER_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return
    raise WorkbenchError(
        f"the package {OTHER_DISTRIBUTION} {version} is installed beside {DISTRIBUTION}, and both write the folder 'workbench': "
        f"their files are mixed. Run `pip uninstall {OTHER_DISTRIBUTION} {DISTRIBUTION}` and install {DISTRIBUTION} again."
    )
