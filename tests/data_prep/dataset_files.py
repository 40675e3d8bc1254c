"""What is in a dataset directory, to compare two of them."""

import json
import pathlib


def contents(folder):
    """All files of a folder and what they hold."""
    paths = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def rejections(folder):
    """(utterance id, reason) of each line of rejected.jsonl."""
    lines = (pathlib.Path(folder) / "rejected.jsonl").read_text().splitlines()
    return [(line["utterance_id"], line["reason"]) for line in map(json.loads, lines)]
