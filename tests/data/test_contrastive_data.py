"""What the objectives beside the decoder read: the candidates of each task, the one that is right, the classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lalm.data import contrastive
from lalm.data.clips import ClipStore
from lalm.data.contrastive import AlignmentItems, why_not_alignable
from lalm.data.dataset import build_stage_data
from lalm.data.records import Record
from lalm.data.spans import EVENTS, clip_seconds, read_events
from lalm.errors import DataError
from lalm.model.build import build_model
from lalm.training.stages import enter_stage


def stage_data(tiny_recipe, **changes):
    stage = tiny_recipe.stages[0].model_copy(update={"objective": "contrastive", **changes})
    recipe = tiny_recipe.model_copy(update={"stages": (stage,)})
    model, processor = build_model(recipe)
    data = build_stage_data(recipe, 0, processor, ClipStore(processor.sampling_rate))
    enter_stage(model, stage)
    return model, processor, data


def check(processor, data):
    for number in range(len(data.dataset)):
        batch = data.dataset[number]["objective_items"]
        examples = [data.examples[index] for index in data.plan[number]]
        assert len(batch["targets"]) == len(examples)
        for example, target, group in zip(examples, batch["targets"], batch["groups"], strict=True):
            length = batch["candidate_lengths"][target]
            ids = batch["candidate_ids"][target, :length]
            assert processor.tokenizer.decode(ids).strip() == example.record.answer
            assert batch["candidate_groups"][target] == group


def test_closed_sets_offer_every_answer_of_the_task(tiny_recipe):
    _, processor, data = stage_data(tiny_recipe)
    check(processor, data)
    answers = {example.record.answer for example in data.examples}
    items = [data.dataset[number]["objective_items"] for number in range(len(data.dataset))]
    assert all(len(item["candidate_ids"]) == len(answers) for item in items)
    assert all(item["candidate_keys"].tolist() == [0, 1] for item in items)


def test_open_sets_offer_the_answers_of_the_batch(tiny_recipe, monkeypatch):
    monkeypatch.setattr(contrastive, "MAX_CLOSED_ANSWERS", 0)
    _, processor, data = stage_data(tiny_recipe)
    check(processor, data)
    for number in range(len(data.dataset)):
        answers = {data.examples[index].record.answer for index in data.plan[number]}
        assert len(data.dataset[number]["objective_items"]["candidate_ids"]) == len(answers)


def of_task(example, task, answer):
    turns = [
        turn if turn.role == "user" else turn.model_copy(update={"content": answer}) for turn in example.record.turns
    ]
    return replace(example, record=example.record.model_copy(update={"task": task, "turns": tuple(turns)}))


def test_closed_sets_that_share_a_text_are_one_set(examples):
    asked = [("sound", "bell"), ("sound", "dog"), ("instrument", "organ"), ("instrument", "bell"), ("digit", "two")]
    chosen = [of_task(example, *pair) for example, pair in zip(examples, asked, strict=False)]
    items = AlignmentItems(chosen, ["contrastive"], CharTokenizer())
    assert sorted(map(sorted, items.closed.values())) == [["bell", "dog", "organ"], ["two"]]
    made = items(chosen, {example.audio_hashes[0]: row for row, example in enumerate(chosen)})
    sizes = [int((made["candidate_groups"] == group).sum()) for group in made["groups"]]
    assert sizes == [3, 3, 3, 3, 1]
    texts = [made["candidate_ids"][t, : made["candidate_lengths"][t]].tolist() for t in made["targets"]]
    assert ["".join(map(chr, ids)) for ids in texts] == [answer for _, answer in asked]


class CharTokenizer:
    """A character a token."""

    def __call__(self, text, **_):
        return type("Ids", (), {"input_ids": [ord(letter) for letter in text]})()


def test_a_candidate_is_read_as_within_a_sentence(examples):
    class WordTokenizer(CharTokenizer):
        def __call__(self, text, **_):
            return type("Ids", (), {"input_ids": [7] if text == " bell" else [ord(letter) for letter in text]})()

    chosen = [of_task(examples[0], "sound", "bell"), of_task(examples[1], "sound", "dog")]
    made = AlignmentItems(chosen, ["contrastive"], WordTokenizer())(chosen, {"a": 0, "b": 1})
    read = [made["candidate_ids"][n, :length].tolist() for n, length in enumerate(made["candidate_lengths"].tolist())]
    assert read == [[7], [ord(letter) for letter in "dog"]]


def test_the_loss_reaches_the_projector_alone(tiny_recipe):
    model, _, data = stage_data(tiny_recipe)
    loss = model(**data.dataset[0]).loss
    assert torch.isfinite(loss)
    loss.backward()
    parts = model.parts()
    assert all(value.grad is not None for _, value in parts["projector"])
    assert all(value.grad is None for part in ("lora", "encoder", "language_model") for _, value in parts[part])


def test_classification_without_a_closed_set_is_refused(examples, monkeypatch):
    monkeypatch.setattr(contrastive, "MAX_CLOSED_ANSWERS", 2)
    with pytest.raises(DataError, match=r"at most 2 different answers.*The stage has: qa \(6\)"):
        AlignmentItems(examples, ["classification"], None)


def test_records_of_two_clips_or_none_stay_out(examples):
    items = AlignmentItems(examples, ["classification"], None)
    rows = {"a": 0, "b": 1, "c": 2}
    made = items([examples[0], examples[6], examples[7], examples[3]], rows)
    assert made["class_rows"].tolist() == [0, 2]
    assert [items.classes[number] for number in made["class_targets"]] == [("qa", "dog"), ("qa", "nobody at all")]


def with_events(example, events):
    record = example.record.model_copy(update={"meta": {"events": events}})
    return replace(example, record=record)


def test_events_are_spans_of_their_clip(tiny_recipe):
    model, processor, data = stage_data(tiny_recipe)
    events = [{"label": "dog", "onset": 0.0, "duration": 0.1}, {"label": "bell", "onset": 0.15, "duration": 90.0}]
    examples = [with_events(data.examples[0], events), *data.examples[1:]]
    clips = data.dataset.clips
    items = AlignmentItems(examples, ["contrastive"], processor.tokenizer, seconds=clip_seconds(clips, processor))
    first, second = items.spans(examples[0])
    seconds = clips.info(examples[0].clips[0]).num_samples / processor.sampling_rate
    assert (first.group, first.text, first.start, first.end) == (EVENTS, "dog", 0.0, pytest.approx(0.1 / seconds))
    assert (second.text, second.start, second.end) == ("bell", pytest.approx(0.15 / seconds), 1.0)
    rows = {audio_hash: row for row, audio_hash in enumerate(dict.fromkeys(e.audio_hashes[0] for e in examples))}
    made = items(examples, rows)
    assert len(made["targets"]) == len(examples) + 1
    texts = [
        processor.tokenizer.decode(made["candidate_ids"][target, : made["candidate_lengths"][target]])
        for target in made["targets"]
    ]
    assert [text.strip() for text in texts[:2]] == ["dog", "bell"]
    assert made["span_ends"][:3].tolist() == pytest.approx([first.end, 1.0, 1.0])
    data.dataset.alignment, data.dataset.examples = items, examples
    assert torch.isfinite(model(**data.dataset[0]).loss)


def test_without_time_an_event_list_is_no_span(tiny_recipe, monkeypatch):
    _, processor, data = stage_data(tiny_recipe)
    example = with_events(data.examples[0], [{"label": "dog", "onset": 0.0, "duration": 0.1}])
    assert [span.text for span in data.dataset.alignment.spans(example)] == ["dog"]
    monkeypatch.setattr(type(processor), "num_positions", lambda self, num_samples: 32)
    assert [span.text for span in data.dataset.alignment.spans(example)] == [example.record.answer]


@pytest.mark.parametrize("event", ["dog", {"label": "dog"}, {"label": "dog", "onset": -1, "duration": 1}, {}])
def test_a_broken_event_is_named_and_its_record_left_out(event, tiny_recipe):
    turns = [{"role": "user", "content": "What?"}]
    with pytest.raises(DataError, match=r"meta.events: .* is no event. It needs label, onset >= 0 and duration > 0"):
        read_events(Record(id="x", turns=turns, meta={"events": [event]}))
    _, _, data = stage_data(tiny_recipe)
    assert "is no event" in str(why_not_alignable(with_events(data.examples[0], [event])))
    assert why_not_alignable(data.examples[0]) is None
