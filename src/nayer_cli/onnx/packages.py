"""The packages that write and run ONNX files, looked for without importing them."""

from importlib.util import find_spec

from nayer_cli.errors import EnvironmentFault

PACKAGES = ("onnx", "onnxruntime")
INSTALL = "pip install 'nayer-cli[onnx]'"


def missing() -> str:
    """Return the first package that is not installed; empty if all are."""
    return next((package for package in PACKAGES if find_spec(package) is None), "")


def require() -> None:
    """Make sure that all are there.

    Raises:
        EnvironmentFault: one is not.

    """
    if package := missing():
        raise EnvironmentFault(f"{package} is not installed", hint=INSTALL)
