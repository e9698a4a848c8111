"""Asking the Hugging Face hub for classifiers: without long waits, and with errors for people."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, errors

from nayer_cli.errors import EnvironmentFault, InputError, NayerError
from nayer_cli.hub import reachable

ABSENT = (
    errors.RepositoryNotFoundError,
    errors.RevisionNotFoundError,
    errors.EntryNotFoundError,
    errors.HFValidationError,
)
HTTP_LIBRARIES = ("httpx", "httpcore", "requests", "urllib3")


@contextmanager
def asking_hub(name: str) -> Iterator[None]:
    """Let timm ask the hub about model `name` within the block.

    The hub's client retries for most of a minute when there is no network. Here one short look decides whether
    it may ask at all; otherwise it has its cache.

    Raises:
        EnvironmentFault: the model is not in the cache, and the hub cannot be reached.
        InputError: the hub has no such model, or timm cannot load it.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not reachable(constants.ENDPOINT)  # the client looks here at each request
    try:
        yield
    except Exception as error:  # the client lets those of its HTTP library through, which it has changed
        raise _explained(name, error) from error
    finally:
        constants.HF_HUB_OFFLINE = before


def _explained(name: str, error: Exception) -> NayerError:
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        return EnvironmentFault(
            f"'{name}' is not in the Hugging Face cache {constants.HF_HUB_CACHE}, and the hub cannot be reached",
            hint="run once with a connection, or give a file with --teacher-weights, or a folder: local-dir:DIR",
        )
    reason = str(error).strip().partition("\n")[0]
    if isinstance(error, ABSENT):
        return InputError(
            f"the hub has no model '{name}', or not for you: {reason}",
            hint="check the name; 'hf auth login' opens private and gated models",
        )
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in HTTP_LIBRARIES:
        return EnvironmentFault(f"the pretrained weights of '{name}' could not be fetched: {reason}")
    return InputError(f"timm cannot load '{name}': {reason}")
