"""Measured tables have the right shape, decisions cost what they take, components run in a row.

Policies that are forced to a constant's choices still decide; slow ones are seen to be slow.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ltd_jax.config import PolicyConfig
from ltd_jax.decoding import generate
from ltd_jax.files import UserError
from ltd_jax.policies import networks
from ltd_jax.policies.policy import NO_NODE, Constant, Forced, Policy
from ltd_jax.replay import profile
from ltd_jax.replay.profile import CycleTimer, Overhead
from tests.cycle import tiny
from tests.policies import views

CYCLE = dataclasses.replace(tiny.CONFIG.cycle, max_levels=3, sizes=(0, 6), short_catch_ups=())
WIDTHS = PolicyConfig((16,), (16,), (16,), (16,))


TINY = tiny.pair(0)
CONFIG = dataclasses.replace(tiny.CONFIG, cycle=CYCLE)
PAIR = dataclasses.replace(TINY, model=TINY.model.replace(config=CONFIG))


@pytest.fixture
def steady(monkeypatch):
    """Real calls, but times between 10 and 11 ms however busy the machine is."""
    timed = CycleTimer.time

    def time(*args):
        state, seconds = timed(*args)
        assert seconds > 0
        return state, 1e-2 + min(seconds, 1e-3)

    monkeypatch.setattr(CycleTimer, "time", time)


@pytest.fixture
def known_parts(monkeypatch):
    """Seconds of drafting and verifying alone, which a test below measures."""
    monkeypatch.setattr(profile, "time_drafting", lambda timer: [1.0] * CYCLE.max_levels)
    monkeypatch.setattr(profile, "time_verifying", lambda timer: [1.0] * len(CYCLE.sizes))


def test_a_table_of_all_settings(steady):
    config = profile.ProfileConfig(contexts=(8, 32), cycles=1, visits=1, policy_visits=2)
    shares: list[float] = []
    table = profile.profile(PAIR, WIDTHS, config, progress=shares.append)
    assert table.cycle_seconds.shape == (2, CYCLE.max_levels, len(CYCLE.sizes))
    assert (table.cycle_seconds > 0).all() and (table.plain_seconds > 0).all()
    assert table.sizes == CYCLE.sizes and table.contexts.tolist() == [8, 32]
    assert shares[-1] == 1.0
    assert table.provenance["device"] == PAIR.device
    assert table.provenance["fingerprint"] == PAIR.fingerprint
    assert table.identity.cycle == PAIR.identity.cycle


class Killed(Exception):
    """Stands for kill -9."""


def test_a_killed_measurement_goes_on(tmp_path, monkeypatch, steady, known_parts):
    config = profile.ProfileConfig(contexts=(8, 32), cycles=1, visits=1, policy_visits=2)
    path, shares = tmp_path / "partial.json", []

    def kill(share: float) -> None:
        if share:
            raise Killed

    with pytest.raises(Killed):
        profile.profile(PAIR, WIDTHS, config, path, kill)
    entries = json.loads(path.read_text())["entries"]
    assert list(entries) == ["visit 0 at 8"]
    first = np.asarray(entries["visit 0 at 8"])
    monkeypatch.setattr(profile, "time_decisions", lambda *_: Overhead(1e-6, 2e-6))
    table = profile.profile(PAIR, WIDTHS, config, path, shares.append)
    cycle_1DV, plain_1 = profile.remove_drift(first[None, None])
    np.testing.assert_array_equal(table.cycle_seconds[0], profile.fit_sum(cycle_1DV)[0])
    assert table.plain_seconds[0] == plain_1[0] == np.median(first[..., 1])
    assert (table.depth_seconds, table.size_seconds) == (1e-6, 2e-6)
    assert shares == pytest.approx([0, 0.35, 0.7, 1])
    again = profile.profile(PAIR, WIDTHS, config, path)
    np.testing.assert_array_equal(again.cycle_seconds, table.cycle_seconds)
    np.testing.assert_array_equal(again.verify_seconds, table.verify_seconds)


def test_several_pairs_are_visited_in_turns(tmp_path, monkeypatch, steady, known_parts):
    config = profile.ProfileConfig(contexts=(8, 32), cycles=1, visits=2, policy_visits=2)
    pairs = [dataclasses.replace(PAIR, fingerprint=name) for name in ("one", "other")]
    visit, seen = profile._visit, []

    def noted(timer, random):
        seen.append((timer.pair.fingerprint, timer.context))
        return visit(timer, random)

    monkeypatch.setattr(profile, "_visit", noted)
    monkeypatch.setattr(profile, "time_decisions", lambda *_: Overhead(1e-6, 2e-6))
    paths = [tmp_path / "one.json", tmp_path / "other.json"]
    tables = profile.profile_in_turns(pairs, WIDTHS, config, paths)
    assert seen == 2 * [(name, context) for context in (8, 32) for name in ("one", "other")]
    assert [table.provenance["fingerprint"] for table in tables] == ["one", "other"]
    for table, path in zip(tables, paths, strict=True):
        entries = json.loads(path.read_text())["entries"]
        seconds = [[entries[f"visit {each} at {at}"] for at in (8, 32)] for each in (0, 1)]
        cycle_LDV, _ = profile.remove_drift(np.asarray(seconds))
        np.testing.assert_array_equal(table.cycle_seconds, profile.fit_sum(cycle_LDV))


def test_a_drifting_device_favours_no_setting():
    random = np.random.default_rng(0)
    cycle_LDV, plain_L = random.uniform(2, 5, (2, 6, 10)), np.array([1.0, 1.2])
    slow = random.uniform(1, 2, (3, 2, 6, 10))  # how slow the device was at every visit
    plain = plain_L[:, None, None] * np.ones((3, 2, 6, 10))
    found_LDV, found_L = profile.remove_drift(
        slow[..., None] * np.stack(np.broadcast_arrays(cycle_LDV, plain), -1)
    )
    np.testing.assert_allclose(found_L, plain_L * np.median(slow, axis=(0, 2, 3)))
    np.testing.assert_allclose(
        found_LDV / found_L[:, None, None], cycle_LDV / plain_L[:, None, None]
    )


def test_contradicting_times_are_not_kept(tmp_path, monkeypatch, steady, known_parts):
    config = profile.ProfileConfig(contexts=(8,), cycles=1, visits=1, policy_visits=2)
    path = tmp_path / "partial.json"
    monkeypatch.setattr(profile, "time_decisions", lambda *_: Overhead(1e-6, 2e-6))
    fitting = profile.fit_sum
    busy = lambda seconds_LDV: fitting(seconds_LDV.at[0, 0, 0].set(99.0))
    monkeypatch.setattr(profile, "fit_sum", lambda seconds: busy(jnp.asarray(seconds)))
    with pytest.raises(UserError, match="too busy"):
        profile.profile(PAIR, WIDTHS, config, path)
    assert not path.exists()
    monkeypatch.setattr(profile, "fit_sum", fitting)
    assert (profile.profile(PAIR, WIDTHS, config, path).cycle_seconds > 0).all()


def test_the_additive_fit():
    random = np.random.default_rng(0)
    first, later = random.uniform(1, 2, (2, 1, 1)), random.uniform(0.1, 0.2, (2, 1, 1))
    draft = np.concatenate([first, first + 0.5 + later * np.arange(5)[:, None]], axis=1)
    verify = random.uniform(3, 9, (2, 1, 10))
    np.testing.assert_allclose(profile.fit_sum(draft + verify), draft + verify)
    noise = random.normal(0, 0.2, (2, 6, 10))
    error = np.abs(profile.fit_sum(draft + verify + noise) - draft - verify).mean()
    assert error < 0.5 * np.abs(noise).mean()
    rises = np.diff(profile.fit_sum(draft + verify + noise)[:, :, 0], axis=1)
    np.testing.assert_allclose(rises[:, 1:], rises[:, [1]] * np.ones(4))
    assert np.abs(rises[:, 1:] - later[..., 0]).max() < 0.05
    falling = np.asarray([[3.0, 4.0, 3.9, 3.8]])
    np.testing.assert_allclose(profile.linear_in_levels(falling), [[3.0, 3.9, 3.9, 3.9]])
    np.testing.assert_allclose(profile.linear_in_levels(falling[:, :3]), [[3.0, 3.95, 3.95]])
    np.testing.assert_array_equal(profile.linear_in_levels(falling[:, :2]), falling[:, :2])
    with pytest.raises(UserError, match="too busy to be measured; give the same command again"):
        profile.fit_sum(np.asarray([[[9.0, 0.1], [0.1, 0.1]]]) - [[[0, 0], [0, 0.09]]])


@pytest.mark.parametrize("levels", [1, CYCLE.max_levels])
@pytest.mark.parametrize("size", [0, 6])
def test_forced_policies_choose_what_they_are_told(levels, size):
    policy = networks.init(jax.random.key(0), CYCLE, WIDTHS)
    steps = cycles_of(Forced(policy, Constant(levels, size)), new_tokens=12)
    assert {(step.levels, step.size) for step in steps} == {(levels, size)}


@struct.dataclass
class Stubborn(Policy):
    """Drafts all levels, takes the largest size and ranks all nodes alike, after some thought."""

    after_pass: jax.Array | int = 1  # steps of a loop
    at_end: jax.Array | int = 1

    def init_history(self, config):
        return jnp.int32(0)

    def observe_level(self, history, view, config):
        return history + 1

    def keep_drafting(self, history, view, config):
        return think(self.after_pass, view.log_prob[0, 0]) < 2

    def choose_size(self, history, view, config):
        is_done = think(self.at_end, view.log_prob[0, 0, 0]) < 2
        return jnp.where(is_done, len(config.sizes) - 1, 0)

    def priority(self, history, view, config):
        return jnp.where(jnp.isfinite(view.log_prob), 1.0, NO_NODE)


def think(steps, seed):
    """A number that takes so many steps, each of which needs the one before."""
    return jax.lax.fori_loop(0, steps, lambda _, value: jnp.cos(value + seed), seed)


def cycles_of(policy, new_tokens=24):
    """The cycles of a text."""
    return list(generate.generate(PAIR, policy, np.arange(9), new_tokens))[1:]


@pytest.mark.parametrize(("levels", "size"), [(1, 6), (3, 6), (2, 0)])
def test_a_forced_policy_does_what_the_constant_does(levels, size):
    constant = Constant(levels, size)
    assert cycles_of(Forced(Stubborn(), constant)) == cycles_of(constant)


def test_it_still_decides():
    free = Forced(Stubborn(), Constant(1, 0), holds=False)
    view, tree = views.level(jnp.zeros((2, 2)), 2), views.tree(jnp.zeros((3, 2, 2)), 2)
    assert bool(free.keep_drafting(0, view, CYCLE)) and int(free.choose_size(0, tree, CYCLE)) == 1
    assert free.observe_level(4, view, CYCLE) == 5
    np.testing.assert_array_equal(free.priority(0, tree, CYCLE), np.ones((3, 2, 2)))
    held = free.replace(holds=True)
    assert not held.keep_drafting(0, view, CYCLE) and int(held.choose_size(0, tree, CYCLE)) == 0
    np.testing.assert_array_equal(held.priority(0, tree, CYCLE), tree.log_prob)


@pytest.mark.parametrize("where", ["depth_seconds", "size_seconds"])
def test_slow_decisions_are_seen_to_be_slow_where_they_are(where):
    slow = 2_000_000
    policy = {"depth_seconds": Stubborn(after_pass=slow), "size_seconds": Stubborn(at_end=slow)}
    timer = CycleTimer(PAIR, 9, CYCLE.cycles_per_call)
    found = profile.time_decisions(timer, policy[where], visits=5)
    idle = profile.time_decisions(timer, Stubborn(), visits=5)
    other = {"depth_seconds": "size_seconds", "size_seconds": "depth_seconds"}[where]
    assert getattr(found, where) > 2 * max(getattr(found, other), getattr(idle, where))


@pytest.mark.parametrize(("seconds", "visits"), [(0.0, 2), (60.0, 5)])
def test_slow_cycles_are_visited_less(monkeypatch, seconds, visits):
    monkeypatch.setattr(profile, "POLICY_SECONDS", seconds)
    monkeypatch.setattr(profile, "FEWEST_POLICY_VISITS", 2)
    timer, visited = CycleTimer(PAIR, 9, 1), []
    monkeypatch.setattr(timer, "cycle_seconds", lambda policy: visited.append(policy) or 1.0)
    profile.time_decisions(timer, Stubborn(), visits=5)
    assert len(visited) == 1 + 4 * visits  # a first one compiles


def test_constants_decide_for_free():
    timer = CycleTimer(PAIR, 9, CYCLE.cycles_per_call)
    assert profile.time_decisions(timer, Constant(2, 6), visits=1) == profile.FREE


def test_what_the_cycle_lacks_is_not_timed():
    with pytest.raises(UserError, match="size 5 is not one of the compiled sizes"):
        profile.time_decisions(CycleTimer(PAIR, 9, 1), Constant(1, 5), visits=1)


@struct.dataclass
class Result:
    token: jax.Array


def test_every_round_starts_from_the_token_before():
    part = lambda token, step: Result(jnp.stack([token * 2, token + step]))
    result = profile.in_a_row(part)(jnp.int32(3), jnp.int32(5))
    before = 3 * 2 ** (profile.ROUNDS - 1)
    assert result.token.tolist() == [2 * before, before + 5]


def test_seconds_by_levels_and_by_size():
    constant, late = Constant(1, 0), CYCLE.context - 5
    timer = CycleTimer(PAIR, 8, 1)
    drafting, verifying = profile.time_drafting(timer), profile.time_verifying(timer)
    assert len(drafting) == CYCLE.max_levels and len(verifying) == len(CYCLE.sizes)
    assert min(drafting) > 0 and min(verifying) > 0
    timer.cycle_seconds(constant)  # its state is still whole
    with pytest.raises(UserError, match=f"no room to time cycles after {late} token"):
        CycleTimer(PAIR, late, 1).cycle_seconds(constant)


@pytest.mark.parametrize("part", ["target", "draft"])
def test_a_pair_that_gives_no_numbers_is_not_timed(part):
    params = getattr(PAIR.model, part)
    model = PAIR.model.replace(**{part: params.replace(norm=params.norm * jnp.nan)})
    with pytest.raises(UserError, match=f"logits of random {part} are NaN or infinite in float32"):
        timer = CycleTimer(dataclasses.replace(PAIR, model=model), 8, cycles=1)
        timer.cycle_seconds(Constant(2, 6))
