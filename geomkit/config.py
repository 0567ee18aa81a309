"""geomkit.toml: names for checkpoints and data, and a project's own defaults for capture.

    [checkpoints]
    base = "org/model@v1"                             # a source, as after NAME= on the command line
    tuned = { source = "org/lora", revision = "v2" }  # or a table
    merged = "./runs/merged"                          # paths are relative to this file

    [capture]
    batch_size = 16                                   # any option of `geomkit capture`

    [data]
    dev = "./data/dev.jsonl"                          # what --data takes

The file is `--config`, GEOMKIT_CONFIG, or the nearest one between the working folder and the
project's root. The command line wins over the environment (GEOMKIT_CAPTURE__BATCH_SIZE=4), which
wins over the file, which wins over the built-in default. pydantic-settings does the reading.
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from geomkit.data.entries import DataConfig
from geomkit.engines import EngineConfig
from geomkit.errors import UsageError
from geomkit.places import HUB_ID, CheckpointSpec, check_distinct, check_name, check_source
from geomkit.plans import CaptureConfig
from geomkit.project import listed, near, read

PREFIX, INSIDE = "GEOMKIT_", "__"
RECORDS: tuple[type[Any], ...] = (CaptureConfig, DataConfig, EngineConfig)
HINTS: dict[str, Any] = {k: v for record in RECORDS for k, v in get_type_hints(record).items()}
# What throws a run away, or lets what a stranger wrote reach the network, is said each time.
COMMAND_LINE_ONLY = ("force", "allow_url")

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_CLOSED = ConfigDict(extra="forbid", frozen=True)


class Named(BaseModel):
    """A checkpoint under a name."""

    model_config = _CLOSED
    source: Annotated[str, Field(strict=True, min_length=1)]
    revision: Annotated[str | None, Field(strict=True)] = None

    @property
    def full(self) -> str:
        """`source[@revision]`, as the command line takes it."""
        return f"{self.source}@{self.revision}" if self.revision else self.source


def _table(value: Any) -> Any:
    return {"source": value} if isinstance(value, str) else value


def _texts(value: Any) -> Any:
    """`"embed, final_norm"` for a list, which an environment variable cannot hold."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _number(value: Any) -> Any:
    """`batch_size = true` is no 1."""
    if isinstance(value, bool):
        raise ValueError("a truth value is no number")
    return value


def _capture_model() -> type[BaseModel]:
    """Every option of `geomkit capture`, none of them required: a record of what was set."""
    own: dict[str, Any] = {}
    for field in (field for record in RECORDS for field in fields(record)):
        hint = HINTS[field.name]
        if hint in (int, float):
            hint = Annotated[hint, BeforeValidator(_number)]
        elif get_args(hint) == (str, ...):
            hint = Annotated[hint, NoDecode, BeforeValidator(_texts)]
        own[field.name] = (hint, field.default)
    return create_model("Capture", __config__=_CLOSED, **own)


Capture = _capture_model()


