"""Settings of remote reading: how fast, how patient, where copies are kept. Nothing of it enters an identity."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from datalake.secrets import is_secret

_ALSO_SECRET = ("username", "connection_string")


class RemoteConfig(BaseModel):
    """The `runtime.remote` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connections: int = Field(
        default=32,
        ge=1,
        le=1_000,
        title="Connections",
        description="Open at once, to all hosts, by all workers of this machine.",
    )
    connections_per_host: int = Field(
        default=8, ge=1, le=1_000, title="Connections per host", description="By all workers of this machine."
    )
    requests_per_second: float = Field(
        default=20,
        gt=0,
        le=100_000,
        title="Requests per second",
        description="To one host, by all workers of this machine.",
    )
    retries: int = Field(
        default=8,
        ge=0,
        le=1_000,
        title="Retries",
        description="After failures in a row that brought no byte: 408, 429, 5xx, SlowDown, a lost connection.",
    )
    backoff_seconds: float = Field(
        default=0.5,
        gt=0,
        le=60,
        title="Backoff (s)",
        description="A wait is drawn from 0 to this, twice as much with each failure; Retry-After goes before it.",
    )
    longest_wait_seconds: float = Field(default=60, gt=0, le=3_600, title="Longest wait (s)")
    connect_seconds: float = Field(default=10, gt=0, le=600, title="Time to connect (s)")
    stall_seconds: float = Field(
        default=60,
        gt=0,
        le=3_600,
        title="Longest silence (s)",
        description="After which a request is made again.",
    )
    proxy: str = Field(
        default="",
        title="Proxy",
        description="Such as http://proxy:3128; empty: what HTTP_PROXY, HTTPS_PROXY and NO_PROXY say.",
    )
    private_hosts: tuple[str, ...] = Field(
        default=(),
        title="Private hosts",
        description="Hosts on this machine or a private network that redirects of public addresses may lead to.",
    )
    storage: dict[str, dict[str, str | int | float | bool]] = Field(
        default_factory=dict,
        title="Storage options",
        description="fsspec's, by protocol: {s3: {anon: true}}. Credentials belong in the environment.",
    )
    cache: str = Field(
        default="",
        title="Cache",
        description="Folder of local copies; empty: HEADWATER_CACHE, or `cache` in the lake.",
    )
    cache_gb: float = Field(
        default=50, ge=0, title="Cache size (GB)", description="Beyond it the copies used longest ago are removed."
    )
    keep: bool = Field(default=True, title="Keep copies", description="Otherwise a copy goes when its shard is done.")
    recheck_hours: float = Field(
        default=0,
        ge=0,
        title="Trust versions for (h)",
        description="How long a remote file's version is believed without asking again; 0: every run asks.",
    )
    gap_bytes: int = Field(
        default=256 << 10,
        ge=0,
        le=1 << 30,
        title="Gap (bytes)",
        description="Records of an archive that lie nearer than this are fetched with one request.",
    )
    range_bytes: int = Field(
        default=8 << 20,
        ge=1 << 10,
        le=1 << 30,
        title="Largest range (bytes)",
        description="Records aren't merged into a larger request than this.",
    )

    @field_validator("storage")
    @classmethod
    def _no_credentials(cls, value: dict[str, dict[str, str | int | float | bool]]) -> object:
        for protocol, options in value.items():
            for name in options:
                if is_secret(name) or name.lower() in _ALSO_SECRET:
                    raise ValueError(
                        f"storage.{protocol}.{name} is a credential, and recipes are recorded: give it in the "
                        "environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, FSSPEC_...)"
                    )
        return value
