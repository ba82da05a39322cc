//! The parts of every `rolecall run`, whether its resources come from a folder or a cluster: listeners, store, engine,
//! tokens, and an orderly shutdown.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::progress::{FolderProgress, Progress};
use super::serve::{Bounds, Server};
use super::tokens::Resolved;
use crate::api::FindingStatus;
use crate::catalog::Ceiling;
use crate::cli::{Mode, RunConfig, SchemaFileError, google_client, load_schemas};
use crate::controller::checkpoint::CheckpointError;
use crate::controller::{Controller, Holds, Settings};
use crate::model::{Clock, MappingKey, ProviderName, Reason, SystemClock};
use crate::scim::{FindingCode, ResourceTypes};
use crate::scim_server::{
    self, Accepted, CapturePhase, Captures, Issuers, LEAST_REQUESTS_PER_SECOND, Limits, Scim, TokenTable, Traffic,
};
use crate::status::{CaptureOutcome, StatusCache, TokenOutcome};
use crate::store::{Store, StoreError};
use crate::sync::{Engine, EngineConfig, ProviderTraffic};
use crate::target::Target;
use crate::target::google::{CloudRun, GoogleError, install_crypto_provider};
use crate::telemetry::{Admin, Metrics, Part, Readiness, admin_router, probe_router};

/// Largest number of connections to the admin port: in total, and from one address.
const ADMIN_CONNECTIONS: (usize, usize) = (256, 64);
/// Largest number of connections to the probe port: in total, and from one address.
const PROBE_CONNECTIONS: (usize, usize) = (64, 32);
/// Smallest number of SCIM connections that is served.
const MIN_CONNECTIONS: usize = 64;
/// Number of open files besides the connections of clients: those of the store, to Google and to the API server.
const OTHER_FILES: usize = 128;

/// Time that requests in progress may take during shutdown.
const GRACE: Duration = Duration::from_secs(10);

/// Why rolecall did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppError {
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {source}: is another rolecall running there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The client for Google cannot be set up.
    #[error("cannot set up the client for Google: {0}")]
    Google(#[from] GoogleError),
    /// The client for OpenID Connect issuers cannot be set up.
    #[error("cannot set up the client for OpenID Connect issuers: {0}")]
    Issuers(reqwest::Error),
    /// The endpoint of Google is invalid.
    #[error("--google-endpoint: {0}")]
    Endpoint(#[from] crate::target::google::EndpointError),
    /// The file of SCIM schemas cannot be used.
    #[error(transparent)]
    Schemas(#[from] SchemaFileError),
    /// There is no place for the checkpoint of the store.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Another process took over the database.
    #[error("lost the database to {leader}; only one rolecall may use it at a time, exiting")]
    LeadershipLost {
        /// The other process, where it is known.
        leader: String,
    },
    /// No Kubernetes cluster is configured.
    #[error(
        "no Kubernetes cluster can be reached with what is configured: {0}: run it in a cluster, set KUBECONFIG, or name a folder with --manifests"
    )]
    NoCluster(String),
    /// The Lease was taken by another process, or deleted.
    #[error("lost the Lease, so another rolecall may be active; exiting")]
    LeaseLost,
    /// A part of the engine stopped unexpectedly.
    #[error("a part of the engine stopped unexpectedly; the log has the part and the cause")]
    EngineEnded,
    /// A signal handler cannot be installed.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
}

impl AppError {
    /// The stable reason word.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "CannotListen",
            Self::Store(error) => error.reason(),
            Self::Google(error) => error.reason().word(),
            Self::Issuers(_) => "IssuersUnusable",
            Self::Endpoint(_) => "EndpointInvalid",
            Self::Schemas(_) => "ScimSchemasInvalid",
            Self::Checkpoint(error) => error.reason(),
            Self::NoCluster(_) => "NoCluster",
            Self::LeadershipLost { .. } | Self::LeaseLost => Reason::LeadershipLost.word(),
            Self::EngineEnded => "EngineEnded",
            Self::Signals(_) => "NoSignals",
        }
    }
}

