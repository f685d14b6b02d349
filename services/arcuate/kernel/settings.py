"""Settings: one frozen class a room, each field with a default and a sentence, read once from the environment."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from arcuate.kernel.errors import BadInput


def room_config(room: str) -> SettingsConfigDict:
    """Return the configuration of a room's settings class: environment prefix `ARCUATE_<ROOM>_`, frozen."""
    return SettingsConfigDict(env_prefix=f"ARCUATE_{room.upper()}_", frozen=True, extra="ignore")


class RoomSettings(BaseSettings):
    """Base of every room's settings; each field is `Annotated[type, "One sentence."] = default`."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")


class SiteSettings(BaseSettings):
    """What a site states about itself; every room sees it."""

    model_config = SettingsConfigDict(env_prefix="ARCUATE_", frozen=True, extra="ignore")

    time_zone: Annotated[
        str, "IANA time zone of the site, for example Europe/Zurich. Required: the host's zone is never used."
    ] = ""
    site_name: Annotated[str, "Name of the site as people know it."] = "This site"
    synthetic: Annotated[bool, "True when all data are synthetic; every page and report then says so."] = False

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value:
            try:
                ZoneInfo(value)
            except (ZoneInfoNotFoundError, ValueError) as error:
                raise ValueError(
                    f"'{value}' is no IANA time zone; write for example Europe/Zurich or America/New_York"
                ) from error
        return value

    @property
    def zone(self) -> ZoneInfo:
        """Return the site's zone.

        Raises:
            BadInput: The site has not stated one.
        """
        if not self.time_zone:
            raise BadInput(
                "The site's time zone is not set", where="ARCUATE_TIME_ZONE",
                todo="Set it to the IANA name of your zone, for example: export ARCUATE_TIME_ZONE=Europe/Zurich",
            )  # fmt: skip
        return ZoneInfo(self.time_zone)


@dataclass(frozen=True)
class SettingLine:
    """One setting as people read it."""

    variable: str
    value: str
    source: str
    sentence: str
    default: str


def describe(settings: BaseSettings) -> Iterator[SettingLine]:
    """Yield every setting of a class with its value and where it came from; secrets are not shown."""
    prefix = str(type(settings).model_config.get("env_prefix", ""))
    for name, field in type(settings).model_fields.items():
        value: Any = getattr(settings, name)
        sentence = field.description or next((m for m in field.metadata if isinstance(m, str)), "")
        given = name in settings.model_fields_set
        default: Any = field.get_default(call_default_factory=True, validated_data={})
        # The reference page must read the same wherever the checkout lies.
        if isinstance(default, Path) and default.is_relative_to(Path.cwd()):
            default = default.relative_to(Path.cwd())
        yield SettingLine(
            f"{prefix}{name}".upper(), str(value), "environment" if given else "default", sentence, str(default)
        )
