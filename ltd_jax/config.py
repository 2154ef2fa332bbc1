"""Frozen settings of every stage: sampling, models, policies, learning, cycles, pairs.

All classes are hashable, so they may be static arguments of jitted functions. Variants are made
with `dataclasses.replace`. Numbers of the paper carry their section or table in a comment; named
instances are in presets.py.
"""

import dataclasses
from typing import Any, ClassVar, Literal

Rule = Literal["coupled", "sequential"]
LEAST_TEMPERATURE = 1e-3  # below it, f32 logits over the temperature overflow or are greedy anyway
MOST_PENALTY = 1e3  # and its inverse the least; beyond them f32 logits times it overflow


def require_at_least(least: int, config: Any, *names: str) -> None:
    """Raises ValueError for a field below `least`; None is no number and passes."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            raise ValueError(f"{name} is {value} but must be at least {least}.")


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How tokens are drawn, greedily by default; every field names another compiled program.

    Example:
      >>> warm = SamplingConfig(temperature=0.8, top_p=0.95)
      >>> warm.is_reproducible  # one seed gives one text
      True
    """

    temperature: float = 0.0  # 0 = greedy, the most probable token
    top_k: int = 0  # only the k most probable tokens; 0 = all
    top_p: float = 1.0  # only the most probable tokens that together reach this probability
    repetition_penalty: float = 1.0  # on logits of tokens that the text has already; 1 = none
    draft_temperature: float = 1.0  # of the draft's scores; it moves the tree, never the output
    rule: Rule = "coupled"  # how a tree is tested, see cycle/accept.py; no rule moves the output

    def __post_init__(self) -> None:
        least = LEAST_TEMPERATURE
        if not (self.temperature == 0 or least <= self.temperature < float("inf")):
            raise ValueError(
                f"temperature is {self.temperature} but must be 0 (greedy) or at least {least}."
            )
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k} but must be 0 (all tokens) or more.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p} but must lie above 0 and at most at 1.")
        if not 1 / MOST_PENALTY <= self.repetition_penalty <= MOST_PENALTY:
            raise ValueError(
                f"repetition_penalty is {self.repetition_penalty} but must lie in "
                f"{1 / MOST_PENALTY:g}..{MOST_PENALTY:g}; 1 = none."
            )
        if not least <= self.draft_temperature < float("inf"):
            raise ValueError(
                f"draft_temperature is {self.draft_temperature} but must be at least {least}."
            )
        if self.rule not in ("coupled", "sequential"):
            raise ValueError(f"rule is {self.rule!r} but must be coupled or sequential.")
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise ValueError(
                "top_k and top_p change nothing at temperature 0, where the most probable token is "
                "taken; raise the temperature or leave them out."
            )
        if self.temperature == 0 and self.rule == "sequential":
            raise ValueError(
                "rule sequential changes nothing at temperature 0, where nothing is drawn; raise "
                "the temperature or leave it out."
            )

    @property
    def is_argmax(self) -> bool:
        """Whether the target's largest logit decides, and nothing else."""
        return self.temperature == 0 and self.repetition_penalty == 1

    @property
    def is_reproducible(self) -> bool:
        """Whether one seed gives one text, whoever decodes it."""
        return self.rule == "coupled"


GREEDY = SamplingConfig()


def describe_sampling(config: SamplingConfig, seed: int | None = None) -> dict[str, Any] | None:
    """For provenance: None for greedy decoding; the seed where it matters."""
    return None if config == GREEDY else dataclasses.asdict(config) | {"seed": seed}


LEAST_LAYERS = 7  # of a target in which EAGLE-3's default feature layers are distinct


def non_defaults(config: Any) -> dict[str, Any]:
    """What a config says beyond its defaults: a field of a later version changes nothing.

    Fields that are not compared are left out: they make no other model.
    """
    fields = [field for field in dataclasses.fields(config) if field.compare]
    values = {field: getattr(config, field.name) for field in fields}
    return {field.name: value for field, value in values.items() if value != field.default}


@dataclasses.dataclass(frozen=True)
class LinearScaling:
    """Every frequency of the rotary embedding over one factor: positions are interpolated."""

    factor: float


@dataclasses.dataclass(frozen=True)
class DynamicScaling:
    """A base that grows with the length of the text beyond the original context (dynamic NTK)."""

    factor: float
    original_context: int


