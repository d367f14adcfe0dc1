"""What every HTTP service of ours is told of where it is and whom it believes."""

import ipaddress
import re

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from services.web.hosts import LOOPBACK, with_host

ORIGIN = re.compile(r"https?://[^\s/?#@]+")


class WebSettings(BaseModel):
    """The settings that the label service and the dashboard share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    """Address to listen on; another than loopback only once a key exists."""
    allowed_hosts: tuple[str, ...] = Field(default=LOOPBACK, validate_default=True)
    """Names that the service answers to (Host header, without port); `host` is one more."""
    allowed_origins: tuple[str, ...] = ()
    """Origins (scheme://host:port) whose pages may act with a session cookie, beside our own."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies whose X-Forwarded-For and -Proto are believed."""
    scrape_token: str | None = Field(default=None, repr=False)
    """Opens /metrics to others than this machine, as Authorization: Bearer."""
    max_streams: int = Field(default=4, ge=1)
    """Event streams a key may have open."""

    @field_validator("allowed_hosts")
    @classmethod
    def _with_its_own(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return with_host(value, info.data["host"]) if "host" in info.data else value

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin; write https://NAME or https://NAME:PORT, no path"
                )
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:  # names are not resolved, and `*` would believe everybody
                raise ValueError(
                    f"{proxy!r} is neither an address nor a network; write 127.0.0.1 or 10.0.0.0/8"
                ) from error
        return value
