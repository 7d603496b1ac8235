"""The application of the page: lists, records, clips, pictures, decisions; nothing from outside the folder."""

import io
import json
import os

import numpy as np
import pytest
import soundfile

from data_builders.filters.base import Funnel, run_filters
from data_builders.view.app import make_app, serve
from data_builders.view.items import load_items
from data_builders.view.picture import clip_picture, decibels, extremes
from data_builders.view.review import Reviewed, ReviewFile
from lalm.data.records import Record, read_records, write_records
from lalm.errors import DataError

testclient = pytest.importorskip("starlette.testclient", reason="needs starlette (pip install 'lalm[view]')")


@pytest.fixture
def client(tiny_data):
    folder, items = load_items(tiny_data, sample=0, seed=0)
    app = make_app(folder, items, ReviewFile(tiny_data / "review.jsonl"))
    return testclient.TestClient(app, base_url="http://127.0.0.1")


def with_audio(folder, name):
    """A client over one record whose clip is `name`."""
    turns = ({"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."})
    write_records(folder / "train.jsonl", [Record(id="x", audio=(name,), turns=turns)])
    root, items = load_items(folder, sample=0, seed=0)
    app = make_app(root, items, ReviewFile(folder / "review.jsonl"))
    return testclient.TestClient(app, base_url="http://127.0.0.1")


def test_lists_and_filters(client):
    found = client.get("/api/items").json()
    assert [item["id"] for item in found["items"]] == [f"r{number}" for number in range(8)]
    assert found["tasks"] == {"sound_name": 8}
    assert client.get("/api/items?task=other").json()["items"] == []


def test_a_record_is_shown_whole(client, tiny_data):
    found = client.get("/api/items/3").json()
    assert Record.model_validate(found["record"]) == list(read_records(tiny_data / "train.jsonl"))[3]
    assert client.get("/api/items/8").status_code == 404


def test_clips_and_pictures(client, tiny_data):
    clip = client.get("/clips/2/0")
    assert clip.content == (tiny_data / "clips/2.wav").read_bytes()
    assert client.get("/clips/2/0", headers={"range": "bytes=0-9"}).status_code == 206
    picture = client.get("/pictures/2/0")
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")
    assert client.get("/clips/2/1").status_code == 404


@pytest.mark.parametrize(
    "name", ["../secret.wav", "{absolute}", "clips/../../secret.wav", "link.wav", "linked/secret.wav"]
)
def test_nothing_outside_the_folder_is_served(tmp_path, name):
    folder = tmp_path / "set"
    folder.mkdir()
    soundfile.write(tmp_path / "secret.wav", np.zeros(100), 16000)
    os.symlink(tmp_path / "secret.wav", folder / "link.wav")
    os.symlink(tmp_path, folder / "linked")
    client = with_audio(folder, name.format(absolute=tmp_path / "secret.wav"))
    for kind in ("clips", "pictures"):
        reply = client.get(f"/{kind}/0/0")
        assert reply.status_code == 404
        assert reply.json() == {"error": "no such clip in the data folder"}


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/clips/0/../../train.jsonl", "/train.jsonl"]
)
def test_no_path_leads_out_of_the_page(client, path):
    assert client.get(path).status_code == 404


def test_a_format_that_browsers_do_not_play_is_sent_as_wav(tmp_path):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 800)
    soundfile.write(tmp_path / "a.aiff", wave, 8000)
    reply = with_audio(tmp_path, "a.aiff").get("/clips/0/0")
    assert reply.headers["content-type"] == "audio/wav"
    decoded, rate = soundfile.read(io.BytesIO(reply.content))
    assert rate == 8000
    assert np.allclose(decoded, wave, atol=1e-3)


def test_a_broken_clip_says_so(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no audio")
    reply = with_audio(tmp_path, "a.wav").get("/pictures/0/0")
    assert reply.status_code == 422
    assert "a.wav" in reply.json()["error"]


def test_decisions_are_on_disk_and_the_last_one_counts(client, tiny_data):
    for verdict, note in (("reject", "too quiet"), ("accept", ""), ("reject", "wrong name")):
        reply = client.post("/api/items/1/review", json={"verdict": verdict, "note": note})
        assert reply.json()["verdict"] == verdict
    client.post("/api/items/2/review", json={"verdict": "accept"})
    client.post("/api/items/3/review", json={"verdict": "reject"})
    client.post("/api/items/3/review", json={"verdict": "clear"})
    lines = [json.loads(line) for line in (tiny_data / "review.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    assert lines[2] | {"at": ""} == {
        "file": "train.jsonl",
        "id": "r1",
        "verdict": "reject",
        "note": "wrong name",
        "at": "",
    }
    assert ReviewFile(tiny_data / "review.jsonl").counts() == {"accept": 1, "reject": 1}
    assert [item["id"] for item in client.get("/api/items?state=reject").json()["items"]] == ["r1"]
    assert len(client.get("/api/items?state=open").json()["items"]) == 6
    assert client.get("/api/items/1").json()["note"] == "wrong name"
    kept = list(
        run_filters(lambda: read_records(tiny_data / "train.jsonl"), [Reviewed(tiny_data / "review.jsonl")], Funnel())
    )
    assert [record.id for record in kept] == ["r0", "r2", "r3", "r4", "r5", "r6", "r7"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        ('{"verdict": "perhaps"}', "application/json", 422),
        ('{"verdict": "accept", "note": 3}', "application/json", 422),
        ("[]", "application/json", 422),
        ("{", "application/json", 422),
        ('{"verdict": "accept"}', "text/plain", 415),
        ("x" * 20000, "application/json", 413),
    ],
)
def test_bad_decisions_are_refused(client, tiny_data, content, kind, status):
    reply = client.post("/api/items/0/review", content=content, headers={"content-type": kind})
    assert reply.status_code == status
    assert not (tiny_data / "review.jsonl").exists()


def test_another_host_name_is_refused(client):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]


def test_the_sample_is_seeded_and_in_order(tiny_data):
    def ids(**options):
        return [item.record.id for item in load_items(tiny_data / "train.jsonl", **options)[1]]

    assert len(ids(sample=3, seed=1)) == 3
    assert ids(sample=3, seed=1) == ids(sample=3, seed=1) == sorted(ids(sample=3, seed=1))
    assert len({tuple(ids(sample=3, seed=seed)) for seed in range(8)}) > 1


def test_a_folder_without_records_and_a_broken_review_are_named(tmp_path):
    with pytest.raises(DataError, match="holds no records"):
        serve(tmp_path)
    (tmp_path / "review.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(DataError, match=r"review\.jsonl:1: .* is no decision"):
        ReviewFile(tmp_path / "review.jsonl")
    with pytest.raises(DataError, match="no such review file"):
        Reviewed(tmp_path / "gone.jsonl")


def test_pictures_of_any_clip():
    rng = np.random.default_rng(0)
    for num in (1, 300, 40000):
        assert clip_picture(rng.uniform(-1, 1, num).astype(np.float32), 16000).startswith(b"\x89PNG")
    tone = np.sin(2 * np.pi * 2000 * np.arange(16000) / 16000).astype(np.float32)
    assert abs(int(decibels(tone)[:, 100].argmax()) - 2000 * 512 / 16000) <= 1
    low, high = extremes(np.array([0.1, -0.5, 0.3, 0.9]), 2)
    assert (low.tolist(), high.tolist()) == ([-0.5, 0.3], [0.1, 0.9])