def _check_attention(config: "TargetConfig | DraftConfig | GriffinConfig") -> None:
    """Raises ValueError for heads in no whole groups, and for layers that slide over nothing."""
    if config.head_count % config.kv_head_count:
        raise ValueError(
            f"head_count {config.head_count} is not a multiple of kv_head_count "
            f"{config.kv_head_count}; grouped-query attention needs whole groups."
        )
    if config.sliding_layers and config.sliding_window < 1:
        raise ValueError(f"sliding_window is {config.sliding_window} but must be at least 1.")


@dataclasses.dataclass(frozen=True)
class Llama3Scaling:
    """Low frequencies over a factor, high ones as they are, a ramp between (Llama 3.1)."""

    factor: float
    low_frequency_factor: float  # turns in the original context, below which a frequency is low
    high_frequency_factor: float  # likewise, above which it is high
    original_context: int


@dataclasses.dataclass(frozen=True)
class YarnScaling:
    """Low frequencies over a factor, with a ramp over channels (YaRN, arXiv 2309.00071)."""

    factor: float
    original_context: int
    attention_factor: float  # of cosines and sines
    beta_fast: float = 32.0  # turns in the original context, where the ramp begins
    beta_slow: float = 1.0  # likewise, where it ends
    truncate: bool = True  # the ramp's ends are whole channels


@dataclasses.dataclass(frozen=True)
class LongScaling:
    """A factor for every frequency, others beyond the original context (LongRoPE, 2402.13753)."""

    short_factors: tuple[float, ...]
    long_factors: tuple[float, ...]
    original_context: int
    attention_factor: float  # of cosines and sines


RopeScaling = LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling | LongScaling


@dataclasses.dataclass(frozen=True)
class TargetConfig:
    """One Llama- or Qwen3-family decoder; the families differ only by these fields."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layer_count: int
    head_count: int
    kv_head_count: int
    head_dim: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rotary_dim: int | None = None  # channels of a head that are turned; None = all
    tie_embeddings: bool = False
    attention_bias: bool = False  # of queries, keys and values
    output_bias: bool = False  # of the map behind attention
    qk_norm: bool = False
    sliding_window: int = 0  # latest tokens that a sliding layer sees, itself included
    sliding_layers: tuple[int, ...] = ()  # by index; the others see all tokens
    # What the draft reads: the stream entering these layers (EAGLE-3), or with () the last norm's
    # output (Griffin). (0, 0, 0) = EAGLE-3's default for layer_count.
    feature_layers: tuple[int, ...] = (0, 0, 0)
    # Tokens of the longest text that it is for, None = not known; no program depends on it.
    longest_text: int | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        _check_attention(self)
        if self.feature_layers == (0, 0, 0):
            if self.layer_count < LEAST_LAYERS:
                raise ValueError(
                    f"A target of {self.layer_count} layers has no three distinct EAGLE-3 feature "
                    "layers (2, n//2, n-3); say in `feature_layers` which ones the draft reads."
                )
            default = (2, self.layer_count // 2, self.layer_count - 3)
            object.__setattr__(self, "feature_layers", default)
        chosen = self.feature_layers
        inside = all(0 <= layer <= self.layer_count for layer in chosen)
        if not inside or list(chosen) != sorted(set(chosen)):
            raise ValueError(f"feature_layers {chosen} must rise and lie in 0..{self.layer_count}.")

    @property
    def feature_size(self) -> int:
        """Width of a token's feature: all streams side by side, or the last state alone."""
        return max(len(self.feature_layers), 1) * self.hidden_size


