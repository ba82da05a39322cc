//! The configuration of `rolecall run`, checked as a whole. Every text is parsed here, so that no other module handles
//! raw flags.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use jiff::SignedDuration;
use reqwest::Url;
use tracing_subscriber::EnvFilter;

use super::run::RunArgs;
use crate::model::RemovalLimits;
use crate::store::Quota;
use crate::target::google::{CloudRun, Credentials, Endpoint, EndpointError, GoogleError};

/// Shortest accepted `--drift-interval`. Enough for tests; below a second it only wastes read quota.
pub(crate) const MIN_DRIFT_INTERVAL: Duration = Duration::from_millis(100);
/// Longest accepted `--drift-interval`: a longer one would leave drift undetected for more than a day.
pub(crate) const MAX_DRIFT_INTERVAL: Duration = Duration::from_hours(24);
/// Accepted range of `--finalizer-deadline`.
const FINALIZER_DEADLINES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);
/// Below this, [`RunConfig::warnings`] mentions the cost.
const BUSY_DRIFT_INTERVAL: Duration = Duration::from_secs(30);

/// The ceiling for everything that one process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Serve SCIM, plan and report; write nothing to Google.
    Observe,
    /// Write what the mappings allow.
    Enforce,
}

/// How rolecall proves to Google who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CredentialsKind {
    /// Application Default Credentials; sent to `https://*.googleapis.com` only.
    Adc,
    /// No credentials, for the emulator.
    None,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line of text an event, for people.
    Text,
    /// One JSON object an event, for collectors.
    Json,
}

/// Location of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DatabaseUrl {
    /// `sqlite:PATH`: one file on a local disk.
    Sqlite(PathBuf),
}

impl DatabaseUrl {
    /// Parses `sqlite:PATH`.
    ///
    /// # Errors
    /// [`ConfigError::Database`].
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = |problem| ConfigError::Database { value: shown_url(text), problem };
        let Some((scheme, path)) = text.split_once(':') else {
            return Err(wrong("has no scheme"));
        };
        match scheme {
            "sqlite" if path.is_empty() || path == "//" => Err(wrong("names no file")),
            "sqlite" if path.contains(":memory:") => Err(wrong("does not survive a restart")),
            "sqlite" if path.contains(['?', '#']) => Err(wrong("has options, which are not supported")),
            "sqlite" => Ok(Self::Sqlite(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))),
            "postgres" | "postgresql" => Err(wrong("is PostgreSQL, which this version does not have")),
            _ => Err(wrong("has an unknown scheme")),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

/// A client of the Google APIs: at one base URL, or at Google's own hosts.
///
/// # Errors
/// When the URL cannot be a base of these APIs, or the credentials must not be sent there.
pub(crate) fn google_client<E: From<EndpointError> + From<GoogleError>>(
    endpoint: Option<&Url>,
    credentials: CredentialsKind,
) -> Result<CloudRun, E> {
    let endpoint = match endpoint {
        Some(url) => url.as_str().parse::<Endpoint>()?,
        None => Endpoint::default(),
    };
    let credentials = match credentials {
        CredentialsKind::Adc => Credentials::Adc,
        CredentialsKind::None => Credentials::None,
    };
    Ok(CloudRun::new(endpoint, credentials)?)
}

/// The configuration of `rolecall run`, parsed and checked for consistency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunConfig {
    /// Address of the SCIM endpoint. Port 0 lets the system choose.
    pub(crate) listen: SocketAddr,
    /// Address of health checks, metrics and status.
    pub(crate) admin_listen: SocketAddr,
    /// Address of the separate port for probes.
    pub(crate) probe_listen: Option<SocketAddr>,
    /// Largest number of connections to the SCIM port.
    pub(crate) max_connections: usize,
    /// Largest number of connections to the SCIM port from one address.
    pub(crate) max_connections_per_peer: usize,
    /// Largest number of SCIM requests per second and token.
    pub(crate) requests_per_second: NonZeroU32,
    /// File of further SCIM schemas and resource types.
    pub(crate) scim_schemas: Option<PathBuf>,
    /// Whether OpenID Connect issuers may be at private addresses.
    pub(crate) allow_private_issuers: bool,
    /// Longest time before its end at which a capture of requests begins.
    pub(crate) max_capture: SignedDuration,
    /// Storage quota of each provider.
    pub(crate) quota: Quota,
    /// The given base URL of this server for IdPs; see [`RunConfig::external_url`].
    pub(crate) external_url: Option<Url>,
    /// Location of the store.
    pub(crate) database: DatabaseUrl,
    /// The folder of manifests; none: a cluster. The folder may be missing, which is a state of its own and not an
    /// error in the flags.
    pub(crate) manifests: Option<PathBuf>,
    /// Upper limit of what any mapping may do.
    pub(crate) mode: Mode,
    /// The namespace that Secrets are read from.
    pub(crate) namespace: String,
    /// One base URL for all Google APIs; none: Google's own hosts.
    pub(crate) google_endpoint: Option<Url>,
    /// How to authenticate to Google.
    pub(crate) google_credentials: CredentialsKind,
    /// Interval between reads of every policy to detect drift, before jitter.
    pub(crate) drift_interval: Duration,
    /// Number of people who may lose access within an hour before the guard holds further removals.
    pub(crate) guard: RemovalLimits,
    /// How long a deleted mapping is kept while its claims cannot be ended.
    pub(crate) finalizer_deadline: Duration,
    /// The identity of this process as holder of the Lease.
    pub(crate) pod_name: Option<String>,
    /// How log lines are written.
    pub(crate) log_format: LogFormat,
    /// The log filter, in the syntax of `tracing_subscriber::EnvFilter`; validated.
    pub(crate) log_level: String,
}

