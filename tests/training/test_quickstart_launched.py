"""recipes/quickstart.yaml with its own base models, on a few of its own clips: launched as one process is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from launched import LAUNCHERS, launch
from safetensors.torch import load_file

from data_builders.jobs import Processes
from data_builders.pipeline import build_set
from data_builders.recipe_reading import load_data_recipe
from lalm.training.checkpoints import find_checkpoints
from lalm.training.metrics import read_metrics

pytestmark = [pytest.mark.slow(seconds=90), pytest.mark.real("models", "corpora")]

TASKS = (
    *("transcription", "spoken_language", "spoken_digit", "spoken_letter", "spoken_word", "sound_name"),
    *("instrument_name", "scene_events", "description"),
)
A_FEW = {
    "name": "a_few",
    "sources": [{"packaged": name} for name in ("asterisk", "sonic-pi", "soundfont")],
    "clips": {
        "longest_speech_seconds": 3,
        "prompts": {"train": 20},
        "closed_variants": 1,
        "sounds_per_label": {"train": 2},
        "instruments_per_label": {"train": 2},
    },
    "scenes": {"count": {"train": 6}},
    "questions": {"records": {"train": dict.fromkeys(TASKS, 6)}},
    "output": {"form": "jsonl"},
}
SETTLING = ("settle", "settle2", "settle3")
# Each process blends clips at random, and bfloat16 rounds other sums otherwise: neither is left in.
SHORT = [
    *("stages.align.steps=2", "stages.align.batch_records=8", "stages.instruct.steps=2"),
    *("stages.instruct.batch_records=4", "stages.instruct.mix_positions=0"),
    *(f"stages.{stage}.{change}" for stage in SETTLING for change in ("steps=1", "batch_records=4", "mix_positions=0")),
    *("language_model.dtype=float32", "encoders.0.dtype=float32", "output.log_to=[]"),
]
CLOSE = 1e-4


@pytest.fixture(scope="module")
def changes(tmp_path_factory) -> list[str]:
    """Overrides that shorten the recipe, on a set of a few clips, and one process's losses."""
    folder = tmp_path_factory.mktemp("quickstart")
    (folder / "a_few.yaml").write_text(json.dumps(A_FEW), encoding="utf-8")
    build_set(load_data_recipe(folder / "a_few.yaml"), folder / "data", runner=Processes(1), report=lambda line: None)
    return [f"data.folder={folder / 'data'}", "data.sources.test.records=train.jsonl", *SHORT]


@pytest.fixture(scope="module")
def losses_of_one(changes, tmp_path_factory) -> list[float]:
    """Of a process of its own, as the others are: what other tests did to this one is not compared."""
    run = tmp_path_factory.mktemp("one") / "run"
    command = [sys.executable, "-m", "lalm", "train", "quickstart", *changes, f"output.folder={run}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return losses(run)


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(run / "metrics.csv")]


@pytest.mark.parametrize(("launcher", "overrides", "banner"), LAUNCHERS)
def test_it_trains_under_a_launcher_as_in_one_process(launcher, overrides, banner, changes, losses_of_one, tmp_path):
    run = tmp_path / "run"
    said = launch(launcher, ["quickstart", *overrides, *changes, f"output.folder={run}"], tmp_path)
    assert banner in said
    for stage in ("align", "instruct", *SETTLING):
        assert json.loads((run / "stages" / stage / "plan.json").read_text())["processes"] == 2
    assert len(losses_of_one) == 7
    assert losses(run) == pytest.approx(losses_of_one, abs=CLOSE)
    # The last stage ends as the mean of the three, and the model that is written is that mean.
    written, means = load_file(run / "trained.safetensors"), load_file(run / "stages/settle3/trained.safetensors")
    ended = [load_file(find_checkpoints(run / "stages/settle3")[-1] / "trained.safetensors")]
    ended += [load_file(run / "stages" / stage / "trained.safetensors") for stage in SETTLING[:2]]
    for name, mean in means.items():
        torch.testing.assert_close(mean, sum(tensors[name] for tensors in ended) / 3)
        torch.testing.assert_close(written[name], mean)
    assert any(not torch.equal(ended[0][name], mean) for name, mean in means.items())