@dataclasses.dataclass(frozen=True)
class DraftConfig:
    """One EAGLE-3 draft: a Llama layer over [embedding, fused target features], or several.

    Only the first layer reads the embedding; further ones are a decoder's usual layers.
    """

    vocab_size: int
    draft_vocab_size: int
    hidden_size: int
    target_hidden_size: int
    intermediate_size: int
    head_count: int
    kv_head_count: int
    head_dim: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rotary_dim: int | None = None  # channels of a head that are turned; None = all
    norm_before_residual: bool = False  # the residual is the normed feature, not the raw one
    norm_before_fc: bool = False  # one norm over the three target features together
    norm_each_feature: bool = False  # "fc_norm": one norm for each of them
    norm_output: bool = False  # the next level reads the normed output (EAGLE-3.1)
    layer_count: int = 1
    feature_count: int = 3  # layers of the target that the draft reads
    own_head: bool = True  # False = the target's head, or the embedding turned
    attention_bias: bool = False  # of queries, keys and values
    output_bias: bool = False  # of the map behind attention
    fuse_bias: bool = False  # of the map over the target's features
    qk_norm: bool = False
    sliding_window: int = 0  # latest tokens that a sliding layer sees, itself included
    sliding_layers: tuple[int, ...] = ()  # by index; the others see all tokens

    def __post_init__(self) -> None:
        _check_attention(self)
        require_at_least(1, self, "layer_count", "feature_count")
        if self.draft_vocab_size > self.vocab_size:
            raise ValueError(
                f"draft_vocab_size {self.draft_vocab_size} is larger than vocab_size "
                f"{self.vocab_size}."
            )
        if self.norm_before_fc and self.norm_each_feature:
            raise ValueError("norm_before_fc and fc_norm exclude each other.")
        if not self.own_head and self.draft_vocab_size != self.vocab_size:
            raise ValueError(
                f"A draft of {self.draft_vocab_size} tokens needs a head of its own: the target's "
                f"is for {self.vocab_size}."
            )

    @property
    def fuse_norms(self) -> int:
        """Norms over the target's features before they are fused: none, one, or one of each."""
        return self.feature_count if self.norm_each_feature else int(self.norm_before_fc)


@dataclasses.dataclass(frozen=True)
class GriffinConfig:
    """One Griffin draft (arXiv 2502.11018): it reads the target's last state and has its head."""

    vocab_size: int
    hidden_size: int  # the target's, too
    intermediate_size: int
    head_count: int
    kv_head_count: int
    head_dim: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rotary_dim: int | None = None  # channels of a head that are turned; None = all
    attention_bias: bool = False  # "qkv_bias", of drafts for Qwen2
    layer_count: ClassVar[int] = 1
    feature_count: ClassVar[int] = 0  # layers of the target that it reads: none, but its last state
    sliding_window: ClassVar[int] = 0
    sliding_layers: ClassVar[tuple[int, ...]] = ()  # it sees all tokens

    def __post_init__(self) -> None:
        _check_attention(self)

    @property
    def draft_vocab_size(self) -> int:
        """The target's vocabulary."""
        return self.vocab_size

    @property
    def target_hidden_size(self) -> int:
        """Width of the state that it reads."""
        return self.hidden_size


@dataclasses.dataclass(frozen=True)
class NoDraft(GriffinConfig):
    """The place of a draft beside a target that decodes plainly: no layer, no weights."""

    layer_count: ClassVar[int] = 0


AnyDraftConfig = DraftConfig | GriffinConfig

Reward = Literal["paper", "average", "accepted", "time"]
Algorithm = Literal["alternate", "joint", "exact"]


@dataclasses.dataclass(frozen=True)
class ObservationConfig:
    """What the two policies see; the defaults are the paper's (Eq. 3: P + D + L of Table 6)."""

    node_probs: bool = True  # P, every probability: of the newest level (depth), of the tree (size)
    top_k_probs: int = 0  # so many of the highest of these probabilities, sorted; 0 = none
    expected_tokens: bool = False  # their sum over the best nodes of every size
    entropy: bool = False  # E, of the draft at every row of the newest level or of the tree
    root_entropy: bool = False  # of the target's distribution that the root came from
    hidden: int = 0  # H, so many channels of the draft's output, for the depth policy alone
    levels: bool = True  # D, draft passes done in this cycle
    length: bool = True  # L, committed tokens as a share of the context
    acceptance_ema: bool = False  # running means of what the cycles before this one accepted

    def __post_init__(self) -> None:
        require_at_least(0, self, "top_k_probs", "hidden")
        if not any(value for name, value in vars(self).items() if name != "hidden"):
            raise ValueError("The size policy sees nothing; switch on another part than hidden.")


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """What the two policies see, and the widths of their actors and critics (ReLU, paper A.2).

    Example:
      >>> PolicyConfig(size_actor=(32,), depth_actor=(32,)).depth_actor
      (32,)
    """

    size_actor: tuple[int, ...] = (1024, 256)  # hidden layers of the size policy
    size_critic: tuple[int, ...] = (1024, 256)  # of its critic
    depth_actor: tuple[int, ...] = (1024,)  # hidden layers of the depth policy
    depth_critic: tuple[int, ...] = (1024, 256)  # of its critic
    observation: ObservationConfig = ObservationConfig()


