"""The drive that a folder is on: how much room it has, and what it cannot hold."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from training_backend.job import is_on_network
from training_backend.paths import drive_of, free_bytes

# No file on a FAT32 drive, as most USB sticks are, may be longer.
# https://learn.microsoft.com/windows/win32/fileio/filesystem-functionality-comparison
FAT_FILE_BYTES = 2**32 - 1
_FAT = ("vfat", "msdos", "fat", "fat32", "msdosfs")
_NETWORK = ("nfs", "nfs4", "cifs", "smbfs", "smb3", "smb2", "afpfs", "webdav", "9p", "ceph")


@dataclass(frozen=True)
class Drive:
    """Where something is to be written; bytes.

    `free_bytes` is None for another computer's folder that was not looked at, `largest_file_bytes`
    None where no file is too long. `network`: the folder is another computer's.
    """

    name: str
    free_bytes: int | None
    network: bool = False
    largest_file_bytes: int | None = None


def of(folder: Path) -> Drive:
    r"""The drive of a folder, which need not exist.

    Of a folder \\server\share nothing is looked up: while its name is being typed, Windows would
    sign in at every server that the letters so far might mean.

    Raises:
        UserError: `drive_missing`, on Windows.
        OSError: it cannot be read.
    """
    if is_on_network(str(folder)):
        return Drive(str(folder.drive or folder), None, network=True)
    name, free = drive_of(folder), free_bytes(folder)
    kind, options = _file_system(name)
    remote = kind in _NETWORK or "remote" in options or kind.startswith("fuse.sshfs")
    return Drive(name, free, remote, FAT_FILE_BYTES if kind in _FAT else None)


def _file_system(mount: str) -> tuple[str, list[str]]:
    """The kind of file system in small letters, and its options; nothing where that is unknown."""
    try:
        for part in psutil.disk_partitions(all=True):
            if os.path.normcase(part.mountpoint) == os.path.normcase(mount):
                return part.fstype.lower(), part.opts.split(",")
    except (OSError, psutil.Error):
        pass
    return "", []
