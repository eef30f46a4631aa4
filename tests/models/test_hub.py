"""Repositories of Hugging Face: only at a pinned revision, and first from the user's cache."""

from __future__ import annotations

import sys

import pytest

from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.models.hub import HubRepository, cache_folder

REVISION = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def without_network(monkeypatch):
    """The package that downloads is absent, whether it is installed here or not."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)


def put(cache, repository, revision, name, content=b"{}"):
    path = cache / repository / "snapshots" / revision / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_an_address_names_owner_name_and_revision():
    repository = HubRepository.of(f"hf://kaczmarj/a.model-1@{REVISION}")
    assert (repository.owner, repository.name) == ("kaczmarj", "a.model-1")
    assert repository.revision == REVISION
    assert str(repository) == f"hf://kaczmarj/a.model-1@{REVISION}"


@pytest.mark.parametrize("revision", ["", "@", "@main", "@v1.0", "@0123456", "@" + "g" * 40,
                                      "@" + REVISION + "0", "@" + REVISION.upper()])  # fmt: skip
def test_what_can_change_is_refused(revision):
    with pytest.raises(ModelLoadError, match="the revision of the repository is not pinned") as e:
        load_model(f"hf://owner/name{revision}")
    assert "40 hexadecimal digits" in str(e.value)
    assert len(str(e.value).splitlines()) == 1


@pytest.mark.parametrize(
    "spec", ["hf://", "hf://owner", "hf://a/b/c@" + REVISION, "hf://../b@" + REVISION,
             "hf://a/..@" + REVISION, "hf://a b/c@" + REVISION]
)  # fmt: skip
def test_what_is_no_address_is_refused(spec):
    with pytest.raises(ModelLoadError, match="no address of a Hugging Face repository"):
        load_model(spec)


@pytest.mark.usefixtures("without_network")
def test_a_file_in_the_cache_needs_no_network_nor_package(cache):
    path = put(cache, "models--owner--name", REVISION, "config.json")
    repository = HubRepository("owner", "name", REVISION)
    assert repository.cached("config.json") == path == repository.fetched("config.json")
    assert repository.cached("weights.pt") is None


@pytest.mark.usefixtures("without_network")
def test_another_revision_in_the_cache_is_not_taken(cache):
    put(cache, "models--owner--name", OTHER, "config.json")
    with pytest.raises(ModelLoadError, match=r"config\.json is not in the cache.*pip install"):
        HubRepository("owner", "name", REVISION).fetched("config.json")


def test_exactly_the_pinned_revision_is_asked_for(cache, monkeypatch):
    asked = []

    class Hub:
        @staticmethod
        def hf_hub_download(repository, filename, *, revision):
            asked.append((repository, filename, revision))
            return put(cache, "models--owner--name", revision, filename)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    path = HubRepository("owner", "name", REVISION).fetched("config.json")
    assert path.is_file()
    assert asked == [("owner/name", "config.json", REVISION)]


def test_a_download_that_fails_is_one_line(cache, monkeypatch):
    class Hub:
        @staticmethod
        def hf_hub_download(*_, **__):
            raise OSError("401 Client Error.\nCannot access gated repo")

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    with pytest.raises(ModelLoadError, match=r"cannot be downloaded: 401.*accept a licence") as e:
        HubRepository("owner", "name", REVISION).fetched("config.json")
    assert len(str(e.value).splitlines()) == 1


def test_what_the_user_has_is_found_by_its_branch(cache):
    put(cache, "models--Owner--Name", REVISION, "a")
    put(cache, "models--Owner--Name", OTHER, "a")
    with pytest.raises(ModelLoadError, match="several revisions are in the cache"):
        HubRepository.in_cache("owner", "name")
    (cache / "models--Owner--Name/refs").mkdir()
    (cache / "models--Owner--Name/refs/main").write_text(OTHER)
    assert HubRepository.in_cache("owner", "name") == HubRepository("owner", "name", OTHER)


def test_the_only_revision_needs_no_branch(cache):
    assert HubRepository.in_cache("owner", "name") is None
    put(cache, "models--owner--name", REVISION, "a")
    assert HubRepository.in_cache("owner", "name") == HubRepository("owner", "name", REVISION)


@pytest.mark.parametrize(
    ("variables", "place"),
    [({"HF_HUB_CACHE": "/a/b", "HF_HOME": "/c"}, "/a/b"), ({"HF_HOME": "/c"}, "/c/hub"),
     ({"XDG_CACHE_HOME": "/d"}, "/d/huggingface/hub"),
     ({"HOME": "/e", "USERPROFILE": "/e"}, "/e/.cache/huggingface/hub")],
)  # fmt: skip
def test_the_cache_is_where_huggingface_hub_has_it(variables, place, monkeypatch):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder().as_posix() == place
