"""The Xet store of the released hf_xet wheel, kept in a folder: which content has which Xet hash."""

import struct
from pathlib import Path

RECORD = 48  # bytes of every record in a shard, its header included


def xet_hash(store: Path, sha256: str) -> str | None:
    """The Xet hash of a file by its SHA-256, from the shards that an upload left in ``store``."""
    for shard in store.rglob("*.mdb"):
        found = _files(shard.read_bytes()).get(sha256)
        if found:
            return found
    return None


def _files(shard: bytes) -> dict[str, str]:
    """SHA-256 -> Xet hash.  After the header each file is one record (hash, flags, entries), its entries,
    as many verifications if bit 31 of the flags is set, and if bit 30 is, one record with the SHA-256."""
    found, at = {}, RECORD
    while at + RECORD <= len(shard):
        head = shard[at : at + 32]
        flags, entries = struct.unpack_from("<II", shard, at + 32)
        if head == b"\xff" * 32:
            break
        at += RECORD * (1 + entries * (2 if flags >> 31 & 1 else 1))
        if flags >> 30 & 1:
            found[_hash(shard[at : at + 32])] = _hash(head)
            at += RECORD
    return found


def _hash(raw: bytes) -> str:
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))
