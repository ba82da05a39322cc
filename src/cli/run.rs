//! The flags of `rolecall run`.

use std::path::PathBuf;

use clap::Args;

use super::config::{CredentialsKind, LogFormat, Mode};
use crate::model::{DEFAULT_LEAVERS_PER_HOUR, DEFAULT_REMOVALS_PER_HOUR};

/// Examples shown by `rolecall run --help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  Try it against the emulator, with nothing in the cloud:
    rolecall-emulator --listen 127.0.0.1:9090 &
    rolecall run --database sqlite:/tmp/rolecall.db --manifests examples/smallest \\
      --mode enforce --google-endpoint http://127.0.0.1:9090 --google-credentials none

  Report what it would do on real projects, without writing:
    rolecall run --database sqlite:/var/lib/rolecall/rolecall.db --manifests ./access --mode observe

  In a cluster, where the chart installs it, with the custom resources of the API server:
    rolecall run --database sqlite:/var/lib/rolecall/rolecall.db --mode enforce --namespace rolecall-system

  Show the result:
    rolecall status

Every flag can also be set in the environment: --drift-interval is ROLECALL_DRIFT_INTERVAL.
Exit status: 0 after an orderly shutdown, 2 for a mistake in the flags, 3 when it could not start or continue.";

/// Serve SCIM to identity providers and keep the IAM policies in step.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct RunArgs {
    /// Address of the SCIM endpoint for identity providers
    #[arg(long, value_name = "ADDR", env = "ROLECALL_LISTEN", default_value = "127.0.0.1:8080")]
    pub(crate) listen: String,

    /// Address of /livez, /readyz, /metrics, /status and /progress; keep it on loopback or behind a network policy
    #[arg(long, value_name = "ADDR", env = "ROLECALL_ADMIN_LISTEN", default_value = "127.0.0.1:8081")]
    pub(crate) admin_listen: String,

    /// Address that serves only /livez and /readyz, for probes; default: on the admin port only
    ///
    /// A separate listener, so that connections to the other ports cannot prevent answers to probes.
    #[arg(long, value_name = "ADDR", env = "ROLECALL_PROBE_LISTEN")]
    pub(crate) probe_listen: Option<String>,

    /// Largest number of connections to the SCIM port, 8 to 65536; a quarter is reserved for clients with an accepted
    /// token
    ///
    /// At the limit, the connection that has waited longest for its client is closed for a new one, connections without
    /// an accepted token first. A connection with a request in progress is never closed.
    #[arg(long, value_name = "N", env = "ROLECALL_MAX_CONNECTIONS", default_value = "1024",
        value_parser = clap::value_parser!(u32).range(8..=65536))]
    pub(crate) max_connections: u32,

    /// Largest number of connections to the SCIM port from one address, 1 to 65536: an IPv4 address, or an IPv6 /64
    ///
    /// At the limit, the connection of the address that has waited longest is closed, so that a proxy with many idle
    /// connections is not locked out. Behind a single proxy all clients have one address: then set this to the value of
    /// --max-connections.
    #[arg(long, value_name = "N", env = "ROLECALL_MAX_CONNECTIONS_PER_PEER", default_value = "512",
        value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) max_connections_per_peer: u32,

    /// File of further SCIM schemas and resource types, YAML or JSON; default: users and groups only
    ///
    /// `Schema` and `ResourceType` documents of RFC 7643: resource types of their own, and extensions of users and
    /// groups. They are served and stored; access never depends on them. `rolecall lint --scim-schemas` checks the file.
    #[arg(long, value_name = "FILE", env = "ROLECALL_SCIM_SCHEMAS")]
    pub(crate) scim_schemas: Option<PathBuf>,

    /// SCIM requests per second and token, with bursts of as many; further ones are answered with 429. 1 to 100000
    ///
    /// `spec.scim.requestsPerSecond` of an `IdentityProvider` takes precedence. Less than 25, on which Microsoft
    /// Entra ID relies, is taken as 25.
    #[arg(long, value_name = "N", env = "ROLECALL_REQUESTS_PER_SECOND", default_value = "1000",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) requests_per_second: u32,

    /// Largest number of users, groups and memberships stored for one `IdentityProvider`
    ///
    /// Requests beyond it are refused with 507, and the condition `QuotaExceeded` reports that. Deactivations,
    /// deletions and removals of members are always accepted.
    #[arg(long, value_name = "N", env = "ROLECALL_MAX_ROWS_PER_PROVIDER", default_value = "2000000",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_rows_per_provider: u64,

    /// Largest number of bytes of users and groups, as JSON without members, stored for one `IdentityProvider`; as
    /// above
    #[arg(long, value_name = "BYTES", env = "ROLECALL_MAX_BYTES_PER_PROVIDER", default_value = "1073741824",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_bytes_per_provider: u64,

    /// Let OpenID Connect issuers (`spec.scim.oidc`) be at private, local and link-local addresses
    ///
    /// Without it, the keys of issuers are read from public addresses only, so that nobody who may write an
    /// `IdentityProvider` can have rolecall call services inside the network.
    #[arg(long, value_name = "BOOL", env = "ROLECALL_ALLOW_PRIVATE_ISSUERS", action = clap::ArgAction::Set,
        default_value_t = false, default_missing_value = "true", num_args = 0..=1)]
    pub(crate) allow_private_issuers: bool,

    /// Longest capture of the requests of an `IdentityProvider`, 0s to 24h: 0s forbids it
    ///
    /// `spec.scim.captureUntil` of an `IdentityProvider` asks for a capture; without it, nothing is kept. It begins at most this
    /// long before its end. `rolecall doctor IDP --capture` prints it, without names and addresses of people.
    #[arg(long, value_name = "DURATION", env = "ROLECALL_MAX_CAPTURE", default_value = "24h")]
    pub(crate) max_capture: String,

    /// Base URL of this server for identity providers; default: http:// and the address of --listen
    ///
    /// `meta.location` and `status.endpoint` are derived from it, never from a request's Host header.
    #[arg(long, value_name = "URL", env = "ROLECALL_EXTERNAL_URL")]
    pub(crate) external_url: Option<String>,

    /// Database of directory, ledger and audit: sqlite:PATH; the file is created if it does not exist
    ///
    /// It has the only record of which grants rolecall made: back it up, and never start with an empty one in place of
    /// a lost one.
    #[arg(long, value_name = "URL", env = "ROLECALL_DATABASE", hide_env_values = true)]
    pub(crate) database: String,

    /// Folder of manifests with the custom resources and their Secrets; changes are followed. Without it, the resources
    /// are those of a cluster
    ///
    /// Files that end in .yaml, .yml or .json are read, except names that begin with a dot. Without a folder, the
    /// Kubernetes cluster is the one that KUBECONFIG names, or the one the process runs in.
    #[arg(long, value_name = "DIR", env = "ROLECALL_MANIFESTS")]
    pub(crate) manifests: Option<PathBuf>,

    /// Upper limit for all mappings: observe writes nothing to Google, enforce writes what the mappings allow
    #[arg(long, value_enum, env = "ROLECALL_MODE", default_value = "observe")]
    pub(crate) mode: Mode,

    /// Namespace of the Secrets; in a cluster, the namespace that rolecall is installed in, where its Lease is kept too
    #[arg(long, value_name = "NAME", env = "ROLECALL_NAMESPACE", default_value = "rolecall-system")]
    pub(crate) namespace: String,

    /// One base URL for all Google APIs, such as an emulator's; default: Google's own hosts
    #[arg(long, value_name = "URL", env = "ROLECALL_GOOGLE_ENDPOINT")]
    pub(crate) google_endpoint: Option<String>,

    /// adc: Application Default Credentials, sent to https://*.googleapis.com only; none: for an emulator
    #[arg(long, value_enum, env = "ROLECALL_GOOGLE_CREDENTIALS", default_value = "adc")]
    pub(crate) google_credentials: CredentialsKind,

    /// Interval between reads of every policy to detect drift, with jitter: 100ms to 24h
    #[arg(long, value_name = "DURATION", env = "ROLECALL_DRIFT_INTERVAL", default_value = "5m")]
    pub(crate) drift_interval: String,

    /// Largest number of people per hour who may lose grants of one `RoleMapping`; removals of more people are held
    ///
    /// More than 10 people are also held when they are at least half of the mapping's people; a number above 25 raises
    /// the 10 in proportion. Held removals stay until a person releases them. Leavers are counted separately.
    #[arg(
        long, value_name = "PEOPLE", env = "ROLECALL_GUARD_REMOVALS_PER_HOUR",
        default_value_t = DEFAULT_REMOVALS_PER_HOUR, value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) guard_removals_per_hour: u32,

    /// Largest number of people per hour who may leave one `IdentityProvider`; removals of further leavers are held
    ///
    /// More than 10 people are also held when they are at least half of the provider's people with grants; a number
    /// above 100 raises the 10 in proportion. Up to 10 people per hour always lose access at once.
    #[arg(
        long, value_name = "PEOPLE", env = "ROLECALL_GUARD_LEAVERS_PER_HOUR",
        default_value_t = DEFAULT_LEAVERS_PER_HOUR, value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) guard_leavers_per_hour: u32,

    /// In a cluster: how long a deleted `RoleMapping` is kept while its grants cannot be revoked, 1s to 24h
    ///
    /// After that the finalizer is removed, so that nothing blocks the namespace; the grants are still revoked as soon
    /// as Google permits it.
    #[arg(long, value_name = "DURATION", env = "ROLECALL_FINALIZER_DEADLINE", default_value = "10m")]
    pub(crate) finalizer_deadline: String,

    /// In a cluster: the identity of this process as holder of the Lease; default: the host name
    #[arg(long, value_name = "NAME", env = "ROLECALL_POD_NAME")]
    pub(crate) pod_name: Option<String>,

    /// Format of log lines
    #[arg(long, value_enum, env = "ROLECALL_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// Log filter: error, warn, info, debug, trace, or filters such as rolecall=debug,info
    #[arg(long, value_name = "FILTER", env = "ROLECALL_LOG_LEVEL", default_value = "info")]
    pub(crate) log_level: String,

    /// The name Cloud Run gives the service that this process runs in; set by Cloud Run, not by people
    #[arg(long, hide = true, env = "K_SERVICE")]
    pub(crate) cloud_run_service: Option<String>,
}