impl RunConfig {
    /// The base URL of this server for IdPs, without a trailing slash: `--external-url`, or `http://` and the bound
    /// address (an unspecified address becomes `localhost`). Never taken from a request.
    #[must_use]
    pub(crate) fn external_url(&self, bound: SocketAddr) -> String {
        match &self.external_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None if bound.ip().is_unspecified() => format!("http://localhost:{}", bound.port()),
            None => format!("http://{bound}"),
        }
    }

    /// Warnings about settings that work but are probably not intended; to be logged once at start.
    #[must_use]
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.mode == Mode::Observe {
            warnings.push("--mode observe: plans are reported and nothing is written to Google".to_owned());
        }
        let plain = self.external_url.as_ref().is_none_or(|url| url.scheme() == "http");
        if plain && !self.listen.ip().is_loopback() {
            warnings.push(format!(
                "--listen {} accepts bearer tokens without TLS from other machines: put a TLS proxy in front and set --external-url https://…",
                self.listen
            ));
        }
        if !self.admin_listen.ip().is_loopback() {
            warnings.push(format!(
                "--admin-listen {} shows group names and drift to everybody who can reach it: protect it with a network policy",
                self.admin_listen
            ));
        }
        if self.drift_interval < BUSY_DRIFT_INTERVAL {
            warnings.push(format!(
                "--drift-interval {:?} reads every policy that often and uses up Google's read quota: 5m is usual",
                self.drift_interval
            ));
        }
        warnings
    }

    /// Parses and checks all flags, and reports all mistakes at once.
    ///
    /// # Errors
    /// [`ConfigErrors`], one entry for each mistake, in the order of the flags.
    #[expect(clippy::too_many_lines, reason = "every flag is parsed before a mistake of any is reported")]
    pub(crate) fn from_args(args: &RunArgs) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let listen = note(&mut errors, parse_address("--listen", &args.listen));
        let admin_listen = note(&mut errors, parse_address("--admin-listen", &args.admin_listen));
        let probe_listen = note(
            &mut errors,
            args.probe_listen.as_deref().map(|text| parse_address("--probe-listen", text)).transpose(),
        );
        if let (Some(one), Some(other)) = (listen, admin_listen)
            && collide(one, other)
        {
            errors.push(ConfigError::SameAddress { flag: "--admin-listen", address: one, other: "--listen" });
        }
        for (taken, other) in [(listen, "--listen"), (admin_listen, "--admin-listen")] {
            if let (Some(taken), Some(Some(probes))) = (taken, probe_listen)
                && collide(taken, probes)
            {
                errors.push(ConfigError::SameAddress { flag: "--probe-listen", address: taken, other });
            }
        }
        let external_url = note(
            &mut errors,
            args.external_url.as_deref().map(|text| parse_base_url("--external-url", text)).transpose(),
        );
        let database = note(&mut errors, DatabaseUrl::parse(&args.database));
        if let (Some(service), Some(DatabaseUrl::Sqlite(_))) = (&args.cloud_run_service, &database)
            && !service.is_empty()
        {
            errors.push(ConfigError::DiskIsNotKept { service: shown(service) });
        }
        if args.manifests.as_ref().is_some_and(|folder| folder.as_os_str().is_empty()) {
            errors.push(ConfigError::NoManifests);
        }
        let namespace = note(&mut errors, parse_namespace(&args.namespace));
        let google_endpoint = note(
            &mut errors,
            args.google_endpoint.as_deref().map(|text| parse_base_url("--google-endpoint", text)).transpose(),
        );
        if let (Some(Some(endpoint)), CredentialsKind::Adc) = (&google_endpoint, args.google_credentials)
            && !is_google(endpoint)
        {
            errors.push(ConfigError::CredentialsLeaveGoogle { endpoint: endpoint.clone() });
        }
        let drift_interval = note(
            &mut errors,
            parse_duration("--drift-interval", &args.drift_interval, MIN_DRIFT_INTERVAL..=MAX_DRIFT_INTERVAL),
        );
        let finalizer_deadline =
            note(&mut errors, parse_duration("--finalizer-deadline", &args.finalizer_deadline, FINALIZER_DEADLINES));
        let captures = Duration::ZERO..=Duration::from_hours(24);
        let max_capture = note(&mut errors, parse_duration("--max-capture", &args.max_capture, captures));
        let log_level = note(&mut errors, parse_log_level(&args.log_level));

        match (
            listen,
            admin_listen,
            probe_listen,
            external_url,
            database,
            namespace,
            google_endpoint,
            drift_interval,
            finalizer_deadline,
            max_capture,
            log_level,
        ) {
            (
                Some(listen),
                Some(admin_listen),
                Some(probe_listen),
                Some(external_url),
                Some(database),
                Some(namespace),
                Some(google_endpoint),
                Some(drift_interval),
                Some(finalizer_deadline),
                Some(max_capture),
                Some(log_level),
            ) if errors.is_empty() => Ok(Self {
                listen,
                admin_listen,
                probe_listen,
                max_connections: usize::try_from(args.max_connections).unwrap_or(usize::MAX),
                max_connections_per_peer: usize::try_from(args.max_connections_per_peer).unwrap_or(usize::MAX),
                allow_private_issuers: args.allow_private_issuers,
                scim_schemas: args.scim_schemas.clone().filter(|path| !path.as_os_str().is_empty()),
                requests_per_second: NonZeroU32::new(args.requests_per_second).unwrap_or(NonZeroU32::MIN),
                quota: Quota { rows: args.max_rows_per_provider, bytes: args.max_bytes_per_provider },
                max_capture: SignedDuration::try_from(max_capture).unwrap_or_default(),
                external_url,
                database,
                manifests: args.manifests.clone(),
                mode: args.mode,
                namespace,
                google_endpoint,
                google_credentials: args.google_credentials,
                drift_interval,
                guard: RemovalLimits::new(args.guard_removals_per_hour, args.guard_leavers_per_hour),
                finalizer_deadline,
                pod_name: args.pod_name.clone().filter(|name| !name.is_empty()),
                log_format: args.log_format,
                log_level,
            }),
            _ => Err(ConfigErrors(errors)),
        }
    }
}

