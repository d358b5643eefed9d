"""What a wandb run has written: its transaction log, by wandb's own messages."""

import json
import struct
from pathlib import Path

BLOCK = 32_768  # bytes; as in LevelDB's logs, a record lies in one block or is cut at their ends
HEADER = struct.Struct("<IHB")  # checksum, length, kind
FULL, LAST = 1, 4
PREAMBLE = 7  # bytes before the first record, which belong to the first block


def records(file: Path):
    """The messages of a .wandb file, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = file.read_bytes()
    place, parts = PREAMBLE, b""
    while place + HEADER.size <= len(content):
        if BLOCK - place % BLOCK < HEADER.size:  # no header fits
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(content, place)
        place += HEADER.size
        parts += content[place : place + length]
        place += length
        if kind in (FULL, LAST):
            yield Record.FromString(parts)
            parts = b""


class Logged:
    """Everything of one .wandb file, by what it is."""

    def __init__(self, file: Path) -> None:
        self.run = None
        self.config, self.summary = {}, {}
        self.rows, self.system, self.artifacts, self.metrics, self.exit_code = [], [], [], {}, None
        for record in records(file):
            getattr(self, f"_{record.WhichOneof('record_type')}", lambda record: None)(record)

    def _run(self, record):
        self.run = record.run
        self._add(self.config, record.run.config)

    def _config(self, record):
        self._add(self.config, record.config)

    def _summary(self, record):
        self._add(self.summary, record.summary)

    def _history(self, record):
        row = {
            ".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item
        }
        self.rows.append(row)

    def _stats(self, record):
        self.system.append({item.key: json.loads(item.value_json) for item in record.stats.item})

    def _artifact(self, record):
        self.artifacts.append(record.artifact)

    def _request(self, record):
        if record.request.WhichOneof("request_type") == "log_artifact":
            self.artifacts.append(record.request.log_artifact.artifact)

    def _metric(self, record):
        self.metrics[record.metric.name or record.metric.glob_name] = record.metric

    def _exit(self, record):
        self.exit_code = record.exit.exit_code

    @staticmethod
    def _add(values, update):
        for item in update.update:
            values[".".join(item.nested_key) or item.key] = json.loads(item.value_json)


def logged(folder: Path) -> list[Logged]:
    """Of a run folder, one for each time that it was begun or gone on with."""
    return [Logged(file) for file in sorted(folder.glob("wandb/*run-*/*.wandb"))]
