"""Texts that a target writes by itself: conversations side by side, in one compiled program.

A draft is asked to guess what its target writes, so it learns from nothing else. Every row holds a
conversation: an opening is forced (the chat template's words, a system prompt, the first words of
a question), the target goes on as the user, the template's words are forced, the target answers,
and so on; a row whose conversation is over begins another one at once. (Known as Magpie, Xu et al.
2024, when a chat model's own template alone makes it ask.) Half of the answers are greedy, half
sampled. With prompts as openings the target only answers.

    forced  <|im_start|>user \\n What is        the opening
    user    the tallest mountain ?             sampled at temperature 1
    forced  <|im_end|> \\n <|im_start|>assistant \\n
    answer  Mount Everest ... <|im_end|>        greedy, or at `answer_temperature`

Everything random is a function of (seed, round, step), so a round that was killed is the same when
it is done again.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ltd_jax import checkpoint, files
from ltd_jax.config import TargetConfig, require_at_least
from ltd_jax.cycle import sample
from ltd_jax.files import UserError
from ltd_jax.models import kv_cache, sharding, target
from ltd_jax.models.kv_cache import KVCache
from ltd_jax.models.target import TargetParams

FORCED, USER, ANSWER = 0, 1, 2  # kinds of tokens: who chose them
GROUP = 256  # tokens that are summed up together when one is drawn


@dataclasses.dataclass(frozen=True)
class TalkConfig:
    """How conversations go; every field names another compiled program."""

    rows: int = 32  # conversations side by side
    slots: int = 448  # tokens of the longest conversation
    rounds_of: int = 2  # steps of a round, in `slots`
    user_cap: int = 100  # tokens of a question, at most
    answer_cap: int = 330  # tokens of an answer, at most
    again: float = 0.5  # chance of another question after an answer
    again_room: int = 200  # tokens that must be left for it
    greedy: float = 0.5  # share of conversations with greedy answers
    drawn: int = 8  # first tokens of them that are drawn where the opening is a whole prompt
    answer_temperature: float = 0.7  # of the others
    least_share: float = 0.05  # of the likeliest token's chance, below which none is drawn

    def __post_init__(self) -> None:
        require_at_least(1, self, "rows", "rounds_of", "user_cap", "answer_cap")
        require_at_least(16, self, "slots")
        for name in ("again", "greedy", "least_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)} but must lie in 0..1.")
        if self.answer_temperature <= 0:
            raise ValueError(f"answer_temperature is {self.answer_temperature}, not above 0.")

    @property
    def steps(self) -> int:
        """Steps of a round."""
        return self.rounds_of * self.slots


class Opening(NamedTuple):
    """The tokens that a conversation begins with, and who speaks after them."""

    tokens: Sequence[int]
    speaker: int  # USER or ANSWER


class Script(NamedTuple):
    """What is forced around the turns of a target's conversations."""

    openings: tuple[Opening, ...]
    to_answer: tuple[int, ...]  # after a question
    to_user: tuple[int, ...]  # after an answer; () = conversations have one turn
    ends: tuple[int, ...]  # tokens that end an answer
    asked_ends: tuple[int, ...] = ()  # that end a question, beside these


@struct.dataclass
class _Words:
    """A script as arrays: forced pieces, of which the last two are `to_answer` and `to_user`."""

    piece_QL: jax.Array  # i32 token ids
    length_Q: jax.Array  # i32
    speaker_Q: jax.Array  # i32, who speaks after the piece
    end_N: jax.Array  # i32, of answers
    asked_end_N: jax.Array  # i32, of questions


@struct.dataclass
class _Rows:
    """All conversations at work, [B] each."""

    cache: KVCache  # with a batch axis in front of everything
    token: jax.Array  # i32, read in the next step
    piece: jax.Array  # i32, that is forced, or was last
    place: jax.Array  # i32, of the piece's next token; at its length = the target speaks
    spoken: jax.Array  # i32, tokens of this turn so far
    greedy: jax.Array  # bool


