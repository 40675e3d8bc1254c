"""The plan: shard sizes and splits that only depend on the listing, the options and the seed."""

import collections
import dataclasses
import resource
import time
import tracemalloc

import pytest

from data_prep import listing
from data_prep.plan import GivenSplits, load_speaker_splits, make_plan
from data_prep.sources import Recording
from valle_jax.errors import UserError


def recordings(n_utterances, n_speakers, split=None):
    return [
        Recording(f"u{i}", f"s{i % n_speakers}", "text", f"/somewhere/{i}.wav", f"{i}.wav", split=split)
        for i in range(n_utterances)
    ]


def plan(items, options=None, **more):
    chosen = {"shard_utterances": 10, "valid_utterances": 0.0, "valid_speakers": 0.0, "seed": 0}
    return make_plan(items, options or {}, **(chosen | more))


def splits(items, **options):
    splitter = plan(items, **options).splitter
    return {item.utterance_id: splitter.split(item) for item in items}


def test_shards_are_of_like_size():
    assert plan(recordings(21, 3)).shard_sizes() == [7, 7, 7]
    assert plan(recordings(20, 3)).shard_sizes() == [10, 10]
    assert plan(recordings(11, 3)).shard_sizes() == [6, 5]
    assert plan(recordings(3, 3)).shard_sizes() == [3]


def test_shares_are_met():
    counts = collections.Counter(splits(recordings(5000, 50), valid_utterances=0.1, valid_speakers=0.2).values())
    assert counts["valid_speaker"] == 1000
    # 4000 draws at 0.1: standard deviation 19
    assert abs(counts["valid_utterance"] - 400) < 80


def test_speakers_are_held_out_whole():
    items = recordings(300, 20)
    drawn = splits(items, valid_speakers=0.25, valid_utterances=0.3)
    held_out = {item.speaker_id for item in items if drawn[item.utterance_id] == "valid_speaker"}
    assert len(held_out) == 5
    assert {item.speaker_id for item in items if drawn[item.utterance_id] != "valid_speaker"}.isdisjoint(held_out)


def test_a_small_corpus_has_both_train_and_validation():
    for seed in range(20):
        for n in (2, 5, 30):
            counts = collections.Counter(splits(recordings(n, 2), valid_utterances=0.001, seed=seed).values())
            assert counts == {"train": n - 1, "valid_utterance": 1}
            counts = collections.Counter(splits(recordings(n, 2), valid_utterances=0.999, seed=seed).values())
            assert counts["train"] >= 1
        assert set(splits(recordings(1, 1), valid_utterances=0.9, valid_speakers=0.9, seed=seed).values()) == {"train"}
        assert set(splits(recordings(9, 3), valid_speakers=0.99, seed=seed).values()) == {"train", "valid_speaker"}


def test_split_depends_on_the_seed_and_not_on_the_order():
    items = recordings(200, 20)
    options = {"valid_utterances": 0.1, "valid_speakers": 0.1}
    drawn = splits(items, **options)
    assert splits(items[::-1], **options) == drawn
    assert splits(items, seed=1, **options) != drawn
    # No share, no validation.
    assert set(splits(items).values()) == {"train"}


def test_the_split_of_the_source_wins():
    items = recordings(50, 5, split="test")
    assert set(splits(items, valid_utterances=0.5, valid_speakers=0.5).values()) == {"test"}


def test_test_speakers_are_held_out_too():
    items = recordings(400, 20)
    drawn = splits(items, valid_speakers=0.1, test_speakers=0.2, valid_utterances=0.1)
    speakers = collections.defaultdict(set)
    for item in items:
        speakers[drawn[item.utterance_id].replace("valid_utterance", "train")].add(item.speaker_id)
    assert {split: len(members) for split, members in speakers.items()} == {"train": 14, "valid_speaker": 2, "test": 4}
    assert sum(len(members) for members in speakers.values()) == 20  # none in two


def test_subsets_of_librispeech_are_what_they_are_called():
    def subset(name, speaker):
        source = f"LibriSpeech/{name}/{speaker}/1/{speaker}-1-0.flac"
        return Recording(f"{speaker}-1-0", speaker, "text", source, source)

    names = ("train-clean-100", "dev-clean", "dev-other", "test-clean", "test-other", "train-other-500")
    items = [subset(name, str(speaker)) for speaker, name in enumerate(names)]
    own = ["train", "valid_speaker", "valid_speaker", "test", "test", "train"]
    assert list(splits(items).values()) == own
    assert set(splits(items, given=GivenSplits(corpus_splits=False)).values()) == {"train"}
    given = GivenSplits({"0": "test", "1": "train"})
    assert list(splits(items, given=given).values()) == ["test", "train", *own[2:]]