/// One mistake in the flags or environment: the flag, the given value, and how to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// Not an account of Google.
    #[error(
        "--member: `{value}` is no account: write serviceAccount:NAME@PROJECT.iam.gserviceaccount.com, or principal://… of a workload"
    )]
    Member {
        /// The given value.
        value: String,
    },
    /// Not an address to listen on.
    #[error("{flag}: `{value}` is not an address: write IP:PORT, such as 127.0.0.1:8080, or 0.0.0.0:8080 for all")]
    Address {
        /// The flag.
        flag: &'static str,
        /// The given value.
        value: String,
    },
    /// Two listeners with the same address.
    #[error("{flag}: {address} is already the address of {other}: choose another port")]
    SameAddress {
        /// The flag.
        flag: &'static str,
        /// The other flag.
        other: &'static str,
        /// The address given for both.
        address: SocketAddr,
    },
    /// Not a base URL.
    #[error("{flag}: `{value}` {problem}: write http(s)://HOST[:PORT][/PATH]")]
    BaseUrl {
        /// The flag.
        flag: &'static str,
        /// The given value, without credentials.
        value: String,
        /// The problem.
        problem: &'static str,
    },
    /// Not a usable database URL.
    #[error("--database: `{value}` {problem}: write sqlite:PATH, such as sqlite:/var/lib/rolecall/rolecall.db")]
    Database {
        /// The given value.
        value: String,
        /// The problem.
        problem: &'static str,
    },
    /// A database on the local disk of Cloud Run, which is lost with the instance.
    #[error(
        "--database: this is the Cloud Run service `{service}` (K_SERVICE is set), whose disk is lost with the instance, and with it the record of which grants are rolecall's: run it where the file of sqlite:PATH is kept, such as a VM or a cluster with a volume"
    )]
    DiskIsNotKept {
        /// The value of `K_SERVICE`.
        service: String,
    },
    /// An empty folder name.
    #[error("--manifests: is empty: name the folder with the IdentityProvider, CloudRunTarget and RoleMapping files")]
    NoManifests,
    /// Not a namespace.
    #[error(
        "--namespace: `{value}` is not a namespace: write at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"
    )]
    Namespace {
        /// The given value.
        value: String,
    },
    /// Real credentials with an endpoint that is not Google's.
    #[error(
        "--google-credentials: adc is sent to https://*.googleapis.com only, and --google-endpoint is {endpoint}: add --google-credentials none for an emulator"
    )]
    CredentialsLeaveGoogle {
        /// The endpoint.
        endpoint: Url,
    },
    /// Not a duration.
    #[error("{flag}: `{value}` is not a duration: write a number with a unit, such as 30s, 5m or 1h")]
    Duration {
        /// The flag.
        flag: &'static str,
        /// The given value.
        value: String,
    },
    /// Too short or too long.
    #[error("{flag}: `{value}` is outside {least:?} to 24h")]
    DurationBounds {
        /// The flag.
        flag: &'static str,
        /// The shortest accepted value.
        least: Duration,
        /// The given value.
        value: String,
    },
    /// Not a log filter.
    #[error("--log-level: `{value}` is not a filter: write error, warn, info, debug or trace, or rolecall=debug,info")]
    LogLevel {
        /// The given value.
        value: String,
    },
}