/// One process, from start to shutdown.
pub(super) struct Process {
    pub(super) config: RunConfig,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) store: Store,
    pub(super) cache: StatusCache,
    pub(super) engine: Engine,
    pub(super) tokens: TokenTable,
    issuers: Issuers,
    types: Arc<ResourceTypes>,
    pub(super) resolved: Arc<Mutex<Resolved>>,
    pub(super) external_url: String,
    /// Ready when SCIM is served.
    pub(super) loaded: Part,
    /// Canceled when the process shuts down: because of a signal, or because it cannot continue.
    pub(super) stop: CancellationToken,
    signaled: Arc<AtomicBool>,
    pub(super) metrics: Arc<Metrics>,
    /// The last scan of the folder of manifests that is in force.
    pub(super) folder: FolderProgress,
    traffic: Traffic,
    pub(super) captures: Captures,
    servers: JoinSet<()>,
    scim: Option<(TcpListener, SocketAddr)>,
    admin_address: SocketAddr,
    /// Largest number of connections to the SCIM port.
    connections: usize,
}

/// Serves the admin port, and the port of the probes if there is one.
fn serve_admin(
    servers: &mut JoinSet<()>,
    (listener, probes): (TcpListener, Option<(TcpListener, SocketAddr)>),
    admin: Admin,
    stop: &CancellationToken,
) {
    let (metrics, readiness) = (admin.metrics.http.clone(), admin.readiness.clone());
    let server = |listener, name, (total, per_peer)| {
        let bounds = Bounds::open(total, per_peer);
        Server { listener, name, bounds, metrics: metrics.clone() }
    };
    servers.spawn(server(listener, "admin", ADMIN_CONNECTIONS).serve(admin_router(admin), stop.clone()));
    if let Some((listener, address)) = probes {
        tracing::info!(probe_address = %address, "probes are answered at http://{address}/livez and /readyz");
        let router = probe_router(readiness);
        servers.spawn(server(listener, "probe", PROBE_CONNECTIONS).serve(router, stop.clone()));
    }
}

fn ceiling(mode: Mode) -> Ceiling {
    match mode {
        Mode::Observe => Ceiling::Observe,
        Mode::Enforce => Ceiling::Enforce,
    }
}

/// The statuses of all objects, as the admin port lists them.
fn statuses(cache: &StatusCache) -> Vec<serde_json::Value> {
    cache.list().items.into_iter().filter_map(|item| serde_json::to_value(item).ok()).collect()
}

/// The last tests of permissions, as the admin port lists them.
fn preflights(engine: &Engine) -> serde_json::Value {
    serde_json::to_value(engine.preflights()).unwrap_or_default()
}

impl Process {
    /// Binds the addresses, opens the store and serves the admin port. Nothing is loaded yet.
    pub(super) async fn start(config: RunConfig) -> Result<Self, AppError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        // Before anything is served or written.
        let types = Arc::new(load_schemas(config.scim_schemas.as_ref())?);
        let stop = CancellationToken::new();
        let signaled = end_on_signals(&stop)?;
        let (scim_listener, scim_address) = listen(config.listen).await?;
        let (admin_listener, admin_address) = listen(config.admin_listen).await?;
        let probe_listener = match config.probe_listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let connections = connections_within_file_limit(config.max_connections);
        let external_url = config.external_url(scim_address);
        let store = Store::open(&config.database.to_string(), clock.clone()).await?;
        store.set_quota(config.quota);
        store.hold_unique(&types).await?;

