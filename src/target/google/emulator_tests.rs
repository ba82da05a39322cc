//! The client of Google alone, against the emulator over HTTP.

use std::time::Duration;

use crate::model::{DocumentKey, ResourceKind};
use crate::target::google::{Binding, CloudRun, Credentials, Endpoint, GoogleError, Policy};
use crate::target::{ErrorClass, RefusalCause};
use rolecall_emulator::Emulator;
use serde_json::{Value, json};

const PROJECT: &str = "shop";
const LOCATION: &str = "europe-west1";

async fn google() -> (Emulator, CloudRun) {
    let emulator = rolecall_emulator::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let endpoint: Endpoint = emulator.url().parse().unwrap();
    let client = CloudRun::new(endpoint, Credentials::None).unwrap();
    (emulator, client)
}

fn document(kind: ResourceKind, name: &str) -> DocumentKey {
    DocumentKey::cloud_run(PROJECT, LOCATION, kind, name).unwrap()
}

fn create(emulator: &Emulator, document: &DocumentKey, fields: Value) {
    let mut resource = fields;
    resource["name"] = json!(document.resource());
    emulator.control("POST", "resources", &resource).unwrap();
}

/// An emulator with one service, and its key.
async fn one_service() -> (Emulator, CloudRun, DocumentKey) {
    let (emulator, client) = google().await;
    let service = document(ResourceKind::Service, "api");
    create(&emulator, &service, json!({}));
    (emulator, client, service)
}

fn grant(policy: &mut Policy, member: &str) {
    policy.bindings.push(Binding::new("roles/run.invoker".to_owned(), vec![member.to_owned()], None));
}

fn holds(policy: &Policy, member: &str) -> bool {
    policy.bindings.iter().any(|binding| binding.members.iter().any(|one| one == member))
}

fn fault(emulator: &Emulator, matching: &Value, action: &Value) {
    emulator.control("POST", "faults", &json!({"match": matching, "action": action})).unwrap();
}

#[tokio::test]
async fn google_client_reads_and_writes_the_policy_of_every_kind() {
    let (emulator, client) = google().await;
    for kind in [ResourceKind::Service, ResourceKind::Job, ResourceKind::WorkerPool] {
        let document = document(kind, "x");
        create(&emulator, &document, json!({}));
        let mut policy = client.policy(&document).await.unwrap();
        assert_eq!((policy.etag.as_str(), policy.bindings.len()), ("ACAB", 0), "{document}");
        grant(&mut policy, "user:a@example.com");
        let written = client.set_policy(&document, &policy).await.unwrap();
        assert_ne!(written.etag, policy.etag);
        let read = client.policy(&document).await.unwrap();
        assert_eq!(read, written);
        assert!(holds(&read, "user:a@example.com"), "{document}");
        let mut emptied = read;
        emptied.bindings.clear();
        client.set_policy(&document, &emptied).await.unwrap();
        assert!(client.policy(&document).await.unwrap().bindings.is_empty(), "{document}");
    }
}

#[tokio::test]
async fn google_client_lists_all_pages_of_all_kinds_with_labels_and_uids() {
    let (emulator, client) = google().await;
    emulator.control("PATCH", "settings", &json!({"pageSize": 4})).unwrap();
    for number in 0..11 {
        create(&emulator, &document(ResourceKind::Service, &format!("s{number}")), json!({"labels": {"n": "1"}}));
    }
    create(&emulator, &document(ResourceKind::Service, "open"), json!({"invokerIamDisabled": true}));
    create(&emulator, &document(ResourceKind::Job, "j"), json!({}));
    create(&emulator, &document(ResourceKind::WorkerPool, "w"), json!({}));
    let found = client.resources(PROJECT, LOCATION).await;
    assert!(found.is_complete(), "{found:?}");
    assert_eq!(found.items.len(), 14);
    let services = client.services(PROJECT, LOCATION).await.unwrap();
    assert_eq!(services.items.len(), 12);
    assert!(services.items.iter().all(|item| !item.uid.is_empty()));
    assert_eq!(services.items.iter().filter(|item| item.labels.contains_key("n")).count(), 11);
    let open: Vec<_> = services.items.iter().filter(|item| item.invoker_iam_disabled).collect();
    assert_eq!(open.iter().map(|item| item.document.name()).collect::<Vec<_>>(), ["open"]);
    assert!(emulator.count("GET", "/services") >= 6, "three pages, twice");
}