/// All mistakes of one command line, each on its own line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigErrors(pub(crate) Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

fn note<T>(errors: &mut Vec<ConfigError>, result: Result<T, ConfigError>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}

/// A value in the form shown by errors: of bounded length.
fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

/// A URL in the form shown by errors: text before an `@` may be a password, whether or not the rest is a URL.
fn shown_url(text: &str) -> String {
    text.rsplit_once('@').map_or_else(|| shown(text), |(_, host)| format!("…@{}", shown(host)))
}

/// True when two listeners would share an address.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

fn parse_address(flag: &'static str, text: &str) -> Result<SocketAddr, ConfigError> {
    // `localhost` is the only name that needs no resolver.
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(text).parse().map_err(|_| ConfigError::Address { flag, value: shown(text) })
}

/// Parses an `http` or `https` URL that paths are appended to.
///
/// # Errors
/// [`ConfigError::BaseUrl`], which never repeats a password.
pub(super) fn parse_base_url(flag: &'static str, text: &str) -> Result<Url, ConfigError> {
    let wrong = |problem| ConfigError::BaseUrl { flag, value: shown_url(text), problem };
    let url = Url::parse(text).map_err(|_| wrong("is not a URL"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("holds credentials"));
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("is neither http nor https"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has a query or fragment"));
    }
    Ok(url)
}

fn parse_namespace(text: &str) -> Result<String, ConfigError> {
    let well_formed = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if well_formed { Ok(text.to_owned()) } else { Err(ConfigError::Namespace { value: shown(text) }) }
}

fn is_google(url: &Url) -> bool {
    url.scheme() == "https"
        && url.port_or_known_default() == Some(443)
        && url.host_str().is_some_and(|host| host.ends_with(".googleapis.com"))
}

fn parse_duration(flag: &'static str, text: &str, bounds: RangeInclusive<Duration>) -> Result<Duration, ConfigError> {
    let parsed: SignedDuration = text.parse().map_err(|_| ConfigError::Duration { flag, value: shown(text) })?;
    let outside = || ConfigError::DurationBounds { flag, least: *bounds.start(), value: shown(text) };
    let duration = Duration::try_from(parsed).map_err(|_| outside())?;
    if bounds.contains(&duration) { Ok(duration) } else { Err(outside()) }
}

fn parse_log_level(text: &str) -> Result<String, ConfigError> {
    match EnvFilter::try_new(text) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(ConfigError::LogLevel { value: shown(text) }),
    }
}

#[cfg(test)]
mod tests;