FORMER_NAMES = {  # of ObservationConfig's fields, in files of before
    "nodes": "node_probs",
    "best": "top_k_probs",
    "expected": "expected_tokens",
    "certainty": "root_entropy",
    "recent": "acceptance_ema",
}


def policy_config_from_json(record: dict[str, Any]) -> PolicyConfig:
    """The settings that `dataclasses.asdict` wrote, also with the fields' former names.

    Raises:
      TypeError: a field is unknown or none of its kind.
    """
    observation = {
        FORMER_NAMES.get(name, name): value for name, value in record["observation"].items()
    }
    widths = {name: tuple(value) for name, value in record.items() if name != "observation"}
    return PolicyConfig(**widths, observation=ObservationConfig(**observation))


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Proximal policy optimisation; defaults are the paper's (A.3) or Stable-Baselines3's."""

    total_steps: int = 100_000  # decisions of the whole training
    environments: int = 16  # texts walked side by side
    rollout: int = 2048  # decisions per update, over all environments (A.3)
    minibatch: int = 256  # decisions per gradient step (A.3)
    epochs: int = 20  # passes over a rollout (A.3)
    learning_rate: float = 1e-3  # the highest (A.3)
    warmup: float = 0.01  # share of total_steps with rising rate, then linear decay to 0 (A.3)
    gamma: float = 0.9  # discount per decision: size 0.9, depth 0.999 (A.3)
    gae_lambda: float = 0.95  # of generalised advantage estimation
    clip: float = 0.2  # of the ratio of new to old probabilities
    entropy: float = 0.01  # weight of the entropy bonus (A.3)
    value: float = 0.5  # weight of the critic's loss
    max_gradient_norm: float = 0.5  # longer gradients are shortened to it
    adam_eps: float = 1e-5  # Adam's epsilon

    def __post_init__(self) -> None:
        require_at_least(1, self, "total_steps", "environments", "rollout", "epochs")
        if self.minibatch < 2:
            raise ValueError("minibatch must be >= 2: advantages are normalised within it.")
        if self.rollout % self.environments or self.rollout % self.minibatch:
            raise ValueError(
                f"rollout {self.rollout} must be a multiple of environments {self.environments} "
                f"and of minibatch {self.minibatch}."
            )

    @property
    def updates(self) -> int:
        """Updates of a whole training: as many rollouts as cover total_steps."""
        return -(-self.total_steps // self.rollout)


@dataclasses.dataclass(frozen=True)
class ExactConfig:
    """Exact gradients of the expected reward: every choice is weighed, none has to be tried."""

    updates: int = 120  # walks, each with its gradient steps
    environments: int = 256  # texts walked side by side
    cycles: int = 8  # of each walk per update
    steps: int = 24  # gradient steps per update
    minibatch: int = 1024  # places, out of environments * cycles
    learning_rate: float = 5e-3  # falls to 0
    weight_decay: float = 1e-2  # of AdamW
    entropy: float = 0.6  # tokens per nat, falls to 0

    def __post_init__(self) -> None:
        require_at_least(1, self, "updates", "environments", "cycles", "steps", "minibatch")
        if self.minibatch > self.environments * self.cycles:
            raise ValueError(
                f"minibatch {self.minibatch} is larger than the {self.environments} environments "
                f"times {self.cycles} cycles that it is drawn from."
            )


@dataclasses.dataclass(frozen=True)
class LearningConfig:
    """How policies learn: the paper's schedule (Sec. 4), jointly, or with exact gradients.

    Example:
      >>> LearningConfig(algorithm="exact", reward="average").algorithm
      'exact'
    """

    algorithm: Algorithm = "alternate"  # the paper's order, both at once, or exact gradients
    size: PPOConfig = PPOConfig(total_steps=100_000, gamma=0.9)
    depth: PPOConfig = PPOConfig(total_steps=1_000_000, gamma=0.999)
    joint: PPOConfig = PPOConfig(total_steps=500_000, gamma=0.5)  # counts cycles, not decisions
    exact: ExactConfig = ExactConfig()
    alternations: int = 3  # further turns of one policy: size, depth, size
    depth_stage_size: int | None = None
    """nodes verified while the depth policy learns alone (the paper: 60); None = best constant's"""
    reward: Reward = "paper"
    """of a cycle: tokens per second, tokens beyond the average rate's, accepted tokens, time"""
    validate_every: int = 10  # updates between two validations
    seed: int = 0  # of weights, walks and draws

    def __post_init__(self) -> None:
        require_at_least(1, self, "validate_every")
        require_at_least(0, self, "alternations")


