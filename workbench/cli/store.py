"""The command that lists, checks and prunes the cache folder."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.arguments import Json
from workbench.cli.output import emit_page
from workbench.cli.tables import Column, format_rows

if TYPE_CHECKING:
    from workbench.store import Item, Store

DAY, GIGABYTE = 86_400, 1e9
MAX_LISTED_ITEMS = 40  # rows of the table; --json has all
ITEM_COLUMNS = (Column("kind"), Column("bytes", right=True), Column("days", right=True), Column("what", folds=True))


def store(
    verify: Annotated[bool, typer.Option("--verify", help="Check all entries against their digests.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove damaged and abandoned entries, and those beyond the limits.")
    ] = False,
    older: Annotated[
        float | None,
        typer.Option("--older-than", metavar="DAYS", min=0, help="With --prune: remove entries unused for this many days."),
    ] = None,
    limit: Annotated[
        float | None, typer.Option("--limit", metavar="GB", min=0, help="With --prune: maximum size to keep. By default, 4.3 GB.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List, check or prune the cache folder.

    The list shows kind, size, days since last use, and content of each entry. The folder is set by WORKBENCH_CACHE; by default
    it is the user's cache folder. Everything in it can be removed at any time, except what a running process is still writing,
    which --prune leaves alone. The exit status is 1 if --verify finds damage and --prune does not remove it.
    """
    from workbench.store import Store

    if not prune and (older is not None or limit is not None):
        raise typer.BadParameter("--older-than and --limit need --prune; add it.")
    cache = Store()
    damaged_items = _find_damages(cache, list(cache.items())) if verify or prune else {}
    removed = remove(cache, list(damaged_items), older, limit) if prune else 0
    items = sorted(cache.items(), key=lambda item: -item.used)
    now = time.time()
    facts: dict[str, Any] = {
        "folder": str(cache.folder),
        "bytes": sum(item.size for item in items),
        "limit_bytes": cache.limit_bytes,
        "removed_bytes": removed,
        "damaged": [{"name": item.path.name, "kind": item.kind, "why": why} for item, why in damaged_items.items()],
        "items": [
            {"kind": item.kind, "bytes": item.size, "days": (now - item.used) / DAY, "what": item.what, "name": item.path.name}
            for item in items
        ],
    }
    emit_page(facts, as_json=as_json, text=_format_items(facts, verified=verify, pruned=prune))
    if damaged_items and not prune:
        raise typer.Exit(1)


def _find_damages(cache: "Store", items: "Sequence[Item]") -> "dict[Item, str]":
    """What is wrong with damaged entries and models, each in words."""
    damaged_items = {item: check(cache, item) for item in items if not item.is_partial}
    return {item: why for item, why in damaged_items.items() if why is not None}


def check(cache: "Store", item: "Item") -> str | None:
    """What is wrong with an entry or a model, or None."""
    if item.kind != "model":
        return cache.damage(item)
    from workbench.artifact import reading
    from workbench.errors import ArtifactError

    try:
        reading.read(item.path)
    except ArtifactError as error:
        return str(error)
    return None


def remove(cache: "Store", damaged: "Sequence[Item]", older: float | None, limit: float | None) -> int:
    """Remove what is damaged, abandoned, or outside the limits; returns the bytes."""
    from workbench.atomic import discard

    for item in damaged:
        discard(item.path)
    return sum(item.size for item in damaged) + cache.prune(
        limit_bytes=None if limit is None else int(limit * GIGABYTE), unused_for=None if older is None else older * DAY
    )


def _format_items(facts: dict[str, Any], *, verified: bool, pruned: bool) -> str:
    """The items as a table with a sentence."""
    items = facts["items"]
    lines = []
    if items:
        rows = [[item["kind"], f"{item['bytes']:,}", f"{item['days']:.1f}", item["what"]] for item in items[:MAX_LISTED_ITEMS]]
        lines.append(format_rows(ITEM_COLUMNS, rows))
    if len(items) > MAX_LISTED_ITEMS:
        lines.append(f"… and {len(items) - MAX_LISTED_ITEMS:,} more; --json lists all")
    lines += [f"damaged: {one['kind']} {one['name']}: {one['why']}" for one in facts["damaged"]]
    kinds = Counter(item["kind"] for item in items).most_common()
    counted = ", ".join(f"{count:,} × {kind}" for kind, count in kinds) or "nothing"
    lines.append(f"\n{facts['bytes']:,} bytes of at most {facts['limit_bytes']:,} in {facts['folder']}: {counted}")
    if verified and not facts["damaged"]:
        lines.append("no damage found")
    if pruned:
        lines.append(f"{facts['removed_bytes']:,} bytes removed")
    return "\n".join(lines)
