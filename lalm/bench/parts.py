"""Where the time of a step goes, and how much work each part was given: wraps around a model's own parts.

Backward time is cut by gradient hooks: from its start to the gradient of the decoder's states it is the loss, from
there to the gradient of the embeddings it is the decoder, and the rest is the projector.

A GPU is not waited for between the parts, which would keep the next one's kernels from being sent meanwhile: events
are recorded among the kernels, and read when the step is over.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lalm.bench.machine import mark, seconds_between
from lalm.data.clips import ClipStore
from lalm.model.modeling import LalmForConditionalGeneration
from lalm.processing.processor import LalmProcessor

PARTS = ("decode", "features", "encoder", "projector", "lm_forward", "lm_backward", "loss", "optimizer")


class PartTimer:
    """Seconds and amounts of work by part, since the last `take`.

    Attributes:
        seconds: by name of `PARTS`.
        work: `encoder_calls`, `encoder_steps` (with padding), `decoder_calls`, `decoder_positions` (with
            padding), `logit_rows`.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.work: Counter[str] = Counter()
        self._mark: Any = None
        self._part = ""
        self._marks: list[tuple[str, Any, Any]] = []

    def take(self) -> tuple[dict[str, float], dict[str, int]]:
        """What was counted, and starts anew."""
        for part, begun, ended in self._marks:
            self.seconds[part] += seconds_between(begun, ended)
        self._marks.clear()
        seconds, work = dict(self.seconds), dict(self.work)
        self.seconds.clear()
        self.work.clear()
        return seconds, work

    def watch_inputs(self, clips: ClipStore, processor: LalmProcessor) -> None:
        """Times decoding and features, which are the processor's work."""
        clips.load = self._timed("decode", clips.load, time.perf_counter)  # type: ignore[method-assign]
        processor.audio_inputs = self._timed("features", processor.audio_inputs, time.perf_counter)  # type: ignore[method-assign]

    def watch_model(self, model: LalmForConditionalGeneration) -> None:
        """Times encoder, projector, decoder and loss, and counts what they are given."""
        model.register_forward_pre_hook(lambda *_: self._enter(""))
        tower = model.audio_tower
        tower.forward = self._timed("encoder", tower.forward)  # type: ignore[method-assign]
        tower.register_forward_pre_hook(lambda *_: self._count("encoder_calls", 1))
        for encoder in tower.encoders:
            _blocks(encoder)[0].register_forward_pre_hook(
                lambda _, inputs: self._count("encoder_steps", inputs[0].shape[0] * inputs[0].shape[1])
            )
        projector = model.multi_modal_projector
        projector.forward = self._timed("projector", projector.forward)  # type: ignore[method-assign]
        decoder = model.get_decoder()
        decoder.register_forward_pre_hook(self._enter_decoder, with_kwargs=True)
        decoder.register_forward_hook(self._leave_decoder, with_kwargs=True)
        model.get_output_embeddings().register_forward_pre_hook(
            lambda _, inputs: self._count("logit_rows", inputs[0].shape[:-1].numel())
        )
        model.sequence_loss = self._timed("loss", model.sequence_loss)

    def watch_backward(self, accelerator: Any) -> None:
        """Times the backward pass; what follows it is the optimizer, until `end_step` or the next forward."""
        run = accelerator.backward

        def backward(*args: Any, **kwargs: Any) -> None:
            self._enter("loss")
            run(*args, **kwargs)
            self._enter("optimizer")

        accelerator.backward = backward

    def end_step(self) -> None:
        """Closes what `watch_backward` left open."""
        self._enter("")

    def _enter_decoder(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        embeds = kwargs["inputs_embeds"]
        self._count("decoder_calls", 1)
        self._count("decoder_positions", embeds.shape[0] * embeds.shape[1])
        if embeds.requires_grad:
            embeds.register_hook(lambda _: self._enter("projector"))
        self._enter("lm_forward")

    def _leave_decoder(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        self._enter("")
        states: Tensor = output.last_hidden_state
        if states.requires_grad:
            states.register_hook(lambda _: self._enter("lm_backward"))

    def _enter(self, part: str) -> None:
        """The time since the last call belongs to the part that was entered then."""
        now = mark()
        if self._part:
            self._marks.append((self._part, self._mark, now))
        self._part, self._mark = part, now

    def _timed(self, part: str, function: Callable[..., Any], clock: Callable[[], Any] = mark) -> Callable[..., Any]:
        """Also from a thread of its own, where clips are prepared while the encoder works."""

        def run(*args: Any, **kwargs: Any) -> Any:
            started = clock()
            try:
                return function(*args, **kwargs)
            finally:
                self._marks.append((part, started, clock()))

        return run

    def _count(self, what: str, amount: int) -> None:
        self.work[what] += amount


def _blocks(encoder: nn.Module) -> nn.ModuleList:
    """The layers of an encoder: its longest list of modules."""
    return max((module for module in encoder.modules() if isinstance(module, nn.ModuleList)), key=len)
