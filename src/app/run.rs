//! `rolecall run`: one process that serves SCIM, follows a folder of manifests and keeps the policies in step.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::folder::Folder;
use super::mirror::{self, Comparison, Mirror, MirrorError};
use super::serve::{Bounds, serve};
use super::tokens::Resolved;
use crate::api::FindingStatus;
use crate::api::condition::reason;
use crate::cli::{Mode, RunConfig};
use crate::engine::{Engine, EngineConfig, ProviderTraffic};
use crate::google::{CloudRun, Credentials, Endpoint, GoogleError};
use crate::http::{self, Limits, Scim, TokenTable, Traffic};
use crate::index::Ceiling;
use crate::model::{Clock, FreezeReason, ProviderName, SystemClock};
use crate::status::{StatusBoard, TokenOutcome};
use crate::store::{Store, StoreError};
use crate::telemetry::{Metrics, Readiness, admin_router};
use crate::watch::folder::PollOptions;

/// How often the folder is looked at, the mirror written and a freeze looked at again.
const TICK: Duration = Duration::from_secs(1);
/// How long the first read of the folder may take before what was in force at the last end is worked with.
const FIRST_READ: Duration = Duration::from_secs(10);
/// How long requests that are under way at the end may take.
const GRACE: Duration = Duration::from_secs(10);

/// Why rolecall did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}: is another rolecall running there?")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The client for Google cannot be set up.
    #[error("cannot set up the client for Google: {0}")]
    Google(#[from] GoogleError),
    /// The endpoint for Google is not one.
    #[error("--google-endpoint: {0}")]
    Endpoint(#[from] crate::google::EndpointError),
    /// There is nowhere to keep what the folder has seen of its store.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// Another process took over the database.
    #[error("{leader} took over the database: only one rolecall works on it at a time, so this one ends")]
    LeadershipLost {
        /// Which, as far as it can be told.
        leader: String,
    },
    /// A part of the engine ended by itself.
    #[error("a part of the engine ended by itself; the log says which and why")]
    EngineEnded,
    /// A signal handler cannot be installed.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
}

impl AppError {
    /// The stable reason word.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "CannotListen",
            Self::Store(error) => error.reason(),
            Self::Google(error) => error.reason(),
            Self::Endpoint(_) => "EndpointInvalid",
            Self::Mirror(error) => error.reason(),
            Self::LeadershipLost { .. } => reason::LEADERSHIP_LOST,
            Self::EngineEnded => "EngineEnded",
            Self::Signals(_) => "NoSignals",
        }
    }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`AppError`], when it cannot start.
