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

  See what it would do on real projects, without writing:
    rolecall run --database sqlite:/var/lib/rolecall/rolecall.db --manifests ./access --mode observe

  In a cluster, where the chart runs it, the custom resources are those of the API server:
    rolecall run --database sqlite:/var/lib/rolecall/rolecall.db --mode enforce --namespace rolecall-system

  Then ask what it found:
    rolecall status

Every flag can also be set in the environment: --drift-interval is ROLECALL_DRIFT_INTERVAL.
Exit status: 0 after an orderly stop, 2 for a mistake in the flags, 3 when it could not start or go on.";

/// Serve SCIM to identity providers and keep the IAM policies in step.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RunArgs {
    /// Address on which SCIM is served to identity providers
    #[arg(long, value_name = "ADDR", env = "ROLECALL_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: String,

    /// Address of /livez, /readyz, /metrics and /status; keep it on loopback or behind a network policy
    #[arg(long, value_name = "ADDR", env = "ROLECALL_ADMIN_LISTEN", default_value = "127.0.0.1:8081")]
    pub admin_listen: String,

    /// Address of /livez and /readyz alone, for probes of whoever runs the process; default: on the admin port only
    ///
    /// A listener of its own, so that connections to the other ports cannot keep probes from being answered.
    #[arg(long, value_name = "ADDR", env = "ROLECALL_PROBE_LISTEN")]
    pub probe_listen: Option<String>,

    /// Connections to the SCIM port at a time, 8 to 65536; a quarter is kept for clients that showed an accepted token
    ///
    /// When they are used up, the connection that has waited longest for its client is closed for a new one, those that
    /// showed no token first. A connection whose request is being worked on is never closed.
    #[arg(long, value_name = "N", env = "ROLECALL_MAX_CONNECTIONS", default_value = "1024",
        value_parser = clap::value_parser!(u32).range(8..=65536))]
    pub max_connections: u32,

    /// Connections to the SCIM port from one address at a time, 1 to 65536: an IPv4 address, or an IPv6 /64
    ///
    /// At the limit the address loses its own connection that has waited longest, so a proxy that keeps many idle ones is
    /// not locked out. Behind a single proxy all clients have one address: then set it to that of --max-connections.
    #[arg(long, value_name = "N", env = "ROLECALL_MAX_CONNECTIONS_PER_PEER", default_value = "512",
        value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_connections_per_peer: u32,

    /// SCIM requests a second of each token, with bursts of as many; further ones get 429. 1 to 100000
    ///
    /// `spec.scim.requestsPerSecond` of an `IdentityProvider` wins. Microsoft Entra ID relies on 25.
    #[arg(long, value_name = "N", env = "ROLECALL_REQUESTS_PER_SECOND", default_value = "1000",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub requests_per_second: u32,

    /// Users, groups and memberships that one `IdentityProvider` may store
    ///
    /// What would go beyond is refused with 507, and the condition `QuotaExceeded` says so. Deactivations, deletions and
    /// removals of members are accepted in any case.
    #[arg(long, value_name = "N", env = "ROLECALL_MAX_ROWS_PER_PROVIDER", default_value = "2000000",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub max_rows_per_provider: u64,

    /// Bytes of users and groups, as JSON without members, that one `IdentityProvider` may store; as above
    #[arg(long, value_name = "BYTES", env = "ROLECALL_MAX_BYTES_PER_PROVIDER", default_value = "1073741824",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub max_bytes_per_provider: u64,

    /// What identity providers call this server; default: http:// and the address of --listen
    ///
    /// `meta.location` and `status.endpoint` come from it, never from a request's Host header.
    #[arg(long, value_name = "URL", env = "ROLECALL_EXTERNAL_URL")]
    pub external_url: Option<String>,

    /// Where directory, ledger and audit are kept: sqlite:PATH; the file is created when it is missing
    ///
    /// It holds the only record of which grants are rolecall's own: back it up, and never start with an empty one in
    /// place of a lost one.
    #[arg(long, value_name = "URL", env = "ROLECALL_DATABASE", hide_env_values = true)]
    pub database: String,

    /// Folder of manifests: the custom resources and their Secrets; changes are followed. Without it, they are those of
    /// the cluster
    ///
    /// Read are .yaml, .yml and .json; names that begin with a dot are left out. Without a folder the Kubernetes cluster
    /// is used that KUBECONFIG names, or the one the process runs in.
    #[arg(long, value_name = "DIR", env = "ROLECALL_MANIFESTS")]
    pub manifests: Option<PathBuf>,

    /// Ceiling for everything: observe writes nothing to Google, enforce writes what the mappings allow
    #[arg(long, value_enum, env = "ROLECALL_MODE", default_value = "observe")]
    pub mode: Mode,

    /// Namespace from which Secrets are read; in a cluster, the one rolecall is installed in, where its Lease is kept too
    #[arg(long, value_name = "NAME", env = "ROLECALL_NAMESPACE", default_value = "rolecall-system")]
    pub namespace: String,

    /// One base URL for all Google APIs, such as an emulator's; default: Google's own hosts
    #[arg(long, value_name = "URL", env = "ROLECALL_GOOGLE_ENDPOINT")]
    pub google_endpoint: Option<String>,

    /// adc: Application Default Credentials, sent to https://*.googleapis.com only; none: for an emulator
    #[arg(long, value_enum, env = "ROLECALL_GOOGLE_CREDENTIALS", default_value = "adc")]
    pub google_credentials: CredentialsKind,

    /// How often every policy is read to look for drift, with jitter: 100ms to 24h
    #[arg(long, value_name = "DURATION", env = "ROLECALL_DRIFT_INTERVAL", default_value = "5m")]
    pub drift_interval: String,

    /// How many people an hour may lose what one `RoleMapping` granted; the removals of more are held
    ///
    /// More than 10 people are held, too, when they are at least half of the mapping's people; a number above 25 raises
    /// the 10 in proportion. What is held stays until somebody releases it. Leavers are counted apart.
    #[arg(
        long, value_name = "PEOPLE", env = "ROLECALL_GUARD_REMOVALS_PER_HOUR",
        default_value_t = DEFAULT_REMOVALS_PER_HOUR, value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub guard_removals_per_hour: u32,

    /// How many people an hour may leave one `IdentityProvider` before those who leave next are held
    ///
    /// More than 10 people are held, too, when they are at least half of the provider's people with grants; a number
    /// above 100 raises the 10 in proportion. Up to 10 people an hour always lose access at once.
    #[arg(
        long, value_name = "PEOPLE", env = "ROLECALL_GUARD_LEAVERS_PER_HOUR",
        default_value_t = DEFAULT_LEAVERS_PER_HOUR, value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub guard_leavers_per_hour: u32,

    /// In a cluster: how long a deleted `RoleMapping` is kept while what it granted cannot be revoked, 1s to 24h
    ///
    /// After that the object goes, so that nothing blocks its namespace; its grants are still revoked as soon as Google
    /// lets rolecall.
    #[arg(long, value_name = "DURATION", env = "ROLECALL_FINALIZER_DEADLINE", default_value = "10m")]
    pub finalizer_deadline: String,

    /// In a cluster: the name under which this process holds the Lease; default: the host name
    #[arg(long, value_name = "NAME", env = "ROLECALL_POD_NAME")]
    pub pod_name: Option<String>,

    /// How log lines are written
    #[arg(long, value_enum, env = "ROLECALL_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug, trace, or filters such as rolecall=debug,info
    #[arg(long, value_name = "FILTER", env = "ROLECALL_LOG_LEVEL", default_value = "info")]
    pub log_level: String,

    /// The name Cloud Run gives the service that this process runs in; set by Cloud Run, not by people
    #[arg(long, hide = true, env = "K_SERVICE")]
    pub cloud_run_service: Option<String>,
}
