"""Where a runnable cloud-init comes from, and what is said when it cannot be had."""

from __future__ import annotations

import pytest

from tools import cloudinit


def test_a_folder_that_was_named_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDWORK_CLOUD_INIT", str(tmp_path))
    packages = tmp_path / "trixie" / "usr" / "lib" / "python3" / "dist-packages"
    (packages / "cloudinit").mkdir(parents=True)
    assert cloudinit.ensure("trixie").packages == packages


def test_a_folder_without_cloud_init_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDWORK_CLOUD_INIT", str(tmp_path))
    with pytest.raises(cloudinit.NoCloudInitError, match=f"GROUNDWORK_CLOUD_INIT={tmp_path}: no cloudinit in"):
        cloudinit.ensure("bookworm")


@pytest.mark.parametrize(
    ("programs", "said"), [((), "no apt-get on PATH"), (("apt-get", "dpkg-deb"), "apt has no Debian archive as source")]
)
def test_a_system_without_debians_archive_is_told_what_to_do(tmp_path, monkeypatch, capsys, programs, said):
    monkeypatch.delenv("GROUNDWORK_CLOUD_INIT", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in programs:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    assert cloudinit.main(["trixie"]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "GROUNDWORK_CLOUD_INIT" in error
    assert not list((tmp_path / "cache" / "groundwork" / "cloud-init").glob("trixie*"))
