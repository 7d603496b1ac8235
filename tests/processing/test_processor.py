"""The transformers processor: what it returns, what it refuses, and that a saved one is the same."""

from __future__ import annotations

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from tiny_tokenizers import POSITION_RULE, TOKENIZERS, processor_of
from transformers import AutoProcessor, PreTrainedConfig

from lalm.audio.features import WhisperFrontEnd
from lalm.data.records import Turn
from lalm.errors import AudioError, DataError, ModelError
from lalm.processing.processor import LalmProcessor

RATE = 16000
TURNS = [Turn(role="user", content="What is heard, <s> </s>?"), Turn(role="assistant", content="The dog barks.")]


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def asking(text: str, *waves: np.ndarray) -> list[dict]:
    parts = [{"type": "audio", "audio": wave} for wave in waves]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_saved_processor_is_the_same(name, tmp_path):
    before = processor_of(name, "plain", "Be brief.")
    before.save_pretrained(tmp_path)
    after = LalmProcessor.from_pretrained(tmp_path)
    assert after.to_dict() == before.to_dict()
    assert after.chat_template == before.chat_template == (tmp_path / "chat_template.jinja").read_text()
    assert after.encode_turns(TURNS, [3]) == before.encode_turns(TURNS, [3])
    assert after.stop_token_ids == before.stop_token_ids
    assert after.audio_token_id == before.audio_token_id
    assert after.num_positions(33333) == before.num_positions(33333)
    assert after.front_ends == before.front_ends


def test_it_can_be_copied_and_pickled(processor):
    for copied in (deepcopy(processor), pickle.loads(pickle.dumps(processor))):
        assert copied.encode_turns(TURNS, [3]) == processor.encode_turns(TURNS, [3])


def test_it_is_found_by_auto_processor(processor, tmp_path):
    class TinyConfig(PreTrainedConfig):
        model_type = "lalm_processor_test"

    AutoProcessor.register(TinyConfig, LalmProcessor)
    processor.save_pretrained(tmp_path)
    found = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(found, LalmProcessor)
    assert found.to_dict() == processor.to_dict()


def test_the_callers_tokenizer_is_not_changed():
    tokenizer = deepcopy(TOKENIZERS["sentencepiece"]())
    size, template, eos = len(tokenizer), tokenizer.chat_template, tokenizer.eos_token_id
    processor = LalmProcessor.create(
        tokenizer, template="vicuna", front_ends=[WhisperFrontEnd()], position_rule=POSITION_RULE
    )
    assert (len(tokenizer), tokenizer.chat_template, tokenizer.pad_token) == (size, template, None)
    assert processor.audio_token_id == size
    assert processor.tokenizer.eos_token_id == eos
    assert processor.tokenizer.pad_token_id not in (None, eos)


def test_an_audio_token_that_is_there_is_used():
    tokenizer = deepcopy(TOKENIZERS["byte_level"]())
    tokenizer.add_tokens(["<|audio|>", "<extra>"], special_tokens=True)
    processor = LalmProcessor.create(
        tokenizer, template="chatml", front_ends=[WhisperFrontEnd()], position_rule=POSITION_RULE
    )
    assert processor.audio_token_id == len(tokenizer) - 2


def test_a_chat_gives_model_inputs(processor):
    wave = noise(1.0)
    inputs = processor.apply_chat_template(
        asking("What is heard?", wave), add_generation_prompt=True, tokenize=True, return_dict=True, sampling_rate=RATE
    )
    turns = [Turn(role="user", content="What is heard?")]
    expected = processor.encode_turns(turns, [processor.num_positions(len(wave))], add_generation_prompt=True)
    assert inputs["input_ids"].tolist() == [expected.input_ids]
    assert inputs["attention_mask"].all()
    assert set(inputs) == set(processor.model_input_names)
    assert inputs["input_features"].shape == (1, 80, 100)
    assert inputs["feature_lengths"].tolist() == [100]
    assert inputs["chunk_counts"].tolist() == [1]


def test_rows_are_padded_on_the_left(processor):
    conversations = [asking("Hi"), asking("A longer question about two clips?", noise(0.5), noise(1.0))]
    inputs = processor.apply_chat_template(
        conversations, add_generation_prompt=True, tokenize=True, return_dict=True, sampling_rate=RATE
    )
    for row, conversation in enumerate(conversations):
        alone = processor.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, sampling_rate=RATE
        )[0]
        assert inputs["input_ids"][row, -len(alone) :].tolist() == alone.tolist()
        assert inputs["attention_mask"][row].tolist() == [0] * (inputs["input_ids"].shape[1] - len(alone)) + [1] * len(
            alone
        )
    assert inputs["input_features"].shape == (2, 80, 100)
    assert inputs["feature_lengths"].tolist() == [50, 100]
    assert torch.equal(inputs["input_features"][0, :, 60:], torch.zeros(80, 40))


