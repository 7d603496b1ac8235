"""Debian packages are opened without dpkg, once, and only what is safe and wanted comes out."""

import gzip
import hashlib
import tarfile

import pytest
from invented_corpora import ar_bytes, tar_bytes, write_deb

from data_builders import debs
from data_builders.debs import Package, extract_deb, fetch_package, read_ar
from lalm.errors import DataError

FILES = {"./usr/share/a/one.wav": b"one", "./usr/share/a/two.txt": b"two", "./usr/bin/tool": b"tool"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LALM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(("mode", "name"), [("w:xz", "data.tar.xz"), ("w:gz", "data.tar.gz"), ("w:", "data.tar")])
def test_wanted_members_come_out_of_every_compression(tmp_path, mode, name):
    archive = write_deb(tmp_path / "p_1.deb", tar_bytes(FILES, mode), name)
    assert extract_deb(archive, tmp_path / "out", (".wav", ".txt")) == ["usr/share/a/one.wav", "usr/share/a/two.txt"]
    assert (tmp_path / "out/usr/share/a/one.wav").read_bytes() == b"one"
    assert not (tmp_path / "out/usr/bin").exists()


def test_zstd_is_opened(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    data = zstandard.ZstdCompressor().compress(tar_bytes(FILES, "w:"))
    archive = write_deb(tmp_path / "p_1.deb", data, "data.tar.zst")
    assert extract_deb(archive, tmp_path / "out", (".wav",)) == ["usr/share/a/one.wav"]


@pytest.mark.parametrize("name", ["../escaped.wav", "/absolute.wav", "usr/../../escaped.wav"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, name):
    archive = write_deb(tmp_path / "p_1.deb", tar_bytes({name: b"x"}))
    with pytest.raises(DataError, match="outside its folder"):
        extract_deb(archive, tmp_path / "out", (".wav",))
    assert not list(tmp_path.rglob("escaped.wav"))


def test_links_are_never_written(tmp_path):
    link = tarfile.TarInfo("usr/share/a/link.wav")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    archive = write_deb(tmp_path / "p_1.deb", tar_bytes(FILES, extra=[link]))
    assert extract_deb(archive, tmp_path / "out", (".wav",)) == ["usr/share/a/one.wav"]


def test_a_member_of_odd_length_does_not_shift_the_next(tmp_path):
    path = tmp_path / "a.deb"
    path.write_bytes(ar_bytes({"odd": b"123", "even": b"1234"}))
    assert dict(read_ar(path)) == {"odd": b"123", "even": b"1234"}


def test_a_cut_archive_is_named(tmp_path):
    archive = write_deb(tmp_path / "p_1.deb", tar_bytes(FILES))
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"p_1\.deb.*cut short"):
        extract_deb(archive, tmp_path / "out", (".wav",))


def test_what_is_no_package_is_named(tmp_path):
    (tmp_path / "p_1.deb").write_bytes(gzip.compress(b"no package"))
    with pytest.raises(DataError, match="not a Debian package"):
        list(read_ar(tmp_path / "p_1.deb"))


def test_a_second_run_downloads_and_opens_nothing(cache, monkeypatch):
    archive = write_deb(cache / "corpora/debs/p_1.0_all.deb", tar_bytes(FILES))
    package = Package("p", (".wav",), {"1.0": hashlib.sha256(archive.read_bytes()).hexdigest()})
    first = fetch_package(package, report=lambda line: None)
    monkeypatch.setattr(debs, "_download", lambda *_: pytest.fail("downloaded"))
    monkeypatch.setattr(debs, "extract_deb", lambda *_: pytest.fail("opened"))
    assert fetch_package(package, report=lambda line: pytest.fail(line)) == first
    assert first.version == "1.0"
    assert (first.folder / "usr/share/a/one.wav").is_file()


def test_a_lost_file_is_opened_again(cache):
    write_deb(cache / "corpora/debs/p_1.0_all.deb", tar_bytes(FILES))
    package = Package("p", (".wav",), {})
    folder = fetch_package(package, report=lambda line: None).folder
    (folder / "usr/share/a/one.wav").unlink()
    assert (fetch_package(package, report=lambda line: None).folder / "usr/share/a/one.wav").is_file()


def test_the_pinned_version_with_another_content_is_refused_and_deleted(cache):
    archive = write_deb(cache / "corpora/debs/p_1.0_all.deb", tar_bytes(FILES))
    with pytest.raises(DataError, match="sha256"):
        fetch_package(Package("p", (".wav",), {"1.0": "0" * 64}), report=lambda line: None)
    assert not archive.exists()


def test_a_newer_version_is_used_and_said(cache):
    write_deb(cache / "corpora/debs/p_2.0_all.deb", tar_bytes(FILES))
    said = []
    assert fetch_package(Package("p", (".wav",), {"1.0": "0" * 64}), report=said.append).version == "2.0"
    assert any("2.0" in line and "1.0" in line for line in said)


def test_without_apt_it_says_what_to_do_instead(cache, monkeypatch):
    monkeypatch.setattr(debs.shutil, "which", lambda name: None)
    with pytest.raises(DataError, match=r"no apt-get.*lalm data import.*Docker"):
        fetch_package(Package("p", (".wav",), {}), report=lambda line: None)


def test_a_package_without_wanted_files_is_refused(cache):
    write_deb(cache / "corpora/debs/p_1.0_all.deb", tar_bytes(FILES))
    with pytest.raises(DataError, match=r"no file that ends with \.flac"):
        fetch_package(Package("p", (".flac",), {}), report=lambda line: None)
    assert not list((cache / "corpora").glob(".p.*"))