@dataclasses.dataclass(frozen=True)
class CycleConfig:
    """Shapes of one draft-and-verify cycle; every field names another compiled program.

    Example:
      >>> cycle = CycleConfig(beam_width=4, max_levels=3, sizes=(0, 2, 4, 8))
      >>> cycle.node_count, cycle.path_length
      (48, 4)
    """

    beam_width: int = 8
    max_levels: int = 8
    sizes: tuple[int, ...] = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    context: int = 512  # most tokens (prompt and generated) of one sequence
    prefill_chunk: int = 64  # tokens per prefill pass
    cycles_per_call: int = 4  # cycles, or plain steps, between two visits of the host
    short_catch_ups: tuple[int, ...] = ()  # rows of catch-up passes for short paths

    def __post_init__(self) -> None:
        for name in ("sizes", "short_catch_ups"):  # lists where read from JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))
        require_at_least(1, self, "beam_width", "max_levels", "prefill_chunk", "cycles_per_call")
        require_at_least(2, self, "context")
        if self.max_levels >= self.context:
            raise ValueError(
                f"max_levels {self.max_levels} must be less than the context of {self.context}."
            )
        if not self.sizes or list(self.sizes) != sorted(set(self.sizes)) or self.sizes[0] < 0:
            raise ValueError(f"sizes {self.sizes} must be distinct, ascending and not negative.")
        rows = self.short_catch_ups
        if list(rows) != sorted(set(rows)) or any(row < 1 for row in rows):
            raise ValueError(f"short_catch_ups {rows} must be distinct, ascending and positive.")
        if self.sizes[-1] > self.node_count:
            raise ValueError(
                f"size {self.sizes[-1]} is larger than the {self.node_count} slots of a tree with "
                f"beam_width {self.beam_width} and max_levels {self.max_levels}."
            )

    @property
    def node_count(self) -> int:
        """Slots of the dense tree, D * W * W (level 1 uses only W of its W * W)."""
        return self.max_levels * self.beam_width**2

    @property
    def path_length(self) -> int:
        """Most tokens one cycle can commit: every level accepted, plus the target's own token."""
        return self.max_levels + 1

    @property
    def catch_up_rows(self) -> tuple[int, ...]:
        """Rows of all catch-up passes that are compiled, ascending; the last holds every path."""
        short = (rows for rows in self.short_catch_ups if rows < self.path_length)
        return (*short, self.path_length)

    @property
    def cache_slots(self) -> int:
        """Slots of both caches: the context and room for a padded path or prefill chunk."""
        return self.context + max(self.path_length, self.prefill_chunk)

    @property
    def tree_rows(self) -> int:
        """Uncommitted draft rows of one tree: a pass of W rows for every level after the first.

        With one level no such pass is made, but its shapes are compiled.
        """
        return max(self.max_levels - 1, 1) * self.beam_width


@dataclasses.dataclass(frozen=True)
class PairConfig:
    """A target, its draft and the shapes of their cycle: the static side of what is compiled."""

    target: TargetConfig
    draft: AnyDraftConfig
    cycle: CycleConfig
    sampling: SamplingConfig = GREEDY
    devices: int = 1  # that weights and caches are split over (models/sharding.py)

    def __post_init__(self) -> None:
        if len(self.target.feature_layers) != self.draft.feature_count:
            raise ValueError(
                f"The target gives feature_layers {self.target.feature_layers} but the draft reads "
                f"{self.draft.feature_count} layers (Griffin none, ()); name as many in "
                "`feature_layers`."
            )
        if self.draft.vocab_size != self.target.vocab_size:
            raise ValueError(
                f"The draft speaks of {self.draft.vocab_size} token ids and the target of "
                f"{self.target.vocab_size}; they are not a pair."
            )
        if self.draft.target_hidden_size != self.target.hidden_size:
            raise ValueError(
                f"The draft reads features of width {self.draft.target_hidden_size} but the target "
                f"is {self.target.hidden_size} wide; they are not a pair."
            )
        if self.draft.draft_vocab_size < self.cycle.beam_width:
            raise ValueError(
                f"beam_width {self.cycle.beam_width} is larger than the draft's vocabulary of "
                f"{self.draft.draft_vocab_size}."
            )
