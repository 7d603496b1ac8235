"""The whole model, tiny and random: what it hears, what it refuses, what stays frozen, what is saved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForMultimodalLM, AutoProcessor

from lalm import LalmForConditionalGeneration, LalmProcessor
from lalm.data.records import Turn
from lalm.encoders import load_encoder
from lalm.model.build import build_model
from lalm.model.grouped_attention import TILE_ROWS, attend_in_tiles


def wave(seconds: float, seed: int) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(int(16000 * seconds))).astype(np.float32)


def in_float32(recipe):
    encoders = tuple(section.model_copy(update={"dtype": "float32"}) for section in recipe.encoders)
    return recipe.model_copy(update={"encoders": encoders})


@pytest.fixture
def built(tiny_recipe):
    recipe = in_float32(tiny_recipe)
    model, processor = build_model(recipe)
    with torch.no_grad():  # random attention is so even that the order of clips would not show
        for _, parameter in model.parts()["language_model"]:
            parameter.mul_(5 if parameter.ndim > 1 else 1)
    return model, processor, recipe


def example(processor, clips, question="What is heard?", answer="A tone.") -> dict[str, torch.Tensor]:
    turns = (Turn(role="user", content="<audio>" * len(clips) + question), Turn(role="assistant", content=answer))
    encoded = processor.encode_turns(turns, [processor.num_positions(len(clip)) for clip in clips])
    return {
        "input_ids": torch.tensor([[*encoded.input_ids]]),
        "labels": torch.tensor([[*encoded.labels]]),
        **processor.audio_inputs(clips),
    }


def test_a_frozen_encoder_stays_in_eval_mode(built):
    model, processor, _ = built
    model.train()
    assert model.language_model.training
    assert model.multi_modal_projector.training
    assert not any(module.training for encoder in model.audio_tower.encoders for module in encoder.modules())
    inputs = processor.audio_inputs([wave(1, 0)])
    assert torch.equal(model.encode_audio(**inputs)[0], model.encode_audio(**inputs)[0])


def test_only_projector_and_adapter_train_and_only_they_get_gradients(built):
    model, processor, _ = built
    model.train()
    model(**example(processor, [wave(1, 0)])).loss.backward()
    parts = model.parts()
    for part in ("encoder", "language_model"):
        assert all(parameter.grad is None and not parameter.requires_grad for _, parameter in parts[part])
    assert all(parameter.grad is not None for part in ("projector", "lora") for _, parameter in parts[part])


def test_the_vocabulary_is_computed_at_supervised_positions_alone(built):
    class WidestLogits(TorchDispatchMode):
        """The most rows of any tensor that is as wide as the vocabulary, but for the matrix itself."""

        rows = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            results = func(*args, **(kwargs or {}))
            for item in results if isinstance(results, (tuple, list)) else (results,):
                if isinstance(item, torch.Tensor) and item.shape[-1:] == (vocabulary,) and item.shape[0] != width:
                    self.rows = max(self.rows, item.numel() // vocabulary)
            return results

    model, processor, _ = built
    vocabulary, width = model.get_output_embeddings().weight.shape
    inputs = example(processor, [wave(2, 0)])
    num_supervised = int((inputs["labels"] != -100).sum())
    assert num_supervised not in (width, inputs["labels"].numel())
    with WidestLogits() as seen:
        model(**inputs).loss.backward()
    assert seen.rows == num_supervised


def test_a_packed_row_reaches_the_decoder_without_a_mask_of_the_row(built):
    model, processor, _ = built
    assert model.packs_in_one_row
    clips = [wave(1, 0), wave(1.5, 1)]
    alone = [example(processor, [clip]) for clip in clips]
    packed = {name: torch.cat([item[name] for item in alone], dim=1) for name in ("input_ids", "labels")}
    sizes = [item["input_ids"].shape[1] for item in alone]
    packed |= {
        "position_ids": torch.cat([torch.arange(size) for size in sizes])[None],
        "group_ids": torch.tensor([0, 1]).repeat_interleave(torch.tensor(sizes))[None],
        "branch_ids": torch.zeros(1, sum(sizes), dtype=torch.long),
    }
    given = []
    hook = model.get_decoder().register_forward_pre_hook(lambda _, args, inputs: given.append(inputs), with_kwargs=True)
    together = model(**packed, **processor.audio_inputs(clips)).token_losses
    hook.remove()
    assert given[0]["attention_mask"].numel() == 1
    assert [len(group) for group in given[0]["packed_rows"].groups] == sizes
    torch.testing.assert_close(together, torch.cat([model(**item).token_losses for item in alone]))
    attend_in_tiles(model.language_model)
    hook = model.get_decoder().register_forward_pre_hook(lambda _, args, inputs: given.append(inputs), with_kwargs=True)
    in_tiles = model(**packed, **processor.audio_inputs(clips))
    hook.remove()
    assert sum(sizes) % TILE_ROWS
    assert given[1]["inputs_embeds"].shape[1] == -(-sum(sizes) // TILE_ROWS) * TILE_ROWS
    torch.testing.assert_close(in_tiles.token_losses, together)
    in_tiles.loss.backward()


def test_the_count_of_placeholders_must_match(built):
    model, processor, _ = built
    inputs = example(processor, [wave(1, 0)])
    longer = processor.audio_inputs([wave(2, 0)])
    with pytest.raises(ValueError, match="holds 3 audio positions, but the clips give 6"):
        model(**{**inputs, **longer})
    with pytest.raises(ValueError, match="no audio was given"):
        model(input_ids=inputs["input_ids"])


def test_several_clips_in_one_prompt_keep_their_order(built):
    model, processor, _ = built
    first, second = wave(1, 0), wave(0.7, 1)
    there = model(**example(processor, [first, second])).loss
    back = model(**example(processor, [second, first])).loss
    assert there.item() != back.item()


def test_a_batch_equals_one_by_one(built):
    model, processor, _ = built
    clips = [wave(0.3 + 0.4 * number, number) for number in range(8)]
    singles = [example(processor, [clip], answer="yes " * (1 + number)) for number, clip in enumerate(clips)]
    length = max(item["input_ids"].shape[1] for item in singles)
    batch = {
        name: torch.cat(
            [torch.nn.functional.pad(item[name], (0, length - item[name].shape[1]), value=pad) for item in singles]
        )
        for name, pad in (("input_ids", 0), ("labels", -100))
    }
    mask = torch.cat([(torch.arange(length) < item["input_ids"].shape[1]).long()[None] for item in singles])
    together = model(**batch, attention_mask=mask, **processor.audio_inputs(clips)).loss
    counts = torch.tensor([int((item["labels"] != -100).sum()) for item in singles], dtype=torch.float)
    alone = torch.stack([model(**item).loss for item in singles])
    torch.testing.assert_close(together, (alone * counts).sum() / counts.sum(), atol=1e-5, rtol=1e-5)


def test_noise_behind_a_clip_in_the_batch_changes_no_bit(built):
    model, processor, _ = built
    inputs = processor.audio_inputs([wave(1, 0)])
    states, steps = model.encode_audio(**inputs)
    noisy = {
        **inputs,
        "input_features": [torch.cat([f, torch.randn(*f.shape[:2], 300)], dim=2) for f in inputs["input_features"]],
    }
    assert torch.equal(model.encode_audio(**noisy)[0], states)
    assert torch.equal(model.encode_audio(**noisy)[1], steps)


def test_a_clip_longer_than_a_chunk_is_heard_whole(built):
    model, processor, _ = built
    clip = wave(65, 0)
    assert processor.num_positions(len(clip)) == len(model.get_audio_features(**processor.audio_inputs([clip])))
    assert processor.audio_inputs([clip])["chunk_counts"].tolist() == [3]


def test_beams_keep_each_row_its_clip(built):
    model, processor, _ = built
    clips = [wave(1, 0), wave(0.6, 1)]
    inputs = processor(text=["<audio>what?", "<audio>and this?"], audio=clips, sampling_rate=16000, return_tensors="pt")
    options = {"max_new_tokens": 5, "num_beams": 3, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    together = model.generate(**inputs, **options)[:, -5:]
    for row, clip in enumerate(clips):
        alone = processor(
            text=["<audio>what?", "<audio>and this?"][row], audio=[clip], sampling_rate=16000, return_tensors="pt"
        )
        assert model.generate(**alone, **options)[0, -5:].tolist() == together[row].tolist()


def test_saved_whole_and_loaded_by_the_auto_classes(built, tmp_path):
    model, processor, _ = built
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = AutoModelForMultimodalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert isinstance(loaded, LalmForConditionalGeneration)
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), LalmProcessor)
    inputs = example(processor, [wave(1, 0)])
    del inputs["labels"]
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)


def test_building_the_whole_starts_no_part_anew(tiny_recipe):
    """B of the adapter is zero, and the bases are what was loaded."""
    recipe = in_float32(tiny_recipe)
    torch.manual_seed(recipe.seed)
    encoder = load_encoder(recipe.encoders[0])
    model, _ = build_model(recipe)
    assert not any(value.any() for name, value in model.parts()["lora"] if "lora_B" in name)
    assert all(value.any() for name, value in model.parts()["lora"] if "lora_A" in name)
    ours = model.audio_tower.encoders[0].state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in encoder.state_dict().items())


def test_lora_scale_zero_is_the_plain_language_model(built):
    model, processor, _ = built
    inputs = example(processor, [wave(1, 0)])
    plain = model(**inputs).loss.item()
    with torch.no_grad():
        for name, parameter in model.parts()["lora"]:
            if "lora_B" in name:
                parameter.normal_()
    assert model(**inputs).loss.item() != pytest.approx(plain)
    model.set_lora_scale(0.0)
    assert model(**inputs).loss.item() == pytest.approx(plain)