class Spoken(NamedTuple):
    """The tokens of a round, [N, B] each."""

    token: np.ndarray  # i32
    kind: np.ndarray  # u8: FORCED, USER or ANSWER
    first: np.ndarray  # bool, of a conversation
    greedy: np.ndarray  # bool, of conversations with greedy answers


def rounds(
    params: TargetParams,
    config: TargetConfig,
    talk: TalkConfig,
    script: Script,
    tokens: int,
    folder: Path,
    *,
    seed: int = 0,
    mesh: Mesh | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Iterator[Spoken]:
    """Rounds of conversations, at least `tokens` tokens in all; those in the folder are read.

    Args:
      folder: gets a file for every round.
      mesh: of devices whose replicas each take a share of the rows.

    Raises:
      UserError: the folder holds another talk, a file is damaged or cannot be written, or the
        target's logits are no finite numbers.
    """
    count = max(1, -(-tokens // (talk.rows * talk.steps)))
    words = _words(script)
    _require_same_talk(params, talk, words, seed, folder / "talk.json")
    for number in range(count):
        path = folder / f"round-{number:04d}.safetensors"
        if not path.exists():
            key = jax.random.fold_in(jax.random.key(seed), number)
            spoken = jax.device_get(_speak(params, config, talk, mesh, words, key))
            if spoken[0].min() < 0:
                raise UserError(
                    f"The target's logits are NaN or infinite in {params.embedding.dtype}, so it "
                    "says nothing; load it in another `dtype`, or check its weights."
                )
            with files.replacing(path) as temporary:
                save_file(dict(zip(Spoken._fields, spoken, strict=True)), temporary)
        try:
            arrays = load_file(path)
            yield Spoken(**{name: arrays[name] for name in Spoken._fields})
        except (OSError, KeyError, SafetensorError) as error:
            raise UserError(f"{path} is damaged ({error}); delete it to do it again.") from error
        progress((number + 1) / count)


def _require_same_talk(
    params: TargetParams, talk: TalkConfig, words: _Words, seed: int, path: Path
) -> None:
    """Keeps what rounds depend on; UserError where those of the folder depend on something else."""
    record = {
        "target": checkpoint.digest(params),
        "talk": dataclasses.asdict(talk),
        "script": checkpoint.digest(words),
        "seed": seed,
    }
    if not path.exists():
        files.write_json(path, {"schema": 1} | record)
    with files.reading_json(path, "record of a talk", 1, files.OTHER_FOLDER) as kept:
        different = [name for name in record if kept[name] != record[name]]
    if different:
        raise UserError(
            f"The conversations in {path.parent} were made with another {different[0]}; "
            f"{files.OTHER_FOLDER}."
        )


def _words(script: Script) -> _Words:
    pieces = [*script.openings, Opening(script.to_answer, ANSWER), Opening(script.to_user, USER)]
    longest = max(len(piece.tokens) for piece in pieces)
    padded = [[*piece.tokens, *[0] * (longest - len(piece.tokens))] for piece in pieces]
    return _Words(
        piece_QL=jnp.asarray(padded, jnp.int32),
        length_Q=jnp.asarray([len(piece.tokens) for piece in pieces], jnp.int32),
        speaker_Q=jnp.asarray([piece.speaker for piece in pieces], jnp.int32),
        end_N=jnp.asarray(script.ends, jnp.int32),
        asked_end_N=jnp.asarray(sorted({*script.ends, *script.asked_ends}), jnp.int32),
    )


@functools.partial(jax.jit, static_argnames=("config", "talk", "mesh"))
def _speak(
    params: TargetParams,
    config: TargetConfig,
    talk: TalkConfig,
    mesh: Mesh | None,
    words: _Words,
    key: jax.Array,
) -> tuple[jax.Array, ...]:
    """A round, from fresh conversations: tokens, kinds, beginnings, greedy, [N, B] each."""
    B = talk.rows
    axes: dict[str, Any] = {"keys": 0, "values": 0, "length": 0}
    batched = KVCache(**axes)

    @functools.partial(jax.vmap, in_axes=(0, batched), out_axes=(0, batched))
    def read(token: jax.Array, cache: KVCache) -> tuple[jax.Array, KVCache]:
        logits_TX, _, rows = target.forward(
            params, config, token[None], cache.length[None], jnp.ones((1, 1), bool), cache
        )
        return logits_TX[0], kv_cache.append(cache, rows, jnp.int32(1))

    def advance(rows: _Rows, step: jax.Array):
        speaks = words.speaker_Q[rows.piece]
        speaker = jnp.where(rows.place < words.length_Q[rows.piece], FORCED, speaks)
        logits_BX, cache = read(rows.token, rows.cache)
        draw_B, *chances = jax.random.uniform(jax.random.fold_in(key, step), (4, B))
        # Else all greedy answers to one prompt would be one text.
        is_varied = (rows.piece >= _openings(words)) | (rows.spoken >= talk.drawn)
        is_greedy = rows.greedy & (speaker == ANSWER) & is_varied
        heat_B = jnp.where(speaker == ANSWER, talk.answer_temperature, 1.0)
        chosen_B = choose(logits_BX, heat_B, is_greedy, talk.least_share, draw_B)
        rows, told = _turn(rows.replace(cache=cache), speaker, chosen_B, talk, words, chances)
        return _shared(rows, config, mesh), told

    fresh = _shared(_fresh_rows(params, config, talk, words, key), config, mesh)
    start = (fresh.token, jnp.zeros((B,), jnp.uint8), jnp.ones((B,), bool), fresh.greedy)
    _, told = jax.lax.scan(advance, fresh, jnp.arange(talk.steps - 1))
    return jax.tree.map(lambda one, rest: jnp.concatenate([one[None], rest]), start, told)


def _shared(rows: _Rows, config: TargetConfig, mesh: Mesh | None) -> _Rows:
    """The rows where the replicas have them, caches split by heads."""
    if mesh is None:
        return rows
    alike, by_head = (sharding.batch_sharding(mesh, n) for n in (None, config.kv_head_count))
    where = jax.tree.map(lambda leaf: alike if leaf.ndim < 4 else by_head, rows)
    return jax.lax.with_sharding_constraint(rows, where)


def _openings(words: _Words) -> int:
    return words.piece_QL.shape[0] - 2


def _fresh_rows(
    params: TargetParams, config: TargetConfig, talk: TalkConfig, words: _Words, key: jax.Array
) -> _Rows:
    """Conversations of which nothing was read; the first token of their openings comes first."""
    B, count = talk.rows, _openings(words)
    piece_key, greedy_key = jax.random.split(jax.random.fold_in(key, talk.steps))
    piece_B = jax.random.randint(piece_key, (B,), 0, count)
    cache = kv_cache.empty(config, talk.slots, params.embedding.dtype)
    return _Rows(
        cache=jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (B, *leaf.shape)), cache),
        token=words.piece_QL[piece_B, 0],
        piece=piece_B,
        place=jnp.ones((B,), jnp.int32),
        spoken=jnp.zeros((B,), jnp.int32),
        greedy=jax.random.uniform(greedy_key, (B,)) < talk.greedy,
    )


def _turn(
    rows: _Rows,
    speaker: jax.Array,
    chosen_B: jax.Array,
    talk: TalkConfig,
    words: _Words,
    chances: Sequence[jax.Array],
) -> tuple[_Rows, tuple[jax.Array, ...]]:
    """The rows' next tokens: forced, chosen, the first of a piece, or another conversation's.

    Args:
      speaker: [B] of the next token, FORCED where a piece is not over.
      chances: uniform numbers [B] that decide on more questions and on new conversations.
    """
    again_B, piece_B, greedy_B = chances
    count = _openings(words)
    to_answer, to_user = count, count + 1
    used = rows.cache.length  # tokens that were read, so the next one's position
    is_end = jnp.any(chosen_B[:, None] == words.end_N[None], axis=1)
    is_asked = jnp.any(chosen_B[:, None] == words.asked_end_N[None], axis=1)
    asks, answers = speaker == USER, speaker == ANSWER
    asked = asks & (is_asked | (rows.spoken >= talk.user_cap))
    told = answers & is_end
    has_more = words.length_Q[to_user] > 0
    again = told & has_more & (again_B < talk.again) & (used + talk.again_room < talk.slots)
    # A conversation ends behind the token that ended its answer, so that this token is learned.
    was_last = rows.spoken < 0
    over = was_last | (answers & ~is_end & (rows.spoken >= talk.answer_cap))
    over = over | (used + 1 >= talk.slots)
    opening = jnp.minimum((piece_B * count).astype(jnp.int32), count - 1)
    starts = over | asked
    piece = jnp.where(over, opening, jnp.where(asked, to_answer, rows.piece))
    forced_B = words.piece_QL[rows.piece, jnp.minimum(rows.place, words.piece_QL.shape[1] - 1)]
    token = jnp.where(starts, words.piece_QL[piece, 0], chosen_B)
    token = jnp.where(~starts & (speaker == FORCED), forced_B, token)
    kind = jnp.where(starts, FORCED, speaker)
    place = jnp.where(starts, 1, jnp.where(speaker == FORCED, rows.place + 1, rows.place))
    spoken = jnp.where(starts | (speaker == FORCED), 0, rows.spoken + 1)
    # After the answer's end token comes what leads to the next question, or nothing.
    piece = jnp.where(again & ~over, to_user, piece)
    place = jnp.where(again & ~over, 0, place)
    spoken = jnp.where(again & ~over, 0, jnp.where(told & ~again & ~over, -1, spoken))
    greedy = jnp.where(over, greedy_B < talk.greedy, rows.greedy)
    cache = rows.cache.replace(length=jnp.where(over, 0, used))
    following = _Rows(cache, token, piece, place, spoken, greedy)
    return following, (token, kind.astype(jnp.uint8), over, greedy)


def choose(
    logits_BX: jax.Array,
    heat_B: jax.Array,
    is_greedy: jax.Array,
    least_share: float,
    draw_B: jax.Array,
) -> jax.Array:
    """One token per row, i32 [B]: the likeliest, or one drawn at a temperature; -1 without numbers.

    Only tokens of at least `least_share` of the likeliest one's probability are drawn. The draw is
    the inverse of the cumulative sum, in groups of tokens first: no sorting, one number per row.

    Args:
      heat_B: temperatures.
      draw_B: uniform in [0, 1).
    """
    B, X = logits_BX.shape
    peak = jnp.max(logits_BX, axis=1, keepdims=True)
    weight = jnp.exp((logits_BX - peak) / heat_B[:, None])
    weight = jnp.where(weight >= least_share, weight, 0.0)
    weight = jnp.pad(weight, ((0, 0), (0, -X % GROUP))).reshape(B, -1, GROUP)
    sums = jnp.cumsum(jnp.sum(weight, axis=2), axis=1)
    wanted = draw_B[:, None] * sums[:, -1:]
    group = jnp.sum(sums <= wanted, axis=1, keepdims=True)
    group = jnp.minimum(group, sums.shape[1] - 1)
    before = jnp.take_along_axis(jnp.pad(sums, ((0, 0), (1, 0))), group, axis=1)
    inner = jnp.cumsum(jnp.take_along_axis(weight, group[:, :, None], axis=1)[:, 0], axis=1)
    place = jnp.sum(inner <= wanted - before, axis=1)
    drawn = group[:, 0] * GROUP + jnp.minimum(place, GROUP - 1)
    best = jax.vmap(sample.argmax)(logits_BX)
    # Rounding may lead behind the last drawable token of a group; there the likeliest is taken.
    share = jnp.take_along_axis(weight.reshape(B, -1), drawn[:, None], axis=1)[:, 0]
    return jnp.where(is_greedy | (share == 0) | (best < 0), best, drawn).astype(jnp.int32)