class Settings(BaseSettings):
    """What geomkit.toml and the environment say."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter=INSIDE, extra="forbid", frozen=True
    )
    checkpoints: dict[str, Annotated[Named, BeforeValidator(_table)]] = {}
    capture: Capture = Capture()  # type: ignore[valid-type]  # made from the records' fields
    data: dict[str, Annotated[str, Field(strict=True, min_length=1)]] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment before the file, which comes as arguments; no other source."""
        return env_settings, init_settings

    def named_checkpoints(self, given: Sequence[str]) -> list[str]:
        """What `--ckpt` was given, each as NAME=SOURCE with the names of the file filled in.

        Raises:
            UsageError: a name cannot be a folder's name, or is there twice.
            CheckpointError: a source can be nothing; near names are listed.
        """
        specs = [self._named(text) for text in given]
        check_distinct(specs)
        return [f"{spec.name}={spec.source}" for spec in specs]

    def source(self, given: str) -> str:
        """The source that a name of the file stands for, or what was given.

        Raises:
            CheckpointError: it can be nothing; near names are listed.
        """
        found = self.checkpoints[given].full if given in self.checkpoints else given
        check_source(found, self.checkpoints)
        return found

    def _named(self, text: str) -> CheckpointSpec:
        spec = CheckpointSpec.parse(text)
        return CheckpointSpec(spec.name, self.source(spec.source))

    def named_data(self, given: str) -> str:
        """The data that a name of the file stands for, or what was given."""
        return self.data.get(given, given)

    def captured(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options of `geomkit capture`: those of the command line over those set here."""
        own: BaseModel = self.capture
        return own.model_dump(exclude_unset=True) | dict(given)


def load(path: Path | None) -> Settings:
    """The settings of a file, as `project.find` gives it, and of the environment.

    Raises:
        UsageError: the file is missing or no TOML, or a key or a value is not known.
    """
    written = read(path, Settings.model_fields) if path is not None else {}
    _check_environment()
    try:
        settings = Settings(**written)
    except ValidationError as cause:
        raise UsageError(_sentence(cause, path)) from cause
    except SettingsError as cause:
        raise UsageError(
            f"Expected one variable a key, as in {PREFIX}CAPTURE{INSIDE}BATCH_SIZE=4, got one in"
            f" the environment that cannot be read ({cause})."
        ) from cause
    for name, one in settings.checkpoints.items():
        _check_named(name, one, settings, _where(path, "checkpoints", name))
    _check_captured(settings.captured({}), path)
    return settings


def _check_environment() -> None:
    """Refuse a variable whose section is none: it would be passed over without a word."""
    for variable in sorted(os.environ):
        section, inside, _ = variable.upper().removeprefix(PREFIX).partition(INSIDE)
        known = [name.upper() for name in Settings.model_fields]
        if variable.upper().startswith(PREFIX) and inside and section not in known:
            raise UsageError(
                f"Expected {PREFIX}SECTION{INSIDE}KEY with a section {listed(known)}, got the"
                f" variable {variable}{near(section, known)}."
            )


def _check_named(name: str, one: Named, settings: Settings, where: str) -> None:
    try:
        check_name(name)
    except UsageError as cause:
        raise UsageError(f"In {where}, checkpoints: {cause}") from cause
    if one.revision and not (HUB_ID.fullmatch(one.source) and "@" not in one.source):
        raise UsageError(
            f"Expected a revision only with a hub id (org/name) in {where}, checkpoints.{name}, got"
            f" '{one.revision}' with '{one.source}'."
        )
    if one.source in settings.checkpoints and one.source != name:
        raise UsageError(
            f"Expected a source for checkpoints.{name} in {where}, got '{one.source}', which is"
            " another name of the file: write its source."
        )


def _check_captured(captured: Mapping[str, Any], path: Path | None) -> None:
    """Values that no capture can have, with the key that is to blame where one alone is."""
    for name in COMMAND_LINE_ONLY:
        if name in captured:
            raise UsageError(
                f"Expected --{name.replace('_', '-')} on the command line, got capture.{name} in"
                f" {_where(path, 'capture', name)}: this is said each time."
            )
    for record in RECORDS:
        own = {f.name: captured[f.name] for f in fields(record) if f.name in captured}
        try:
            record(**own)
        except UsageError as cause:
            names = [name for name in own if _wrong(record, name, own[name])]
            key = f"capture.{names[0]}" if names else "capture"
            raise UsageError(f"In {_where(path, *key.split('.'))}, {key}: {cause}") from cause


def _wrong(record: type[Any], name: str, value: Any) -> bool:
    try:
        record(**{name: value})
    except UsageError:
        return True
    return False


def _where(path: Path | None, *keys: str) -> str:
    """Which variable said it, or which file."""
    variable = PREFIX + INSIDE.join(keys).upper()
    said = next((name for name in os.environ if name.upper() == variable), None)
    return f"the variable {said}" if said or path is None else str(path)


def _sentence(cause: ValidationError, path: Path | None) -> str:
    """The first thing that is wrong: file, key, expected, got, near names."""
    first = cause.errors(include_url=False)[0]
    keys = [str(part) for part in first["loc"]]
    where, key = _where(path, *keys), ".".join(keys)
    if first["type"] == "extra_forbidden":
        known = _known(keys)
        return f"Expected keys {listed(known)} in {where}, got '{key}'{near(keys[-1], known)}."
    got = f", got {str(first['input'])[:80]!r}" if first["type"] != "missing" else ", got none"
    return f"Expected {_expected(keys)} for {key} in {where}{got}."


def _known(keys: Sequence[str]) -> Iterable[str]:
    if keys[0] == "capture":
        return [name for name in HINTS if name not in COMMAND_LINE_ONLY]
    return Named.model_fields


def _expected(keys: Sequence[str]) -> str:
    if keys[0] == "checkpoints" and len(keys) == 2:
        return "a source or a table with source and revision"
    if len(keys) == 1:
        return "a table"
    hint = HINTS.get(keys[-1], str) if keys[0] == "capture" else str
    return "a list of texts" if isinstance(hint, types.GenericAlias) else WORDS.get(hint, "a value")
