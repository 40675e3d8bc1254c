"""Invariants of both decoders: initial loss, causality, packing, caching, precision, and every switch."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from packed import mean_loss, pack, tiny_config, utterance

from valle_jax.config import ModelConfig
from valle_jax.data.batch import KIND_ACOUSTIC, KIND_STAGE, KIND_TEXT, mark_tokens
from valle_jax.errors import UserError
from valle_jax.model import build, masks

# Float32 with sums in another order (packed or cached against alone): a few ulps of logits of magnitude 1-3.
TOLERANCE = 2e-5


def _make(config):
    decoder = build(config)
    return decoder, jax.jit(decoder.init)(jax.random.key(0)), jax.jit(decoder.logits)


def _utterances(seed=0):
    rng = np.random.default_rng(seed)
    return [utterance(rng, 7, 20), utterance(rng, 12, 33)]


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("ar", {"d_model": 1024, "n_layers": 1, "n_heads": 16}),
        ("nar", {"d_model": 1024, "n_layers": 1, "n_heads": 16}),
        ("ar", {"positions": "rotary", "group_size": 4}),
        ("nar", {"positions": "rotary", "nar_stage": "token"}),
    ],
)
def test_initial_loss_is_that_of_a_uniform_guess(stage, changes):
    """Within ln V + 0.3 for the AR and for every NAR stage (a tied N(0, 1) embedding would start at 76 nats)."""
    config = ModelConfig(
        **{"d_model": 192, "n_layers": 4, "d_ff": 512, "n_heads": 4, "dropout": 0.0, **changes},
        stage=stage,
        n_symbols=100,
        codebooks=8,
        codebook_size=1024,
    )
    _decoder, params, logits = _make(config)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 1024, (150, 8))
    for nar_stage in range(1, 8) if stage == "nar" else [1]:
        batch = pack([(rng.integers(3, 100, 40), codes)], 192, config, stage=nar_stage)
        loss = mean_loss(logits(params, batch), batch["target"])
        uniform = math.log(1024 + (stage == "ar"))
        assert uniform - 0.1 < loss < uniform + 0.3, f"stage {nar_stage}: {loss:.3f} against ln V = {uniform:.3f}"


def test_ar_is_causal():
    """The gradient of a logit with respect to later inputs is zero, and to earlier ones not."""
    config = tiny_config("ar")
    decoder, params, _ = _make(config)
    batch = pack(_utterances()[:1], 32, config)
    model_inputs = jax.random.normal(jax.random.key(1), (1, 32, 32))

    def logit_at(x, t):
        module = decoder.bind(params)
        interval = masks.causal(jnp.asarray(batch["segment"]), jnp.asarray(batch["kind"]), bidirectional_text=False)
        return module.transformer(x, interval)[0][0, t].sum()

    for t in (0, 5, 15, 27):
        reached = np.abs(np.asarray(jax.grad(logit_at)(model_inputs, t)))[0].max(-1)
        assert (reached[t + 1 :] == 0).all()
        assert (reached[: t + 1] > 0).all()


def test_a_group_sees_the_groups_before_it_only():
    """By gradient: what is predicted behind a token reaches its own codes and all before it, and none behind it."""
    config = tiny_config("ar", group_size=4)
    decoder, params, _ = _make(config)
    batch = pack(_utterances()[:1], 32, config)  # 8 tokens of text, 5 groups
    one_hot = jax.nn.one_hot(batch["token"], config.codebook_size + 1)

    @jax.jit
    @jax.grad
    def reached(one_hot, t):
        module = decoder.bind(params)
        table = module.embed.acoustic[...]
        module.embed.lookup = lambda token_BTG: (one_hot @ table).reshape(*token_BTG.shape, -1)
        return module(batch)[0].reshape(32, 4, -1)[t].sum()

    for t in range(7, 13):
        gradient = np.abs(np.asarray(reached(one_hot, t)))[0].max(-1).reshape(32, 4)[8:13]
        np.testing.assert_array_equal(gradient > 0, np.broadcast_to(np.arange(8, 13)[:, None] <= t, (5, 4)))


def test_bidirectional_text_sees_all_phonemes_and_no_code():
    config = tiny_config("ar", text_attention="bidirectional")
    _, params, logits = _make(config)
    batch = pack(_utterances()[:1], 32, config)
    before = np.asarray(logits(params, batch))
    changed = {**batch, "token": batch["token"].copy()}
    changed["token"][0, 6] += 1  # the last phoneme
    after = np.asarray(logits(params, changed))
    assert (np.abs(after - before)[0, 0] > 1e-6).any(), "the first phoneme must see the last"
    changed = {**batch, "token": batch["token"].copy()}
    changed["token"][0, 20] = (changed["token"][0, 20] + 1) % 60  # a code
    after = np.asarray(logits(params, changed))
    np.testing.assert_array_equal(after[0, :20], before[0, :20])


def test_nar_sees_the_levels_below_its_stage_and_all_of_the_prompt():
    config = tiny_config("nar")
    _decoder, params, logits = _make(config)
    (phonemes, codes), _ = _utterances()
    for stage in (1, 2, 3):
        batch = pack([(phonemes, codes)], 32, config, stage=stage, prompt_frames=5)
        before = np.asarray(logits(params, batch))
        for level in range(4):
            for frame, is_prompt in ((8 + 2, True), (8 + 9, False)):
                changed = {**batch, "codes": batch["codes"].copy()}
                changed["codes"][0, frame, level] = (changed["codes"][0, frame, level] + 1) % 60
                moved = np.abs(np.asarray(logits(params, changed)) - before)[0, :28].max() > 0
                assert moved == (is_prompt or level < stage), (stage, level, is_prompt)


@pytest.mark.parametrize(("context", "seen"), [("prompt", "phoneme prompt"), ("text", "phoneme"), ("none", "")])
def test_nar_context_says_what_is_seen_besides_the_lower_codebooks(context, seen):
    config = tiny_config("nar", nar_context=context, nar_stage="token")
    _decoder, params, logits = _make(config)
    batch = pack(_utterances()[:1], 32, config, stage=2, prompt_frames=5)
    before = np.asarray(logits(params, batch))
    changes = {"phoneme": ("token", (0, 3)), "prompt": ("codes", (0, 10, 0)), "target": ("codes", (0, 20, 0))}
    for what, (name, place) in changes.items():
        changed = {**batch, name: batch[name].copy()}
        changed[name][place] = (changed[name][place] + 1) % 40
        moved = np.abs(np.asarray(logits(params, changed)) - before)[batch["target"] >= 0].max() > 0
        assert moved == (what in seen or what == "target"), what


def test_the_stage_s_token_stands_behind_each_segment_and_is_seen_by_it():
    config = tiny_config("nar", nar_stage="token")
    _decoder, params, logits = _make(config)
    batch = pack(_utterances(), 96, config, stage=2)
    where = np.flatnonzero(batch["kind"][0] == KIND_STAGE)
    assert batch["segment"][0, where].tolist() == [1, 2]
    before = np.asarray(logits(params, batch))
    for row, is_its_own in ((0, False), (1, True), (2, False)):
        moved = np.asarray(logits({**params, "stage": params["stage"].at[row].add(1.0)}, batch)) - before
        assert (np.abs(moved)[batch["segment"] > 0].max(-1) > 0).all() == is_its_own
        assert (np.abs(moved).max() > 0) == is_its_own


def test_rotary_positions_are_relative():
    """Moving a whole segment changes nothing; moving its phonemes against its frames does."""
    for stage in ("ar", "nar"):
        config = tiny_config(stage, positions="rotary")
        _, params, logits = _make(config)
        batch = pack(_utterances(), 96, config)
        before = np.asarray(logits(params, batch))
        moved = {**batch, "position": batch["position"] + 100 * (batch["segment"] == 2)}
        # Angles of up to 150 radians in float32 are right to 1e-5.
        np.testing.assert_allclose(logits(params, moved), before, atol=1e-4)
        moved = {**batch, "position": batch["position"] + 5 * (batch["kind"] == KIND_TEXT)}
        assert np.abs(np.asarray(logits(params, moved)) - before).max() > 1e-2
    with pytest.raises(UserError, match="position_scale"):
        tiny_config("ar", positions="rotary", position_scale="learned")


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("ar", {}),
        ("nar", {}),
        ("ar", {"positions": "rotary", "group_size": 2}),
        ("nar", {"nar_stage": "token", "nar_context": "text", "positions": "rotary"}),
    ],
)
def test_packed_equals_alone(stage, changes):
    config = tiny_config(stage, **changes)
    _, params, logits = _make(config)
    both = _utterances()
    packed = np.asarray(logits(params, pack(both, 96, config, stage=2)))
    at, G = 0, config.codes_per_step
    for phonemes, codes in both:
        length = len(phonemes) + 1 + len(codes) // config.codes_per_step + mark_tokens(config)
        alone = np.asarray(logits(params, pack([(phonemes, codes)], 64, config, stage=2)))
        where, of_alone = (slice(start * G, (start + length) * G) for start in (at, 0))
        np.testing.assert_allclose(packed[0, where], alone[0, of_alone], atol=TOLERANCE)
        at += length


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
@pytest.mark.parametrize("stage", ["ar", "nar"])
def test_text_position_step_stretches_the_positions_of_phonemes_only(stage, positions):
    config = tiny_config(stage, positions=positions)
    _, params, logits = _make(config)
    _, _, stretched = _make(dataclasses.replace(config, text_position_step=3.0))
    batch = pack(_utterances(), 96, config, stage=2)
    moved = {**batch, "position": np.where(batch["kind"] == KIND_TEXT, 3, 1) * batch["position"]}
    np.testing.assert_allclose(stretched(params, batch), logits(params, moved), atol=TOLERANCE)
    assert np.abs(stretched(params, batch) - logits(params, batch)).max() > 100 * TOLERANCE


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prepend_bos": True},
        {"text_attention": "bidirectional"},
        {"norm_position": "post"},
        {"group_size": 2, "prepend_bos": True},
        {"positions": "rotary", "position_scale": "fixed", "text_position_step": 2.5},
    ],
)
def test_cached_decoding_equals_the_full_forward_pass(changes):
    """Teacher-forced through prefill and cache, two rows of different lengths in one batch."""
    config = tiny_config("ar", **{"position_scale": "learned", **changes})
    decoder, params, logits = _make(config)
    rows = [pack([u], 64, config) for u in _utterances()]
    tokens = [row["token"].reshape(64, -1) for row in rows]
    full = [np.asarray(logits(params, row)).reshape(64, config.codes_per_step, -1) for row in rows]
    steps = 6
    lengths = [int((row["segment"] > 0).sum()) - steps for row in rows]
    prefix = {name: np.concatenate([row[name] for row in rows]) for name in ("token", "kind", "segment", "position")}
    for b, length in enumerate(lengths):
        for name in prefix:
            prefix[name][b].reshape(64, -1)[length:] = 0

    @jax.jit
    def run(params):
        module = decoder.bind(params)
        first, cache = module.prefill(prefix, 64 + steps)
        layers, out = module.unstack(), [first]
        for step in range(steps):
            token = jnp.array([token[n + step] for token, n in zip(tokens, lengths, strict=True)])
            position = jnp.array([row["position"][0, n + step] for row, n in zip(rows, lengths, strict=True)])
            step_logits, cache = module.decode(token, position, cache, layers)
            out.append(step_logits)
        return jnp.stack(out, axis=1)

    cached = np.asarray(run(params))
    for b, length in enumerate(lengths):
        np.testing.assert_allclose(cached[b], full[b][length - 1 : length + steps], atol=TOLERANCE)


@pytest.mark.parametrize("changes", [{}, {"norm_position": "post", "n_layers": 1}, {"positions": "rotary"}])
def test_the_last_layer_of_the_nar_computes_the_asked_tokens_only(changes):
    """They are those of the full computation; what the feed-forward layers make is as long as what is asked for."""
    config = tiny_config("nar", **changes)
    decoder, params, logits = _make(config)
    batch = pack(_utterances(), 96, config, stage=2, prompt_frames=5)
    places = np.array([[70, 12, 13, 14, 30]])
    asked = jax.jit(lambda params: decoder.bind(params)(batch, places_BM=places))
    np.testing.assert_allclose(asked(params), logits(params, batch)[:, places[0]], atol=TOLERANCE)
    widened = re.findall(r":f32\[1,(\d+),1,64\] = dot_general", str(jax.make_jaxpr(asked)(params)))
    assert set(widened) == {"96", "5"}  # of the scanned layers, and of the last


@pytest.mark.parametrize("stage", ["ar", "nar"])
def test_bfloat16_is_close_to_float32(stage):
    """bfloat16 has 8 bits of mantissa: 2^-8 relative per rounding, a few roundings per layer, logits of about 1."""
    config = tiny_config(stage)
    _decoder, params, logits = _make(config)
    low = build(tiny_config(stage, dtype="bfloat16"))
    batch = pack(_utterances(), 96, config, stage=2)
    exact, rounded = np.asarray(logits(params, batch)), np.asarray(jax.jit(low.logits)(params, batch))
    assert rounded.dtype == np.float32
    where = batch["target"] >= 0
    assert np.abs(exact - rounded)[where].max() < 0.1
    assert abs(mean_loss(exact, batch["target"]) - mean_loss(rounded, batch["target"])) < 0.01


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_changes_no_gradient(remat):
    batch = pack(_utterances(), 96, tiny_config("ar"))

    def gradient(policy):
        decoder = build(tiny_config("ar", remat=policy))
        params = decoder.init(jax.random.key(0))
        return jax.jit(jax.grad(lambda p: jax.nn.log_softmax(decoder.logits(p, batch))[..., 3].sum()))(params)

    for a, b in zip(jax.tree.leaves(gradient("none")), jax.tree.leaves(gradient(remat)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("stage", "changes", "shapes"),
    [
        ("ar", {"ar_tied": False}, {"head": (61, 32)}),
        ("ar", {"prepend_bos": True}, {"embed.acoustic": (62, 32)}),
        ("ar", {"group_size": 2}, {"groups.w_in": (2, 32, 32), "groups.w_out": (32, 2, 32)}),
        ("ar", {"activation": "relu"}, {}),
        ("ar", {"activation": "swiglu"}, {"transformer.blocks.mlp.w_in": (2, 32, 2, 64)}),
        ("ar", {"norm_position": "post"}, {}),
        ("ar", {"position_scale": "learned"}, {"embed.text_scale": ()}),
        ("ar", {"position_amplitude": 2.0}, {}),
        ("ar", {"query_key_init": "shared"}, {}),
        ("ar", {"positions": "rotary"}, {}),
        ("nar", {"positions": "rotary"}, {}),
        ("nar", {"nar_stage": "token"}, {"stage": (3, 32), "transformer.final_norm.scale": (32,)}),
        ("nar", {"nar_context": "text"}, {}),
        ("nar", {"nar_context": "none"}, {}),
        ("nar", {"nar_tying": "same"}, {}),
        ("nar", {"nar_tying": "next"}, {"head": (1, 60, 32)}),
        ("nar", {"nar_tying": "none"}, {"head": (3, 60, 32)}),
        ("nar", {"position_scale": "learned"}, {"embed.acoustic_scale": ()}),
    ],
)
def test_switches_change_the_model_and_train(stage, changes, shapes):
    """Every switch has the parameters it should, another function than the default, and gradients everywhere."""
    config = tiny_config(stage, **changes)
    decoder, params, _logits = _make(config)
    for path, shape in shapes.items():
        leaf = params
        for name in path.split("."):
            leaf = leaf[name]
        assert leaf.shape == shape
    # Away from the zeros of the initialisation, behind which the stage embedding learns nothing in the first step.
    params = jax.tree.map(lambda p: p + 0.01, params)
    rows = [pack(_utterances(), 96, config, stage=s) for s in (1, 2, 3)]
    batch = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def loss(params):
        chosen = jax.nn.log_softmax(decoder.logits(params, batch))
        picked = jnp.take_along_axis(chosen, jnp.maximum(batch["target"], 0)[..., None], -1)[..., 0]
        return -jnp.where(batch["target"] >= 0, picked, 0).sum()

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        assert np.isfinite(gradient).all(), path
        hidden = config.nar_context == "none" and path[-1].key == "phonemes"
        assert (np.abs(gradient).max() > 0) != hidden, f"{jax.tree_util.keystr(path)} never learns"


def test_shared_keys_start_as_the_queries():
    """And nothing else changes, so that runs with and without it can be compared."""
    _, independent, _ = _make(tiny_config("ar"))
    _, shared, _ = _make(tiny_config("ar", query_key_init="shared"))
    weights = shared["transformer"]["blocks"]["w_qkv"]
    np.testing.assert_array_equal(weights[:, :, 0], weights[:, :, 1])
    shared["transformer"]["blocks"]["w_qkv"] = weights.at[:, :, 1].set(
        independent["transformer"]["blocks"]["w_qkv"][:, :, 1]
    )
    jax.tree.map(np.testing.assert_array_equal, shared, independent)


def test_nar_tying_uses_the_named_embedding():
    """Which embedding the head of stage j is: changing it moves that stage's logits although no input shows it."""
    expected = {"same": {1: 1, 2: 2, 3: 3}, "next": {1: 2, 2: 3, 3: None}, "none": {1: None, 2: None, 3: None}}
    (phonemes, codes), _ = _utterances()
    for tying, heads in expected.items():
        config = tiny_config("nar", nar_tying=tying)
        _, params, logits = _make(config)
        for stage, head in heads.items():
            batch = pack([(phonemes, codes)], 32, config, stage=stage)
            before = np.asarray(logits(params, batch))
            for level in range(stage, 4):
                table = params["embed"]["acoustic"].at[level].add(1.0)
                changed = logits({**params, "embed": {**params["embed"], "acoustic": table}}, batch)
                assert (np.abs(np.asarray(changed) - before).max() > 0) == (level == head), (tying, stage, level)


