"""EnCodec in JAX against the PyTorch package, at random parameters of the real architecture."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encodec_models import noise, run_without
from flax import nnx

from valle_jax.codec.base import pad_codes
from valle_jax.codec.encodec_jax import EncodecJax, bucket_frames, decode, encode
from valle_jax.codec.encodec_weights import convert
from valle_jax.codec.seanet import EncodecNetwork
from valle_jax.errors import UserError
from valle_jax.interop import torch_file
from valle_jax.parallel.mesh import make_mesh
from valle_jax.parallel.sharding import named_sharding

HOP = 320


@pytest.fixture(scope="module")
def package(encodec_weights):
    """The package's model, at 24 kbps."""
    from valle_jax.codec.encodec_torch import EncodecTorch

    model = EncodecTorch.load(encodec_weights, device="cpu")._model
    model.set_target_bandwidth(24.0)
    return model


@pytest.fixture(scope="module")
def codec(encodec_weights) -> EncodecJax:
    return EncodecJax.load(encodec_weights, bandwidth_kbps=24.0)


def encode_by_package(package, audio):
    """Codes [B, T, Q] of waveforms [B, samples]."""
    import torch

    with torch.inference_mode():
        return package.encode(torch.from_numpy(audio)[:, None])[0][0].numpy().swapaxes(1, 2)


def decode_by_package(package, codes):
    import torch

    with torch.inference_mode():
        return package.decode([(torch.from_numpy(codes.swapaxes(1, 2).astype(np.int64)), None)])[:, 0].numpy()


def assert_varied(codes):
    """Codes that hardly vary would prove nothing: of [..., Q], each level has more than 500 distinct ones."""
    assert min(len(np.unique(level)) for level in codes.reshape(-1, codes.shape[-1]).T) > 500


def assert_same_codes(ours, theirs, latent, codebooks):
    """At least 99.9 % of the frames [N, Q] are equal; where one differs, at its first differing level it is a tie."""
    different = np.flatnonzero((ours != theirs).any(-1))
    assert len(different) <= 0.001 * len(ours), f"{len(different)} of {len(ours)} frames differ"
    for frame in different:
        level = int(np.argmax(ours[frame] != theirs[frame]))
        rest = latent[frame] - codebooks[np.arange(level), ours[frame, :level]].sum(0)
        distances = [np.square(rest - codebooks[level, c[frame, level]]).sum() for c in (ours, theirs)]
        # Two float32 distances of 128 terms after another order of additions.
        assert abs(distances[0] - distances[1]) <= 1e-4 * max(distances), (frame, level, distances)


def test_a_batch_equals_the_package_on_each_item_at_any_length(package, codec):
    """Whole and partial frames, shared buckets and others, shorter than the first convolutions' padding, nothing."""
    import torch

    samples = [6 * 24_000, 6 * 24_000 + 1, 3 * 24_000 - 1, 51 * HOP - 1, 50 * HOP + 1, 7 * HOP, 3 * HOP + 100, 100, 0]
    items = [noise(n, seed) for seed, n in enumerate(samples)]
    codes, lengths = codec.encode(items)
    assert lengths.tolist() == [450, 451, 225, 51, 51, 7, 4, 1, 0]
    audio = codec.decode(codes, lengths)
    assert not codes[-1].any() and not len(audio[-1])
    theirs = [encode_by_package(package, item[None])[0] for item in items[:-1]]
    with torch.inference_mode():
        latent = [package.encoder(torch.from_numpy(item)[None, None])[0].numpy().T for item in items[:-1]]
    ours = [row[:length] for row, length in zip(codes, lengths[:-1], strict=False)]
    assert [len(item) for item in ours] == [len(item) for item in theirs]
    assert_same_codes(*(np.concatenate(x) for x in (ours, theirs, latent)), codec.codebooks)
    assert_varied(np.concatenate(theirs))
    for item, mine, row, length in zip(ours, audio, codes, lengths, strict=False):
        expected = decode_by_package(package, item[None].astype(np.int64))[0]
        # Sums of up to 1,800 float32 terms in another order, through twelve layers.
        np.testing.assert_allclose(mine, expected, atol=1e-4 * np.abs(expected).max())
        assert not row[length:].any()


def test_codes_of_speech_become_the_packages_waveform(package, encodec_weights, shared):
    codec = EncodecJax.load(encodec_weights)
    presets = sorted((shared / "encodec_codes" / "presets").glob("*.npz"))
    others = np.random.default_rng(0).integers(0, 1024, (600, 8))  # which little speech leaves out
    codes = [*(np.load(file)["audio_tokens"][0] for file in presets), others]
    assert_varied(np.concatenate(codes))
    for mine, item in zip(codec.decode(*pad_codes(codes, 8)), codes, strict=True):
        expected = decode_by_package(package, item[None])[0]
        np.testing.assert_allclose(mine, expected, atol=1e-4 * np.abs(expected).max())


@pytest.fixture(scope="module")
def coded_by_package(package):
    """Noise, [samples], and its codes at 24 kbps, [T, 32]."""
    audio = noise(16 * 24_000)
    codes = encode_by_package(package, audio[None])[0]
    assert_varied(codes)
    return audio, codes


@pytest.mark.parametrize("kbps, codebooks", [(1.5, 2), (6.0, 8), (24.0, 32)])
def test_every_bandwidth(coded_by_package, encodec_weights, kbps, codebooks):
    audio, expected = coded_by_package
    codec = EncodecJax.load(encodec_weights, bandwidth_kbps=kbps)
    codes, lengths = codec.encode([audio])
    assert codec.info.codebooks == codes.shape[2] == codebooks and lengths.tolist() == [1200]
    assert (codes[0] == expected[:, :codebooks]).all(-1).mean() >= 0.999


