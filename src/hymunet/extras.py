"""Optional packages: asked for before the work begins, with the command that installs them."""

from importlib.util import find_spec

from hymunet.errors import HyMUNetError


def require(extra: str, purpose: str, *packages: str) -> None:
    """Checks that the packages of an extra can be imported, without importing them.

    Raises:
        HyMUNetError: If any cannot, naming them and `pip install "hymunet[extra]"`.
    """
    missing = [package for package in packages if not _is_there(package)]
    if missing:
        raise HyMUNetError(
            f"{purpose} needs {', '.join(missing)}, not installed here; "
            f'install with: pip install "hymunet[{extra}]"'
        )


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # raised by import hooks that hide a package
        return False
