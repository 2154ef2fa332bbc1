"""Settings of the compared methods: numbers under keys, and how a source's numbers are scaled.

Numbers of levels in a source are for at most 12 levels (Sec. 5); a cycle of fewer levels D takes
ceil(levels * D / 12), and EAGLE-3's own levels and size of the embedded pair. Thresholds are not
scaled: they are probabilities or nats.
"""
# DOC """From numbers to controllers: one function per compared method."""
# DOC """The compared methods by name: where they come from, published settings, and tuning grids.
# DOC
# DOC Published settings are those of LTD's comparison (Sec. 5) where it names them, else the method's
# DOC own. Tuning tries 25 settings of every method (`BUDGET`); five sizes are among them wherever a
# DOC method leaves the size fixed, so that none loses for the size that LTD's comparison gave it.
# DOC """

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax import presets
from ltd_jax.baselines import classifiers, cost_aware, rules
from ltd_jax.baselines.classifiers import Parts
from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.policies import policy as policy_module
from ltd_jax.policies.policy import Controller

Setting = dict[str, tuple[float, ...]]
PAPER_LEVELS = 12  # cap of the dynamic-depth methods (Sec. 5)


def scaled(levels: int, config: CycleConfig) -> int:
    """A source's number of levels for a cycle of fewer levels."""
    return min(max(1, math.ceil(levels * config.max_levels / PAPER_LEVELS)), config.max_levels)


def eagle3_default(config: CycleConfig) -> tuple[int, int]:
    """EAGLE-3's fixed levels and size, the nearest ones that a cycle has."""
    is_full = config.max_levels >= presets.PAPER_EAGLE3[0]
    own = presets.PAPER_EAGLE3 if is_full else (presets.EAGLE3_LEVELS, presets.EAGLE3_SIZE)
    return min(own[0], config.max_levels), nearest(config, own[1])


def nearest(config: CycleConfig, size: float) -> int:
    """The compiled size nearest to a number of nodes."""
    return min(config.sizes, key=lambda known: (abs(known - size), known))


def at_least(config: CycleConfig, size: float) -> int:
    """The smallest compiled size of at least so many nodes, or the largest there is."""
    return next((known for known in config.sizes if known >= size), config.sizes[-1])


def some_sizes(config: CycleConfig) -> list[int]:
    """Five sizes from the smallest tree to the largest, evenly among the compiled ones."""
    known = [size for size in config.sizes if size > 0] or [0]
    return [known[round(place)] for place in np.linspace(0, len(known) - 1, 5)]


def size_index(config: CycleConfig, size: float) -> int:
    """Where a size stands in `config.sizes`; UserError for one that is not compiled."""
    if size not in config.sizes:
        raise UserError(f"size {size:g} is not one of the compiled sizes {config.sizes}.")
    return config.sizes.index(int(size))