def test_no_other_bandwidth(encodec_weights):
    with pytest.raises(UserError, match="no bandwidth of 5"):
        EncodecJax.load(encodec_weights, bandwidth_kbps=5.0)


def test_items_of_one_bucket_share_a_program(codec):
    codec.decode(*codec.encode([noise(49 * HOP)]))
    compiled = codec._encode._cache_size(), codec._decode._cache_size()
    codec.decode(*codec.encode([noise(55 * HOP + 1)]))
    assert (codec._encode._cache_size(), codec._decode._cache_size()) == compiled


def test_a_stream_is_the_whole(codec):
    codes = np.random.default_rng(0).integers(0, 1024, (2, 600, 32))
    assert_varied(codes)
    stream, parts = codec.stream(), []
    for start, end in [(0, 7), (7, 8), (8, 30), (30, 577), (577, 600)]:
        parts.append(stream(codes[:, start:end], last=end == 600))
    whole = np.stack(codec.decode(codes))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5 * np.abs(whole).max())
    with pytest.raises(ValueError, match="at least 7 frames"):
        codec.stream()(codes[:, :6])


def test_over_a_mesh(codec, encodec_weights):
    spread = EncodecJax.load(encodec_weights, bandwidth_kbps=24.0, mesh=make_mesh({"data": 4, "fsdp": 2}))
    items = [noise(225 * HOP - seed, seed) for seed in range(5)]
    codes, lengths = spread.encode(items)
    assert_varied(codes)
    assert (codes == codec.encode(items)[0]).all(-1).mean() >= 0.999  # a tie may fall otherwise in another program
    for mine, expected in zip(spread.decode(codes, lengths), codec.decode(codes, lengths), strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-5 * np.abs(expected).max())


def test_bfloat16_decoding_is_close(codec, encodec_weights):
    rough = EncodecJax.load(encodec_weights, bandwidth_kbps=24.0, decode_dtype=jnp.bfloat16)
    codes = np.random.default_rng(0).integers(0, 1024, (1, 75, 32))
    exact, ours = codec.decode(codes)[0], rough.decode(codes)[0]
    # 8 bits of mantissa through twelve layers; docs/codecs.md has the error on speech codes.
    assert 1e-4 < np.sqrt(np.mean(np.square(ours - exact)) / np.mean(np.square(exact))) < 0.03


def test_buckets():
    assert [bucket_frames(n) for n in (1, 6, 7, 8, 9, 64, 65, 750)] == [1, 6, 8, 8, 16, 64, 80, 768]
    assert all(n <= bucket_frames(n) <= 1.25 * n for n in range(32, 3000))


def test_agrees_with_the_torch_adapter(encodec_weights):
    """As `valle prepare` wrote the codes, so they are decoded: one description, the same codes."""
    from valle_jax.codec.encodec_torch import EncodecTorch

    ours, theirs = EncodecJax.load(encodec_weights), EncodecTorch.load(encodec_weights, device="cpu")
    assert ours.info == theirs.info
    np.testing.assert_array_equal(ours.codebooks, theirs.codebooks)
    np.testing.assert_array_equal(ours.encode([noise(5000)])[0], theirs.encode([noise(5000)])[0])


@pytest.mark.slow
def test_compiles_for_tpus(codec, v5e):
    """`pytest -m slow tests/codec`: ahead of time, the items of a batch shared between four chips; two minutes."""
    mesh = make_mesh({"data": 4}, v5e)
    rows, whole = named_sharding(mesh, ("batch",)), named_sharding(mesh, ())
    graph, state = nnx.split(nnx.eval_shape(lambda: EncodecNetwork(8, 1024)))
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), state)
    audio = jax.ShapeDtypeStruct((4, 32 * HOP), jnp.float32, sharding=rows)
    samples = jax.ShapeDtypeStruct((4,), jnp.int32, sharding=rows)
    codes = jax.ShapeDtypeStruct((4, 32, 8), jnp.int32, sharding=rows)
    programs = {
        "encode": (functools.partial(encode, graph), (state, audio, samples)),
        "decode": (functools.partial(decode, graph, jnp.bfloat16), (state, codes, None)),
    }
    for name, (function, arguments) in programs.items():
        compiled = jax.jit(function).trace(*arguments).lower(lowering_platforms=("tpu",)).compile()
        # No item needs anything of another chip's.
        assert not re.search("all-reduce|all-gather|all-to-all|collective-permute", compiled.as_text()), name


def test_works_without_torch(encodec_weights):
    code = f"""
import numpy as np
codes = np.zeros((1, 10, 8), np.uint16)
print(len(get_codec("encodec_24khz", {encodec_weights!r}).decode(codes)[0]))
"""
    done = run_without("torch", code)
    assert done.stdout.strip() == "3200", done.stderr


def test_state_dicts_that_are_not_encodecs(encodec_weights, tmp_path):
    tensors = torch_file.load(encodec_weights)
    with pytest.raises(ValueError, match=r"has no tensor decoder\.model\.15\.conv\.conv\.bias"):
        convert({name: value for name, value in tensors.items() if name != "decoder.model.15.conv.conv.bias"})
    with pytest.raises(ValueError, match="a tensor surplus"):
        convert(tensors | {"surplus": np.zeros(3)})
    np.savez(tmp_path / "other.npz", **{"state/x": np.zeros(3)})
    with pytest.raises(UserError, match="is not a state dict of EnCodec 24 kHz: it has no tensor"):
        EncodecJax.load(str(tmp_path / "other.npz"))
    (tmp_path / "text.th").write_text(json.dumps({}))
    with pytest.raises(UserError, match=r"cannot read .*text\.th: it is no zip file"):
        EncodecJax.load(str(tmp_path / "text.th"))
