"""A whole training of a tiny draft: it learns, resumes bit for bit, and says what came of it."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.draft_training import course, loss, pack, talk, train
from ltd_jax.draft_training.course import CourseConfig
from ltd_jax.draft_training.talk import ANSWER, TalkConfig
from ltd_jax.draft_training.train import TrainConfig
from ltd_jax.files import UserError
from ltd_jax.models.hf import weights as hf_weights
from tests.cycle import tiny
from tests.draft_training.test_talk import SCRIPT

TARGET = tiny.CONFIG.target
COURSE = CourseConfig(
    tokens=2000,
    talk=TalkConfig(rows=8, slots=48, user_cap=6, answer_cap=30, again_room=16),
    train=TrainConfig(
        tokens=80 * 192,
        window=48,
        long_share=0.0,
        batch_tokens=192,
        learning_rate=1e-2,
        warmup_steps=4,
        save_every=30,
    ),
    draft_vocab_size=48,
    held_out=0.1,
)


def run(folder, config=COURSE, **options):
    params = tiny.pair(0).model.target
    return course.train_draft(params, TARGET, config, SCRIPT, folder, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    stages = []
    return folder, run(folder, progress=lambda *of: stages.append(of)), stages


def test_a_draft_learns_what_its_target_says(trained):
    folder, done, stages = trained
    report = json.loads((folder / "training.json").read_text())
    curve = [row["loss"] for row in report["curve"]]
    assert curve[-1] < curve[0] and report["known_share"] > 0.7
    held_out = report["held_out"]
    assert len(held_out["agree"]) == loss.UNROLL and held_out["chain"][0] > held_out["chain"][-1]
    assert held_out["committed"] == pytest.approx(1 + sum(held_out["chain"]), abs=1e-3)
    assert report["conversations"]["held_out"] >= 2 and report["tokens"]["said"] > 1000
    assert {stage for stage, _ in stages} == {"let the target talk", "train the draft"}
    config, params = done.config, done.params
    assert (config.hidden_size, config.draft_vocab_size) == (TARGET.hidden_size, 48)
    assert params.fuse.shape == (3 * TARGET.hidden_size, TARGET.hidden_size)


def test_a_training_that_was_stopped_ends_with_the_same_draft(trained, tmp_path):
    def stop(stage, share):
        if stage == "train the draft":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=stop)
    assert not (tmp_path / "training.json").exists()
    again = run(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again.params, trained[1].params)


SHORT = dataclasses.replace(COURSE, train=dataclasses.replace(COURSE.train, tokens=8 * 192))


def test_a_draft_is_judged_on_the_way_once(tmp_path):
    """Also where the judge is interrupted; the draft is the one that nobody judged."""
    asked = []

    def judge(step, config, params):
        asked.append(step)
        if asked == [3, 5]:
            raise KeyboardInterrupt
        return {"mean": float(jnp.abs(params.fuse).mean())}

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, SHORT, judge=judge)
    judged = run(tmp_path, SHORT, judge=judge)
    assert asked == [3, 5, 5, 8]
    assert [row["step"] for row in judged.report["judgements"]] == [3, 5, 8]
    unseen = run(tmp_path / "unseen", SHORT)
    jax.tree.map(np.testing.assert_array_equal, unseen.params, judged.params)
    assert "judgements" not in unseen.report
    assert judged.report["judgements"][-1]["mean"] == float(jnp.abs(judged.params.fuse).mean())
    other = run(tmp_path, SHORT, judge=judge, judged_by="other questions")
    assert [row["step"] for row in other.report["judgements"]] == [8]  # of one judge, never mixed
    (tmp_path / "judged.json").write_text("{}")
    with pytest.raises(UserError, match="judged.json"):
        run(tmp_path, SHORT, judge=judge)


@pytest.mark.parametrize(
    ("steps", "times", "expected"),
    [(8, 3, [3, 5, 8]), (100, 1, [100]), (2, 5, [1, 2]), (1, 1, [1])],
)
def test_judgements_are_even(steps, times, expected):
    assert course.judged_at(steps, times) == expected


WIDE = dataclasses.replace(
    COURSE, train=dataclasses.replace(COURSE.train, batch_tokens=384, tokens=6 * 384)
)  # eight windows a step
PLACES = ((1, 1), (8, 1), (4, 2), (1, 2))  # replicas and devices of each


def on_devices(folder):
    """What the target said and what the losses were, by replicas and devices of each."""
    train.LOG_EVERY = 1
    hf_weights.save_target(folder / "target", TARGET, tiny.pair(0).model.target, "float32")
    found = []
    for replicas, devices in PLACES:
        config = dataclasses.replace(WIDE, replicas=replicas, devices=devices)
        _, params = hf_weights.load_target(
            folder / "target", jnp.dtype("float32"), devices, replicas=replicas
        )
        used = {leaf.sharding.num_devices for leaf in jax.tree.leaves(params)}
        assert used == {replicas * devices}
        before, out = train._update._cache_size(), folder / f"{replicas}-{devices}"
        done = course.train_draft(params, TARGET, config, SCRIPT, out)
        stopped = folder / f"stopped-{replicas}-{devices}"

        def stop(stage, share):
            if stage == "train the draft" and share > 0.4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            course.train_draft(params, TARGET, config, SCRIPT, stopped, progress=stop)
        again = course.train_draft(params, TARGET, config, SCRIPT, stopped)
        jax.tree.map(np.testing.assert_array_equal, again.params, done.params)
        assert train._update._cache_size() == before + 1
        said = (out / "talk" / "round-0000.safetensors").read_bytes()
        losses = [row["loss"] for row in done.report["curve"]]
        found.append({"said": hashlib.sha256(said).hexdigest(), "losses": losses})
    return found


def test_devices_side_by_side_say_and_learn_what_one_does(tmp_path):
    """Replicas share conversations and batches, and split the target: up to the order of sums.

    A training that was stopped there ends with the same draft, by the same program.
    """
    program = f"""
        import json, pathlib
        from tests.draft_training import test_course
        print(json.dumps(test_course.on_devices(pathlib.Path({str(tmp_path)!r}))))
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    one, *others = json.loads(ran.stdout.splitlines()[-1])
    assert len(one["losses"]) == 6 and one["losses"][-1] < one["losses"][0]
    for other in others:
        assert other["said"] == one["said"]
        np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-4)