def test_split_file(tmp_path):
    path = tmp_path / "splits.txt"
    path.write_text("s1 test\n\nMary Ann valid_speaker\n")
    assert load_speaker_splits(path) == {"s1": "test", "Mary Ann": "valid_speaker"}
    path.write_text("s1 test\ns2 dev\n")
    with pytest.raises(UserError, match="line 2 is not SPEAKER and one of train, valid_utterance"):
        load_speaker_splits(path)
    with pytest.raises(UserError, match="cannot read --split-file"):
        load_speaker_splits(tmp_path / "nowhere")


def test_a_speaker_on_both_sides_is_refused():
    items = recordings(6, 2)
    with pytest.raises(UserError, match="speaker 's0' is in valid_speaker and has recordings outside of it"):
        plan([dataclasses.replace(items[0], split="valid_speaker"), *items[1:]])
    # No draw adds a speaker whose own split is test to valid_speaker.
    items = [dataclasses.replace(items[0], split="test"), *items[1:]]
    for seed in range(10):
        assert splits(items, valid_speakers=0.5, seed=seed)["u2"] != "valid_speaker"


def test_the_listing_gives_each_shard_its_recordings(tmp_path):
    items = recordings(11, 3)
    with listing.NewListing(tmp_path) as new:
        sizes = plan(new.through(items), shard_utterances=4).shard_sizes()
        new.keep(sizes)
    assert [len(listing.shard_recordings(tmp_path, shard)) for shard in range(3)] == sizes == [4, 4, 3]
    assert [item for shard in range(3) for item in listing.shard_recordings(tmp_path, shard)] == items
    assert sorted(path.name for path in tmp_path.iterdir()) == [listing.LISTING, listing.OFFSETS]
    with listing.NewListing(tmp_path / ".") as new:
        list(new.through(items))
    assert len(list(tmp_path.iterdir())) == 2
    listing.remove(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_million_recordings(tmp_path):
    """Planned and written down within a minute, in memory that is that of their speakers (2,000)."""

    def million():
        for i in range(1_000_000):
            yield Recording(f"u{i}", f"s{i % 2000}", "some words " * 10, f"/corpus/{i}.flac", f"{i}.flac")

    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with listing.NewListing(tmp_path) as new:
        made = plan(new.through(million()), shard_utterances=256, valid_utterances=0.02, valid_speakers=0.01)
        new.keep(made.shard_sizes())
    seconds = time.monotonic() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{seconds:.1f} s, {grown:.0f} MiB")
    assert len(listing.shard_recordings(tmp_path, made.n_shards - 1)) == 255
    assert seconds < 60 and grown < 50


def test_resuming_with_another_plan_is_refused(tmp_path):
    items = recordings(12, 3)
    path = tmp_path / "out" / "plan.json"
    path.parent.mkdir()
    plan(items, {"language": "en-us", "seed": 0}).save(path)
    plan(items, {"language": "en-us", "seed": 0}).check_resumable(path)
    moved = [dataclasses.replace(item, audio_path="/elsewhere" + item.audio_path) for item in items]
    plan(moved, {"language": "en-us", "seed": 0}).check_resumable(path)
    with pytest.raises(UserError, match="out was begun with language='en-us' but this run asks for language='de'"):
        plan(items, {"language": "de", "seed": 0}).check_resumable(path)
    for changed in (items[:-1], [dataclasses.replace(items[0], text="other"), *items[1:]], items[::-1]):
        with pytest.raises(UserError, match="begun from a source of 12 recordings"):
            plan(changed, {"language": "en-us", "seed": 0}).check_resumable(path)


def test_memory_does_not_grow_with_the_corpus():
    def listing(n):
        return (Recording(f"u{i}", f"s{i % 10}", "some text " * 20, f"/x/{i}.wav", f"{i}.wav") for i in range(n))

    peaks = []
    for n in (2_000, 20_000):
        tracemalloc.start()
        plan(listing(n), valid_utterances=0.1, valid_speakers=0.1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 20_000  # bytes: at 10 speakers, hashes and names; 18,000 recordings would be 9 MB


def test_no_recordings():
    with pytest.raises(UserError, match="lists no recordings"):
        plan([])
