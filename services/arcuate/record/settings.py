"""Settings of the record."""

from typing import Annotated

from pydantic import SecretStr

from arcuate.kernel.settings import RoomSettings, room_config


class RecordSettings(RoomSettings):
    """Limits and habits of the FHIR server."""

    model_config = room_config("record")

    base_url: Annotated[
        str, "Address of the FHIR server as callers see it, for links; empty: the address that the caller used."
    ] = ""
    bundle_entries: Annotated[int, "Entries in a Bundle from a caller outside the house."] = 500
    room_bundle_entries: Annotated[int, "Entries in a Bundle from one of the house's own rooms."] = 20000
    page_valid_s: Annotated[int, "Seconds for which the link to a next page can be used."] = 3600
    longest_wait_s: Annotated[float, "Longest time in seconds for which a reader of the feed may wait for news."] = 60.0
    search_limit_s: Annotated[float, "Seconds after which a costly search is stopped (503, too-costly)."] = 10.0
    export_valid_s: Annotated[int, "Seconds for which a Bulk Data export can be fetched."] = 86400
    subscription_hosts: Annotated[
        str, "Outside addresses that Subscriptions may name, as host:port separated by commas; empty: none."
    ] = ""
    subscription_tokens: Annotated[
        SecretStr, "Bearer tokens of these addresses, as host:port=token separated by commas."
    ] = SecretStr("")
    subscription_patience_s: Annotated[
        int, "Seconds for which an endpoint that takes nothing is tried again before its Subscription stops."
    ] = 86400
    hold_s: Annotated[float, "Seconds for which $hold keeps a slot for whoever asked."] = 600.0
    proposal_s: Annotated[int, "Seconds for which a proposal of $find can be held or booked."] = 1800
    hold_look_s: Annotated[float, "Seconds between looks for holds that have ended."] = 5.0
    notify: Annotated[bool, "Send the notifications of Subscriptions from this program."] = True
    poll_s: Annotated[
        float, "Seconds between looks for news that another replica wrote (PostgreSQL only; SQLite has one writer)."
    ] = 0.2

    @property
    def hosts(self) -> frozenset[str]:
        """Return the outside addresses that Subscriptions may name."""
        return frozenset(part.strip().lower() for part in self.subscription_hosts.split(",") if part.strip())

    @property
    def tokens(self) -> dict[str, str]:
        """Return the bearer tokens of outside addresses."""
        pairs = (part.partition("=") for part in self.subscription_tokens.get_secret_value().split(",") if "=" in part)
        return {place.strip().lower(): token.strip() for place, _, token in pairs}
