"""The compiled samplers against a sampler without a cache, and what batching must not change."""

import dataclasses

import jax
import numpy as np
import pytest
from packed import pack, tiny_config

from valle_jax.data.batch import KIND_ACOUSTIC, KIND_PADDING, KIND_PROMPT
from valle_jax.inference.batching import Job, ar_batch, bucket, generate, nar_batch
from valle_jax.inference.generate import Filling, generate_ar, generate_nar
from valle_jax.inference.sampling import Sampling
from valle_jax.model import build
from valle_jax.text.vocabulary import EOS_ID

GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def decoders():
    """Random decoders whose tied heads are loud enough to prefer some codes clearly."""
    return [_decoder(stage) for stage in ("ar", "nar")]


def _decoder(stage: str, **changes):
    decoder = build(tiny_config(stage, **changes))
    params = jax.jit(decoder.init)(jax.random.key(1))
    params["embed"]["acoustic"] = params["embed"]["acoustic"] * 4
    return decoder, params


def _job(seed: int, *, phonemes: int = 9, prompt: int = 11, least: int = 0, most: int = 12) -> Job:
    rng = np.random.default_rng(seed)
    return Job(
        np.append(rng.integers(3, 40, phonemes), EOS_ID).astype(np.int32),
        rng.integers(0, 60, (prompt, 4)).astype(np.int32),
        least,
        most,
    )


def _run_ar(ar, jobs, sampling=GREEDY, seed=0, most=16):
    limits = np.array([[job.min_frames, job.max_frames] for job in jobs], np.int32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), np.arange(len(jobs)))
    return jax.device_get(generate_ar(*ar, ar_batch(jobs, ar[0]), keys, *limits.T, sampling=sampling, max_frames=most))


def test_the_text_is_counted_on_from_the_prompt_s_last_frame():
    """As in training, where a prompt and a text are two utterances of an example; a continued utterance is one."""
    job = dataclasses.replace(_job(0, phonemes=9, prompt=12), prompt_tokens=4)
    for anchor, prompt_tokens, expected in (
        ("utterance", 4, [0, 1, 2, 3, 6, 7, 8, 9, 10, 11]),  # 12 frames are 6 phonemes of 2
        ("utterance", 0, list(range(10))),
        ("segment", 4, list(range(10))),
    ):
        config = tiny_config("ar", text_position_anchor=anchor, text_position_step=2)
        batch = ar_batch([dataclasses.replace(job, prompt_tokens=prompt_tokens)], build(config))
        assert batch["position"][0, :10].tolist() == expected
        assert batch["position"][0, 10:22].tolist() == list(range(12))


@pytest.mark.parametrize("group", [1, 3])
def test_greedy_decoding_equals_argmax_of_full_forward_passes(decoders, group):
    """Groups of 3 divide neither the prompt's 11 frames, of which the first 2 are cut, nor the limit of 13."""
    ar = decoders[0] if group == 1 else _decoder("ar", group_size=group)
    job = _job(0, most=13)
    out = _run_ar(ar, [job])
    prompt = len(job.prompt_codes) // group * group
    codes = list(job.prompt_codes[len(job.prompt_codes) - prompt :, 0])
    logits = jax.jit(ar[0].logits)
    while len(codes) < prompt + 13:
        row = pack([(job.text[:-1], np.tile(np.array(codes)[:, None], 4))], 64, ar[0].config)
        last = len(job.text) - 1 + len(codes) // group
        ahead = np.array(logits(ar[1], row))[0].reshape(64, group, -1)[last]
        ahead[1:, 60] = -np.inf  # an end of speech stands in the first place
        if ahead[0].argmax() == 60:
            break
        codes += ahead.argmax(-1).tolist()
    found = out.codes[0, : out.length[0]].tolist()
    assert found == codes[prompt : prompt + 13]
    assert bool(out.finished[0]) == (len(found) < 13)


