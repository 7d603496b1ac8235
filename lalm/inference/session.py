"""One conversation: its turns, its clips, and what the model has already read of them.

    session = load_session(Path("runs/quickstart"))
    session.add_audio("clip.wav")
    print(session.ask("What is heard?").text)

Several sessions can share one model as long as only one of them answers at a time.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lalm.audio.io import audio_hash, load_audio
from lalm.data.records import AUDIO_PLACEHOLDER, Turn
from lalm.errors import AudioError, DataError
from lalm.inference.decoding import AnswerStream, PromptCache, decoding_arguments, generate_ids, read_answer
from lalm.inference.prompting import (
    Request,
    answering,
    check_room,
    embed_prompts,
    encode_clips,
    positions_of_clips,
    prompt_ids,
    questions_of,
)
from lalm.recipe.schema import GenerationSection

if TYPE_CHECKING:
    import torch

    from lalm.model.modeling import LalmForConditionalGeneration
    from lalm.processing.processor import LalmProcessor

TRANSCRIPT_FORMAT = 1


@dataclass(frozen=True)
class Clip:
    """One clip of a conversation: `waveform` float32 `[S]` at the processor's rate."""

    name: str
    waveform: np.ndarray
    seconds: float
    sha256: str


@dataclass(frozen=True)
class Answer:
    """What came back, and what it cost.

    `audio_seconds`: all clips of the conversation; `tokens`: generated, the end token included; `seconds` and
    `first_token_seconds` start when the question is asked, and include the encoder where a clip is new.
    """

    text: str
    audio_seconds: float
    tokens: int
    seconds: float
    first_token_seconds: float


