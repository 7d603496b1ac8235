"""The first steps of a build on their own: files with their truth, and the questions that the build asks of them."""

import json

import pytest
import yaml
from invented_corpora import invented_clips, tiny_recipe
from typer.testing import CliRunner

from data_builders import truth
from data_builders.cli import app
from data_builders.clips import SPLITS
from data_builders.jobs import Processes
from data_builders.pipeline import build_from_clips
from data_builders.truth import TRUTH, ask_truth, compose_clips, read_truth
from lalm.audio.io import probe_audio
from lalm.data.records import read_records
from lalm.errors import DataError

RECIPE = tiny_recipe(filters=[], scenes={"stereo": 0.3, "overlap": 0.3, "background": 0.3})


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth") / "composed"
    compose_clips(folder, invented_clips(), RECIPE)
    return folder


def test_every_file_has_its_truth(composed):
    items, written = read_truth(composed / TRUTH)
    assert {path.name for path in (composed / "clips").iterdir()} == {entry.file for entry in written.values()}
    scenes = [entry for entry in written.values() if entry.scene]
    assert len(scenes) == 50
    for entry in scenes[::9]:
        assert probe_audio(composed / "clips" / entry.file).seconds == pytest.approx(entry.seconds, abs=0.001)
        assert all(event.end <= entry.seconds for event in entry.scene.events)
    assert len(items) == len(written)


def test_questions_are_those_of_the_build(composed, tmp_path):
    built = build_from_clips(tmp_path / "set", invented_clips(), RECIPE, runner=Processes(1), report=lambda line: None)
    whole = [
        record.model_copy(update={"provenance": record.provenance | {"filters": None}})
        for split in SPLITS
        for record in read_records(built.folder / f"{split}.jsonl")
    ]
    asked = [
        record.model_copy(update={"provenance": record.provenance | {"filters": None}})
        for record in ask_truth(composed, RECIPE)
    ]
    assert len(asked) > 300
    assert asked == whole


def test_the_commands(composed, tmp_path, monkeypatch):
    values = RECIPE.model_dump(mode="json", exclude_defaults=True)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.setattr("data_builders.recordings.fetch_packages", lambda names: {})
    monkeypatch.setattr("data_builders.recordings.read_recordings", lambda recipe, fetched: (invented_clips(), []))
    run = CliRunner().invoke
    result = run(app, ["compose", str(tmp_path / "mine.yaml"), "-o", str(tmp_path / "composed"), "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "composed" / TRUTH).read_bytes() == (composed / TRUTH).read_bytes()
    out = tmp_path / "asked" / "rows.jsonl"
    result = run(app, ["ask", str(tmp_path / "composed"), "-o", str(out), "-r", str(tmp_path / "mine.yaml")])
    assert result.exit_code == 0, result.output
    rows = list(read_records(out))
    assert f"{len(rows)} records" in result.output
    assert all((out.parent / name).is_file() for row in rows for name in row.audio)


def test_a_stopped_run_goes_on_and_another_request_is_refused(tmp_path, monkeypatch):
    out, recipe = tmp_path / "composed", tiny_recipe(scenes={"count": {"train": 3}})
    with monkeypatch.context() as patch:
        patch.setattr(truth, "read_written", fail)
        with pytest.raises(RuntimeError, match="killed"):
            compose_clips(out, invented_clips(), recipe)
    with pytest.raises(DataError, match="is not empty and is no unfinished run of this request"):
        compose_clips(out, invented_clips(), tiny_recipe(seed=1))
    with monkeypatch.context() as patch:
        patch.setattr("data_builders.writing.write_one", lambda *_, **__: pytest.fail("a file was written again"))
        assert compose_clips(out, invented_clips(), recipe)[0] > 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "dev"}, r"truth\.jsonl:2: is no row of truth \(ValueError\(\"split 'dev'\"\)"),
        ({"recordings": []}, r"truth\.jsonl:2: is no row of truth"),
        ({"seconds": None, "id": None}, r"truth\.jsonl:3: the id 'None' stands twice|truth\.jsonl:2"),
        ({"scene": {"events": [{"label": "bell"}], "effects": {}}}, r"truth\.jsonl:2: is no row of truth"),
    ],
)
def test_a_broken_row_is_named_by_its_line(composed, tmp_path, change, message):
    rows = [json.loads(line) for line in (composed / TRUTH).read_text(encoding="utf-8").splitlines()[:2]]
    rows.append(rows[1] | change)
    (tmp_path / TRUTH).write_text("\n".join(json.dumps(row) for row in (rows[0], rows[2], rows[2])), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_truth(tmp_path / TRUTH)


def test_a_folder_without_truth_says_how_to_make_it(tmp_path):
    with pytest.raises(DataError, match=r"truth\.jsonl: no such file\. `lalm data compose RECIPE -o "):
        list(ask_truth(tmp_path, RECIPE))


def fail(*_):
    raise RuntimeError("killed")
