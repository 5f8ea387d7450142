"""Folders of the hub cache: `models--owner--name` with `refs/` and `snapshots/<commit>/`."""

from pathlib import Path

from workbench.errors import ModelError


def find_snapshot(folder: Path) -> Path:
    """The snapshot that a folder of the hub cache means, the one of refs/main or the only one; any other folder as it is."""
    if not folder.resolve().name.startswith("models--") or not (folder / "snapshots").is_dir():
        if not (folder / "config.json").is_file() and any(folder.glob("models--*/snapshots")):
            raise ModelError(f"{folder} is the hub's cache of many models; give a hub id, or one of its folders models--….")
        return folder
    main = folder / "refs" / "main"
    snapshots = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
    if main.is_file():
        named = folder / "snapshots" / main.read_text(encoding="utf-8", errors="replace").strip()
        if named in snapshots:
            return named
        raise ModelError(f"{folder} has no snapshot {named.name}, which its refs/main names; download the model again.")
    if len(snapshots) == 1:
        return snapshots[0]
    raise ModelError(f"{folder} has {len(snapshots)} snapshots and no refs/main; give the one that you want as a folder.")
