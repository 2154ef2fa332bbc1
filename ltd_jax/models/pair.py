"""A loaded pair: weights, settings, dtype and stop tokens of one target and its draft."""

import dataclasses
import functools
import warnings
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
    NoDraft,
    PairConfig,
    SamplingConfig,
    TargetConfig,
    describe_sampling,
    non_defaults,
)
from ltd_jax.files import Identity, UserError
from ltd_jax.models import cpu_layout, sharding
from ltd_jax.models.draft import DraftParams
from ltd_jax.models.hf import fetch, gguf, hub
from ltd_jax.models.hf import tensors as hf_tensors
from ltd_jax.models.hf import weights as hf_weights
from ltd_jax.models.hf.config import DraftSettings
from ltd_jax.models.target import TargetParams
from ltd_jax.presets import Preset
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

    def with_context(self, context: int) -> "Pair":
        """The same pair with another context, the most tokens of prompt and answer."""
        cycle = dataclasses.replace(self.config.cycle, context=context)
        config = dataclasses.replace(self.config, cycle=cycle)
        return dataclasses.replace(self, model=self.model.replace(config=config))

    def sampled(self, sampling: SamplingConfig, seed: int = 0) -> "Pair":
        """The same pair, decoding with other sampling settings."""
        config = dataclasses.replace(self.config, sampling=sampling)
        return dataclasses.replace(self, model=self.model.replace(config=config), seed=seed)


