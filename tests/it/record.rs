//! The record: the audit against the calls that Google received.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::database::{AuditRow, Database, Grant, folded};
use crate::support::*;

/// Role and member of every binding.
fn members(policy: &Value) -> BTreeSet<Grant> {
    let bindings = policy["bindings"].as_array().cloned().unwrap_or_default();
    let names = bindings.iter().flat_map(|binding| {
        let role = binding["role"].as_str().unwrap_or_default();
        let members = binding["members"].as_array().into_iter().flatten().filter_map(Value::as_str);
        members.map(move |member| (role.to_owned(), folded(member))).collect::<Vec<_>>()
    });
    names.collect()
}

#[expect(clippy::too_many_lines, reason = "one story, checked against every row")]
#[tokio::test]
async fn each_write_that_google_committed_is_in_the_audit_with_its_etag_and_was_intended_before() {
    let mut manifests = base();
    manifests
        .push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-*"], &[INVOKER, VIEWER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    // A conflict, a refusal and a lost answer are among the calls. The lost answer is tested without foreign edits: a
    // call that meets a conflict has no answer to lose.
    let calls = [
        json!({"match": {"path": "checkout-web:setIamPolicy", "nth": 2}, "action": {"type": "error", "status": 409}}),
        json!({"match": {"path": "checkout-api:setIamPolicy", "nth": 3}, "action": {"type": "drop", "when": "after"}}),
        json!({"match": {"path": "checkout-web:setIamPolicy", "nth": 4}, "action": {"type": "error", "status": 403}}),
    ];
    for fault in calls {
        fixture.fault(fault).await;
    }
    let group = scim.create_group("team-checkout", &[]).await;
    let mut wanted = BTreeSet::new();
    for i in 0..6 {
        let user = scim.create_user(&format!("user{i}@example.com")).await;
        scim.add_members(&group, &[&user]).await;
        wanted.insert(format!("user:user{i}@example.com"));
        if i % 3 == 1 {
            scim.set_active(&user, false).await;
            wanted.remove(&format!("user:user{i}@example.com"));
        }
        // Each of them is written before the next arrives, however slow that is.
        let all: Vec<&str> = wanted.iter().map(String::as_str).collect();
        for (service, role) in [("checkout-api", INVOKER), ("checkout-web", VIEWER)] {
            fixture.members_become(service, role, &all).await;
        }
        // A foreign edit through the control API, which the journal of calls omits.
        let name = "policies/projects/shop-dev/locations/europe-west1/services/checkout-web";
        let add = json!({"add": {"role": INVOKER, "member": format!("user:stranger{i}@elsewhere.example")}});
        fixture.emulator.control("POST", name, &add).expect("a stranger's edit");
    }
    let all: Vec<&str> = wanted.iter().map(String::as_str).collect();
    for (service, role) in [("checkout-api", INVOKER), ("checkout-api", VIEWER), ("checkout-web", VIEWER)] {
        fixture.members_become(service, role, &all).await;
    }
    fixture
        .mapping_status("checkout/team", "at rest", |s| has(s, "Ready", "True", "") && s["grants"]["pending"] == 0)
        .await;
    fixture.shutdown().await;

    let rows = Database::open(&fixture.database).audit();
    let of_calls = |row: &&AuditRow| matches!(row.action.as_str(), "grant" | "revoke") && row.grant.is_some();
    let (mut committed, mut proofs) = (BTreeSet::new(), 0);
    for call in fixture.emulator.journal().iter().filter(|call| call.committed && call.path.contains(":setIamPolicy")) {
        let service = call.resource.clone().expect("a resource");
        let document = format!("run:{service}");
        let (before, after) = (call.before().expect("before"), call.after().expect("after"));
        let (sent, etag) =
            (call.json().expect("a body")["policy"]["etag"].clone(), after["etag"].as_str().expect("an etag"));
        let sent = sent.as_str().expect("never without an etag");
        committed.insert((document.clone(), etag.to_owned()));
        let rows_of = |action: &str, fits: &dyn Fn(&AuditRow) -> bool| -> BTreeSet<Grant> {
            let rows = rows.iter().filter(of_calls).filter(|row| {
                row.document.as_ref() == Some(&document)
                    && row.action == action
                    && row.etag_before.as_deref() == Some(sent)
                    && fits(row)
            });
            rows.filter_map(|row| row.grant.clone()).collect()
        };
        let (had, has) = (members(&before), members(&after));
        let (came, went) = (&has - &had, &had - &has);
        if came.is_empty() && went.is_empty() {
            proofs += 1;
        }
        for (action, changed) in [("grant", came), ("revoke", went)] {
            let intended = rows_of(action, &|row| row.outcome == "intended" && row.at <= call.time);
            assert!(changed.is_subset(&intended), "{document}: {action} {changed:?} was not intended: {intended:?}");
            // The next read shows the outcome of a call whose answer was lost; somebody else may have written in
            // between.
            let settled = rows_of(action, &|row| match row.outcome.as_str() {
                "acknowledged" => row.etag_after.as_deref() == Some(etag),
                "ambiguous" => call.fault.is_some(),
                _ => false,
            });
            assert_eq!(settled, changed, "{document}: {action} at {etag} (fault {:?})", call.fault);
        }
    }
    assert!(committed.len() >= 6, "{committed:?}");
    assert!(proofs <= 1, "only after the lost answer a write without a difference has to tell what was done: {proofs}");
    // Conversely, every write that the audit calls acknowledged was committed by Google.
    for row in rows.iter().filter(of_calls).filter(|row| row.outcome == "acknowledged") {
        let key = (row.document.clone().expect("a document"), row.etag_after.clone().expect("an etag"));
        assert!(committed.contains(&key), "acknowledged and never committed: {row:?}");
    }
    let outcomes: BTreeSet<&str> = rows.iter().filter(of_calls).map(|row| row.outcome.as_str()).collect();
    for outcome in ["intended", "acknowledged", "failed", "refused", "ambiguous"] {
        assert!(outcomes.contains(outcome), "{outcome} is not among {outcomes:?}");
    }
}

#[tokio::test]
async fn intent_is_on_the_disk_while_google_is_still_deciding() {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    fixture
        .fault(
            json!({"match": {"path": ":setIamPolicy", "count": 1}, "action": {"type": "latency", "latencyMs": 3000}}),
        )
        .await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    let database = Database::open(&fixture.database);
    let intent = eventually("an intent", async || {
        database.ledger().into_iter().find_map(|row| row.intent).ok_or_else(|| "none".to_owned())
    })
    .await;
    assert!(!fixture.policy("checkout-api").await.contains_key(INVOKER), "Google has not decided yet");
    assert_eq!(intent.action, "grant");
    assert!(!intent.present_before);
    let rows = database.audit();
    let intended = rows.iter().find(|row| row.outcome == "intended").expect("an audit row");
    assert_eq!(intended.etag_before.as_deref(), Some(intent.etag_before.as_str()));
    drop(database);
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.agree().await;
}