def test_untokenised_it_is_the_text_that_transformers_renders(processor):
    conversation = [*asking("Hi", noise(0.1)), {"role": "assistant", "content": "Yes"}]
    ours = processor.apply_chat_template(conversation)
    assert ours == processor.tokenizer.apply_chat_template(conversation, tokenize=False)
    assert "<|audio|>Hi" in ours
    assert processor.apply_chat_template([conversation, conversation]) == [ours, ours]


def test_the_assistants_tokens_can_be_asked_for(processor):
    conversation = [*asking("Hi"), {"role": "assistant", "content": "Yes"}]
    inputs = processor.apply_chat_template(
        conversation, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    chosen = inputs["input_ids"][inputs["assistant_masks"].bool()]
    assert processor.decode(chosen) == "Yes<|im_end|>"


def test_another_template_can_be_given(processor):
    source = (
        "{% for message in messages %}Q {{ message['content'] }}"
        "{% generation %}<|im_end|>{% endgeneration %}{% endfor %}"
    )
    text = processor.apply_chat_template([{"role": "user", "content": "Hi"}], chat_template=source)
    assert text == "Q Hi<|im_end|>"


@pytest.mark.parametrize("placeholder", ["<audio>", "<|audio|>"])
def test_a_rendered_prompt_and_its_clips(processor, placeholder):
    wave = noise(1.0)
    text = f"<|im_start|>user\n{placeholder}Hi<|im_end|>\n<|im_start|>assistant\n"
    called = processor(text=text, audio=wave, sampling_rate=RATE)
    chat = processor.apply_chat_template(
        asking("Hi", wave), add_generation_prompt=True, tokenize=True, return_dict=True, sampling_rate=RATE
    )
    assert called.keys() == chat.keys()
    assert all(torch.equal(called[name], chat[name]) for name in called)


def test_a_rendered_prompt_has_one_bos_with_or_without_its_own():
    processor = processor_of("sentencepiece", "vicuna")
    bos = processor.tokenizer.bos_token_id
    with_bos, without = processor("<s>USER: Hi")["input_ids"][0], processor("USER: Hi")["input_ids"][0]
    assert with_bos.tolist().count(bos) == without.tolist().count(bos) == 1
    assert without.tolist() == processor.tokenizer("USER: Hi")["input_ids"]


def test_clips_and_placeholders_are_counted(processor):
    with pytest.raises(DataError, match="1 places for audio in the conversation, but 2 clips"):
        processor(text="<audio>Hi", audio=[noise(0.5), noise(0.5)], sampling_rate=RATE)
    with pytest.raises(DataError, match="0 places for audio in the conversation, but 1 clips"):
        processor(text="Hi", audio=noise(0.5), sampling_rate=RATE)
    with pytest.raises(DataError, match="1 places for audio in the conversation, but 0 clips"):
        processor(text="<audio>Hi")


def test_an_array_needs_its_rate(processor):
    with pytest.raises(AudioError, match=r"pass sampling_rate \(this model hears 16000 Hz\)"):
        processor(text="<audio>Hi", audio=noise(0.5))


def test_unknown_options_are_refused(processor):
    with pytest.raises(TypeError, match="does not take max_length"):
        processor(text="Hi", max_length=5)
    with pytest.raises(TypeError, match="PyTorch tensors only"):
        processor(text="Hi", return_tensors="np")
    with pytest.raises(TypeError, match="does not take tools"):
        processor.apply_chat_template(asking("Hi"), tools=[{}])


def test_several_front_ends_each_give_their_features():
    processor = LalmProcessor.create(
        TOKENIZERS["byte_level"](),
        template="chatml",
        front_ends=[WhisperFrontEnd(padding="real"), WhisperFrontEnd(padding="real", num_mel_bins=128)],
        position_rule=POSITION_RULE,
    )
    inputs = processor.audio_inputs([noise(0.5), noise(31.0)])
    assert [features.shape for features in inputs["input_features"]] == [(3, 80, 3000), (3, 128, 3000)]
    assert [lengths.tolist() for lengths in inputs["feature_lengths"]] == [[50, 3000, 100]] * 2
    assert inputs["chunk_counts"].tolist() == [1, 2]


def test_no_clip_gives_no_features(processor):
    assert set(processor(text="Hi")) == {"input_ids", "attention_mask"}


def test_a_processor_without_its_parts_is_refused():
    with pytest.raises(ModelError, match=r"needs a chat template.*LalmProcessor.create"):
        LalmProcessor(TOKENIZERS["byte_level"]())
