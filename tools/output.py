"""Folders that scripts write into: nothing is emptied or overwritten that they did not make."""

from pathlib import Path

from mini.files import require_writable, write_atomically

NAMES = ".written-by-the-course"  # in such a folder: what was written into it, a name a line


class Output:
    """A folder that is empty, or ours: a list of what was written stands in it.

    `usual` is the folder that the script writes without being asked, which is ours in any case.
    Raises ValueError for a folder with something in it and without that list, for a file, and for
    a folder that cannot be written.
    """

    def __init__(self, folder: Path, usual: Path | None = None):
        self.folder = folder
        self._list = folder / NAMES
        is_usual = usual is not None and folder.resolve() == usual.resolve()
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file: name an empty or a new folder.")
        require_writable(folder)
        if self._list.is_file():
            self.names = set(self._list.read_text("utf-8").splitlines())
        elif is_usual and folder.is_dir():  # of before there was such a list
            found = (path for path in folder.rglob("*") if not path.is_dir())
            self.names = {path.relative_to(folder).as_posix() for path in found}
        elif folder.is_dir() and any(folder.iterdir()):
            raise ValueError(
                f"The folder {folder} holds files that this script did not write: name an empty or "
                "a new folder."
            )
        else:
            self.names = set()

    def claim(self, path: Path) -> Path:
        """`path` in the folder, which is going to be written; ValueError if it is another's."""
        name = path.relative_to(self.folder).as_posix()
        if name not in self.names and path.exists():
            raise ValueError(f"{path} was not written by this script: move it, or name a folder.")
        if name not in self.names or not self._list.is_file():
            self.names.add(name)
            self._save()
        return path

    def write(self, name: str, content: bytes) -> Path:
        """Write one file of the folder, whole or not at all."""
        path = self.claim(self.folder / name)
        write_atomically(path, lambda file: file.write(content))
        return path

    def copy(self, source: Path, name: str) -> None:
        """Write the files of another folder into the folder called `name`."""
        for path in sorted(source.rglob("*")):
            if path.is_file() and path.name != NAMES:
                self.write(f"{name}/{path.relative_to(source).as_posix()}", path.read_bytes())

    def clear(self, below: str = "") -> None:
        """Remove what was written here before, or what begins with `below` of it, no more."""
        for name in sorted(name for name in self.names if name.startswith(below)):
            path = self.folder / name
            if path.parent.resolve().is_relative_to(self.folder.resolve()):
                path.unlink(missing_ok=True)
                for parent in path.parents:
                    if parent == self.folder or not parent.is_dir() or any(parent.iterdir()):
                        break
                    parent.rmdir()
            self.names.remove(name)
        if self._list.is_file():
            self._save()

    def _save(self) -> None:
        text = "".join(f"{name}\n" for name in sorted(self.names))
        write_atomically(self._list, lambda file: file.write(text.encode()))
