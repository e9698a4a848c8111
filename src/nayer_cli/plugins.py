"""The directory is the registry: a plug-in is one file, its name is the file's, names are listed unimported."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from nayer_cli.errors import InputError, did_you_mean


def names(folder: str) -> list[str]:
    """Names of the plug-ins in `folder` (such as `methods`), with `-` for `_`, sorted, without importing any."""
    files = (Path(__file__).parent / folder).glob("[!_]*.py")
    return sorted(file.stem.replace("_", "-") for file in files)


def load(folder: str, name: str) -> ModuleType:
    """Import plug-in `name` of `folder`; a dotted path such as `mylab.methods.best` loads code from outside.

    Raises:
        InputError: there is no such plug-in.

    """
    if name in names(folder):
        return import_module(f"nayer_cli.{folder}.{name.replace('-', '_')}")
    if "." in name:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            raise InputError(f"cannot import '{name}': {error}", hint="check the dotted path and PYTHONPATH") from error
    raise InputError(
        f"no {folder.rstrip('s')} is called '{name}'{did_you_mean(name, names(folder))}",
        hint=f"choose one of: {', '.join(names(folder))}",
    )
