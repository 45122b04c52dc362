"""Which adapters of the Hub fit a backbone: listed at most once an hour, from the last listing without a network."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from taskit.errors import HubError, HubUnavailableError, ZooError
from taskit.files import write_atomically
from taskit.zoo.hub.failures import hub_failures, patiently
from taskit.zoo.hub.pulling import Pin, cache_of, pull
from taskit.zoo.hub.source import HubSource, parse_source

FRESH_SECONDS = 3600  # as long a listing serves plans without a request
MOST_ADAPTERS = 1000  # of one listing
MOST_SIBLINGS = 5  # quantised copies of the backbone whose adapters are used as well
WORKERS = 8
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Listing:
    """The adapters that were pulled, and (id, reason) of the others; ``backbones`` are the ids they may name."""

    backbones: tuple[str, ...]
    pins: tuple[Pin, ...]
    skipped: tuple[tuple[str, str], ...]
    note: str = ""


def hub_listing(source: str, backbone: str, token: str | None, *, ask: bool) -> Listing:
    """The adapters of ``source`` (see `parse_source`) for ``backbone``, every one in the cache.

    Without ``ask`` a listing of the last hour is returned as it is, without any request.  Without a network an older
    one serves, and ``note`` says so.  Raises ZooError for a source that cannot be parsed, HubError for a refusal.
    """
    wanted, path = parse_source(source), _path(source, backbone, token)
    kept = _read(path, token)
    if kept is not None and not ask and time.time() - path.stat().st_mtime < FRESH_SECONDS:
        return kept
    try:
        found = _list(wanted, backbone, token)
    except HubUnavailableError as failure:
        if kept is None:
            raise
        return replace(kept, note=f"The listing of {_date(path)} is used: {failure}")
    return _pull_all(found, token, path)


def _list(source: HubSource, backbone: str, token: str | None) -> Listing:
    """The pins of ``source``, not yet pulled."""
    api = HfApi(token=token or False)
    backbones = (backbone, *_quantised(api, backbone))
    if source.ids or source.collection:
        ids = source.ids or _collected(api, source.collection)
        looked = _parallel(lambda id: _pin(api, id), ids)
        for failure in looked.values():
            if isinstance(failure, HubUnavailableError):
                raise failure
        pins = tuple(pin for pin in looked.values() if isinstance(pin, Pin))
        return Listing(backbones, pins, tuple((id, str(e)) for id, e in looked.items() if isinstance(e, HubError)))
    tags = () if source.author else ("taskit",)
    options = {"author": source.author or None, "expand": ["sha", "private", "gated"], "sort": "downloads"}
    found: dict[str, Pin] = {}
    with hub_failures("listing adapters", source.author or "the zoo"):
        for base in backbones:
            rows = api.list_models(filter=[f"base_model:adapter:{base}", *tags], **options)
            found |= {row.id: _pinned(row) for row in islice(rows, MOST_ADAPTERS)}
    return Listing(backbones, tuple(found.values()), ())


def _quantised(api: HfApi, backbone: str) -> tuple[str, ...]:
    """The most downloaded quantised copies of the backbone: the same network, so their adapters fit."""
    if "/" not in backbone:
        return ()
    with hub_failures("listing quantised copies", backbone):
        rows = api.list_models(
            filter=[f"base_model:quantized:{backbone}", "safetensors"], sort="downloads", limit=MOST_SIBLINGS
        )
        return tuple(row.id for row in rows)


def _collected(api: HfApi, slug: str) -> tuple[str, ...]:
    collection = patiently(lambda: api.get_collection(slug), "reading a collection", f"collection {slug}")
    return tuple(item.item_id for item in collection.items if item.item_type == "model")


def _pin(api: HfApi, id: str) -> Pin:
    name, _, revision = id.partition("@")
    return _pinned(patiently(lambda: api.model_info(name, revision=revision or None), f"looking at {name}", name))


def _pinned(info: Any) -> Pin:
    return Pin(info.id, info.sha, public=info.private is False and not info.gated)


def _pull_all(found: Listing, token: str | None, path: Path) -> Listing:
    """Pull every pin; the listing is kept unless one failed for a reason that may pass."""
    done = _parallel(lambda pin: pull(pin, found.backbones, token), found.pins)
    failed = {pin: error for pin, error in done.items() if isinstance(error, Exception)}
    skipped = (*found.skipped, *((pin.id, str(error)) for pin, error in failed.items()))
    listing = replace(found, pins=tuple(pin for pin in found.pins if pin not in failed), skipped=skipped)
    if not any(isinstance(error, HubUnavailableError) for error in failed.values()):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"schema": SCHEMA, **asdict(listing)}))
    return listing


def _parallel(call: Callable[[Any], Any], items: Sequence[Any] | Iterable[Any]) -> dict[Any, Any]:
    """``call`` of each item, in their order; a ZooError or HubError stands for the result."""

    def attempt(item: Any) -> Any:
        try:
            return call(item)
        except (ZooError, HubError) as error:
            return error

    items = tuple(items)
    with ThreadPoolExecutor(WORKERS) as pool:
        return dict(zip(items, pool.map(attempt, items), strict=True))


def _path(source: str, backbone: str, token: str | None) -> Path:
    key = hashlib.sha256(f"{source}\n{backbone}".encode()).hexdigest()[:32]
    return cache_of(token) / "listings" / f"{key}.json"


def _date(path: Path) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))


def _read(path: Path, token: str | None) -> Listing | None:
    """The listing that was kept, if all it names is still in the cache."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["schema"] != SCHEMA:
            return None
        pins = tuple(Pin(**pin) for pin in kept["pins"])
        skipped = tuple((id, reason) for id, reason in kept["skipped"])
        listing = Listing(tuple(kept["backbones"]), pins, skipped)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return listing if all(pin.folder(token).is_dir() for pin in pins) else None