class ChatSession:
    """Turns and clips of one conversation with a model.

    A clip is encoded once, with the first question after it was added. With greedy decoding or sampling, a next turn
    reads only what the model has not read yet.
    """

    def __init__(
        self, model: LalmForConditionalGeneration, processor: LalmProcessor, generation: GenerationSection | None = None
    ):
        self.model = model
        self.processor = processor
        self.generation = generation or GenerationSection()
        self._cache = PromptCache(model.config.get_text_config())
        self.reset()

    def reset(self) -> None:
        """Forgets all turns and clips."""
        self.turns: list[Turn] = []
        self.clips: list[Clip] = []
        self.answers: list[Answer] = []
        self._states: list[Tensor] = []
        self._questions: list[list[int]] = []
        self._clips_before_turn: list[int] = []
        self._cache.clear()

    @property
    def audio_seconds(self) -> float:
        """Length of all clips of the conversation."""
        return sum((clip.seconds for clip in self.clips), 0.0)

    def add_audio(self, audio: str | os.PathLike[str] | np.ndarray, name: str | None = None) -> Clip:
        """Adds a clip that the next question is about: a file, or samples `[S]` at `processor.sampling_rate`.

        A clip of any length is heard whole: the front end cuts it into windows.

        Raises:
            AudioError: if the file cannot be read, or the samples are not one finite channel or too few to be heard.
        """
        rate = self.processor.sampling_rate
        if isinstance(audio, np.ndarray):
            name = name or f"clip {len(self.clips) + 1}"
            waveform = _check_samples(audio, name)
        else:
            name = name or os.fspath(audio)
            waveform = load_audio(audio, rate)
        if self.processor.num_positions(len(waveform)) < 1:
            raise AudioError(f"{name}: {len(waveform) / rate:.3f} s are too short to be heard. Give a longer clip.")
        clip = Clip(name, waveform, len(waveform) / rate, audio_hash(waveform))
        self.clips.append(clip)
        return clip

    def ask(
        self,
        question: str,
        *,
        on_text: Callable[[str], None] | None = None,
        generation: GenerationSection | None = None,
    ) -> Answer:
        """Puts a question about the clips and the conversation so far, and adds both turns to it.

        `<audio>` in the question says where the clips added since the last one stand; without it they stand first.
        If anything is raised, the conversation stays as it was before the question.

        Args:
            on_text: gets each piece of the answer as it comes (all at once with beams); may raise to stop it.
            generation: decoding options for this answer; those of the session by default.

        Raises:
            DataError: if the question is empty, or its `<audio>` placeholders are not as many as there are new clips.
            ModelError: if the conversation has become longer than the language model's positions.
        """
        started = time.perf_counter()
        options = generation or self.generation
        turn = Turn(role="user", content=self._check_question(question))
        counts = [*self._clips_before_turn, len(self.clips)]
        try:
            text, new_ids, first_token = self._answer(_placed([*self.turns, turn], counts), options, on_text)
        except BaseException:
            self._cache.clear()
            raise
        ended = time.perf_counter()
        answer = Answer(text, self.audio_seconds, len(new_ids), ended - started, (first_token or ended) - started)
        # A model may end its answer at once; a turn cannot be empty, and a lone question would break the alternation.
        if text:
            self.turns += [turn, Turn(role="assistant", content=text)]
            self._clips_before_turn = counts
            self.answers.append(answer)
        return answer

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the conversation as one JSON object, atomically: clips by name and hash, turns, timings."""
        transcript: dict[str, Any] = {
            "format": TRANSCRIPT_FORMAT,
            "clips": [{"name": clip.name, "seconds": clip.seconds, "sha256": clip.sha256} for clip in self.clips],
            "turns": [turn.model_dump() for turn in _placed(self.turns, self._clips_before_turn)],
            "answers": [asdict(answer) for answer in self.answers],
            "generation": self.generation.model_dump(mode="json"),
        }
        _write_json(Path(path), transcript)

    def _answer(
        self, turns: list[Turn], options: GenerationSection, on_text: Callable[[str], None] | None
    ) -> tuple[str, list[int], float | None]:
        """Text, new ids, and when the first token came; None where they come all at once."""
        model, processor = self.model, self.processor
        request = Request(tuple(turns), waveforms=tuple(clip.waveform for clip in self.clips))
        if processor.step_rule is not None:
            self._hear_new_clips()
            request = Request(tuple(turns), states=tuple(self._states))
        num_positions = positions_of_clips(model, processor, request)
        prompt = prompt_ids(processor, request.turns, num_positions)
        check_room(model, len(prompt), options.max_new_tokens)
        token_times: list[float] = []
        is_streamed = options.num_beams == 1  # transformers streams no beams, and their cache holds every beam.
        with answering(model, options.lora_scale):
            self._hear_new_clips()
            questions = questions_of(processor, request.turns, num_positions)
            if questions[: len(self._questions)] != self._questions:
                self._cache.clear()  # the same ids, but other vectors at the positions of a clip
            self._questions = questions
            inputs = embed_prompts(model, [prompt], self._states, processor.question_inputs(questions))
            extra: dict[str, Any] = {}
            if is_streamed:
                if not model.has_encoder:
                    extra["cache"] = self._cache.start(prompt, options.lora_scale)
                extra["streamer"] = AnswerStream(
                    processor,
                    on_text=on_text or (lambda piece: None),
                    on_token=lambda: token_times.append(time.perf_counter()),
                )
            arguments = decoding_arguments(options, processor.stop_token_ids)
            [new_ids] = generate_ids(model, inputs, arguments, **extra)
        text = read_answer(processor, new_ids)
        if is_streamed:
            self._cache.keep(prompt, new_ids)
        elif on_text is not None:
            on_text(text)
        return text, new_ids, token_times[0] if token_times else None

    def _hear_new_clips(self) -> None:
        new_clips = self.clips[len(self._states) :]
        self._states += encode_clips(self.model, self.processor, [clip.waveform for clip in new_clips])

    def _check_question(self, question: str) -> str:
        question = question.strip()
        if not question.replace(AUDIO_PLACEHOLDER, "").strip():
            raise DataError("the question is empty. Type one.")
        placed = question.count(AUDIO_PLACEHOLDER)
        new = len(self.clips) - (self._clips_before_turn[-1] if self._clips_before_turn else 0)
        if placed not in (0, new):
            raise DataError(
                f"the question holds {placed} {AUDIO_PLACEHOLDER} placeholders, but {new} clips were added since the "
                f"last one. Leave them out, or place each new clip once."
            )
        return question


def load_session(
    run: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    lora_scale: float | None = None,
) -> ChatSession:
    """A conversation with a trained run, decoded as its recipe says.

    Args:
        lora_scale: a factor on the adapter instead of the recipe's: 0 is the plain language model, 1 as trained.

    Raises:
        CheckpointError: if the run folder is incomplete, or a base model differs from the one it was trained on.
    """
    from lalm.model.checkpoint import load_run

    model, processor, recipe = load_run(Path(run), device=device)
    generation = recipe.generation
    if lora_scale is not None:
        generation = generation.model_copy(update={"lora_scale": lora_scale})
    return ChatSession(model, processor, generation)


def _placed(turns: list[Turn], clips_before: list[int]) -> list[Turn]:
    """The turns with an `<audio>` for each clip, in the user turn that it was added for, where it has none yet.

    `clips_before[i]`: clips that there were when user turn `i` was asked.
    """
    placed, before = [], 0
    totals = iter(clips_before)
    for turn in turns:
        if turn.role == "user":
            total = next(totals)
            if AUDIO_PLACEHOLDER not in turn.content:
                turn = Turn(role="user", content=AUDIO_PLACEHOLDER * (total - before) + turn.content)
            before = total
        placed.append(turn)
    return placed


def _check_samples(samples: np.ndarray, name: str) -> np.ndarray:
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"{name}: samples must be one channel of floats in [-1, 1], got {samples.dtype} {samples.shape}. "
            "Mix channels down first, or give a file."
        )
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: samples hold NaN or infinity")
    return np.ascontiguousarray(samples, dtype=np.float32)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump(value, out, indent=1, ensure_ascii=False)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
