"""A pair split over virtual devices: the tokens of one device, and as many programs."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.studies.model_latency import LLAMA_3_1_8B, eagle3_draft
from ltd_jax import presets
from ltd_jax.config import PairConfig
from ltd_jax.files import UserError
from ltd_jax.models import pair as pairs
from ltd_jax.models import sharding
from ltd_jax.presets import EMBEDDED_CYCLE

ROOT = Path(__file__).parents[2]
PROGRAM = """
import collections, logging, math, re, sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
from ltd_jax.cycle import step
from ltd_jax.models import pair as pairs
from ltd_jax.decoding import generate
from ltd_jax.models.hf import inspect, weights
from ltd_jax.config import CycleConfig, GriffinConfig, PolicyConfig, SamplingConfig
from experiments.proofs import random_pairs
from ltd_jax.policies import networks
from ltd_jax.policies.policy import Constant
from ltd_jax.replay import record
from ltd_jax.replay.profile import CycleTimer
from tests.system import tiny_pair

family, devices, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
cycle = CycleConfig(beam_width=4, max_levels=3, sizes=(0, 6), context=96, prefill_chunk=16)
drawn, prompts = random_pairs.pair(family, cycle=cycle), random_pairs.prompts(family, 3)
weights.save_target(folder / "target", drawn.config.target, drawn.model.target, "float32")
weights.save_draft(folder / "draft", drawn.config.draft, drawn.model.draft, "float32")
tiny_pair.tokenizer().save(str(folder / "target" / "tokenizer.json"))
policy = Constant(levels=3, size=6)

compiled = collections.Counter()
class Compilations(logging.Handler):
    def emit(self, event):
        words = event.getMessage().split("XLA compilation of jit(")
        compiled.update([words[1].split(")")[0]] if len(words) > 1 else [])
logging.getLogger("jax").addHandler(Compilations())
logging.getLogger("jax").propagate = False

def tokens_of(steps):
    return [token for one in steps for token in one.tokens]

def decode(pair):
    return [tokens_of(generate.generate_plain(pair, prompt_T, 40)) for prompt_T in prompts]

def load(devices):
    seen = drawn.config.target.feature_layers or None  # Griffin's draft says so itself
    folders = folder / "target", folder / "draft"
    return pairs.load(*folders, cycle=cycle, feature_layers=seen, devices=devices)

one, many = load(1), load(devices)
alone = decode(one)
jax.config.update("jax_log_compiles", True)
plain = decode(many)
steps = [list(generate.generate(many, policy, prompt_T, 40)) for prompt_T in prompts]
speculative = [tokens_of(text) for text in steps]
timer = CycleTimer(many, 30, cycle.cycles_per_call)
assert timer.plain_seconds() > 0 and timer.cycle_seconds(policy) > 0
jax.config.update("jax_log_compiles", False)
assert plain == alone and speculative == plain, (alone, plain, speculative)
accepted = sum(one.accepted for text in steps for one in text)
assert accepted > 10, accepted
loops = {name: compiled[name] for name in ("run_plain", "run_cycles", "prefill_chunk")}
assert set(loops.values()) == {1}, loops

kv_heads = many.config.target.kv_head_count
cache = timer.state.target_cache.keys[0]
part = cache.addressable_shards[0].data.shape
assert len(cache.sharding.device_set) == devices
assert part[0] == kv_heads // math.gcd(kv_heads, devices), part
assert many.device.endswith(f"split over {devices}") and many.device != one.device
layer = many.model.target.layers[0]
query = layer.qkv[0]
assert query.addressable_shards[0].data.size * devices == query.size

held = lambda tree: sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))
memory = inspect.estimate_memory(many.config, jnp.float32, devices)
student = many.model.draft.replace(embedding=None)
if isinstance(many.config.draft, GriffinConfig):
    student = student.replace(head=None)
assert memory.target == held(many.model.target), memory
assert memory.draft == held(student), memory
assert memory.caches == held((timer.state.target_cache, timer.state.draft_cache)), memory

traced, stops, left = many.put((policy.traced(), many.stops, jnp.int32(9)))
lowered = step.run_cycles.lower(many.model, traced, stops, timer.state, left)
moved = re.findall(r"= \\w+\\[([\\d,]+)\\]\\S* all-gather", lowered.compile().as_text())
largest = max(np.prod([int(size) for size in shape.split(",")]) for shape in moved)
whole = min(cache.size, layer.gate_up[0].size)
assert largest < whole, (largest, whole)  # only rows of a pass

if devices == 4:  # drawing knows nothing of the family
    widths = PolicyConfig((8,), (8,), (8,), (8,))
    learned = networks.init(jax.random.key(0), cycle, widths)
    drawing = SamplingConfig(temperature=1.0, repetition_penalty=1.2)
    texts = []
    for pair in (one.sampled(drawing, 3), many.sampled(drawing, 3)):
        texts.append(tokens_of(generate.generate_plain(pair, prompts[0], 30)))
    texts.append(tokens_of(generate.generate(many.sampled(drawing, 3), learned, prompts[0], 30)))
    assert texts[0] == texts[1] == texts[2], texts

traces = [record.record(pair, prompts, 20) for pair in (one, many)]
np.testing.assert_array_equal(traces[0].token, traces[1].token)
np.testing.assert_allclose(traces[0].log_prob, traces[1].log_prob, atol=1e-4)
print("same")
"""


@pytest.mark.parametrize(
    ("family", "devices"),
    [("qwen2", 2), ("llama-3 with griffin", 4)],  # two devices of four share each of two heads
)
def test_split_pairs_decode_as_whole_ones(family, devices, tmp_path):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, family, str(devices), str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0 and done.stdout.strip() == "same", done.stderr[-3000:]


@pytest.mark.parametrize(
    ("devices", "words"), [(999, "is 999, but this host has"), (0, "is 0 but must be at least 1")]
)
def test_devices_that_there_are_not(devices, words):
    with pytest.raises(UserError, match=f"`devices` {words}"):
        pairs.load(cycle=EMBEDDED_CYCLE, devices=devices)


def test_what_the_devices_do_not_divide_is_said():
    draft = eagle3_draft(LLAMA_3_1_8B)
    pair = PairConfig(LLAMA_3_1_8B, draft, presets.PAPER_CYCLE, devices=16)
    assert sharding.uneven(pair) == ()  # two devices share each of eight key-value heads
    (remark,) = sharding.uneven(dataclasses.replace(pair, devices=3))
    assert (
        remark
        == "3 devices do not divide 32 heads and 14336 rows of `down`: these maps are copied."
    )