pub async fn run(config: RunConfig) -> Result<(), AppError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let (scim_listener, scim_address) = listen(config.listen).await?;
    let (admin_listener, admin_address) = listen(config.admin_listen).await?;
    let external_url = config.external_url(scim_address);
    let store = Store::open(&config.database.to_string(), clock.clone()).await?;
    // From here on a rolecall that was started before this one on the same database can write nothing any more.
    let epoch = store.begin_epoch(&format!("process {} at {external_url}", std::process::id())).await?;
    tracing::info!(%epoch, "this process took over the database");

    let metrics = Arc::new(Metrics::new());
    let readiness = Readiness::default();
    let loaded = readiness.part("loaded");
    let board = StatusBoard::new();
    let stop = CancellationToken::new();
    let mut servers = JoinSet::new();
    {
        let board = board.clone();
        let status = Arc::new(move || {
            let items = board.list().items;
            items.into_iter().filter_map(|item| serde_json::to_value(item).ok()).collect()
        });
        let router = admin_router(metrics.clone(), readiness.clone(), status);
        servers.spawn(serve(admin_listener, router, Bounds::default(), stop.clone()));
    }

    let tokens = TokenTable::new();
    let traffic = Traffic::new();
    let problems: Arc<Mutex<Resolved>> = Arc::default();
    let source = {
        let (tokens, traffic, problems, base) =
            (tokens.clone(), traffic.clone(), problems.clone(), external_url.clone());
        Arc::new(move |provider: &ProviderName| seen(provider, &tokens, &traffic, &problems, &base))
    };
    let google = google(&config)?.with_metrics(metrics.google.clone());
    let ceiling = match config.mode {
        Mode::Observe => Ceiling::Observe,
        Mode::Enforce => Ceiling::Enforce,
    };
    let engine = Engine::new(
        EngineConfig::new(ceiling, config.drift_interval),
        store.clone(),
        google,
        clock.clone(),
        metrics.engine.clone(),
        board,
        source,
    );

    let specs = engine.restore().await?;
    let seq = engine.load_directory().await?;
    let mirror_path = mirror::mirror_path(&config.manifests)?;
    let frozen = compare(&mirror_path, &store).await?;
    let found = mirror::read(&mirror_path).ok().flatten();
    let (folder, known) = Folder::new(
        engine.clone(),
        store.clone(),
        clock.clone(),
        config.namespace.clone(),
        tokens.clone(),
        problems,
        &specs,
    );
    let (first, read) = oneshot::channel();
    let options = PollOptions::new(config.manifests.clone(), config.namespace.clone());
    let following = tokio::spawn(folder.follow(options, known, first, stop.clone()));
    if tokio::time::timeout(FIRST_READ, read).await.is_err() {
        tracing::warn!("the manifest folder could not be read completely yet; what was in force before stays in force");
    }
    let mut memory = Memory::default();
    if frozen.is_none() {
        // Before the first write to Google: from here on another database would be noticed.
        remember(&store, &mirror_path, &mut memory).await;
    }
    engine.freeze(frozen).await?;

    let router = http::router(Scim {
        store: store.clone(),
        tokens,
        traffic,
        external_url: external_url.clone(),
        clock: clock.clone(),
        limits: Limits::default(),
        metrics: metrics.scim.clone(),
    });
    servers.spawn(serve(scim_listener, router, Bounds::default(), stop.clone()));
    let worker = tokio::spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move { engine.run(seq, stop).await }
    });
    loaded.open();
    tracing::info!(%scim_address, %admin_address, "SCIM is served at {external_url}/idp/NAME/scim/v2, status at http://{admin_address}/status");

    let mut signals = Signals::new()?;
    let mut broken = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = signals.received() => break,
            // The engine stopped by itself and said why. Ending is what gets it started again.
            () = stop.cancelled() => {
                broken = true;
                break;
            }
        }
        // So that who has nothing to write hears of it too. The engine ends when it is so.
        if let Err(error) = store.check_epoch().await {
            tracing::warn!(reason = error.reason(), "{error}");
        }
        if let Some(reason) = engine.frozen() {
            match thaw(&engine, &mirror_path, found, &store).await {
                Ok(true) => tracing::warn!(reason = reason.reason(), "the store was accepted; the freeze is lifted"),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(reason = error.reason(), "cannot look whether the store was accepted: {error}");
                }
            }
        }
        if engine.frozen().is_none() {
            remember(&store, &mirror_path, &mut memory).await;
        }
        if let Some(seq) = store.highest_seq().await.ok().and_then(|seq| usize::try_from(seq).ok()) {
            metrics.store.event_seq.set([], seq);
        }
    }
    tracing::info!("ending: requests and passes under way are finished");
    stop.cancel();
    let _ = tokio::time::timeout(GRACE, async { while servers.join_next().await.is_some() {} }).await;
    for task in [worker, following] {
        if let Err(error) = task.await {
            tracing::error!(%error, "a task ended badly");
        }
    }
    if engine.frozen().is_none() {
        remember(&store, &mirror_path, &mut memory).await;
    }
    match broken {
        false => Ok(()),
        true if store.is_deposed() => Err(AppError::LeadershipLost { leader: successor(&store).await }),
        true => Err(AppError::EngineEnded),
    }
}

/// Who took over, in words.
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

fn google(config: &RunConfig) -> Result<CloudRun, AppError> {
    let endpoint = match &config.google_endpoint {
        Some(url) => url.as_str().parse::<Endpoint>()?,
        None => Endpoint::default(),
    };
    let credentials = match config.google_credentials {
        crate::cli::CredentialsKind::Adc => Credentials::Adc,
        crate::cli::CredentialsKind::None => Credentials::None,
    };
    Ok(CloudRun::new(endpoint, credentials)?)
}