def build_ddd(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """Dynamic depth decoding."""
    checked = np.isin(np.arange(1, config.max_levels + 1), setting["checks"])
    params = rules.MassParams(
        _f32(setting, "threshold"),
        jnp.asarray(checked),
        _i32(setting, "most"),
        _size(config, setting),
    )
    return rules.mass_rule(), params


def build_svip(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """SVIP."""
    return rules.entropy_rule(), rules.EntropyParams(
        threshold=_f32(setting, "threshold"),
        scale=_f32(setting, "scale"),
        most=_i32(setting, "most"),
        size=_size(config, setting),
    )


def build_gammatune(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """GammaTune, and with a confidence above 0 GammaTune+."""
    if setting["start"][0] < 1:
        raise UserError(f"gammatune: start is {setting['start'][0]:g} but must be at least 1.")
    keys = ("start", "share", "step", "least", "most", "confidence")
    numbers = {key: _f32(setting, key) for key in keys}
    params = rules.GammaParams(**numbers, size=_size(config, setting))
    return rules.gamma_rule(config), params


def build_tiers(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """EMA tiers."""
    levels, sizes = setting["levels"], setting["sizes"]
    if len(levels) != len(sizes) or list(levels) != sorted(set(levels)):
        raise UserError(
            "tiers: levels must rise and have one size each, like levels=1/3,sizes=2/8."
        )
    if setting["start"][0] >= len(levels):
        raise UserError(
            f"tiers: start is {setting['start'][0]:g} but the tiers are numbered 0 to "
            f"{len(levels) - 1}."
        )
    return rules.tier_rule(), rules.TierParams(
        levels=jnp.asarray(levels, jnp.int32),
        size=jnp.asarray([size_index(config, size) for size in sizes], jnp.int32),
        start=_i32(setting, "start"),
        share=_f32(setting, "share"),
        every=_i32(setting, "every"),
        warm_up=_i32(setting, "warm_up"),
        up=_f32(setting, "up"),
        down=_f32(setting, "down"),
    )


def build_disco(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """Disco; needs its classifier."""
    network, width = _head(parts, "disco")
    return classifiers.disco(width), classifiers.DiscoParams(
        network, _f32(setting, "threshold"), _i32(setting, "most"), _size(config, setting)
    )


def build_specdec(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """SpecDec++; needs its classifier."""
    network, width = _head(parts, "specdec")
    aggregate: classifiers.Aggregate = "any" if setting["any"][0] else "sum"
    return classifiers.survival(config, width, aggregate), classifiers.SurvivalParams(
        network=network,
        threshold=_f32(setting, "threshold"),
        least=_i32(setting, "least"),
        most=_i32(setting, "most"),
        size=_size(config, setting),
    )


def build_c2t(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """C2T; needs its classifier."""
    network, width = _head(parts, "c2t")
    return classifiers.node_classifier(config, width), classifiers.NodeParams(
        network=network,
        threshold=_f32(setting, "threshold"),
        most_nodes=_i32(setting, "nodes"),
        most=_i32(setting, "most"),
    )


def build_constant(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """A fixed setting."""
    size_index(config, setting["size"][0])
    try:
        params = policy_module.constant_params(
            int(setting["levels"][0]), int(setting["size"][0]), config
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    return policy_module.constant(), params


def cost_aware_tree(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """The cost-aware tree; needs a device's costs."""
    costs = parts.costs
    assert costs is not None  # whoever builds asks `needs_costs` first
    throughput = setting["speedup"][0] / costs.plain_seconds
    power = np.ones(config.max_levels) if parts.power is None else parts.power
    return cost_aware.cost_rule(config), cost_aware.CostParams(
        throughput=jnp.float32(throughput),
        ratio=_f32(setting, "ratio"),
        power=jnp.asarray(power, jnp.float32),
        contexts=jnp.asarray(costs.contexts, jnp.float32),
        draft_seconds=jnp.asarray(costs.draft_seconds, jnp.float32),
        verify_seconds=jnp.asarray(costs.verify_seconds, jnp.float32),
    )


def _head(parts: Parts, name: str) -> tuple[Any, int]:
    assert parts.heads is not None and parts.widths is not None  # asked for by `Family.head`
    return parts.heads[name], parts.widths[name]


def _f32(setting: Setting, key: str) -> jax.Array:
    return jnp.float32(setting[key][0])


def _i32(setting: Setting, key: str) -> jax.Array:
    return jnp.int32(setting[key][0])


def _size(config: CycleConfig, setting: Setting) -> jax.Array:
    return jnp.int32(size_index(config, setting["size"][0]))


BUDGET = 25


class Family(NamedTuple):
    """One method."""

    name: str
    source: str  # of the published setting
    published: Callable[[CycleConfig], Setting]
    grid: Callable[[CycleConfig], list[Setting]]  # what replaces numbers of the published setting
    build: Callable[[CycleConfig, Setting, Parts], tuple[Controller, Any]]
    head: str | None = None  # the classifier that it needs
    needs_costs: bool = False
    chooses_size: bool = False  # else settings have one "size"


class Range(NamedTuple):
    """What a number may be."""

    least: float
    most: float = math.inf
    whole: bool = False


def ranges(config: CycleConfig) -> dict[str, Range]:
    """Of the numbers that cannot be just any; sizes are checked where they are compiled."""
    levels = Range(1, config.max_levels, whole=True)
    some = dict.fromkeys(("most", "levels", "checks"), levels)
    some |= dict.fromkeys(("start", "least"), levels._replace(least=0))
    some |= dict.fromkeys(("share", "confidence"), Range(0, 1))
    some |= dict.fromkeys(("nodes", "every"), Range(1, whole=True))
    some |= dict.fromkeys(("step", "scale", "speedup", "ratio"), Range(0))
    return some | {"warm_up": Range(0, whole=True), "any": Range(0, 1, whole=True)}


def setting_of(family: Family, config: CycleConfig, given: Setting) -> Setting:
    """The published setting with some numbers replaced.

    Raises:
      UserError: the method has no such number, takes one number there, or not that one.
    """
    own = family.published(config)
    for key, values in given.items():
        if key not in own:
            raise UserError(f"{family.name} has no setting {key!r}; it has {', '.join(own)}.")
        if len(own[key]) == 1 != len(values):
            raise UserError(f"{family.name}: {key} takes one number, not {len(values)}.")
        for value in values:
            _must_lie(value, ranges(config).get(key), f"{family.name}: {key}")
    return own | given


def _must_lie(value: float, allowed: Range | None, what: str) -> None:
    if allowed is None:
        return
    inside = allowed.least <= value <= allowed.most
    if not inside or (allowed.whole and value % 1 != 0):
        kind = "a whole number" if allowed.whole else "a number"
        upper = "" if allowed.most == math.inf else f" and at most {allowed.most:g}"
        raise UserError(
            f"{what} is {value:g} but must be {kind} of at least {allowed.least:g}{upper}."
        )


def find(name: str) -> Family | None:
    """The method of a name; None where there is none."""
    return next((family for family in METHODS if family.name == name), None)


def _one(**numbers: float) -> Setting:
    return {key: (float(value),) for key, value in numbers.items()}


def _stops(config: CycleConfig, **numbers: float) -> Setting:
    """Of a method that only stops drafting: its numbers, at most all levels, EAGLE-3's size."""
    return _one(**numbers, most=config.max_levels, size=eagle3_default(config)[1])


def _product(
    config: CycleConfig, key: str, *values: float, **fixed: tuple[float, ...]
) -> list[Setting]:
    """Five values of one number times five sizes."""
    return [
        fixed | _one(**{key: value}, size=size)
        for value, size in itertools.product(values, some_sizes(config))
    ]


def _ddd(config: CycleConfig) -> Setting:
    checks = tuple(dict.fromkeys(float(scaled(levels, config)) for levels in (5, 7, 9)))
    return _stops(config, threshold=-0.3) | {"checks": checks}


def _gamma(config: CycleConfig, confidence: float) -> Setting:
    start = eagle3_default(config)[0]
    least, step = -(-start // 2), scaled(2, config)
    most = min(start + start // 2, config.max_levels)
    numbers = _one(start=start, share=0.2, step=step, least=least, most=most, confidence=confidence)
    return numbers | _one(size=eagle3_default(config)[1])


def _gamma_grid(config: CycleConfig, key: str, *values: float) -> list[Setting]:
    wide = _one(least=1, step=1, most=config.max_levels)
    return _product(config, key, *values, **wide)


def _tiers(config: CycleConfig) -> Setting:
    levels = tuple(dict.fromkeys(float(scaled(levels, config)) for levels in (1, 3, 7)))
    sizes = tuple(float(at_least(config, count)) for count in levels)
    numbers = _one(start=len(levels) // 2, share=0.2, every=5, warm_up=10, up=0.0, down=-0.25)
    return {"levels": levels, "sizes": sizes} | numbers


def _tiers_grid(config: CycleConfig) -> list[Setting]:
    levels = _tiers(config)["levels"]
    return [
        {"sizes": tuple(float(at_least(config, wide * count)) for count in levels)} | _one(up=up)
        for wide, up in itertools.product((1, 1.5, 2, 3, 4), (-0.5, -0.25, 0.0, 0.25, 0.5))
    ]


def _c2t_grid(config: CycleConfig) -> list[Setting]:
    most = [scaled(levels, config) for levels in (4, 6, 8, 10, 12)]
    return [
        _one(threshold=threshold, most=levels)
        for threshold, levels in itertools.product((0.1, 0.2, 0.3, 0.4, 0.5), most)
    ]


def _as_run(config: CycleConfig) -> Setting:
    levels, size = eagle3_default(config)
    return _one(levels=levels, size=size)


def _cost_grid(config: CycleConfig) -> list[Setting]:
    return [
        _one(speedup=speedup, ratio=ratio)
        for speedup, ratio in itertools.product(
            (0.6, 0.9, 1.2, 1.6, 2.2), (0.3, 0.45, 0.6, 0.8, 1.0)
        )
    ]


METHODS = (
    Family(
        name="ddd",
        source="2409.00142; LTD Sec. 5: checks 5, 7, 9, threshold -0.3",
        published=_ddd,
        grid=lambda config: _product(
            config,
            "threshold",
            -0.3,
            -0.6,
            -1.0,
            -1.5,
            -2.5,
            checks=tuple(float(level) for level in range(1, config.max_levels + 1)),
        ),
        build=build_ddd,
    ),
    Family(
        name="svip",
        source="2411.18462, its code and LTD: scale 0.15, threshold 0.3",
        published=lambda config: _stops(config, threshold=0.3, scale=0.15),
        grid=lambda config: _product(config, "threshold", 0.2, 0.3, 0.4, 0.55, 0.75),
        build=build_svip,
    ),
    Family(
        name="gammatune",
        source="2504.00030; LTD Sec. 5: share 0.2, half to 1.5 times EAGLE-3's levels",
        published=lambda config: _gamma(config, 0.0),
        grid=lambda config: _gamma_grid(config, "share", 0.1, 0.2, 0.3, 0.5, 0.8),
        build=build_gammatune,
    ),
    Family(
        name="gammatune+",
        source="2504.00030 with the confidence 0.4 of Hugging Face's assistant",
        published=lambda config: _gamma(config, 0.4),
        grid=lambda config: _gamma_grid(config, "confidence", 0.2, 0.3, 0.4, 0.55, 0.7),
        build=build_gammatune,
    ),
    Family(
        name="disco",
        source="2405.04304; LTD: threshold 0.5",
        published=lambda config: _stops(config, threshold=0.5),
        grid=lambda config: _product(config, "threshold", 0.2, 0.35, 0.5, 0.65, 0.8),
        build=build_disco,
        head="disco",
    ),
    Family(
        name="specdec++",
        source="2405.19715: threshold 0.7, at least 2 tokens; LTD's head",
        published=lambda config: _stops(config, threshold=0.7, least=scaled(2, config), any=0),
        grid=lambda config: _product(config, "threshold", 0.3, 0.5, 0.7, 0.85, 0.95),
        build=build_specdec,
        head="specdec",
    ),
    Family(
        name="c2t",
        source="2502.13652: threshold 0.5, 15 nodes per level, 10 levels",
        published=lambda config: _one(threshold=0.5, nodes=15, most=scaled(10, config)),
        grid=_c2t_grid,
        build=build_c2t,
        head="c2t",
        chooses_size=True,
    ),
    Family(
        name="c2t-as-run",
        source="LTD's comparison: the classifier removes no node, so the tree is EAGLE-3's",
        published=_as_run,
        grid=lambda config: [],  # its constants are tuned as the best constant
        build=build_constant,
    ),
    Family(
        name="tiers",
        source="SGLang: tiers 1, 3, 7 of a chain, share 0.2, every 5 cycles after 10",
        published=_tiers,
        grid=_tiers_grid,
        build=build_tiers,
        chooses_size=True,
    ),
    Family(
        name="cost-aware",
        source="expected tokens against measured time; speedup 1.5 and ratio 0.6 untuned",
        published=lambda config: _one(speedup=1.5, ratio=0.6),
        grid=_cost_grid,
        build=cost_aware_tree,
        needs_costs=True,
        chooses_size=True,
    ),
)
