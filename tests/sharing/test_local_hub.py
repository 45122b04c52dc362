"""The local hub answers the unmodified client as the Hub does."""

import os
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

FILES = {"README.md": b"---\nlibrary_name: peft\nbase_model: lab/base\ntags: [taskit]\n---\nhello", "a.json": b"{}"}


def test_upload_and_download_with_and_without_xet(either_hub, tmp_path):
    api = HfApi(token=either_hub.add_account("ann"))
    folder = tmp_path / "up"
    folder.mkdir()
    weights = os.urandom(100_000)
    for name, data in {**FILES, "w.safetensors": weights}.items():
        (folder / name).write_bytes(data)
    api.create_repo("ann/x", private=True)
    made = api.upload_folder(repo_id="ann/x", folder_path=folder)
    info = api.model_info("ann/x", files_metadata=True)
    assert info.sha == made.oid
    assert {s.rfilename: s.size for s in info.siblings}["w.safetensors"] == 100_000
    path = hf_hub_download("ann/x", "w.safetensors", revision=info.sha, token=api.token, local_dir=tmp_path / "down")
    assert Path(path).read_bytes() == weights
    stored = either_hub.state.repos["model", "ann/x"].commits[-1][1]["w.safetensors"]
    assert (stored.xet_hash is not None) == any("xet-write-token" in line for line in either_hub.requests)


def test_lists_by_tag_in_pages_of_a_hundred(hub):
    for n in range(230):
        hub.state.add_repo(f"ann/m{n}", FILES | {"adapter_config.json": b"{}"}, private=n == 7)
    hub.state.add_repo("bob/other", {"README.md": b"none"})
    found = list(HfApi().list_models(filter=["base_model:adapter:lab/base", "taskit"]))
    assert len(found) == 229
    assert hub.requests == ["GET /api/models"] * 3
    assert len(list(HfApi(token=hub.add_account("ann")).list_models(author="ann"))) == 230


def test_refuses_as_the_hub_refuses(hub):
    ann, reader = hub.add_account("ann"), hub.add_account("bob", write=False)
    hub.state.add_repo("ann/private", FILES, private=True)
    hub.state.add_repo("ann/gated", FILES, gated=True)
    for token in (False, reader):
        with pytest.raises(RepositoryNotFoundError):
            HfApi().model_info("ann/private", token=token)
    with pytest.raises(RevisionNotFoundError):
        HfApi().model_info("ann/private", revision="v1", token=ann)
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("ann/private", "none", token=ann)
    with pytest.raises(GatedRepoError):
        hf_hub_download("ann/gated", "a.json", token=reader)
    for token, status in (("hf_wrong", 401), (reader, 403)):
        with pytest.raises(HfHubHTTPError) as refused:
            HfApi().create_repo("bob/new", token=token)
        assert refused.value.response.status_code == status
    with pytest.raises(HfHubHTTPError) as taken:
        HfApi().create_repo("ann/private", token=ann)
    assert taken.value.response.status_code == 409


def test_a_stale_parent_is_412(hub):
    api = HfApi(token=hub.add_account("ann"))
    repo = hub.state.add_repo("ann/x", FILES)
    old = repo.head
    hub.state.change(repo, {"b.json": b"[]"})
    with pytest.raises(HfHubHTTPError) as conflict:
        api.upload_file(path_or_fileobj=b"1", path_in_repo="c.json", repo_id="ann/x", parent_commit=old)
    assert conflict.value.response.status_code == 412