        let metrics = Arc::new(Metrics::new());
        let readiness = Readiness::default();
        let loaded = readiness.part("loaded");
        let cache = StatusCache::new();
        cache.hide_people(store.pseudonyms().clone());
        super::names::know(store.pseudonyms().clone());
        let endpoint = EndpointParts::new(&config, clock.clone(), external_url.clone()).map_err(AppError::Issuers)?;
        let (known, served) = (endpoint.clone(), endpoint.clone());
        let source = Arc::new(move |name: &ProviderName| seen(name, &known));
        let EndpointParts { tokens, traffic, captures, issuers, resolved, .. } = endpoint;
        let google = google(&config)?.with_metrics(metrics.google.clone());
        let engine = Engine::new(
            EngineConfig { limits: config.guard, ..EngineConfig::new(ceiling(config.mode), config.drift_interval) },
            store.clone(),
            Target::Google(google),
            clock.clone(),
            metrics.engine.clone(),
            cache.clone(),
            source,
        );
        let folder = FolderProgress::default();
        let progress = Progress {
            store: store.clone(),
            engine: engine.clone(),
            clock: clock.clone(),
            folder: config.manifests.is_some().then(|| folder.clone()),
        };
        let (shown, tested, drifted) = (cache.clone(), engine.clone(), engine.clone());
        let admin = Admin {
            metrics: metrics.clone(),
            readiness,
            status: Arc::new(move || statuses(&shown)),
            progress: Arc::new(move || progress.clone().answer().boxed()),
            captures: Arc::new(move |name| served.captured(name)),
            preflights: Arc::new(move || preflights(&tested)),
            drift: Arc::new(move || serde_json::to_value(drifted.drift()).unwrap_or_default()),
        };
        let mut servers = JoinSet::new();
        serve_admin(&mut servers, (admin_listener, probe_listener), admin, &stop);
        Ok(Self {
            config,
            clock,
            store,
            cache,
            engine,
            tokens,
            issuers,
            types,
            resolved,
            external_url,
            loaded,
            stop,
            signaled,
            metrics,
            folder,
            traffic,
            captures,
            servers,
            scim: Some((scim_listener, scim_address)),
            admin_address,
            connections,
        })
    }

    /// The controller of this process. `loaded` is told when the source was read completely.
    pub(super) fn controller(
        &self,
        holds: Holds,
        absent: BTreeSet<MappingKey>,
        loaded: tokio::sync::oneshot::Sender<()>,
    ) -> Controller {
        Controller::new(Settings {
            engine: self.engine.clone(),
            store: self.store.clone(),
            cache: self.cache.clone(),
            clock: self.clock.clone(),
            enforces: self.config.mode == Mode::Enforce,
            metrics: self.metrics.cluster.clone(),
            holds,
            absent,
            loaded,
        })
    }

    /// Starts to serve SCIM.
    pub(super) fn serve_scim(&mut self) {
        let Some((listener, address)) = self.scim.take() else { return };
        let router = scim_server::router(Scim {
            store: self.store.clone(),
            tokens: self.tokens.clone(),
            issuers: self.issuers.clone(),
            traffic: self.traffic.clone(),
            captures: self.captures.clone(),
            external_url: self.external_url.clone(),
            clock: self.clock.clone(),
            types: self.types.clone(),
            limits: Limits {
                requests_per_second: Some(self.config.requests_per_second.max(LEAST_REQUESTS_PER_SECOND)),
                ..Limits::default()
            },
            metrics: self.metrics.scim.clone(),
        });
        let bounds = Bounds::proven(self.connections, self.config.max_connections_per_peer);
        let server = Server { listener, name: "scim", bounds, metrics: self.metrics.http.clone() };
        self.servers.spawn(server.serve(router, self.stop.clone()));
        self.loaded.open();
        let (base, admin) = (&self.external_url, self.admin_address);
        tracing::info!(
            scim_address = %address, admin_address = %admin,
            "SCIM is served at {base}/idp/NAME/scim/v2, status at http://{admin}/status"
        );
    }

    /// True when the process was asked to shut down.
    pub(super) fn is_ending(&self) -> bool {
        self.signaled.load(Ordering::Acquire)
    }

    /// Updates the metric of the event log's position.
    pub(super) async fn count_events(&self) {
        if let Some(seq) = self.store.highest_seq().await.ok().and_then(|seq| usize::try_from(seq).ok()) {
            self.metrics.store.event_seq.set([], seq);
        }
    }

    /// Finishes the requests in progress.
    pub(super) async fn end(&mut self) {
        tracing::info!("shutting down, finishing requests and reconciles in progress");
        self.stop.cancel();
        let servers = &mut self.servers;
        let _ = tokio::time::timeout(GRACE, async { while servers.join_next().await.is_some() {} }).await;
    }

    /// Why the engine stopped although it was not asked to.
    pub(super) async fn why(&self) -> AppError {
        if self.store.is_deposed() {
            AppError::LeadershipLost { leader: successor(&self.store).await }
        } else {
            AppError::EngineEnded
        }
    }
}

