"""A loaded pair: weights, settings, dtype and stop tokens of one target and its draft."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax import files, presets
from ltd_jax import text as texts
from ltd_jax.config import (
    GREEDY,
    CycleConfig,
    PairConfig,
    SamplingConfig,
    TargetConfig,
    describe_sampling,
    non_defaults,
)
from ltd_jax.files import Identity, UserError
from ltd_jax.models import cpu_layout, sharding
from ltd_jax.models.draft import DraftParams
from ltd_jax.models.hf import hub
from ltd_jax.models.hf import tensors as hf_tensors
from ltd_jax.models.hf import weights as hf_weights
from ltd_jax.models.target import TargetParams
from ltd_jax.text import Chat, Message

AnyPrompt = str | Sequence[int] | Sequence[Message] | np.ndarray


@struct.dataclass
class Model:
    """Weights of a target and its draft with the static settings that shape their cycle.

    The first argument of every compiled function in cycle/: one pytree, whose settings are part of
    the program's identity.
    """

    target: TargetParams
    draft: DraftParams
    config: PairConfig = struct.field(pytree_node=False)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A loaded model and what is known of it on the host.

    Example:
      >>> import ltd_jax as ltd
      >>> pair = ltd.load()
      >>> pair.names
      ('embedded target', 'embedded draft')
    """

    model: Model
    dtype: jnp.dtype
    stop_tokens: tuple[int, ...] = ()
    fingerprint: str = "unsaved"  # names the weights in everything recorded from them
    folder: Path = files.ASSETS / "target"  # the target's, with its tokenizer
    names: tuple[str, str] = ("random target", "random draft")  # for reports
    remarks: tuple[str, ...] = ()  # how the folders were read, sentences for a person
    seed: int = 0  # of all random numbers that sampling draws
    loaded_with: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """the arguments of `load`, JSON, that give these weights again; {} = the embedded pair's"""

    @property
    def config(self) -> PairConfig:
        """The static settings of the model."""
        return self.model.config

    @property
    def stops(self) -> jax.Array:
        """The stop tokens as the compiled loops take them, i32 [S]."""
        return jnp.asarray(self.stop_tokens, jnp.int32)

    @property
    def device(self) -> str:
        """The device's name, as everything that is timed on it says it."""
        return files.device_name(self.config.devices)

    @property
    def environment(self) -> dict[str, Any]:
        """The provenance of a number that this pair gives, see `files.environment`."""
        return files.environment(jnp.dtype(self.dtype).name, self.config.devices)

    @property
    def record(self) -> dict[str, Any]:
        """What must be the same in all that is used with this pair, as JSON values."""
        return {
            "fingerprint": self.fingerprint,
            "cycle": dataclasses.asdict(self.config.cycle),
            "sampling": describe_sampling(self.config.sampling),
            "device": self.device,
            "dtype": jnp.dtype(self.dtype).name,
        }

    @property
    def identity(self) -> Identity:
        """The identity that the `record` tells."""
        return files.identity_of(self.record)

    @functools.cached_property
    def chat(self) -> Chat:
        """The tokenizer of the target's folder and the way it puts conversations."""
        return texts.open_chat(self.folder)

    def encode(self, prompt: str | Sequence[Message], style: texts.Style = "auto") -> np.ndarray:
        """Token ids [T] i32 of a text or a conversation, as the target's folder puts it.

        Raises:
          UserError: there is no tokenizer, or the prompt has no or unknown tokens.
        """
        messages = [Message("user", prompt)] if isinstance(prompt, str) else prompt
        chat = self.chat if style == "auto" else texts.open_chat(self.folder, style)
        token_T = chat.encode(messages)
        check_known(self, token_T)
        return token_T

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of token ids, without special tokens."""
        return self.chat.tokenizer.decode(np.asarray(tokens, int).tolist())

    def stream(self) -> texts.TextStream:
        """What shows the tokens of one answer as they come; pieces decoded alone lack spaces."""
        return texts.TextStream(self.chat.tokenizer)

    def put(self, tree: Any) -> Any:
        """Arrays that are committed to no other device, where the pair's weights are."""
        return sharding.shard(tree, self.config)

    def sampled(self, sampling: SamplingConfig, seed: int = 0) -> "Pair":
        """The same pair, decoding with other sampling settings."""
        config = dataclasses.replace(self.config, sampling=sampling)
        return dataclasses.replace(self, model=self.model.replace(config=config), seed=seed)


