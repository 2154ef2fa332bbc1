"""Decode a prompt and stream the text; or chat.

    python -m experiments.generate --prompt "def read_lines(path):"
    python -m experiments.generate --prompt "..." --controller constant:levels=2,size=4
    python -m experiments.generate --prompt "..." --controller ltd --policies runs/me/policies
    python -m experiments.generate --prompt "..." --settings runs/tuned/settings.json
    python -m experiments.generate --prompt "..." --temperature 0.8 --top-p 0.95 --seed 7
    python -m experiments.generate --target DIR --draft DIR --chat

Controllers: autoregressive, constant:levels=6,size=24, eagle3, ltd, and the compared methods (ddd,
svip, gammatune, gammatune+, disco, specdec++, c2t, tiers, cost-aware), with numbers as in
ddd:threshold=-0.6,size=24. `--prompt-ids 1,2,3` needs no tokenizer. `--json` prints one object:
tokens, text, committed_per_cycle, cycles, tokens_per_second.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command
from experiments.command import PairFlags
from experiments.studies import settings_file
from ltd_jax.cycle.prefill import check_room
from ltd_jax.decoding import benchmark, methods
from ltd_jax.decoding.benchmark import Method
from ltd_jax.decoding.methods import Files
from ltd_jax.files import UserError
from ltd_jax.models.pair import Pair, check_known
from ltd_jax.text import Chat, Message, Style, TextStream, open_chat

WARM_UP_TOKENS = 2


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """What to decode, and how."""

    prompt: str | None = None
    prompt_ids: str | None = None  # token ids with commas between
    chat: bool = False  # ask and answer in turns
    style: Style = "auto"  # how a prompt is put to the target
    controller: str = "eagle3"
    policies: Path | None = None  # folder of trained policies, for ltd
    settings: Path | None = None  # file of autotune; it says --controller and --policies
    classifiers: Path | None = None  # folder of trained classifiers, for disco, specdec++ and c2t
    latency: Path | None = None  # a latency table, shipped or a file, for cost-aware
    allow_other_hardware: bool = False  # use what was trained or tuned for another device
    context: int | None = None  # most tokens of prompt and answer
    new_tokens: int = 128
    json: bool = False


def main() -> None:
    config = command.parse(lambda preset: Config())
    if sum((config.prompt is not None, config.prompt_ids is not None, config.chat)) != 1:
        raise UserError("Give one of --prompt, --prompt-ids and --chat.")
    if config.new_tokens < 1:
        raise UserError(f"--new-tokens is {config.new_tokens} but must be at least 1.")
    if config.chat and config.json:
        raise UserError("--json prints one answer; leave it out with --chat.")
    tuned = None if config.settings is None else settings_file.load(config.settings)
    if tuned is not None and (config.policies, config.controller) != (None, "eagle3"):
        raise UserError("--settings says the controller; leave out --controller and --policies.")
    if tuned is not None:
        config = dataclasses.replace(config, controller=tuned.controller, policies=tuned.policies)
    files = Files(config.classifiers, config.latency)
    asked = methods.parse_method(config.controller, config.target, config.policies, files)
    base = None if tuned is None else tuned.cycle
    cycle = methods.cycle_for(asked, config.target, config.context, base)
    pair = command.load_pair(config, cycle)
    if tuned is not None:
        settings_file.check_here(tuned, pair, config.allow_other_hardware)
    method = methods.build_method(asked, pair, config.allow_other_hardware)
    command.say(f"controller {method.name}; {cycle}")
    if config.prompt_ids is not None:
        prompt_T = token_ids(config.prompt_ids, pair)
        warm_up(pair, method, prompt_T, config.new_tokens)
        found = decode(pair, method, prompt_T, config.new_tokens, None)
        print(json.dumps(found) if config.json else ",".join(map(str, found["tokens"])))
        return
    speaker = open_chat(config.target, config.style)
    if config.chat:
        converse(pair, method, speaker, config.new_tokens)
        return
    prompt_T = speaker.encode([Message("user", str(config.prompt))])
    check_known(pair, prompt_T)
    warm_up(pair, method, prompt_T, config.new_tokens)
    show = None if config.json else print_now
    found = decode(pair, method, prompt_T, config.new_tokens, TextStream(speaker.tokenizer), show)
    print(json.dumps(found) if config.json else "\n" + summary(found))


def warm_up(pair: Pair, method: Method, prompt_T: np.ndarray, new_tokens: int) -> None:
    """Decodes a few tokens, so that compiling is not timed; UserError without room for all."""
    check_room(pair, len(prompt_T), new_tokens)
    for _ in method.bursts(benchmark.endless(pair), prompt_T, min(new_tokens, WARM_UP_TOKENS)):
        pass


def decode(
    pair: Pair,
    method: Method,
    prompt_T: np.ndarray,
    new_tokens: int,
    text: TextStream | None,
    show: Any = None,
) -> dict[str, Any]:
    """Decodes one prompt; the clock runs from the first token on."""
    tokens: list[int] = []
    cycles, started = -1, 0.0  # the first burst is prefill's
    for burst in method.bursts(pair, prompt_T, new_tokens):
        started = started or time.perf_counter()
        cycles += 1
        tokens += burst.tokens
        if text is not None and show is not None:
            show(text.add(burst.tokens))
    seconds = time.perf_counter() - started
    if text is not None and show is not None:
        show(text.end())
    return {
        "tokens": tokens,
        "text": None if text is None else text.tokenizer.decode(tokens),
        "committed_per_cycle": (len(tokens) - 1) / cycles if cycles else 0.0,
        "cycles": cycles,
        "tokens_per_second": (len(tokens) - 1) / seconds,
    }


def converse(pair: Pair, method: Method, speaker: Chat, new_tokens: int) -> None:
    """Turns until an empty line or the end of the input; ctrl-C stops an answer, or the chat."""
    messages: list[Message] = []
    warm_up(pair, method, speaker.encode([Message("user", "Hello")]), WARM_UP_TOKENS)
    while question := ask():
        messages.append(Message("user", question))
        text = TextStream(speaker.tokenizer)
        try:
            prompt_T = fitting(pair, speaker, messages, new_tokens)
            found = decode(pair, method, prompt_T, new_tokens, text, print_now)
        except command.Terminated:
            raise
        except (KeyboardInterrupt, UserError) as reason:
            messages.pop()
            print(f"\n[{str(reason) or 'stopped'}; the question is forgotten]")
            continue
        messages.append(Message("assistant", found["text"].strip()))
        print("\n" + summary(found))


def fitting(pair: Pair, speaker: Chat, messages: list[Message], new_tokens: int) -> np.ndarray:
    """The conversation's tokens; forgets its oldest turns until an answer has room behind them."""
    context = pair.config.cycle.context
    check_room(pair, len(speaker.encode(messages[-1:])), new_tokens)
    prompt_T = speaker.encode(messages)
    while len(prompt_T) + new_tokens > context and len(messages) > 1:
        del messages[:2]
        print(f"[the oldest turn is forgotten: the context holds {context} tokens]")
        prompt_T = speaker.encode(messages)
    check_known(pair, prompt_T)
    return prompt_T


def ask() -> str:
    """A line from the keyboard; "" at the end of the input and for ctrl-C."""
    try:
        return input("\n> ").strip()
    except command.Terminated:
        raise
    except (EOFError, KeyboardInterrupt):
        print()
        return ""
    except UnicodeDecodeError as error:
        raise UserError("The input is no text in this terminal's encoding.") from error


def token_ids(text: str, pair: Pair) -> np.ndarray:
    """Ids of "1,2,3"; UserError for other text and for tokens that the target has not."""
    try:
        ids = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"--prompt-ids {text!r} is not a list like 1,2,3.") from error
    known = pair.config.target.vocab_size
    if min(ids) < 0 or max(ids) >= known:
        raise UserError(f"--prompt-ids must lie in 0..{known - 1}, the target's vocabulary.")
    return np.asarray(ids, np.int32)


def print_now(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def summary(found: dict[str, Any]) -> str:
    """One line about the speed."""
    return (
        f"[{len(found['tokens'])} tokens, {found['tokens_per_second']:.1f} per second, "
        f"{found['committed_per_cycle']:.2f} per cycle]"
    )


if __name__ == "__main__":
    command.run(main, resumes=False)
