"""Find out why a file system refuses to write: space, number of files, a quota, or permissions."""

import errno
import os
import resource
from pathlib import Path

from nayer_cli.errors import EnvironmentFault, InputError, NayerError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LACKING = (*FULL, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)
"""Numbers of errors that another command line does not mend: the machine has to change."""


def is_full(error: OSError) -> bool:
    """Say whether space is short: for bytes, for files, or for this user."""
    return error.errno in FULL


def cannot_write(path: Path, error: OSError, size: int) -> NayerError:
    """Return the fault that says why `path`, of `size` bytes (0 if that does not matter), cannot be written."""
    what = f"cannot write {path}: {error.strerror or error}"
    if error.errno == errno.ELOOP:
        what = f"cannot write {path}: it is a symbolic link, and nayer does not write through links"
    if error.errno not in LACKING:
        return InputError(what, hint="choose another --out")
    if is_full(error):
        needed = f"{size:,} bytes are needed, " if size else ""
        what = f"{what}; {needed}{_room(path, error)}"
    return EnvironmentFault(what, hint="free some space, or use another disk with --out")


def _room(path: Path, error: OSError) -> str:
    """Say how much room there is of that which is short."""
    if error.errno == errno.EFBIG:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        return f"and a file may have {limit:,} here (ulimit -f)" if limit >= 0 else "more than a file here may have"
    if error.errno == errno.EDQUOT:
        return "more than is left of your quota (quota -s)"
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    disk = os.statvfs(existing)
    if disk.f_files and not disk.f_favail:
        return f"0 of {disk.f_files:,} files (inodes) are free: delete some files"
    return f"{disk.f_bavail * disk.f_frsize:,} are free"