def test_adaptive_norm_starts_as_a_plain_norm():
    """a = 1 and b = 0 for every stage: at first the stage only decides which codebooks are shown."""
    config = tiny_config("nar")
    decoder, params, _ = _make(config)
    module = decoder.bind(params)
    x = jax.random.normal(jax.random.key(0), (1, 5, 32))
    interval = masks.full(jnp.ones((1, 5), jnp.int32))
    outputs = [module.transformer(x, interval, stage_BD=module.stage[j][None])[0] for j in range(3)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])


def test_positions_are_counted_by_the_batch_and_kinds_are_told_apart():
    """The same id as a phoneme and as a code is another input."""
    config = tiny_config("ar")
    _, params, logits = _make(config)
    batch = pack(_utterances()[:1], 32, config)
    as_code = {**batch, "kind": np.where(batch["kind"] == KIND_TEXT, KIND_ACOUSTIC, batch["kind"])}
    assert np.abs(np.asarray(logits(params, batch)) - np.asarray(logits(params, as_code))).max() > 1e-3


def test_dropout_needs_a_key_and_keeps_the_mean():
    from valle_jax.model.layers import dropout

    x = jnp.ones((400, 400))
    assert dropout(x, 0.1, None) is x
    y = np.asarray(dropout(x, 0.1, jax.random.key(0)))
    # 160,000 draws: the standard error of the mean is 8e-4.
    assert abs(y.mean() - 1) < 4e-3
    assert abs((y == 0).mean() - 0.1) < 4e-3


def test_build_refuses_unresolved_sizes():
    with pytest.raises(UserError, match="n_symbols"):
        build(ModelConfig())
    with pytest.raises(UserError, match="one codebook"):
        build(tiny_config("nar", codebooks=1))
