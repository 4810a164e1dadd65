"""What a hub says about a model's files, and which of them a checkpoint needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from stepvideo_core.checkpoints.layout import SHARED_FOLDERS, VAE_V1_FILE, VAE_V2_FILE
from stepvideo_core.errors import DownloadFailed

_OWN_FOLDERS = ("scheduler", "transformer")
_TOP_FILES = ("model_index.json", "stepvideo.json", "LICENSE", "LICENSE.md", "LICENSE.txt")


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """One file: its path in the repository, its size in bytes, its checksum, its address.

    sha256: of the content, for files in large-file storage; git_sha1: git's object id, for others.
    """

    path: str
    size: int
    url: str
    sha256: str | None = None
    git_sha1: str | None = None

    @property
    def checksum(self) -> str:
        return self.sha256 or self.git_sha1 or "unknown"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A repository at one revision. headers: to send with every request, such as a token's."""

    model: str
    revision: str
    files: tuple[HubFile, ...]
    headers: Mapping[str, str]

    def folders(self) -> set[str]:
        """The top-level folders that hold files."""
        return {parts[0] for file in self.files if len(parts := PurePosixPath(file.path).parts) > 1}

    def wanted(self, folders: Collection[str] | None = None) -> list[HubFile]:
        """The files of a checkpoint, or of these of its folders only.

        Leaves out what nothing here reads: vendor libraries, pictures, and version 1 of the VAE
        where version 2 is there. Raises DownloadFailed for a path that leaves the folder.
        """
        paths = {file.path for file in self.files}
        surplus = {f"vae/{VAE_V1_FILE}"} if f"vae/{VAE_V2_FILE}" in paths else set()
        found = []
        for file in self.files:
            path = PurePosixPath(file.path)
            if path.is_absolute() or ".." in path.parts or "\\" in file.path:
                raise DownloadFailed(f"{self.model} lists a file {file.path!r}, which is refused")
            if file.path in surplus:
                continue
            if folders is None:
                taken = file.path in _TOP_FILES or path.parts[0] in _OWN_FOLDERS + SHARED_FOLDERS
            else:
                taken = path.parts[0] in folders
            if taken:
                found.append(file)
        return found