def test_what_is_measured_is_counted_by_hand(trained):
    """Of one text, row by row, with the loss's own passes."""
    _, done, _ = trained
    params, scale = tiny.pair(0).model.target, jnp.ones((3 * TARGET.hidden_size,))
    token = np.random.default_rng(0).integers(0, TARGET.vocab_size, 40).astype(np.int32)
    kind = np.asarray([talk.FORCED] * 5 + [ANSWER] * 35, np.uint8)
    windows = pack.fill([pack.Conversation(token, kind)], 48)
    found = course.measure(done.params, done.config, params, TARGET, scale, windows)
    frozen = loss.Frozen(params, done.params.target_token, scale)
    own = done.params.replace(embedding=None, target_token=None)
    _, _, hit = loss.DraftLoss(done.config, TARGET).by_step(own, frozen, windows)
    hit = np.asarray(hit[0])
    # Row i, step j predicts token i + 2 + j: an answer's from 5 on, of the text up to 39.
    chains = [row for row in range(hit.shape[1]) if 5 <= row + 2 and row + 8 <= 39]
    for step in range(loss.UNROLL):
        rows = [row for row in range(hit.shape[1]) if 5 <= row + 2 + step <= 39 and row < 40]
        assert found["agree"][step] == pytest.approx(hit[step, rows].mean(), abs=1e-3)
        unbroken = hit[: step + 1, chains].all(axis=0).mean()
        assert found["chain"][step] == pytest.approx(unbroken, abs=1e-3)


def test_a_draft_is_gone_on_from(trained, tmp_path):
    _, done, _ = trained
    short = dataclasses.replace(COURSE, train=dataclasses.replace(COURSE.train, tokens=2 * 192))
    again = run(tmp_path, short, start=(done.config, done.params))
    np.testing.assert_array_equal(again.params.target_token, done.params.target_token)
    assert again.report["curve"][0]["loss"] < done.report["curve"][0]["loss"]


def test_other_texts_are_not_gone_on_with(tmp_path):
    random = np.random.default_rng(0)
    texts = [random.integers(0, TARGET.vocab_size, 60).astype(np.int32) for _ in range(12)]
    short = dataclasses.replace(COURSE, train=dataclasses.replace(COURSE.train, tokens=2 * 192))
    params = tiny.pair(0).model.target
    learn = lambda said: course.train_draft(params, TARGET, short, None, tmp_path, texts=said)
    learn(texts)
    with pytest.raises(UserError, match="other settings or another start"):
        learn([one[:-1] for one in texts])


def test_texts_alone_are_enough(tmp_path):
    random = np.random.default_rng(0)
    texts = [random.integers(0, TARGET.vocab_size, 60).astype(np.int32) for _ in range(12)]
    short = dataclasses.replace(COURSE, train=dataclasses.replace(COURSE.train, tokens=2 * 192))
    params = tiny.pair(0).model.target
    done = course.train_draft(params, TARGET, short, None, tmp_path, texts=texts)
    assert done.report["conversations"] == {"learned": 22, "held_out": 2}  # cut by the window
    with pytest.raises(UserError, match="There are 2 questions or texts, too few"):
        course.train_draft(params, TARGET, short, None, tmp_path, texts=texts[:1])


def test_a_time_becomes_a_number_of_steps_once(tmp_path):
    timed = dataclasses.replace(COURSE, minutes=0.001)
    first = run(tmp_path, timed)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert first.report["tokens"]["trained"] == plan["tokens"] and plan["step_seconds"] > 0
    again = run(tmp_path, timed)
    jax.tree.map(np.testing.assert_array_equal, again.params, first.params)
    with pytest.raises(UserError, match="plan.json was made for other settings"):
        run(tmp_path, dataclasses.replace(COURSE, minutes=1.0))


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"tokens": 0}, "tokens is 0"),
        ({"held_out": 0.0}, "held_out is 0.0 but must"),
        ({"minutes": -1.0}, "minutes is -1.0 but must"),
        ({"draft_vocab_size": 0}, "draft_vocab_size is 0"),
        ({"train": TrainConfig(window=8)}, "train.window is 8 but must be above 8"),
    ],
)
def test_impossible_courses_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(COURSE, **wrong)