def test_groups_end_between_groups_and_keep_the_log_probability(decoders):
    """Sampled: lengths, and the probability of what was drawn under a teacher-forced pass."""
    ar = _decoder("ar", group_size=2)
    jobs = [_job(i, phonemes=5 + i, prompt=6 + i, least=3, most=9 + 2 * i) for i in range(4)]
    out = _run_ar(ar, jobs, Sampling(temperature=2.0))
    logits = jax.jit(ar[0].logits)
    for i, job in enumerate(jobs):
        length, finished = int(out.length[i]), bool(out.finished[i])
        assert length == job.max_frames or (finished and length % 2 == 0 and length >= 4)
        assert (out.codes[i, length:] == 0).all()
        codes = np.concatenate([job.prompt_codes[len(job.prompt_codes) % 2 :, 0], out.codes[i, : length + length % 2]])
        row = pack([(job.text[:-1], np.tile(codes[:, None], 4))], 64, ar[0].config)
        log_p = np.asarray(jax.nn.log_softmax(logits(ar[1], row)))[0]
        start = 2 * (len(job.text) - 1 + len(job.prompt_codes) // 2)
        drawn = [*out.codes[i, :length], *[60] * finished]
        expected = np.mean([log_p[start + k, code] for k, code in enumerate(drawn)])
        np.testing.assert_allclose(out.log_probability[i], expected, atol=2e-5)  # float32 sums in another order


def test_the_repetition_window_reaches_over_groups():
    """A decoder that always prefers code 7 a little: it comes again when the window has passed, not with each group."""
    decoder, params = _decoder("ar", group_size=2)
    params["transformer"]["final_norm"] = {"scale": np.zeros(32, np.float32), "bias": np.ones(32, np.float32)}
    params["embed"]["acoustic"] = np.zeros((61, 32), np.float32)
    params["embed"]["acoustic"][7] = 0.02
    params["groups"]["w_out"] = np.repeat(np.eye(32, dtype=np.float32)[:, None], 2, axis=1)
    jobs = [_job(i, least=16, most=16) for i in range(4)]
    aware = Sampling(top_k=1, repetition_window=4, repetition_threshold=0.0)
    preferred = _run_ar((decoder, params), jobs, aware).codes == 7
    assert preferred[:, 0].all() and (preferred.sum(1) >= 3).all()
    for distance in (1, 2, 3, 4):  # inside the window it is drawn from all codes: 3 times in a hundred
        assert (preferred[:, distance:] & preferred[:, :-distance]).mean() < 0.1


def test_guidance_0_is_sampling_without_the_text(decoders):
    ar, _ = decoders
    jobs = [_job(0, most=12), _job(1, phonemes=5, most=12)]
    textless = [dataclasses.replace(job, text=job.text * (job.text == EOS_ID)) for job in jobs]
    plain, hot = Sampling(temperature=5.0), Sampling(temperature=5.0, guidance=0.0)
    with_text, guided, without = _run_ar(ar, jobs, plain), _run_ar(ar, jobs, hot), _run_ar(ar, textless, plain)
    np.testing.assert_array_equal(guided.codes, without.codes)
    # The probability reported is the one given the text.
    assert np.abs(with_text.log_probability - without.log_probability).min() > 1e-5
    assert np.abs(guided.log_probability - without.log_probability).min() > 1e-5


def test_guided_decoding_equals_argmax_of_combined_full_forward_passes(decoders):
    ar, _ = decoders
    job = _job(0, most=8)
    out = _run_ar(ar, [job], Sampling(temperature=0, guidance=40.0))
    codes, logits = list(job.prompt_codes[:, 0]), jax.jit(ar[0].logits)
    for _ in range(8):
        with_text, without = (
            np.asarray(logits(ar[1], pack([(text, np.tile(np.array(codes)[:, None], 4))], 64, ar[0].config)))[
                0, len(job.text) - 1 + len(codes)
            ]
            for text in (job.text[:-1], 0 * job.text[:-1])
        )
        best = int((without + 40.0 * (with_text - without)).argmax())
        if best == 60:
            break
        codes.append(best)
    assert list(out.codes[0, : out.length[0]]) == codes[len(job.prompt_codes) :]
    assert len(set(codes[len(job.prompt_codes) :])) > 2  # so much guidance leaves no code its own successor


def test_rows_end_by_themselves_and_within_their_limits(decoders):
    ar, _ = decoders
    jobs = [_job(i, phonemes=5 + i, prompt=7 + 2 * i, least=3, most=4 + 3 * i) for i in range(4)]
    out = _run_ar(ar, jobs, Sampling(temperature=3.0))
    for i, job in enumerate(jobs):
        assert 3 <= out.length[i] <= job.max_frames
        assert out.finished[i] or out.length[i] == job.max_frames
        assert (out.codes[i, out.length[i] :] == 0).all()
        assert (out.codes[i] < 60).all()


def test_end_of_speech_is_not_drawn_before_the_minimum(decoders):
    decoder, params = decoders[0]
    # An end of speech that is always the most probable: its embedding points along every hidden state's mean.
    loud = {**params, "transformer": {**params["transformer"]}}
    loud["transformer"]["final_norm"] = {
        "scale": params["transformer"]["final_norm"]["scale"],
        "bias": np.ones(32, np.float32),
    }
    loud["embed"] = {**params["embed"], "acoustic": params["embed"]["acoustic"].at[60].set(5.0)}
    out = _run_ar((decoder, loud), [_job(0, least=0), _job(1, least=5)])
    assert list(out.length) == [0, 5]
    assert out.finished.all()


def test_the_log_probability_is_that_of_a_teacher_forced_pass(decoders):
    ar, _ = decoders
    job = _job(3, most=10)
    out = _run_ar(ar, [job], Sampling(temperature=1.5, top_k=7))
    codes = out.codes[0, : out.length[0]]
    row = pack(
        [(job.text[:-1], np.tile(np.concatenate([job.prompt_codes[:, 0], codes])[:, None], 4))], 64, ar[0].config
    )
    log_p = np.asarray(jax.nn.log_softmax(jax.jit(ar[0].logits)(ar[1], row)))[0]
    start = len(job.text) - 1 + len(job.prompt_codes)
    drawn = [*codes, 60] if out.finished[0] else list(codes)
    expected = np.mean([log_p[start + i, code] for i, code in enumerate(drawn)])
    np.testing.assert_allclose(out.log_probability[0], expected, atol=2e-5)  # float32 sums in another order


@pytest.mark.parametrize(
    ("expected", "guidance", "stage_is", "frames"),
    [(False, 1.0, "adaln", 14), (True, 1.0, "adaln", None), (False, 2.5, "token", 16)],
)
def test_nar_stages_equal_separate_passes(decoders, expected, guidance, stage_is, frames):
    """By the most probable codes, by those nearest to the expected vectors, and guided by the prompt."""
    nar = decoders[1] if stage_is == "adaln" else _decoder("nar", nar_stage=stage_is)
    job = _job(0)
    first = np.random.default_rng(9).integers(0, 60, 14)
    codebooks = np.random.default_rng(2).normal(size=(4, 60, 7)).astype(np.float32)
    batch = nar_batch([job], [first], nar[0].config)
    filling = Filling(codebooks if expected else None, 0.7, guidance)
    filled = np.asarray(generate_nar(*nar, batch, filling, frames=frames))
    # A prompt whose frames are neither text nor prompt nor target embeds as positions alone.
    bare = {**batch, "kind": np.where(batch["kind"] == KIND_PROMPT, KIND_PADDING, batch["kind"])}
    codes = batch["codes"].copy()
    logits = jax.jit(nar[0].logits)
    for stage in (1, 2, 3):
        step = {"codes": codes, "stage": np.full(1, stage, np.int32)}
        scores = np.asarray(logits(nar[1], {**batch, **step}))
        without = np.asarray(logits(nar[1], {**bare, **step}))
        scores = without + guidance * (scores - without)
        if expected:
            probability = np.exp((scores - scores.max(-1, keepdims=True)) / 0.7)
            mean = probability @ codebooks[stage] / probability.sum(-1, keepdims=True)
            scores = -np.square(mean[..., None, :] - codebooks[stage]).sum(-1)
        codes[..., stage] = np.where(batch["kind"] == KIND_ACOUSTIC, scores.argmax(-1), codes[..., stage])
    np.testing.assert_array_equal(filled, codes)
    start = job.prefix_length
    np.testing.assert_array_equal(filled[0, start : start + 14, 0], first)
    np.testing.assert_array_equal(filled[0, start - 11 : start], job.prompt_codes)


def test_codes_do_not_depend_on_the_neighbours(decoders):
    """Same key, same codes: alone, in a batch of three, at another place of it."""
    ar, nar = decoders
    jobs = [_job(i, phonemes=5 + i, prompt=8 + i, most=12) for i in range(3)]
    keys = jax.random.split(jax.random.key(5), 3)
    sampling = Sampling(temperature=1.0, top_k=20)
    together = generate(jobs, ar, nar, keys[:, None], sampling)
    backwards = generate(jobs[::-1], ar, nar, keys[::-1, None], sampling, batch_size=2)
    for i, take in enumerate(together):
        alone = generate(jobs[i : i + 1], ar, nar, keys[i : i + 1, None], sampling)[0]
        np.testing.assert_array_equal(take.codes, alone.codes)
        np.testing.assert_array_equal(take.codes, backwards[2 - i].codes)


def test_utterances_of_one_bucket_share_a_program(decoders):
    ar, nar = decoders
    keys = jax.random.split(jax.random.key(5), 1)
    generate([_job(0, phonemes=6, prompt=20, most=30)], ar, nar, keys[:, None], GREEDY)
    compiled = generate_ar._cache_size(), generate_nar._cache_size()
    generate([_job(1, phonemes=9, prompt=17, most=33)], ar, nar, keys[:, None], GREEDY)
    assert (generate_ar._cache_size(), generate_nar._cache_size()) == compiled


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200, 513, 1000, 2561, 10_000])
def test_buckets_waste_at_most_a_quarter(length):
    size = bucket(length)
    assert size >= length
    assert size == bucket(size)
    assert size <= max(64, 1.25 * length) + 63


def test_begin_of_audio_is_prepended_where_the_model_wants_it():
    decoder = build(tiny_config("ar", prepend_bos=True))
    batch = ar_batch([_job(0, phonemes=3, prompt=2)], decoder)
    np.testing.assert_array_equal(batch["token"][0, 4:7], [61, *_job(0, phonemes=3, prompt=2).prompt_codes[:, 0]])
    np.testing.assert_array_equal(batch["position"][0, :8], [0, 1, 2, 3, 0, 1, 2, 0])