def load(
    target: Path | str = files.ASSETS / "target",
    draft: Path | str = files.ASSETS / "draft",
    *,
    cycle: CycleConfig | None = None,
    dtype: Any = None,
    sampling: SamplingConfig = GREEDY,
    seed: int = 0,
    feature_layers: tuple[int, ...] | None = None,
    draft_rope_theta: float | None = None,
    packed: bool | None = None,
    devices: int = 1,
) -> Pair:
    """Loads a pair from two Hugging Face style folders or hub ids; by default the embedded one.

    Args:
      cycle: the shapes of a cycle; None = the preset of the target.
      dtype: of weights and caches; None = bfloat16 on accelerators, float32 on CPUs and for the
        embedded pair.
      seed: of the random numbers that sampling draws.
      feature_layers: the layers before which features are taken; None = as the draft says.
      draft_rope_theta: the draft's rotary base; None = what its config.json says.
      packed: weights in the layout of models/cpu_layout.py; None = where that is fast.
      devices: of this host, to split weights and caches over (models/sharding.py).

    Raises:
      UserError: a file is missing or damaged, the two are not a pair, or there are fewer devices.

    Example:
      >>> pair = load()
      >>> pair.decode(pair.encode("def f(x):"))
      'def f(x):'
    """
    target_folder, draft_folder = hub.folder_of(target, "target"), hub.folder_of(draft, "draft")
    dtype = jnp.dtype(dtype or default_dtype(target_folder))
    packed = cpu_layout.is_faster(dtype) if packed is None else packed
    target_config, target_params = hf_weights.load_target(target_folder, dtype, devices, packed)
    loaded = hf_weights.load_draft(
        draft_folder,
        target_config,
        target_params.embedding,
        dtype,
        rope_theta=draft_rope_theta,
        devices=devices,
        head=target_params.head,
    )
    with files.user_errors(f"{target_folder} and {draft_folder}"):
        config = PairConfig(
            target=with_features(target_config, loaded.feature_layers, feature_layers),
            draft=loaded.config,
            cycle=cycle or presets.of(target_folder).cycle,
            sampling=sampling,
            devices=devices,
        )
    draft_params = cpu_layout.pack_draft(loaded.params) if packed else loaded.params
    stops = texts.stop_tokens(target_folder)
    asked = {
        "target": hub.given_as(target_folder),
        "draft": hub.given_as(draft_folder),
        "dtype": None if dtype.name == default_dtype(target_folder) else dtype.name,
        "feature_layers": feature_layers,
        "draft_rope_theta": draft_rope_theta,
        "devices": None if devices == 1 else devices,
    }
    return Pair(
        model=Model(target_params, draft_params, config),
        dtype=dtype,
        stop_tokens=stops,
        fingerprint=_fingerprint(target_folder, draft_folder, config, stops),
        folder=target_folder,
        names=(hub.name_of(target_folder), hub.name_of(draft_folder)),
        remarks=(
            *loaded.remarks,
            *hf_weights.read_target_settings(target_folder).doubts,
            *loaded.doubts,
            *sharding.uneven(config),
        ),
        seed=seed,
        loaded_with={name: value for name, value in asked.items() if value is not None},
    )


def default_dtype(target: Path) -> Literal["float32", "bfloat16"]:
    """The dtype of weights where none is asked for."""
    embedded = presets.of(target) is presets.EMBEDDED
    return "float32" if embedded or jax.default_backend() == "cpu" else "bfloat16"


def _fingerprint(
    target_folder: Path, draft_folder: Path, config: PairConfig, stops: Sequence[int]
) -> str:
    """12 hex digits that name the weights, how they are read, and what ends a text."""
    read_as = f"{non_defaults(config.target)} {non_defaults(config.draft)} {sorted(stops)}"
    return hf_tensors.fingerprint(target_folder, draft_folder, read_as=read_as)


def with_features(
    target: TargetConfig,
    draft_layers: tuple[int, ...] | None,
    feature_layers: tuple[int, ...] | None,
) -> TargetConfig:
    """The target that takes features before some layers.

    Args:
      draft_layers: the draft's; () = the last norm's output, None = the default for as many layers.
      feature_layers: win over the draft's; None = not asked for.

    Raises:
      ValueError: there are no such layers.
    """
    default = (0, 0, 0) if draft_layers is None else draft_layers
    return dataclasses.replace(target, feature_layers=feature_layers or default)


def token_ids(pair: Pair, prompt: AnyPrompt) -> np.ndarray:
    """Token ids [T] i32 of a text or a conversation as `Pair.encode` puts it, or of token ids."""
    if isinstance(prompt, str):
        return pair.encode(prompt)
    messages = [item for item in prompt if isinstance(item, Message)]
    return pair.encode(messages) if messages else np.asarray(prompt, np.int32)


def check_known(pair: Pair, token_T: np.ndarray) -> None:
    """Raises UserError where a prompt has tokens that the target does not know."""
    known = pair.config.target.vocab_size
    if token_T.max() >= known:
        raise UserError(
            f"The tokenizer in {pair.folder} gives token {token_T.max()} but the target knows "
            f"{known} tokens; put the tokenizer.json there that belongs to these weights."
        )
