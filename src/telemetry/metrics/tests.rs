//! Tests of the metrics.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;

#[test]
fn server_errors_are_told_by_the_first_digit_of_their_label() {
    for code in [500, 501, 503, 507] {
        assert!(code_word(code).starts_with('5'), "{code}");
    }
}

#[test]
fn every_metric_is_exposed_under_the_name_and_type_that_the_reference_gives() {
    let metrics = Metrics::new();
    let Metrics { scim, http, cluster, engine, google, .. } = &metrics;
    scim.failed_authentications.inc("okta");
    for gauges in [&engine.providers.token_expiry_seconds, &engine.providers.silence_seconds, &engine.providers.stale] {
        gauges.replace("okta", &BTreeMap::from([("a".to_owned(), 1)]));
    }
    http.connections.set(["a"], 1);
    for labelled in [&scim.requests, &google.requests, &http.connections_closed] {
        labelled.inc(["a", "b"]);
    }
    for labelled in [&engine.syncs, &engine.members, &cluster.watch_failures, &cluster.status_writes] {
        labelled.inc(["a"]);
    }
    for labelled in
        [&engine.documents, &engine.held_members, &engine.drift_members, &engine.drift, &engine.paced_regions]
    {
        labelled.set(["a"], 1);
    }
    for labelled in [&scim.request_seconds, &engine.propagation_seconds, &google.request_seconds] {
        labelled.observe(["a"], Duration::ZERO);
    }
    let text = metrics.exposition().unwrap();
    let typed: BTreeSet<String> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(str::to_owned).collect();
    let defined: BTreeSet<String> = metrics
        .definitions()
        .iter()
        .map(|one| format!("{} {}", one.name.trim_end_matches("_total"), one.kind))
        .collect();
    assert_eq!(typed, defined);
    assert!(metrics.definitions().iter().all(|one| one.name.starts_with("rolecall_")));
}

#[test]
fn values_are_exposed_with_their_labels() {
    let metrics = Metrics::new();
    metrics.google.requests.add(["setIamPolicy", "EtagConflict"], 2);
    metrics.engine.queue.set([], 7);
    metrics.google.request_seconds.observe(["list"], Duration::from_millis(3));
    let text = metrics.exposition().unwrap();
    for line in [
        r#"rolecall_google_requests_total{operation="setIamPolicy",outcome="EtagConflict"} 2"#,
        "rolecall_engine_queue_documents{} 7",
        r#"rolecall_google_request_seconds_bucket{le="0.0025",operation="list"} 0"#,
        r#"rolecall_google_request_seconds_bucket{le="0.005",operation="list"} 1"#,
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is missing in\n{text}");
    }
}

#[test]
fn the_series_of_a_token_that_was_removed_ends() {
    let metrics = Metrics::new();
    let expiry = &metrics.engine.providers.token_expiry_seconds;
    expiry.replace("okta", &BTreeMap::from([("a".to_owned(), 7), ("b".to_owned(), -7)]));
    expiry.replace("entra", &BTreeMap::from([("a".to_owned(), 9)]));
    let series = |provider: &str, token: &str| {
        format!("rolecall_provider_token_expiry_seconds{{identity_provider=\"{provider}\",token=\"{token}\"}}")
    };
    let text = metrics.exposition().unwrap();
    assert!(text.contains(&format!("{} 7\n", series("okta", "a"))), "{text}");
    assert!(text.contains(&format!("{} -7\n", series("okta", "b"))), "{text}");
    expiry.replace("okta", &BTreeMap::from([("b".to_owned(), -8)]));
    let text = metrics.exposition().unwrap();
    assert!(!text.contains(&series("okta", "a")), "{text}");
    expiry.replace("okta", &BTreeMap::new());
    let text = metrics.exposition().unwrap();
    assert!(!text.contains("okta") && text.contains(&series("entra", "a")), "{text}");
}

#[test]
fn the_reference_page_in_docs_is_what_is_registered() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/metrics.md");
    let page = Metrics::new().reference();
    if std::env::vars().any(|(key, value)| key == "UPDATE_GOLDEN" && value == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == page,
        "docs/reference/metrics.md is stale: run UPDATE_GOLDEN=1 cargo test --lib telemetry::metrics"
    );
}
