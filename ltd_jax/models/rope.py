"""Rotary positions: the angles of every kind of RoPE, and the rotation of queries and keys.

Frequencies are computed on the host in f32, step by step as transformers computes them: one unit
in the last place of a frequency is a thousandth of a radian after 10,000 tokens.

Two kinds depend on how long a text is. As in transformers' generation with a cache, a token is
turned once, by the length that the text had when it was read, and its key stays so: tokens of the
prompt by the prompt's length, every later one by its own position plus one (`length_T`). A drafted
token is one that comes later, whatever else is in its pass. So a pass over a tree, one token at a
time, and a pass over a whole text turn a token alike, speculative decoding gives what plain
decoding gives, and both give what transformers gives; how many slots a cache has plays no part.
A draft knows no prompt and takes every token for a later one: that moves no output.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import (
    AnyDraftConfig,
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongScaling,
    TargetConfig,
    YarnScaling,
)

AnyFrequencies = np.ndarray | jax.Array
TOO_STEEP = 0.001  # channels; added where a ramp would have no length


def tables(
    config: TargetConfig | AnyDraftConfig, positions_T: jax.Array, prompt: jax.Array | int = 0
) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine [T, R/2] in f32 of every token's angles, times the attention factor.

    R channels of a head are turned (`rotary_dim`, or all C).

    Args:
      positions_T: i32, tokens before each one.
      prompt: tokens that were read before any was generated; 0 where none of these is in the pass.
    """
    position_T = positions_T.astype(jnp.float32)
    turns = frequencies(config, jnp.maximum(positions_T + 1, prompt))
    angles = position_T[:, None] * (turns if turns.ndim == 2 else turns[None, :])
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    factor = attention_factor(config)
    return (cos, sin) if factor == 1 else (cos * factor, sin * factor)


def rotate(x_THC: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotary embedding in the half-split layout: channel i turns together with channel i + R/2.

    Args:
      cos, sin: [T, R/2]; channels from R on stay as they are.
    """
    half, C = cos.shape[-1], x_THC.shape[-1]
    first, second, rest = jnp.split(x_THC.astype(jnp.float32), (half, 2 * half), axis=-1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    turned = [first * cos - second * sin, second * cos + first * sin]
    parts = turned if 2 * half == C else [*turned, rest]
    return jnp.concatenate(parts, axis=-1).astype(x_THC.dtype)


def attention_factor(config: TargetConfig | AnyDraftConfig) -> float:
    """The factor of cosines and sines, which makes the products of queries and keys larger."""
    match config.rope_scaling:
        case YarnScaling(attention_factor=factor) | LongScaling(attention_factor=factor):
            return factor
        case _:
            return 1.0


def turned_channels(config: TargetConfig | AnyDraftConfig) -> int:
    """R, the channels of a head that are turned."""
    return config.head_dim if config.rotary_dim is None else config.rotary_dim


def frequencies(config: TargetConfig | AnyDraftConfig, length_T: AnyFrequencies) -> AnyFrequencies:
    """Radians per token, f32 [R/2]; [T, R/2] of the kinds that depend on the text's length.

    Args:
      length_T: i32, tokens of the text when each one was read.
    """
    R, scaling = turned_channels(config), config.rope_scaling
    exponent = np.arange(0, R, 2, dtype=np.float32) / np.float32(R)
    exact = np.float64(np.float32(config.rope_theta)) ** exponent.astype(np.float64)
    periods = exact.astype(np.float32)  # over 2 pi, in tokens; numpy's own f32 power is one bit off
    one = np.float32(1)
    match scaling:
        case LinearScaling():
            return one / periods / np.float32(scaling.factor)
        case Llama3Scaling():
            return _llama3(one / periods, scaling)
        case YarnScaling():
            return _yarn(periods, config.rope_theta, R, scaling)
        case LongScaling():
            pair = (scaling.short_factors, scaling.long_factors)
            short, long = (one / (np.asarray(each, np.float32) * periods) for each in pair)
            is_long = length_T[:, None] > scaling.original_context
            return jnp.where(is_long, long[None, :], short[None, :])
        case DynamicScaling(factor=factor, original_context=original):
            length = length_T.astype(np.float32)
            growth = factor * length / original - (factor - 1)
            base = config.rope_theta * growth ** (R / (R - 2))
            base = jnp.where(length_T > original, base, np.float32(config.rope_theta))
            return one / base[:, None] ** exponent[None, :]
        case _:
            return one / periods


def _llama3(plain: np.ndarray, scaling: Llama3Scaling) -> np.ndarray:
    """Frequencies between low and high ones go over smoothly; equal bounds make a step."""
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    factor, original = np.float32(scaling.factor), scaling.original_context
    wavelength = np.float32(2 * math.pi) / plain
    slowed = np.where(wavelength > original / low, plain / factor, plain)
    between = (wavelength >= original / high) & (wavelength <= original / low)
    with np.errstate(divide="ignore", invalid="ignore"):
        smooth = (original / wavelength - low) / np.float32(high - low)
        ramp = (1 - smooth) * slowed / factor + smooth * slowed
    return np.where(between, ramp, slowed).astype(np.float32)


def _yarn(periods: np.ndarray, theta: float, R: int, scaling: YarnScaling) -> np.ndarray:
    """Channels that turn often keep their frequency; those that turn seldom have it over a factor.

    The ramp goes from the channel of `beta_fast` turns in the original context to that of
    `beta_slow`.
    """

    def channel(turns: float) -> float:
        period = scaling.original_context / (turns * 2 * math.pi)
        return R * math.log(period) / (2 * math.log(theta))

    low, high = channel(scaling.beta_fast), channel(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, R - 1)
    if low == high:
        high += TOO_STEEP
    ramp = (np.arange(R // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    kept = 1 - np.clip(ramp, 0, 1)
    one, factor = np.float32(1), np.float32(scaling.factor)
    return one / (factor * periods) * (1 - kept) + one / periods * kept


def fault(config: TargetConfig | AnyDraftConfig) -> str | None:
    """Why a config's numbers give no rotation, as a part of a sentence; None = they do."""
    half = len(range(0, turned_channels(config), 2))
    scaling = config.rope_scaling
    if not 0 < turned_channels(config) <= config.head_dim:
        return f"{turned_channels(config)} of the {config.head_dim} channels of a head would turn"
    if isinstance(scaling, LongScaling):
        for factors in (scaling.short_factors, scaling.long_factors):
            if len(factors) != half:
                return f"LongRoPE has {len(factors)} factors for {half} frequencies"
    lengths = np.array([1, 4 * getattr(scaling, "original_context", 1)])
    try:
        with np.errstate(all="ignore"):
            found = np.asarray(frequencies(config, lengths))
    except (ArithmeticError, ValueError) as error:
        return f"its frequencies cannot be computed ({error})"
    return None if np.isfinite(found).all() else "its frequencies are not finite"
