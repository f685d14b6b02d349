"""A model's folder: `model.toml` with the hash of every file, checked before anything is loaded; boosters as UBJ, never pickle."""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcuate.kernel.errors import BadInput, NotFound
from arcuate.scheduling.domain import ModelName

Json = dict[str, Any]


@dataclass(frozen=True)
class Data:
    """What a model was trained on. `synthetic` is said in the card, in every answer and on the pages."""

    site: str
    synthetic: bool
    first_day: str
    last_day: str
    visits: int
    patients: int
    seed: int


@dataclass(frozen=True)
class ModelFolder:
    """A checked model folder."""

    path: Path
    toml: Json

    @property
    def name(self) -> ModelName:
        """Return name, version, hash and data as every answer states them."""
        data = self.toml["data"]
        return ModelName(
            self.toml["name"],
            self.toml["version"],
            self.toml["sha256"],
            data["last_day"],
            data["synthetic"],
            data["site"],
        )

    def bytes_of(self, file: str) -> bytearray:
        """Return a file of the folder, as XGBoost takes it."""
        return bytearray((self.path / file).read_bytes())

    def json_of(self, file: str) -> Json:
        """Return a JSON table of the folder."""
        found: Json = json.loads((self.path / file).read_text(encoding="utf-8"))
        return found


def open_folder(path: Path, name: str) -> ModelFolder:
    """Read `model.toml` and check the hash of every file that it names.

    Raises:
        NotFound: There is no model.
        BadInput: A file is missing, changed, or the model is another one.
    """
    file = path / "model.toml"
    if not file.is_file():
        raise NotFound(f"There is no {name} model", where=str(file), todo=f"Train one: arcuate train {name}")
    try:
        toml = tomllib.loads(file.read_text(encoding="utf-8"))
        named, stated = dict(toml["files"]), str(toml["sha256"])
        kind = toml["name"]
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"The model's description cannot be read ({type(error).__name__})", where=str(file)) from error
    if kind != name:
        raise BadInput(f"This is the model {kind}, not {name}", where=str(file))
    for entry, digest in named.items():
        part = path / entry
        if Path(entry).name != entry or not part.is_file():
            raise BadInput(
                f"The model's file {entry} is missing", where=str(file), todo=f"Train it again: arcuate train {name}"
            )
        if hashlib.sha256(part.read_bytes()).hexdigest() != digest:
            raise BadInput(
                f"The model's file {entry} was changed after training",
                where=str(file),
                todo=f"Restore it, or: arcuate train {name}",
            )
    if _sum(named) != stated:
        raise BadInput(
            "The model's hash does not match its files", where=str(file), todo=f"Restore it, or: arcuate train {name}"
        )
    return ModelFolder(path, toml)


def write_folder(
    path: Path,
    name: str,
    task: str,
    files: Mapping[str, bytes],
    data: Data,
    tables: Mapping[str, Mapping[str, Any]],
    card: str,
) -> None:
    """Write a model: its files, `model.toml` with their hashes, and the card; files of an earlier model are removed."""
    path.mkdir(parents=True, exist_ok=True)
    for old in (*path.glob("*.ubj"), *path.glob("*.json")):
        old.unlink()
    digests = {}
    for file, content in sorted(files.items()):
        (path / file).write_bytes(content)
        digests[file] = hashlib.sha256(content).hexdigest()
    head = {"name": name, "version": data.last_day.replace("-", "."), "task": task, "sha256": _sum(digests)}
    described = {"data": vars(data), **tables, "files": digests}
    text = "\n".join(
        [*_pairs(head), *(line for table, rows in described.items() for line in ["", f"[{table}]", *_pairs(rows)]), ""]
    )
    (path / "model.toml").write_text(text, encoding="utf-8")
    (path / "card.md").write_text(card, encoding="utf-8")


def dump_json(table: Any) -> bytes:
    """Return a JSON table as bytes: plain, sorted, one key a line at the top."""
    return (json.dumps(table, indent=1, sort_keys=True) + "\n").encode()


def _sum(digests: Mapping[str, str]) -> str:
    return hashlib.sha256(
        "".join(f"{file} {digest}\n" for file, digest in sorted(digests.items())).encode()
    ).hexdigest()


def _pairs(rows: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in rows.items()]


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    return json.dumps(str(value), ensure_ascii=False)