/// Compares the store with what the folder has seen of it.
async fn compare(path: &std::path::Path, store: &Store) -> Result<Option<FreezeReason>, AppError> {
    let seen = match mirror::read(path) {
        Ok(seen) => seen,
        Err(error @ MirrorError::Malformed { .. }) => {
            tracing::error!(reason = error.reason(), "{error}");
            return Ok(Some(FreezeReason::StoreMismatch));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(match mirror::compare(seen.as_ref(), &mirror::of(store).await?) {
        Comparison::Match => None,
        Comparison::Mismatch => Some(FreezeReason::StoreMismatch),
        Comparison::Rewound => Some(FreezeReason::StoreRewound),
    })
}

/// Lifts the freeze when somebody accepted the store. That it matches is not enough: a store that was behind what was
/// `found` at the start catches up with it when the IdP pushes, and still lacks what it lacks.
async fn thaw(engine: &Engine, path: &std::path::Path, found: Option<Mirror>, store: &Store) -> Result<bool, AppError> {
    let written = mirror::read(path).ok().flatten() != found;
    let accepted = written && compare(path, store).await?.is_none();
    if accepted {
        engine.freeze(None).await?;
    }
    Ok(accepted)
}

/// What was written to the mirror, and why the last attempt failed, which is said once.
#[derive(Default)]
struct Memory {
    written: Option<Mirror>,
    trouble: Option<String>,
}

impl Memory {
    /// Takes in how an attempt went; answers what is new about it.
    fn note(&mut self, now: Mirror, outcome: Result<(), MirrorError>) -> Option<Result<(), MirrorError>> {
        match outcome {
            Ok(()) => {
                self.written = Some(now);
                self.trouble.take().map(|_| Ok(()))
            }
            Err(error) => {
                let text = error.to_string();
                (self.trouble.replace(text.clone()) != Some(text)).then_some(Err(error))
            }
        }
    }
}

/// Writes down how far the store is, so that an older copy of it is known as one.
async fn remember(store: &Store, path: &std::path::Path, memory: &mut Memory) {
    let Ok(now) = mirror::of(store).await else { return };
    if memory.written == Some(now) {
        return;
    }
    match memory.note(now, mirror::write(path, &now)) {
        None => {}
        Some(Ok(())) => tracing::info!(path = %path.display(), "how far the store is can be written down again"),
        Some(Err(error)) => tracing::warn!(
            reason = error.reason(),
            "{error}; as long as that is so, an older database would not be noticed"
        ),
    }
}

fn seen(
    provider: &ProviderName,
    tokens: &TokenTable,
    traffic: &Traffic,
    resolved: &Mutex<Resolved>,
    base: &str,
) -> ProviderTraffic {
    let seen = traffic.of(provider);
    let shared = tokens.shared().remove(provider).unwrap_or_default();
    let resolved = resolved.lock().unwrap_or_else(PoisonError::into_inner);
    let last_used = |name: &str| seen.tokens_last_used.get(name).copied();
    let mut outcomes: BTreeMap<&str, TokenOutcome> = BTreeMap::new();
    for token in resolved.accepted.get(provider).into_iter().flatten() {
        let problem = shared.contains(&token.name).then_some(reason::TOKEN_SHARED);
        let outcome = TokenOutcome {
            name: token.name.clone(),
            not_after: token.not_after,
            last_used: last_used(&token.name),
            problem,
        };
        outcomes.insert(&token.name, outcome);
    }
    for (name, why) in resolved.problems.get(provider).into_iter().flatten() {
        let outcome =
            TokenOutcome { name: name.clone(), not_after: None, last_used: last_used(name), problem: Some(why) };
        outcomes.insert(name, outcome);
    }
    ProviderTraffic {
        endpoint: format!("{base}/idp/{provider}/scim/v2"),
        tokens: outcomes.into_values().collect(),
        last_request: seen.last_request,
        dialect: None,
        findings: seen
            .findings
            .iter()
            .map(|(finding, count)| FindingStatus {
                code: finding.code.as_str().to_owned(),
                pointer: finding.pointer.clone(),
                hint: finding.code.hint().to_owned(),
                count: i64::try_from(*count).unwrap_or(i64::MAX),
            })
            .collect(),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, AppError> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(AppError::Signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(AppError::Signals)?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_that_cannot_be_written_is_said_once_and_again_when_it_can() {
        let now = Mirror { store_id: uuid::Uuid::from_u128(1), highest_seq: 1, highest_audit_seq: 1 };
        let refused = || mirror::write(std::path::Path::new("/nonexistent/.a.rolecall-store.json"), &now);
        let mut memory = Memory::default();
        assert!(memory.note(now, Ok(())).is_none());
        assert!(matches!(memory.note(now, refused()), Some(Err(_))));
        assert!(memory.note(now, refused()).is_none());
        assert!(matches!(memory.note(now, Ok(())), Some(Ok(()))));
        assert!(memory.note(now, Ok(())).is_none());
    }
}
