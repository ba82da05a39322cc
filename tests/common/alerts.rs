//! The series that the chart's alerts query. The chart test compares the list with the rules rendered by Helm, the
//! integration test with the metrics exported by a running rolecall.

/// Name of the metric, and the label that selects a series of it, with its value.
pub(crate) type Series = (&'static str, Option<(&'static str, &'static str)>);

/// The series that rolecall itself exports, without those of Prometheus.
pub(crate) const ASKED_FOR: [Series; 13] = [
    ("rolecall_engine_held_members", Some(("action", "remove"))),
    ("rolecall_engine_held_members", Some(("action", "leaver"))),
    ("rolecall_engine_documents", Some(("state", "Frozen"))),
    ("rolecall_engine_frozen_mappings", None),
    ("rolecall_engine_documents", Some(("state", "Failed"))),
    ("rolecall_google_requests_total", Some(("outcome", "PermissionDenied"))),
    ("rolecall_engine_drift_members", Some(("kind", "lost"))),
    ("rolecall_store_event_seq", None),
    ("rolecall_engine_event_seq", None),
    ("rolecall_engine_propagation_seconds_bucket", Some(("change", "revocation"))),
    ("rolecall_provider_token_expiry_seconds", None),
    ("rolecall_provider_stale", None),
    ("rolecall_cluster_status_writes_total", Some(("outcome", "Refused"))),
];

/// The sum of a series in an answer of `/metrics`; none when it is not exported.
pub(crate) fn value_of(exposition: &str, (name, label): Series) -> Option<f64> {
    let chosen = label.map(|(label, value)| format!("{label}=\"{value}\""));
    let values: Vec<f64> = exposition
        .lines()
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, labels) = series.split_once('{').unwrap_or((series, ""));
            let chosen = chosen.as_ref().is_none_or(|chosen| labels.contains(chosen.as_str()));
            (found == name && chosen).then(|| value.parse().ok())?
        })
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}
