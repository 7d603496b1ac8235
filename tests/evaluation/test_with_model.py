"""The whole way on a tiny random model: files, encoder, projector, decoder, scores."""

import numpy as np
import pytest
import torch

from lalm.data.clips import ClipStore
from lalm.data.records import Record
from lalm.evaluation.measuring import evaluate_model
from lalm.inference.generate import Request, generate_answers
from lalm.recipe.schema import GenerationSection, Recipe

SIZES = {
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
}
OPTIONS = GenerationSection(max_new_tokens=6)


@pytest.fixture(scope="module")
def tiny():
    """(model, processor), with weights so large that answers depend on the clip."""
    from lalm.model.build import build_model

    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "encoders": [{"name": "whisper", "base": "random", "padding": "real", "random_sizes": SIZES}],
            "projector": {"name": "mlp", "stack_steps": 10, "hidden_size": 32},
            "language_model": {"base": "random", "template": "chatml", "dtype": "float32", "lora": {"rank": 4}},
            "data": {"sources": {"qa": {"records": "qa.jsonl"}}},
            "stages": [{"name": "align", "learning_rates": {"projector": 1e-3}, "steps": 1}],
        }
    )
    model, processor = build_model(recipe, dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and ("language_model" in name or "projector" in name):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval(), processor


@pytest.fixture
def records(tmp_path):
    """Six clips of noise of different length, one of them silence, which is refused."""
    soundfile = pytest.importorskip("soundfile")
    made = []
    for number in range(6):
        noise = np.random.default_rng(number).standard_normal(4000 + 3000 * number)
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, 0.1 * noise * (number != 5), 16_000)
        turns = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "ab"[number % 2] + "1"}]
        made.append(Record(id=f"r{number}", audio=(str(path),), turns=turns, task="sound_name"))
    return made


def measured(tiny, records, batch_size):
    pytest.importorskip("sklearn")
    clips = ClipStore(tiny[1].sampling_rate)
    return evaluate_model(*tiny, records, clips, OPTIONS, train_records=records, batch_size=batch_size, progress=False)


def test_replies_are_those_of_inference_whatever_the_batch(tiny, records):
    one_by_one, together = measured(tiny, records, 1), measured(tiny, records, 4)
    assert one_by_one.predictions == together.predictions
    clips = ClipStore(tiny[1].sampling_rate)
    requests = [Request(record.prompt_turns(), (clips.load(record.audio[0]),)) for record in records[:5]]
    assert [row["reply"] for row in together.predictions] == generate_answers(*tiny, requests, OPTIONS)


def test_every_figure_is_there(tiny, records):
    result = measured(tiny, records, 4)
    figures = result.metrics["tasks"]["sound_name"]
    assert figures["n"] == 5
    assert all(0 <= figures[name] <= 1 for name in ("accuracy", "silent", "swapped", "majority", "chance", "probe"))
    assert [item["id"] for item in result.metrics["skipped"]] == ["r5"]
    assert all(row["silent"] is not None and row["swapped"] is not None for row in result.predictions)
