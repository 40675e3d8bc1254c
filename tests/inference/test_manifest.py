"""The jobs and results of `valle batch`: what is read, what counts as done, what a kill leaves."""

import json
import tracemalloc

import pytest

from valle_jax.errors import UserError
from valle_jax.inference.manifest import BadLine, BatchJob, Done, Results, check_ids, parse_job, read_jobs

GOOD = {"id": "a", "text": "Hello.", "prompt": "a.wav", "prompt_text": "Hi."}


def _write(path, jobs) -> None:
    path.write_text("".join(json.dumps(job) + "\n" for job in jobs), encoding="utf-8")


def test_a_line_becomes_a_job():
    assert parse_job(3, json.dumps(GOOD | {"seed": 4})) == BatchJob(3, "a", "Hello.", "a.wav", "Hi.", seed=4)
    assert parse_job(0, '{"id": "b", "text": "x", "voice": "anna"}') == BatchJob(0, "b", "x", voice="anna")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        (json.dumps(GOOD | {"id": "../a"}), "id must be"),
        (json.dumps(GOOD | {"id": "a" * 121}), "id must be"),
        (json.dumps(GOOD | {"text": " "}), "no text"),
        (json.dumps(GOOD | {"voice": "anna"}), "either prompt"),
        (json.dumps({"id": "a", "text": "x"}), "either prompt"),
        (json.dumps({"id": "a", "text": "x", "prompt": "a.wav"}), "without prompt_text"),
        (json.dumps(GOOD | {"sed": 1}), "unknown field 'sed'"),
        (json.dumps(GOOD | {"seed": True}), "seed is not of type int"),
        (json.dumps(GOOD | {"text": 1}), "text is not of type str"),
    ],
)
def test_a_line_that_is_no_job_says_why(text, reason):
    bad = parse_job(7, text)
    assert isinstance(bad, BadLine)
    assert bad.line == 7
    assert reason in bad.reason


def test_workers_share_the_lines_and_skip_what_is_done(tmp_path):
    _write(tmp_path / "jobs.jsonl", [GOOD | {"id": str(i)} for i in range(10)])
    done = Done()
    done.add(4)

    def lines(part):
        return [job.line for job in read_jobs(tmp_path / "jobs.jsonl", part=part, parts=2, done=done)]

    assert (lines(0), lines(1)) == ([0, 2, 6, 8], [1, 3, 5, 7, 9])


def test_no_such_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        list(read_jobs(tmp_path / "none", part=0, parts=1, done=Done()))


def test_an_id_stands_once(tmp_path):
    _write(tmp_path / "jobs.jsonl", [GOOD | {"id": name} for name in "abca"])
    with pytest.raises(UserError, match="1 jobs have an id"):
        check_ids(tmp_path / "jobs.jsonl")
    _write(tmp_path / "jobs.jsonl", [GOOD | {"id": name} for name in "abc"])
    check_ids(tmp_path / "jobs.jsonl")


def test_a_result_counts_when_its_line_is_whole(tmp_path):
    results = Results(tmp_path, part=0, parts=1)
    results.append(2, {"id": "c"})
    results.append(0, {"id": "a"})
    results.close()
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes() + b'{"line": 1, "id"')  # killed here
    again = Results(tmp_path, part=0, parts=1)
    assert [line in again.done for line in range(4)] == [True, False, True, False]
    again.append(1, {"id": "b"})
    again.close()
    assert [json.loads(line)["line"] for line in path.read_text().splitlines()] == [2, 0, 1]


def test_another_number_of_workers_goes_on_with_what_all_did(tmp_path):
    for part in range(2):
        results = Results(tmp_path, part=part, parts=2)
        results.append(part, {})
        results.close()
    assert len(Results(tmp_path, part=0, parts=3).done) == 2


def test_a_million_jobs_take_a_bit_each(tmp_path):
    done = Done()
    tracemalloc.start()
    for line in range(1_000_000):
        done.add(line)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(done) == 1_000_000
    assert peak < 600_000  # bytes: 131,072 of bits, twice and once more while they grow
