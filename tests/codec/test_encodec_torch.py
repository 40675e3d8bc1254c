"""EnCodec's adapter on randomly initialised parameters of the real architecture."""

import pathlib

import numpy as np
import pytest
from encodec_models import noise, run_without

from valle_jax.errors import UserError

torch = pytest.importorskip("torch")
pytest.importorskip("importlib.metadata").distribution("encodec")

from valle_jax.codec.encodec_torch import EncodecTorch  # noqa: E402  (needs the check above)


@pytest.fixture(scope="module")
def codec(encodec_weights) -> EncodecTorch:
    return EncodecTorch.load(encodec_weights, device="cpu")


@pytest.fixture(scope="module")
def batching(encodec_weights) -> EncodecTorch:
    """Batches of up to 2 s, or 150 frames."""
    return EncodecTorch.load(encodec_weights, device="cpu", batch_seconds=2)


def test_info(codec):
    assert (codec.info.codebooks, codec.info.codebook_size, codec.info.frames_per_second) == (8, 1024, 75.0)
    assert codec.info.parameters == {"bandwidth_kbps": 6.0} and len(codec.info.weight_hash) == 16


def test_codes_and_audio_equal_the_packages(codec):
    audio = noise(39 * 320 + 7)
    codes, lengths = codec.encode([audio])
    with torch.inference_mode():
        ((expected, _),) = codec._model.encode(torch.from_numpy(audio)[None, None])
        samples = codec._model.decode([(expected, None)])[0, 0].numpy()
    assert lengths.tolist() == [40]
    np.testing.assert_array_equal(codes[0], expected[0].numpy().T)
    np.testing.assert_array_equal(codec.decode(codes)[0], samples)
    assert all(len(np.unique(codes[0, :, level])) > 5 for level in range(8))


def test_codebooks_are_what_codes_stand_for(codec):
    codes, _ = codec.encode([noise(20 * 320)])
    latent = codec._model.quantizer.decode(torch.from_numpy(codes.astype(np.int64)).permute(2, 0, 1))[0].numpy().T
    summed = sum(book[codes[0, :, level]] for level, book in enumerate(codec.codebooks))
    # eight terms in another order of summation
    np.testing.assert_allclose(summed, latent, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_samples", [0, 1, 320, 321, 5000])
def test_lengths(codec, n_samples):
    codes, lengths = codec.encode([noise(n_samples)])
    n_frames = -(-n_samples // 320)
    assert codes.shape == (1, n_frames, 8) and codes.dtype == np.uint16 and lengths.tolist() == [n_frames]
    (audio,) = codec.decode(codes)
    assert audio.shape == (n_frames * 320,) and audio.dtype == np.float32


def test_padding_in_a_batch_changes_nothing(codec, batching):
    """Also for items so short that the convolutions' mirrored start would meet the padding."""
    items = [noise(n, seed) for seed, n in enumerate([1, 700, 320 * 6, 320 * 7 - 5, 320 * 8, 5001, 8000, 0])]
    codes, lengths = batching.encode(items)
    assert max(map(len, batching._batches(lengths))) == 4
    audio = batching.decode(codes, lengths)
    for item, row, length, samples in zip(items, codes, lengths, audio, strict=True):
        alone, _ = codec.encode([item])
        np.testing.assert_array_equal(row[:length], alone[0])
        assert not row[length:].any()
        # Batched products may round differently in float32; the audio is of the order of 0.1.
        np.testing.assert_allclose(samples, codec.decode(alone)[0], atol=1e-5)


def test_batches_stay_within_their_bound(batching):
    lengths = np.array([100, 10, 40, 0, 3, 300, 45, 40])
    batches = list(batching._batches(lengths))
    assert sorted(item for batch in batches for item in batch) == [0, 1, 2, 4, 5, 6, 7]
    assert all(len(b) == 1 or len(b) * max(lengths[b]) <= 150 for b in batches)
    assert len(batches) < 7


def test_wrong_files_are_one_line_errors(encodec_weights, tmp_path):
    named = tmp_path / "encodec_24khz-d7cc33bc.th"
    named.write_bytes(pathlib.Path(encodec_weights).read_bytes())
    torch.save({"weight": torch.zeros(3)}, tmp_path / "another.th")
    (tmp_path / "text.th").write_text("hello")
    cases = {named: "SHA-256", tmp_path / "another.th": "not a state dict", tmp_path / "text.th": "not a state dict"}
    for path, message in {**cases, tmp_path / "missing.th": "cannot read"}.items():
        with pytest.raises(UserError, match=message) as error:
            EncodecTorch.load(str(path))
        assert "\n" not in str(error.value)


def test_works_without_torchaudio_and_leaves_no_stand_in(encodec_weights):
    code = f"""
print(get_codec("encodec_24khz", {encodec_weights!r}, implementation="torch").info.codebooks)
assert "torchaudio" not in sys.modules
"""
    done = run_without("torchaudio", code)
    assert done.returncode == 0 and done.stdout.strip() == "8", done.stderr


@pytest.mark.parametrize("package", ["torch", "encodec"])
def test_missing_packages_name_the_extra(package):
    done = run_without(
        package, 'try: get_codec("encodec_24khz", implementation="torch")\nexcept UserError as e: print(e)'
    )
    assert f"needs {package}" in done.stdout and "valle-jax[prep]" in done.stdout, done.stderr


def test_unreachable_hub_says_where_to_put_the_file(tmp_path):
    """A proxy that refuses connections stands for a machine without a network."""
    refused = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    code = 'try: get_codec("encodec_24khz", implementation="torch")\nexcept UserError as e: print(e)'
    done = run_without("nothing", code, TORCH_HOME=str(tmp_path), **refused)
    assert "encodec_24khz-d7cc33bc.th" in done.stdout and str(tmp_path) in done.stdout, done.stderr