def load(
    target: Path | str = files.ASSETS / "target",
    draft: Path | str | None = None,
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
    """Loads a pair from Hugging Face style folders, GGUF files or hub ids; by default the embedded.

    Args:
      target: also the name of a published pair, such as smollm2, that `ltd fetch` has fetched.
      draft: None = the one that ships for the target (the embedded one, or a published pair's);
        another target then decodes plainly, without one.
      cycle: the shapes of a cycle; None = the preset of the target on this device (presets.py).
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
    target_folder = hub.folder_of(target, "target")
    draft = usual_draft(target_folder) if draft is None else draft
    draft_folder = None if draft is None else hub.folder_of(draft, "draft")
    if draft_folder is None:
        _refuse_without_draft(target, feature_layers, draft_rope_theta)
    dtype = jnp.dtype(dtype or default_dtype(target_folder))
    if packed is None:
        packed = cpu_layout.is_faster(dtype)
        warn_if_slow(dtype)  # not where the layout is chosen, for an export
    target_config, target_params = hf_weights.load_target(target_folder, dtype, devices, packed)
    folders, settings = [target_folder], DraftSettings(no_draft(target_config), (), (), ())
    draft_params: Any = None
    if draft_folder is not None:
        folders.append(draft_folder)
        shared = {"embedding": target_params.embedding, "head": target_params.head}
        how: dict[str, Any] = {"rope_theta": draft_rope_theta, "devices": devices, **shared}
        settings = loaded = hf_weights.load_draft(draft_folder, target_config, dtype=dtype, **how)
        draft_params = cpu_layout.pack_draft(loaded.params) if packed else loaded.params
    with files.user_errors(" and ".join(map(str, folders))):
        config = PairConfig(
            target=with_features(target_config, settings.feature_layers, feature_layers),
            draft=settings.config,
            cycle=cycle or preset_of(target_folder).cycle,
            sampling=sampling,
            devices=devices,
        )
    stops = texts.stop_tokens(target_folder)
    doubts = hf_weights.read_target_settings(target_folder).doubts
    asked = {
        "target": hub.given_as(target_folder),
        "draft": hub.given_as(draft_folder) if draft_folder else None,
        "dtype": None if dtype.name == default_dtype(target_folder) else dtype.name,
        "feature_layers": feature_layers,
        "draft_rope_theta": draft_rope_theta,
        "devices": None if devices == 1 else devices,
    }
    return Pair(
        model=Model(target_params, draft_params, config),
        dtype=dtype,
        stop_tokens=stops,
        fingerprint=_fingerprint(folders, config, stops),
        folder=target_folder,
        names=(hub.name_of(target_folder), hub.name_of(folders[1]) if draft else "no draft"),
        remarks=(*settings.remarks, *doubts, *settings.doubts, *sharding.uneven(config)),
        seed=seed,
        loaded_with={name: value for name, value in asked.items() if value is not None},
    )


def _refuse_without_draft(target: Path | str, *settings: Any) -> None:
    """Raises UserError where one of some settings of a draft is given."""
    if any(settings):
        raise UserError(
            f"{target} has no draft; leave out `feature_layers` and `draft_rope_theta`, or give a "
            "`draft`."
        )


def default_dtype(target: Path) -> Literal["float32", "bfloat16"]:
    """The dtype of weights where none is asked for."""
    is_embedded = target == files.ASSETS / "target"
    return "float32" if is_embedded or jax.default_backend() == "cpu" else "bfloat16"


def warn_if_slow(dtype: jnp.dtype) -> None:
    """Warns of weights that a processor, which has no such arithmetic, widens for every product."""
    if jax.default_backend() == "cpu" and dtype.itemsize < 4 and not cpu_layout.is_faster(dtype):
        warnings.warn(
            f"{dtype.name} is several times slower than float32 on a processor; give `dtype` "
            "float32 unless memory is short.",
            stacklevel=3,
        )


def preset_of(target: Path) -> Preset:
    """The preset of a target's folder on this device.

    Raises:
      UserError: its config.json cannot be read.
    """
    config = hf_weights.read_target_settings(target).config
    return presets.of(jax.default_backend(), config, files.device_bytes())


def usual_draft(target: Path) -> Path | None:
    """The draft of a target's folder where none is asked for; None = it decodes without one.

    Raises:
      UserError: its config.json cannot be read.
    """
    file = gguf.file_of(target)
    if file is not None:
        return fetch.draft_for(file)
    is_embedded = presets.is_embedded(hf_weights.read_target_settings(target).config)
    return files.ASSETS / "draft" if is_embedded else None


def usual_questions(target: Path) -> Path | None:
    """The folder of questions for a target where none is asked for; None = the embedded pair's.

    Raises:
      UserError: its config.json cannot be read.
    """
    is_embedded = presets.is_embedded(hf_weights.read_target_settings(target).config)
    return None if is_embedded else files.ASSETS / "chat-prompts"


def no_draft(target: TargetConfig) -> NoDraft:
    """The config in the place of a draft beside a target that decodes plainly."""
    X, E = target.vocab_size, target.hidden_size
    return NoDraft(X, E, intermediate_size=0, head_count=1, kv_head_count=1, head_dim=2)


def require_draft(pair: Pair) -> None:
    """Raises UserError where a pair was loaded without a draft."""
    if isinstance(pair.config.draft, NoDraft):
        raise UserError(
            f"{pair.names[0]} was loaded without a draft, so it decodes plainly; give a `draft` "
            "for everything else."
        )


def _fingerprint(folders: Sequence[Path], config: PairConfig, stops: Sequence[int]) -> str:
    """12 hex digits that name the weights, how they are read, and what ends a text."""
    read_as = f"{non_defaults(config.target)} {non_defaults(config.draft)} {sorted(stops)}"
    return hf_tensors.fingerprint(*folders, read_as=read_as)


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
    if messages:
        return pair.encode(messages)
    token_T = np.asarray(prompt, np.int32)
    if token_T.size and token_T.min() < 0:
        raise UserError(f"Token ids must not be negative; {token_T.min()} is.")
    if token_T.size:
        check_known(pair, token_T)
    return token_T


def check_known(pair: Pair, token_T: np.ndarray) -> None:
    """Raises UserError where a prompt has tokens that the target does not know."""
    known = pair.config.target.vocab_size
    if token_T.max() >= known:
        raise UserError(
            f"The tokenizer in {pair.folder} gives token {token_T.max()} but the target knows "
            f"{known} tokens; put the tokenizer.json there that belongs to these weights."
        )
