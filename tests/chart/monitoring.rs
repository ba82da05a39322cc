//! Objects for the Prometheus operator.

use super::*;

#[test]
fn the_service_monitor_selects_the_admin_service_alone() {
    let objects = render(json!({ "serviceMonitor": { "enabled": true, "labels": { "release": "prometheus" } } }));
    let monitor = one(&objects, "ServiceMonitor");
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], "admin");
    assert_eq!(monitor["spec"]["endpoints"][0]["path"], "/metrics");
    let selector = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    let selected: Vec<_> = of_kind(&objects, "Service")
        .into_iter()
        .filter(|service| selector.iter().all(|(label, value)| service["metadata"]["labels"].get(label) == Some(value)))
        .map(|service| service["metadata"]["name"].clone())
        .collect();
    assert_eq!(selected, ["rolecall-admin"]);
}

fn alerts() -> Vec<Value> {
    let objects = render(everything());
    one(&objects, "PrometheusRule")["spec"]["groups"][0]["rules"].as_array().unwrap().clone()
}

#[test]
fn alerts_ask_for_metrics_that_there_are() {
    let page = read("docs/reference/metrics.md");
    let mut asked = 0;
    for alert in alerts() {
        let expression = alert["expr"].as_str().unwrap();
        for (at, _) in expression.match_indices("rolecall_") {
            let name = expression[at..].split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap();
            let name = name.strip_suffix("_bucket").unwrap_or(name);
            let Some(row) = page.lines().find(|line| line.starts_with(&format!("| `{name}` |"))) else {
                panic!("{}: no metric `{name}`", alert["alert"]);
            };
            let labels = expression[at..].split_once('{').unwrap().1.split_once('}').unwrap().0;
            for label in labels.split(',').map(|label| label.split(['=', '!']).next().unwrap()) {
                assert!(
                    ["job", "namespace"].contains(&label) || row.contains(&format!("`{label}`")),
                    "{name}: {label}"
                );
            }
            asked += 1;
        }
        assert!(expression.contains("job=\"rolecall-admin\",namespace=\"rolecall-system\""), "{expression}");
    }
    assert!(asked >= 8, "{asked}");
}

/// Each series in a rule, as name, label and value, without the labels set by the chart: job and namespace.
fn asked_for() -> BTreeSet<(String, Option<(String, String)>)> {
    let mut asked = BTreeSet::new();
    for alert in alerts() {
        let expression = alert["expr"].as_str().unwrap();
        for (at, _) in expression.match_indices("rolecall_") {
            let (name, rest) = expression[at..].split_once('{').unwrap();
            let labels = rest.split_once('}').unwrap().0;
            let own: Vec<_> = labels
                .split(',')
                .map(|label| label.trim().split_once('=').unwrap())
                .filter(|(label, _)| !["job", "namespace"].contains(label))
                .map(|(label, value)| (label.to_owned(), value.trim_matches(['~', '"']).to_owned()))
                .collect();
            assert!(own.len() <= 1, "{expression}");
            asked.insert((name.trim().to_owned(), own.into_iter().next()));
        }
    }
    asked
}

#[test]
fn alerts_ask_for_series_that_rolecall_exports() {
    let page = read("docs/reference/metrics.md");
    let mut left: BTreeSet<_> = alerts_asked::ASKED_FOR
        .into_iter()
        .map(|(name, label)| (name.to_owned(), label.map(|(label, value)| (label.to_owned(), value.to_owned()))))
        .collect();
    for series in asked_for() {
        if series == ("rolecall_scim_requests_total".to_owned(), Some(("code".to_owned(), "5..".to_owned()))) {
            continue;
        }
        assert!(left.remove(&series), "{series:?}: no test shows that a running rolecall exports it");
        let name = series.0.trim_end_matches("_bucket");
        assert!(page.lines().any(|line| line.starts_with(&format!("| `{name}` |"))), "{name}");
    }
    assert!(left.is_empty(), "no alert asks for {left:?}");
}

#[test]
fn alerts_lead_to_a_heading_of_the_runbook_and_say_what_it_means() {
    let headings: BTreeSet<String> = read("docs/runbook.md")
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
        .collect();
    for alert in alerts() {
        let link = alert["annotations"]["runbook_url"].as_str().unwrap();
        if let Some((_, anchor)) = link.split_once('#') {
            assert!(headings.contains(anchor), "{}: the runbook has no heading `{anchor}`", alert["alert"]);
        }
        for field in ["summary", "description"] {
            assert!(alert["annotations"][field].as_str().unwrap().len() > 20, "{alert}");
        }
        assert!(["critical", "warning"].contains(&alert["labels"]["severity"].as_str().unwrap()));
    }
}
