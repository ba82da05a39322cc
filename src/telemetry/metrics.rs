//! The metrics of all modules, registered in one place. The reference page is generated from what was registered.
//!
//! Label values are `&'static str`, so that a name typed by a user or sent by an IdP cannot become one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The prefix of every name.
const PREFIX: &str = "rolecall";

/// Buckets in seconds, from a fast SQL statement to a call that times out.
const CALL_SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Buckets in seconds, from a directory event to Google's acknowledgement: the goal is milliseconds, an exceeded quota
/// takes minutes, the guard takes hours.
const PROPAGATION_SECONDS: [f64; 12] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0];

/// The label with the name of an `IdentityProvider`.
const PROVIDER_LABEL: &str = "identity_provider";

/// The label with the name of a token of an `IdentityProvider`.
const TOKEN_LABEL: &str = "token";

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// One metric in the reference page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    /// The full name, with prefix and with the suffix `_total` of counters.
    pub(crate) name: String,
    /// `counter`, `gauge` or `histogram`.
    pub(crate) kind: &'static str,
    /// The names of the labels.
    pub(crate) labels: Vec<&'static str>,
    /// The measured quantity and its unit.
    pub(crate) help: &'static str,
}

/// Counters with labels.
#[derive(Debug, Clone)]
pub(crate) struct Counters<const N: usize> {
    names: [&'static str; N],
    family: Family<Labels<N>, Counter>,
}

impl<const N: usize> Counters<N> {
    /// Increments by one, with these label values in the order of the reference.
    pub(crate) fn inc(&self, values: [&'static str; N]) {
        self.add(values, 1);
    }

    /// Exposes these label values from the start, as zero, so that Prometheus sees the first event as an increase.
    fn known<const M: usize>(self, values: [[&'static str; N]; M]) -> Self {
        for values in values {
            self.add(values, 0);
        }
        self
    }

    /// Increments by `by`.
    pub(crate) fn add(&self, values: [&'static str; N], by: u64) {
        self.family.get_or_create(&pair(self.names, values)).inc_by(by);
    }
}

/// Counters by identity provider. The names are those of `IdentityProvider` objects, never taken from a request.
#[derive(Debug, Clone)]
pub(crate) struct ProviderCounters {
    family: Family<[(&'static str, String); 1], Counter>,
}

impl ProviderCounters {
    /// Increments the counter of this provider by one.
    pub(crate) fn inc(&self, provider: &str) {
        self.family.get_or_create(&[(PROVIDER_LABEL, provider.to_owned())]).inc();
    }
}

/// Gauges by identity provider, and by token where the metric has that label. Both names are those of `IdentityProvider`
/// objects, never taken from a request.
#[derive(Debug, Clone)]
pub(crate) struct ProviderGauges {
    by_token: bool,
    family: Family<Vec<(&'static str, String)>, Gauge>,
    exposed: Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>,
}

impl ProviderGauges {
    /// Replaces the values of this provider, by token; the token is empty where the metric has no such label.
    pub(crate) fn replace(&self, provider: &str, values: &BTreeMap<String, i64>) {
        let mut exposed = self.exposed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = exposed.insert(provider.to_owned(), values.keys().cloned().collect()).unwrap_or_default();
        if values.is_empty() {
            exposed.remove(provider);
        }
        for token in before.iter().filter(|token| !values.contains_key(*token)) {
            self.family.remove(&self.labels(provider, token));
        }
        for (token, value) in values {
            self.family.get_or_create(&self.labels(provider, token)).set(*value);
        }
    }

    fn labels(&self, provider: &str, token: &str) -> Vec<(&'static str, String)> {
        let token = self.by_token.then(|| (TOKEN_LABEL, token.to_owned()));
        [(PROVIDER_LABEL, provider.to_owned())].into_iter().chain(token).collect()
    }
}

/// Gauges with labels.
#[derive(Debug, Clone)]
pub(crate) struct Gauges<const N: usize> {
    names: [&'static str; N],
    family: Family<Labels<N>, Gauge>,
}

impl<const N: usize> Gauges<N> {
    /// Sets the current value for these label values.
    pub(crate) fn set(&self, values: [&'static str; N], to: usize) {
        self.family.get_or_create(&pair(self.names, values)).set(i64::try_from(to).unwrap_or(i64::MAX));
    }
}

/// Histograms of durations, with labels.
#[derive(Debug, Clone)]
pub(crate) struct Histograms<const N: usize> {
    names: [&'static str; N],
    family: Family<Labels<N>, Histogram, fn() -> Histogram>,
}

impl<const N: usize> Histograms<N> {
    /// Exposes these label values from the start, without observations.
    fn known<const M: usize>(self, values: [[&'static str; N]; M]) -> Self {
        for values in values {
            drop(self.family.get_or_create(&pair(self.names, values)));
        }
        self
    }

    /// Records one duration.
    pub(crate) fn observe(&self, values: [&'static str; N], took: Duration) {
        self.family.get_or_create(&pair(self.names, values)).observe(took.as_secs_f64());
    }
}

/// Exposes a metric without labels from the start, as zero.
fn start<const N: usize, M: Clone, C: MetricConstructor<M>>(
    family: &Family<Labels<N>, M, C>,
    names: [&'static str; N],
) {
    if names.is_empty() {
        drop(family.get_or_create(&pair(names, names)));
    }
}

fn pair<const N: usize>(names: [&'static str; N], values: [&'static str; N]) -> Labels<N> {
    std::array::from_fn(|i| (names[i], values[i]))
}

/// Registers the metrics of one area after the other and records their definitions.
struct Areas {
    registry: Registry,
    definitions: Vec<Definition>,
    area: &'static str,
}

impl Areas {
    /// Starts a new area for the metrics registered next.
    fn begin(&mut self, area: &'static str) -> &mut Self {
        self.area = area;
        self
    }

    fn define(&mut self, kind: &'static str, what: &str, labels: &[&'static str], help: &'static str) -> String {
        let name = format!("{}_{what}", self.area);
        let suffix = if kind == "counter" { "_total" } else { "" };
        self.definitions.push(Definition {
            name: format!("{PREFIX}_{name}{suffix}"),
            kind,
            labels: labels.to_vec(),
            help,
        });
        name
    }

    /// Registers counters. `what` is the name without the suffix `_total`.
    fn counters<const N: usize>(&mut self, what: &str, names: [&'static str; N], help: &'static str) -> Counters<N> {
        let name = self.define("counter", what, &names, help);
        let family = Family::default();
        self.registry.register(name, help, family.clone());
        start(&family, names);
        Counters { names, family }
    }

    /// Registers counters by provider. `what` is the name without the suffix `_total`.
    fn provider_counters(&mut self, what: &str, help: &'static str) -> ProviderCounters {
        let name = self.define("counter", what, &[PROVIDER_LABEL], help);
        let family = Family::default();
        self.registry.register(name, help, family.clone());
        ProviderCounters { family }
    }

    fn provider_gauges(&mut self, what: &str, by_token: bool, help: &'static str) -> ProviderGauges {
        let labels = [PROVIDER_LABEL, TOKEN_LABEL];
        let name = self.define("gauge", what, if by_token { &labels } else { &labels[..1] }, help);
        let family = Family::default();
        self.registry.register(name, help, family.clone());
        ProviderGauges { by_token, family, exposed: Arc::default() }
    }

    fn gauges<const N: usize>(&mut self, what: &str, names: [&'static str; N], help: &'static str) -> Gauges<N> {
        let name = self.define("gauge", what, &names, help);
        let family = Family::default();
        self.registry.register(name, help, family.clone());
        start(&family, names);
        Gauges { names, family }
    }

    fn histograms<const N: usize>(
        &mut self,
        what: &str,
        names: [&'static str; N],
        help: &'static str,
        new: fn() -> Histogram,
    ) -> Histograms<N> {
        let name = self.define("histogram", what, &names, help);
        let family = Family::new_with_constructor(new);
        self.registry.register(name, help, family.clone());
        start(&family, names);
        Histograms { names, family }
    }
}

fn call_seconds() -> Histogram {
    Histogram::new(CALL_SECONDS)
}

fn propagation_seconds() -> Histogram {
    Histogram::new(PROPAGATION_SECONDS)
}

/// Metrics of the SCIM endpoint.
#[derive(Debug, Clone)]
pub(crate) struct ScimMetrics {
    /// By operation and HTTP status ([`code_word`]).
    pub(crate) requests: Counters<2>,
    /// By operation.
    pub(crate) request_seconds: Histograms<1>,
    /// Requests without an accepted token, by provider.
    pub(crate) failed_authentications: ProviderCounters,
}

/// Metrics of the listeners.
#[derive(Debug, Clone)]
pub(crate) struct HttpMetrics {
    /// Open connections, by listener.
    pub(crate) connections: Gauges<1>,
    /// Connections that the server closed, by listener and reason.
    pub(crate) connections_closed: Counters<2>,
}

/// Metrics of the cluster connection.
#[derive(Debug, Clone)]
pub(crate) struct ClusterMetrics {
    /// 1 while this process is the leader.
    pub(crate) leader: Gauges<0>,
    /// Failures of watches, by resource.
    pub(crate) watch_failures: Counters<1>,
    /// Writes of statuses, by outcome.
    pub(crate) status_writes: Counters<1>,
}

/// Metrics of the store.
#[derive(Debug, Clone)]
pub(crate) struct StoreMetrics {
    /// Highest sequence number.
    pub(crate) event_seq: Gauges<0>,
}

/// Metrics of the identity providers.
#[derive(Debug, Clone)]
pub(crate) struct ProviderMetrics {
    /// Seconds until the end of each token.
    pub(crate) token_expiry_seconds: ProviderGauges,
    /// Seconds since the last authenticated request.
    pub(crate) silence_seconds: ProviderGauges,
    /// 1 while the silence is longer than `staleAfter`.
    pub(crate) stale: ProviderGauges,
}

/// Metrics of the engine: documents, plans, drift, and the providers whose statuses it publishes.
#[derive(Debug, Clone)]
pub(crate) struct EngineMetrics {
    /// The identity providers.
    pub(crate) providers: ProviderMetrics,
    /// Documents by state.
    pub(crate) documents: Gauges<1>,
    /// Mappings whose condition `Frozen` is true.
    pub(crate) frozen_mappings: Gauges<0>,
    /// Documents that are due or waiting.
    pub(crate) queue: Gauges<0>,
    /// Projects and regions whose calls are paced, by kind of call.
    pub(crate) paced_regions: Gauges<1>,
    /// Documents that are due and wait for the quota of writes.
    pub(crate) paced_documents: Gauges<0>,
    /// Finished reconciles of documents, by outcome.
    pub(crate) syncs: Counters<1>,
    /// Members written, by action.
    pub(crate) members: Counters<1>,
    /// Members held by the guard, by action.
    pub(crate) held_members: Gauges<1>,
    /// Members of a deleted mapping whose finalizer was removed before they could be revoked.
    pub(crate) orphaned_members: Gauges<0>,
    /// Members that deviate from what is wanted, by kind of drift.
    pub(crate) drift_members: Gauges<1>,
    /// Reported differences by kind.
    pub(crate) drift: Gauges<1>,
    /// Documents with little room.
    pub(crate) nearly_full: Gauges<0>,
    /// The largest used share of a limit.
    pub(crate) fullest: Gauges<0>,
    /// The last directory event that the engine has processed.
    pub(crate) event_seq: Gauges<0>,
    /// Time from directory event to acknowledgement, by kind of change.
    pub(crate) propagation_seconds: Histograms<1>,
}

/// Metrics of calls to Google.
#[derive(Debug, Clone)]
pub(crate) struct GoogleMetrics {
    /// By operation and outcome: `ok` or the reason of the error.
    pub(crate) requests: Counters<2>,
    /// By operation.
    pub(crate) request_seconds: Histograms<1>,
}

/// All metrics of the process. Each module receives its own part, which it may clone.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    definitions: Vec<Definition>,
    /// The SCIM endpoint.
    pub(crate) scim: ScimMetrics,
    /// The listeners.
    pub(crate) http: HttpMetrics,
    /// The store.
    pub(crate) store: StoreMetrics,
    /// The cluster connection.
    pub(crate) cluster: ClusterMetrics,
    /// The engine.
    pub(crate) engine: EngineMetrics,
    /// Calls to Google.
    pub(crate) google: GoogleMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers all metrics.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "the list of all metrics")]
    pub(crate) fn new() -> Self {
        let mut areas = Areas { registry: Registry::with_prefix(PREFIX), definitions: Vec::new(), area: "" };
        let scim = {
            let area = areas.begin("scim");
            ScimMetrics {
                requests: area.counters(
                    "requests",
                    ["operation", "code"],
                    "Answered SCIM requests, by operation and HTTP status",
                ),
                request_seconds: area.histograms(
                    "request_seconds",
                    ["operation"],
                    "Seconds from the request to its answer",
                    call_seconds,
                ),
                failed_authentications: area.provider_counters(
                    "failed_authentications",
                    "SCIM requests without an accepted token, by the IdentityProvider in the path; `(unknown)` when there is none of that name",
                ),
            }
        };
        let http = {
            let area = areas.begin("http");
            HttpMetrics {
                connections: area.gauges("connections", ["listener"], "Open connections, by listener: `scim`, `admin`, `probe`"),
                connections_closed: area.counters(
                    "connections_closed",
                    ["listener", "reason"],
                    "Connections that the server refused or closed, by listener and reason: `PeerLimit` and `Limit` (refused), `Displaced` (closed for another one while it waited for its client), `HeadTimeout`, `IdleTimeout`, `WriteTimeout`",
                ),
            }
        };
        let store = {
            let area = areas.begin("store");
            StoreMetrics {
                event_seq: area.gauges(
                    "event_seq",
                    [],
                    "Highest position of the sequence shared by the event log and the history",
                ),
            }
        };
        let cluster = {
            let area = areas.begin("cluster");
            ClusterMetrics {
                leader: area.gauges(
                    "leader",
                    [],
                    "1 while this process is the leader and reconciles the policies",
                ),
                watch_failures: area.counters(
                    "watch_failures",
                    ["resource"],
                    "Failures of watches on the API server, by resource; each is retried",
                ),
                status_writes: area.counters(
                    "status_writes",
                    ["outcome"],
                    "Writes of statuses to the API server, by outcome: `Written`, `Refused` (as malformed; a minimal status is written instead), `Failed`",
                ).known([["Written"], ["Refused"], ["Failed"]]),
            }
        };
        let providers = {
            let area = areas.begin("provider");
            ProviderMetrics {
                token_expiry_seconds: area.provider_gauges(
                    "token_expiry_seconds",
                    true,
                    "Seconds until the `notAfter` of each token, negative after it; no series for a token without `notAfter`",
                ),
                silence_seconds: area.provider_gauges(
                    "silence_seconds",
                    false,
                    "Seconds since the last authenticated request of the IdP; since the IdentityProvider was created when there was none",
                ),
                stale: area.provider_gauges(
                    "stale",
                    false,
                    "1 while that is longer than `staleAfter`, otherwise 0; no series without `staleAfter`",
                ),
            }
        };
        let engine = {
            let area = areas.begin("engine");
            EngineMetrics {
                providers,
                documents: area.gauges(
                    "documents",
                    ["state"],
                    "Policy documents by state: `InSync`, `Pending`, `Drifted`, `Held`, `Frozen`, `Failed`",
                ),
                frozen_mappings: area.gauges(
                    "frozen_mappings",
                    [],
                    "Mappings that are frozen at least in part: suspended, or with claims whose ground is unknown",
                ),
                queue: area.gauges("queue_documents", [], "Policy documents that are due or scheduled"),
                paced_regions: area.gauges(
                    "paced_regions",
                    ["calls"],
                    "Projects and regions whose quota Google reported as spent within ten minutes, so that calls are paced, by kind of call: `reads`, `writes`",
                ),
                paced_documents: area.gauges(
                    "paced_documents",
                    [],
                    "Policy documents that are due to be written and wait for the quota of their project and region",
                ),
                syncs: area.counters(
                    "syncs",
                    ["outcome"],
                    "Reconciles of policy documents, by outcome: `Unchanged`, `Written` or the reason of the failure",
                ),
                members: area.counters(
                    "members",
                    ["action"],
                    "Members added to or removed from policies and acknowledged by Google, by action: `add`, `remove`",
                ).known([["add"], ["remove"]]),
                held_members: area.gauges(
                    "held_members",
                    ["action"],
                    "Members whose change the guard holds, by action: `remove`, and of these `leaver`, for people who have left",
                ),
                orphaned_members: area.gauges(
                    "abandoned_members",
                    [],
                    "Members of a deleted mapping whose finalizer was removed before they could be revoked; revocation is still being retried",
                ),
                drift_members: area.gauges(
                    "drift_members",
                    ["kind"],
                    "Members that somebody else changed, by kind: `lost` (granted by rolecall, missing), `foreign` (neither granted nor wanted), `unowned` (wanted, granted by somebody else), `contested` (granted again several times within minutes)",
                ),
                drift: area.gauges(
                    "drift",
                    ["type"],
                    "Reported differences between policies and what is wanted, by type: `PublicPrincipal`, `LeaverHasForeignGrant`, `GrantMissing`, `ConditionChanged`, `TargetRecreated`, `GrantRemains`, `GrantUnexpected`, `Tombstone`, `InvokerCheckDisabled`",
                ),
                nearly_full: area.gauges("nearly_full_documents", [], "Policy documents in which little room is left"),
                fullest: area.gauges(
                    "fullest_document_percent",
                    [],
                    "Percentage that the fullest policy document has of Google's limits on principals, and on groups and domains",
                ),
                event_seq: area.gauges("event_seq", [], "Last position of that sequence that the engine has processed"),
                propagation_seconds: area.histograms(
                    "propagation_seconds",
                    ["change"],
                    "Seconds from a directory event to Google's acknowledgement, by change: `addition`, `revocation`",
                    propagation_seconds,
                ).known([["addition"], ["revocation"]]),
            }
        };
        let google = {
            let area = areas.begin("google");
            GoogleMetrics {
                requests: area.counters(
                    "requests",
                    ["operation", "outcome"],
                    "Calls to Google, by operation (`list`, `get`, `getIamPolicy`, `setIamPolicy`) and outcome: `ok` or the reason of the error",
                ).known(["list", "getIamPolicy", "setIamPolicy"].map(|operation| [operation, "PermissionDenied"])),
                request_seconds: area.histograms(
                    "request_seconds",
                    ["operation"],
                    "Seconds from a call to Google to its answer or failure",
                    call_seconds,
                ),
            }
        };
        let Areas { registry, definitions, area: _ } = areas;
        Self { registry, definitions, scim, http, store, cluster, engine, google }
    }

    /// All metrics in the `OpenMetrics` text format.
    ///
    /// # Errors
    /// When the encoder cannot write into memory, which does not happen.
    pub(crate) fn exposition(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// The definitions of all metrics, in the order of the reference.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "prints the reference page, which a test compares with the stored one")
    )]
    #[must_use]
    pub(crate) fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// The reference page: name, type, labels and meaning of each metric, as Markdown.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "prints the reference page, which a test compares with the stored one")
    )]
    #[must_use]
    pub(crate) fn reference(&self) -> String {
        let mut page = String::from(
            "# Metrics\n\n\
             Served at `/metrics` on the admin port, in the OpenMetrics text format. No label ever holds the name of a \
             person, a group or a resource at Google; `identity_provider` holds that of an IdentityProvider, and `token` that of one \
             of its tokens.\n\n\
             | name | type | labels | what it says |\n|---|---|---|---|\n",
        );
        for Definition { name, kind, labels, help } in &self.definitions {
            let labels = if labels.is_empty() { "–".to_owned() } else { format!("`{}`", labels.join("`, `")) };
            // Writing into a String cannot fail.
            let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {help} |");
        }
        page
    }
}

/// An HTTP status as a label value.
#[must_use]
pub(crate) fn code_word(code: u16) -> &'static str {
    match code {
        200 => "200",
        201 => "201",
        204 => "204",
        304 => "304",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        412 => "412",
        413 => "413",
        415 => "415",
        429 => "429",
        500 => "500",
        501 => "501",
        503 => "503",
        507 => "507",
        _ => "other",
    }
}

#[cfg(test)]
mod tests;