/// Description of the process that took over.
async fn successor(store: &Store) -> String {
    match store.leader().await {
        Ok(Some(leader)) => format!("another rolecall ({}, since {})", leader.holder, leader.since),
        Ok(None) | Err(_) => "another rolecall".to_owned(),
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), AppError> {
    let wrong = |source| AppError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(wrong)?;
    let bound = listener.local_addr().map_err(wrong)?;
    Ok((listener, bound))
}

/// Largest number of client connections: as many as requested, if the system lets this process open that many files.
/// The soft limit of the process is raised as far as permitted.
fn connections_within_file_limit(wanted: usize) -> usize {
    let needed = wanted + ADMIN_CONNECTIONS.0 + PROBE_CONNECTIONS.0 + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (needed_files, short) = (needed as u64, |limit: Option<u64>| limit.is_some_and(|limit| limit < needed as u64));
    if !short(current) {
        return wanted;
    }
    let raised = maximum.map_or(needed_files, |maximum| maximum.min(needed_files));
    let files = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(_) => current.unwrap_or(raised),
    };
    if files >= needed_files {
        return wanted;
    }
    let spared = usize::try_from(needed_files - files).unwrap_or(usize::MAX);
    let connections = wanted.saturating_sub(spared).max(MIN_CONNECTIONS);
    tracing::warn!(
        files,
        connections,
        "the system limits this process to {files} open files, so only {connections} connections are accepted instead of {wanted}: raise the limit (ulimit -n)"
    );
    connections
}

fn google(config: &RunConfig) -> Result<CloudRun, AppError> {
    google_client(config.google_endpoint.as_ref(), config.google_credentials)
}

/// The sources of what a status says about the endpoint of a provider.
#[derive(Clone)]
struct EndpointParts {
    tokens: TokenTable,
    traffic: Traffic,
    captures: Captures,
    issuers: Issuers,
    resolved: Arc<Mutex<Resolved>>,
    clock: Arc<dyn Clock>,
    base: String,
    /// None without a cluster.
    namespace: Option<String>,
}

impl EndpointParts {
    fn new(config: &RunConfig, clock: Arc<dyn Clock>, base: String) -> Result<Self, reqwest::Error> {
        install_crypto_provider();
        Ok(Self {
            tokens: TokenTable::new(),
            traffic: Traffic::new(),
            captures: Captures::new(config.max_capture, &base),
            issuers: Issuers::new(config.allow_private_issuers, Vec::new())?,
            resolved: Arc::default(),
            clock,
            base,
            namespace: config.manifests.is_none().then(|| config.namespace.clone()),
        })
    }

    /// What was captured of a provider, as JSON.
    fn captured(&self, name: &str) -> Option<Vec<u8>> {
        self.captures.read(&name.parse().ok()?, &self.tokens, &self.traffic, self.clock.now())
    }
}

