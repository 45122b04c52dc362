"""What a hub remembers: accounts, repositories with their commits, and large files by their SHA-256."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

import yaml

from tests.hub.local_job import LocalJob

NUMBERS = count()


@dataclass
class Account:
    """One user; a token without ``write`` may only read."""

    name: str
    write: bool = True


@dataclass
class File:
    """One file of a commit; ``data`` is None where only the Xet store has the bytes."""

    data: bytes | None
    size: int
    sha256: str
    large: bool = False
    xet_hash: str | None = None

    @property
    def oid(self) -> str:
        """What git calls the file, as the Hub's preupload reports it: SHA-256 when large, else the blob's SHA-1."""
        if self.large or self.data is None:
            return self.sha256
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


def small_file(data: bytes) -> File:
    return File(data, len(data), hashlib.sha256(data).hexdigest())


@dataclass
class Repo:
    """A repository of type "model" or "dataset"; the last commit is the head of main."""

    id: str
    kind: str = "model"
    private: bool = False
    gated: bool = False
    commits: list[tuple[str, dict[str, File]]] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)  # by sha

    def commit(self, files: dict[str, File], title: str = "initial commit") -> str:
        """Add a commit whose tree is exactly ``files``; returns its sha."""
        sha = hashlib.sha1(f"{self.id} {next(NUMBERS)} {sorted(files)}".encode()).hexdigest()
        self.commits.append((sha, files))
        self.titles[sha] = title
        return sha

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    def tree(self, revision: str) -> dict[str, File] | None:
        """Files at "main" or at a full commit sha, None for another revision."""
        if revision == "main":
            return self.commits[-1][1]
        return dict(self.commits).get(revision)

    def card(self) -> dict:
        """The metadata of README.md."""
        readme = self.commits[-1][1].get("README.md")
        if readme is None or readme.data is None or not readme.data.startswith(b"---\n"):
            return {}
        return yaml.safe_load(readme.data.split(b"---\n")[1]) or {}

    def tags(self) -> list[str]:
        """What the Hub derives from the card: library, task, licence, and how it hangs on its base model."""
        card, tags = self.card(), []
        tags += [card[key] for key in ("library_name", "pipeline_tag") if card.get(key)]
        tags += card.get("tags") or []
        bases = card.get("base_model") or []
        if any(path.endswith(".safetensors") for path in self.commits[-1][1]):
            tags.append("safetensors")
        relation = card.get("base_model_relation") or ("adapter" if self._is_adapter() else "finetune")
        for base in [bases] if isinstance(bases, str) else bases:
            tags += [f"base_model:{base}", f"base_model:{relation}:{base}"]
        if card.get("license"):
            tags.append(f"license:{card['license']}")
        return list(dict.fromkeys(tags))

    def _is_adapter(self) -> bool:
        return "adapter_config.json" in self.commits[-1][1]

    def info(self, revision: str, *, sizes: bool = False) -> dict:
        """The JSON of model_info and of one row of list_models."""
        tree = self.tree(revision) or {}
        return {
            "id": self.id,
            "sha": self.head if revision == "main" else revision,
            "private": self.private,
            "gated": "auto" if self.gated else False,
            "tags": self.tags(),
            "cardData": self.card(),
            "library_name": self.card().get("library_name"),
            "lastModified": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "downloads": 0,
            "siblings": [_sibling(path, file, sizes) for path, file in sorted(tree.items())],
        }


def _sibling(path: str, file: File, sizes: bool) -> dict:
    entry: dict = {"rfilename": path}
    if sizes:
        entry |= {"size": file.size, "blobId": file.oid[:40]}
        if file.large:
            entry["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": 130}
    return entry


@dataclass
class State:
    """Everything of one hub."""

    accounts: dict[str, Account] = field(default_factory=dict)  # by token
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)  # by (kind, id)
    blobs: dict[str, bytes] = field(default_factory=dict)  # large files that were put to the CDN
    collections: dict[str, list[str]] = field(default_factory=dict)
    jobs: dict[str, LocalJob] = field(default_factory=dict)

    def add_repo(self, id: str, files: dict[str, bytes] | None = None, kind: str = "model", **options) -> Repo:
        """A repository with an initial commit; ``files`` of ``*.safetensors`` become large ones."""
        repo = self.repos[kind, id] = Repo(id, kind, **options)
        repo.commit({".gitattributes": small_file(b"*.safetensors filter=lfs\n")})
        if files:
            self.change(repo, files)
        return repo

    def change(self, repo: Repo, files: dict[str, bytes]) -> str:
        """Commit ``files`` on top of the head, as another client would."""
        made = {path: small_file(data) for path, data in files.items()}
        for path, file in made.items():
            if path.endswith((".safetensors", ".bin")):
                file.large = True
                self.blobs[file.sha256] = files[path]
        return repo.commit(repo.commits[-1][1] | made, "Upload with another client")


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()
