"""Measured tables have the right shape; the forced policies really make the choices they time."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import PolicyConfig
from ltd_jax.decoding import generate
from ltd_jax.files import UserError
from ltd_jax.policies import networks
from ltd_jax.replay import profile
from ltd_jax.replay.profile import CycleTimer, Overhead, Subject
from tests.cycle import tiny

CYCLE = dataclasses.replace(tiny.CONFIG.cycle, max_levels=3, sizes=(0, 1, 6), short_catch_ups=())
PAIR = dataclasses.replace(tiny.pair(0), config=dataclasses.replace(tiny.CONFIG, cycle=CYCLE))
WIDTHS = PolicyConfig((16,), (16,), (16,), (16,))


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
    """Seconds of drafting and verifying alone, which tests/replay/test_parts.py measures."""
    levels, sizes = CYCLE.max_levels, len(CYCLE.sizes)
    monkeypatch.setattr(profile, "seconds", lambda *_: (np.ones(levels), np.ones(sizes)))


def test_a_table_of_all_settings(steady):
    config = profile.ProfileConfig(contexts=(8, 32), cycles=1, visits=1, policy_visits=2)
    shares: list[float] = []
    table = profile.profile(Subject(PAIR, {"device": "here"}), WIDTHS, config, shares.append)
    assert table.cycle_seconds.shape == (2, CYCLE.max_levels, len(CYCLE.sizes))
    assert (table.cycle_seconds > 0).all() and (table.plain_seconds > 0).all()
    assert table.sizes == CYCLE.sizes and table.contexts.tolist() == [8, 32]
    assert shares[-1] == 1.0
    assert table.provenance["device"] == "here"


class Killed(Exception):
    """Stands for kill -9."""


def test_a_killed_measurement_goes_on(tmp_path, monkeypatch, steady, known_parts):
    config = profile.ProfileConfig(contexts=(8, 32), cycles=1, visits=1, policy_visits=2)
    path, shares = tmp_path / "partial.json", []
    subject = Subject(PAIR, {}, path)

    def kill(share: float) -> None:
        raise Killed

    with pytest.raises(Killed):
        profile.profile(subject, WIDTHS, config, kill)
    entries = json.loads(path.read_text())["entries"]
    assert list(entries) == ["visit 0 at 8"]
    first = np.asarray(entries["visit 0 at 8"])
    monkeypatch.setattr(profile, "of_learned", lambda *_: Overhead(1e-6, 2e-6))
    table = profile.profile(subject, WIDTHS, config, shares.append)
    cycle_1DV, plain_1 = profile.remove_drift(first[None, None])
    np.testing.assert_array_equal(table.cycle_seconds[0], profile.fit_sum(cycle_1DV)[0])
    assert table.plain_seconds[0] == plain_1[0] == np.median(first[..., 1])
    assert (table.depth_seconds, table.size_seconds) == (1e-6, 2e-6) and shares == [0.5, 1.0]
    again = profile.profile(subject, WIDTHS, config)
    np.testing.assert_array_equal(again.cycle_seconds, table.cycle_seconds)
    np.testing.assert_array_equal(again.verify_seconds, table.verify_seconds)


def test_several_pairs_are_visited_in_turns(tmp_path, monkeypatch, steady, known_parts):
    config = profile.ProfileConfig(contexts=(8, 32), cycles=1, visits=2, policy_visits=2)
    cycle = dataclasses.replace(CYCLE, beam_width=CYCLE.beam_width + 1)
    wide = dataclasses.replace(PAIR, config=dataclasses.replace(PAIR.config, cycle=cycle))
    visit, seen = profile._visit, []

    def noted(clock, random):
        seen.append((clock.pair.config.cycle.beam_width, clock.context))
        return visit(clock, random)

    monkeypatch.setattr(profile, "_visit", noted)
    monkeypatch.setattr(profile, "of_learned", lambda *_: Overhead(1e-6, 2e-6))
    paths = [tmp_path / "narrow.json", tmp_path / "wide.json"]
    subjects = [
        Subject(PAIR, {"is": "narrow"}, paths[0]),
        Subject(wide, {"is": "wide"}, paths[1]),
    ]
    tables = profile.profile_in_turns(subjects, WIDTHS, config)
    widths = (CYCLE.beam_width, CYCLE.beam_width + 1)
    assert seen == 2 * [(width, context) for context in (8, 32) for width in widths]
    assert [table.provenance["is"] for table in tables] == ["narrow", "wide"]
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
    subject = Subject(PAIR, {}, tmp_path / "partial.json")
    monkeypatch.setattr(profile, "of_learned", lambda *_: Overhead(1e-6, 2e-6))
    fitting = profile.fit_sum
    busy = lambda seconds_LDV: fitting(seconds_LDV.at[0, 0, 0].set(99.0))
    monkeypatch.setattr(profile, "fit_sum", lambda seconds: busy(jnp.asarray(seconds)))
    with pytest.raises(UserError, match="too busy"):
        profile.profile(subject, WIDTHS, config)
    assert not subject.partial_file.exists()
    monkeypatch.setattr(profile, "fit_sum", fitting)
    assert (profile.profile(subject, WIDTHS, config).cycle_seconds > 0).all()


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


@pytest.mark.parametrize(("levels", "count"), [("least", 1), ("most", CYCLE.max_levels)])
@pytest.mark.parametrize("size", [0, 2])
def test_forced_policies_choose_what_they_are_told(levels, count, size):
    params = networks.init_learned(jax.random.key(0), CYCLE, WIDTHS)
    forced = networks.forced(params, levels, size)
    prompt_T = jnp.arange(9)
    bursts = list(generate.generate(PAIR, networks.learned(CYCLE, WIDTHS), forced, prompt_T, 12))[
        1:
    ]
    assert {(burst.levels, burst.size) for burst in bursts} == {(count, CYCLE.sizes[size])}
