"""Consent to models that are code: asked for, remembered by sha256, and given to bytes."""

from __future__ import annotations

import hashlib
import os

import pytest

from made_files import small, write_script
from napari_wsi_heatmap.errors import ModelLoadError, UntrustedModelError
from napari_wsi_heatmap.models import load_model, trust
from napari_wsi_heatmap.models.trust import forget, is_trusted, read_code, remember, require_trust


@pytest.fixture
def script(tmp_path):
    return write_script(tmp_path / "a.pt", small())


@pytest.fixture
def sha256(script):
    return hashlib.sha256(script.read_bytes()).hexdigest()


def test_without_consent_path_and_sha256_are_told(script, sha256):
    with pytest.raises(UntrustedModelError) as caught:
        load_model(script)
    assert str(script) in str(caught.value)
    assert sha256 in str(caught.value)
    assert "--trust" in str(caught.value)
    assert caught.value.sha256 == sha256
    assert caught.value.kind == "TorchScript"
    assert not is_trusted(sha256)


@pytest.mark.parametrize("form", ["sha", "upper", "list", True])
def test_consent_is_remembered(script, sha256, form):
    forms = {"sha": sha256, "upper": sha256.upper(), "list": ["0" * 64, sha256]}
    load_model(script, trust=forms.get(form, True))
    assert is_trusted(sha256)
    load_model(script)
    load_model(script.rename(script.with_name("elsewhere.pt")))


def test_consent_belongs_to_the_content_not_the_name(script, sha256):
    load_model(script, trust=sha256)
    write_script(script, small(1))
    with pytest.raises(UntrustedModelError):
        load_model(script)


def test_another_sha256_is_refused_even_if_the_file_was_trusted(script):
    load_model(script, trust=True)
    with pytest.raises(UntrustedModelError, match="not the one that you trust"):
        load_model(script, trust="0" * 64)
    with pytest.raises(UntrustedModelError):
        load_model(script, trust=False)


def test_consent_can_be_taken_back(script, sha256):
    load_model(script, trust=True)
    forget(sha256)
    with pytest.raises(UntrustedModelError):
        load_model(script)


@pytest.mark.parametrize("given", ["yes", "", "abc", "../" + "0" * 61, ["x"]])
def test_consent_that_is_none(script, given):
    with pytest.raises(ModelLoadError, match="must be a sha256, or True"):
        load_model(script, trust=given)


def test_a_refused_file_is_not_remembered(script, trusted_folder):
    for given in (None, False, "0" * 64):
        with pytest.raises(UntrustedModelError):
            load_model(script, trust=given)
    assert not trusted_folder.exists()


def test_what_is_loaded_is_what_was_hashed(script, sha256, monkeypatch):
    """A file that changes between the question and the loading is asked about again."""
    hashed = trust._sha256_of

    def exchanged(file):
        found = hashed(file)
        write_script(script, small(1))
        return found

    monkeypatch.setattr(trust, "_sha256_of", exchanged)
    with pytest.raises(UntrustedModelError):
        read_code(script, "TorchScript", sha256)
    assert not is_trusted(hashlib.sha256(script.read_bytes()).hexdigest())


def test_a_folder_that_cannot_be_written_costs_only_the_memory(script, sha256, trusted_folder):
    trusted_folder.write_text("in the way")
    load_model(script, trust=sha256)
    load_model(script)
    forget(sha256)
    with pytest.raises(UntrustedModelError):
        load_model(script)


def test_only_a_sha256_is_looked_up(tmp_path, trusted_folder):
    trusted_folder.mkdir()
    (trusted_folder.parent / "x").touch()
    assert not is_trusted("../x")
    assert not is_trusted("")
    remember("a" * 64, tmp_path / "ü\n")
    assert is_trusted("a" * 64)
    assert os.listdir(trusted_folder) == ["a" * 64]


def test_consent_to_everything_needs_no_hash(tmp_path):
    require_trust(tmp_path, "", "TorchScript", True)