fn seen(provider: &ProviderName, endpoint: &EndpointParts) -> ProviderTraffic {
    let EndpointParts { tokens, traffic, captures, issuers, resolved, clock, base, namespace } = endpoint;
    let now = clock.now();
    let seen = traffic.of(provider);
    let shared = tokens.shared().remove(provider).unwrap_or_default();
    let resolved = resolved.lock().unwrap_or_else(PoisonError::into_inner);
    let last_used = |name: &str| seen.tokens_last_used.get(name).copied();
    let mut outcomes: BTreeMap<String, TokenOutcome> = BTreeMap::new();
    let accepted = resolved.accepted.get(provider);
    let credentials: Vec<_> = accepted.into_iter().flat_map(Accepted::credentials).collect();
    for credential in &credentials {
        let name = credential.name.clone();
        let unavailable = credential.issuer.as_ref().is_some_and(|issuer| issuers.is_unavailable(issuer, now));
        let problem = match (shared.contains(&name), unavailable) {
            (true, _) => Some(Reason::TokenShared),
            (false, true) => Some(Reason::IssuerUnavailable),
            (false, false) => None,
        };
        let last_used = last_used(&name);
        let outcome = TokenOutcome { name: name.clone(), not_after: credential.not_after, last_used, problem };
        outcomes.insert(name, outcome);
    }
    for (name, why) in resolved.problems.get(provider).into_iter().flatten() {
        let outcome =
            TokenOutcome { name: name.clone(), not_after: None, last_used: last_used(name), problem: Some(*why) };
        outcomes.insert(name.clone(), outcome);
    }
    let clients = resolved.clients.contains(provider);
    let endless = credentials
        .into_iter()
        // The tokens of an issuer end by themselves.
        .filter(|credential| credential.not_after.is_none() && credential.issuer.is_none());
    let endless = endless.map(|credential| FindingStatus {
        code: FindingCode::TokenWithoutEnd.as_str().to_owned(),
        pointer: credential.pointer,
        hint: FindingCode::TokenWithoutEnd.hint().to_owned(),
        count: 1,
        last_seen: None,
    });
    ProviderTraffic {
        endpoint: format!("{base}/idp/{provider}/scim/v2"),
        token_endpoint: clients.then(|| format!("{base}/idp/{provider}/oauth2/token")),
        tokens: outcomes.into_values().collect(),
        last_request: seen.last_request,
        quota_refused_at: seen.quota_refused_at,
        capture: captures.phase(provider, now).map(|(until, phase)| match phase {
            CapturePhase::Waiting { from } => CaptureOutcome::Waiting { from, until },
            CapturePhase::Running => CaptureOutcome::Running { until },
            CapturePhase::Ended => CaptureOutcome::Ended { until },
        }),
        former: tokens.is_held(provider),
        dialect: (seen.requests > 0).then(|| seen.signs.dialect().as_str().to_owned()),
        operator_namespace: namespace.clone(),
        findings: seen
            .findings
            .iter()
            .map(|(finding, seen)| FindingStatus {
                code: finding.code.as_str().to_owned(),
                pointer: finding.json_pointer(),
                hint: finding.hint(),
                count: i64::try_from(seen.count).unwrap_or(i64::MAX),
                last_seen: Some(Time(seen.last)),
            })
            .chain(endless)
            .collect(),
    }
}

/// Makes SIGTERM and SIGINT cancel `stop`. Returns a flag that is set when one has arrived.
fn end_on_signals(stop: &CancellationToken) -> Result<Arc<AtomicBool>, AppError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Signals)?;
    let signaled = Arc::new(AtomicBool::new(false));
    let (stop, flag) = (stop.clone(), signaled.clone());
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        flag.store(true, Ordering::Release);
        stop.cancel();
    });
    Ok(signaled)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Ready status of a provider whose endpoint answers 503 would be wrong.
    #[test]
    fn the_traffic_of_a_provider_reports_that_its_endpoint_is_held() {
        install_crypto_provider();
        let tokens = TokenTable::new();
        let endpoint = EndpointParts {
            tokens: tokens.clone(),
            traffic: Traffic::new(),
            captures: Captures::new(jiff::SignedDuration::ZERO, ""),
            issuers: Issuers::new(false, Vec::new()).unwrap(),
            resolved: Arc::default(),
            clock: Arc::new(SystemClock),
            base: "http://localhost".to_owned(),
            namespace: None,
        };
        let okta = ProviderName::new("okta").unwrap();
        let former = || seen(&okta, &endpoint).former;
        assert!(!former());
        tokens.hold([okta.clone()].into());
        assert!(former());
        tokens.hold(std::collections::BTreeSet::new());
        assert!(!former());
    }
}