#[tokio::test]
async fn google_client_reports_a_list_that_fails_half_way_instead_of_a_short_one() {
    let (emulator, client) = google().await;
    emulator.control("PATCH", "settings", &json!({"pageSize": 2})).unwrap();
    for number in 0..5 {
        create(&emulator, &document(ResourceKind::Service, &format!("s{number}")), json!({}));
    }
    fault(&emulator, &json!({"path": "/services", "nth": 2}), &json!({"type": "error", "status": 503}));
    assert_eq!(client.services(PROJECT, LOCATION).await.unwrap_err().class(), ErrorClass::Retry);
    assert_eq!(client.services(PROJECT, LOCATION).await.unwrap().items.len(), 5);
}

#[tokio::test]
async fn google_client_gets_a_conflict_when_somebody_else_wrote_first() {
    let (_emulator, client, service) = one_service().await;
    let mut ours = client.policy(&service).await.unwrap();
    let mut theirs = ours.clone();
    grant(&mut theirs, "user:them@example.com");
    client.set_policy(&service, &theirs).await.unwrap();
    grant(&mut ours, "user:us@example.com");
    assert_eq!(client.set_policy(&service, &ours).await, Err(GoogleError::Conflict));
    let after = client.policy(&service).await.unwrap();
    assert!(holds(&after, "user:them@example.com") && !holds(&after, "user:us@example.com"));
}

#[tokio::test]
async fn google_client_tells_a_spent_quota_in_both_forms() {
    let (emulator, client, service) = one_service().await;
    for status in [429, 403] {
        emulator.control("PUT", "quota", &json!({"reads": 1, "status": status, "retryAfter": 9})).unwrap();
        client.policy(&service).await.unwrap();
        let error = client.policy(&service).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Throttle, "{status}: {error:?}");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(9)), "{status}");
    }
}

#[tokio::test]
async fn google_client_does_not_know_the_outcome_when_the_answer_is_lost_after_the_commit() {
    let (emulator, client, service) = one_service().await;
    let lost = [
        json!({"type": "drop", "when": "after"}),
        json!({"type": "error", "status": 503, "when": "after"}),
        json!({"type": "html", "status": 502, "when": "after"}),
        json!({"type": "malformed", "when": "after"}),
    ];
    for (number, action) in lost.into_iter().enumerate() {
        let member = format!("user:u{number}@example.com");
        let mut policy = client.policy(&service).await.unwrap();
        grant(&mut policy, &member);
        fault(&emulator, &json!({"path": ":setIamPolicy", "count": 1}), &action);
        let error = client.set_policy(&service, &policy).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unknown, "{action}: {error:?}");
        assert!(holds(&client.policy(&service).await.unwrap(), &member), "{action}");
    }
    assert_eq!(emulator.count("POST", ":setIamPolicy"), 4, "no write was sent twice");
}

#[tokio::test]
async fn google_client_does_not_know_the_outcome_either_when_nothing_was_committed() {
    let (emulator, client, service) = one_service().await;
    let mut policy = client.policy(&service).await.unwrap();
    grant(&mut policy, "user:a@example.com");
    for action in [json!({"type": "drop"}), json!({"type": "error", "status": 503})] {
        fault(&emulator, &json!({"path": ":setIamPolicy", "count": 1}), &action);
        let error = client.set_policy(&service, &policy).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unknown, "{action}: {error:?}");
    }
    assert_eq!(client.policy(&service).await.unwrap().etag, policy.etag);
}

#[tokio::test]
async fn google_client_names_the_member_that_google_refuses_as_the_policy_spells_it() {
    let (emulator, client, service) = one_service().await;
    emulator.control("PUT", "directory", &json!({"mode": "strict", "users": ["known@example.com"]})).unwrap();
    let mut policy = client.policy(&service).await.unwrap();
    grant(&mut policy, "user:known@example.com");
    grant(&mut policy, "user:Gone@Example.com");
    let error = client.set_policy(&service, &policy).await.unwrap_err();
    let GoogleError::Refused { cause: RefusalCause::PrincipalUnknown, member, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(member.as_deref(), Some("user:Gone@Example.com"));
    assert_eq!(error.class(), ErrorClass::Definitive);
}

#[tokio::test]
async fn google_client_reports_not_found_only_when_google_does() {
    let (emulator, client, service) = one_service().await;
    let missing = document(ResourceKind::Service, "nowhere");
    assert_eq!(client.policy(&missing).await.unwrap_err().reason().word(), "ResourceNotFound");
    fault(&emulator, &json!({"path": ":getIamPolicy", "count": 1}), &json!({"type": "html", "status": 404}));
    assert_eq!(client.policy(&service).await.unwrap_err().class(), ErrorClass::Retry);
}
