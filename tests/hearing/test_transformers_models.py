"""The loading code of transformers, on tiny models with random parameters saved to folders."""

import json
import sys

import numpy as np
import pytest

from valle_jax.errors import UserError
from valle_jax.hearing.recognition import get_recogniser
from valle_jax.hearing.similarity import get_voice
from valle_jax.hearing.transformers_models import import_transformers

try:
    import_transformers()
except UserError as missing:
    pytest.skip(str(missing), allow_module_level=True)
import torch
import transformers

NOISE = 0.1 * np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
CONVOLUTIONS = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (10, 8), "num_feat_extract_layers": 2}
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    **CONVOLUTIONS,
}


@pytest.fixture(scope="module")
def ctc(tmp_path_factory):
    """A HuBERT with a CTC head over blank, letters a to c and the word delimiter, like P1's judge."""
    folder = tmp_path_factory.mktemp("ctc")
    vocabulary = {"<pad>": 0, "|": 1, "A": 2, "B": 3, "C": 4, "<unk>": 5}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(folder / "vocab.json", bos_token=None, eos_token=None)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False)
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    model = transformers.HubertForCTC(transformers.HubertConfig(vocab_size=6, **TINY))
    model.lm_head.weight.data *= 50
    model.save_pretrained(folder)
    return folder


def test_ctc_is_read_greedily_without_blanks_and_repeats(ctc):
    recogniser = get_recogniser(str(ctc))
    model = transformers.HubertForCTC.from_pretrained(ctc).eval()
    normal = (NOISE - NOISE.mean()) / np.sqrt(NOISE.var() + 1e-7)
    with torch.inference_mode():
        best = model(torch.tensor(normal)[None]).logits[0].argmax(-1).tolist()
    letters = [b for a, b in zip([None, *best], best, strict=False) if b != a and b != 0]
    expected = "".join("?|ABC?"[i] for i in letters).replace("|", " ").replace("?", "")
    heard, silence, short = recogniser.transcribe([NOISE, 0 * NOISE, NOISE[:50]], 16_000)
    assert heard.split() == expected.split() and len(heard) > 1
    assert silence == "" and isinstance(short, str)


def test_ctc_times_its_words(ctc):
    recogniser = get_recogniser(str(ctc))
    for rate in (16_000, 32_000):
        words = recogniser.words(NOISE, rate)
        assert " ".join(word for word, _, _ in words) == recogniser.transcribe([NOISE], rate)[0]
        times = [time for _, *both in words for time in both]
        assert len(words) > 1 and times == sorted(times) and times[0] >= 0 and times[-1] <= len(NOISE) / rate
    assert recogniser.words(0 * NOISE, 16_000) == []


def test_audio_of_another_rate_is_resampled(ctc):
    recogniser = get_recogniser(str(ctc))
    up = np.repeat(NOISE, 2)
    assert recogniser.transcribe([up], 32_000) != [""]


def test_whisper_generates_text(tmp_path):
    from tokenizers import Tokenizer, models

    marks = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    symbols = [*marks, "a", "b", "c", "d"]
    table = Tokenizer(models.BPE({s: i for i, s in enumerate(symbols)}, []))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=table, eos_token=marks[0], additional_special_tokens=marks[1:]
    )
    extractor = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=2)
    config = transformers.WhisperConfig(
        vocab_size=7,
        num_mel_bins=8,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_source_positions=100,
        max_target_positions=12,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=1,
    )
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config.update(max_length=8, suppress_tokens=None, begin_suppress_tokens=None)
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    recogniser = get_recogniser(str(tmp_path))
    assert recogniser.words(NOISE, 16_000) is None
    heard = recogniser.transcribe([NOISE, 0 * NOISE], 16_000)
    assert set(heard[0]) <= set("abcd ") and heard[1] == ""


@pytest.fixture(scope="module")
def xvector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xvector")
    torch.manual_seed(0)
    config = transformers.WavLMConfig(
        tdnn_dim=(8, 8, 12), tdnn_kernel=(5, 3, 1), tdnn_dilation=(1, 2, 1), xvector_output_dim=10, **TINY
    )
    transformers.WavLMForXVector(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    return folder


def test_x_vectors_are_the_models_own(xvector):
    vectors = get_voice(str(xvector)).embed([NOISE, NOISE[::-1].copy(), NOISE], 16_000)
    assert vectors.shape == (3, 10) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    with torch.inference_mode():
        own = transformers.WavLMForXVector.from_pretrained(xvector).eval()(torch.tensor(NOISE)[None]).embeddings[0]
    np.testing.assert_allclose(vectors[0], own / own.norm(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[2])


def test_a_model_of_another_kind_is_no_recogniser(xvector):
    with pytest.raises(UserError, match="WavLMForXVector, not a recogniser"):
        get_recogniser(str(xvector))


@pytest.mark.parametrize("get", [get_recogniser, get_voice])
def test_weights_that_are_not_there_are_one_line(get, tmp_path):
    with pytest.raises(UserError, match=r"cannot load .*nothing: .*give a folder") as error:
        get(str(tmp_path / "nothing"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("get", [get_recogniser, get_voice])
def test_a_missing_package_is_named(get, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"transformers is not installed: pip install 'valle-jax\[eval\]'"):
        get("hubert-large")
