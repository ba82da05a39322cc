//! Grants with a condition, and grants that end at a time (`notAfter`).

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde_json::json;

use crate::common::database::Database;
use crate::support::*;

const EXPIRY: &str = "roles/run.invoker if rolecall-not-after";

fn with(mut manifests: Vec<(&'static str, String)>, file: &'static str, text: String) -> Vec<(&'static str, String)> {
    manifests.push((file, text));
    manifests
}

/// `spec.grants[0].notAfter` this long from now, to the second.
fn ends_in(seconds: i64) -> (jiff::Timestamp, String) {
    let end = now() + SignedDuration::from_secs(seconds);
    let end = jiff::Timestamp::from_second(end.as_second()).expect("a time");
    (end, format!("      notAfter: \"{end}\"\n"))
}

fn team(terms: &str) -> String {
    mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], terms)
}

/// Alice and bob in `team-checkout`, which a mapping with these terms makes invokers.
async fn checkout(terms: &str) -> (Fixture, Scim) {
    let mut fixture = Fixture::prepare(&with(base(), "mapping.yaml", team(terms))).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    scim.create_group("team-checkout", &[&alice, &bob]).await;
    (fixture, scim)
}

const BOTH: [&str; 2] = ["user:alice@example.com", "user:bob@example.com"];

#[tokio::test]
async fn a_grant_ends_within_a_second_and_says_so() {
    let (end, terms) = ends_in(8);
    let (fixture, _) = checkout(&terms).await;
    fixture.members_become("checkout-api", EXPIRY, &BOTH).await;
    let raw = fixture.raw_policy("checkout-api").await;
    assert_eq!(raw["version"], 3);
    let expression = format!("request.time < timestamp(\"{end}\")");
    assert_eq!(raw["bindings"][0]["condition"]["expression"], json!(expression));
    fixture
        .mapping_status("checkout/team", "the next end", |s| {
            s["nextEnd"] == json!(end.to_string()) && s["grants"]["acknowledged"] == 2 && s["grants"]["ended"] == 0
        })
        .await;
    let left = Duration::try_from(end.duration_since(now())).expect("it has not ended");
    tokio::time::sleep(left).await;
    let ended = Instant::now();
    fixture.members_become("checkout-api", EXPIRY, &[]).await;
    assert!(ended.elapsed() < Duration::from_millis(1500), "{:?}", ended.elapsed());
    fixture
        .mapping_status("checkout/team", "ended", |s| {
            s["grants"]["ended"] == 2
                && s["grants"]["desired"] == 0
                && s.get("nextEnd").is_none()
                && says(s, "Ready", "True", "Converged", "the `notAfter` of 2 grants has passed")
        })
        .await;
    let database = Database::open(&fixture.database);
    let sql =
        "SELECT group_concat(DISTINCT actor || ' ' || reason || ' ' || outcome) FROM audit WHERE action = 'revoke'";
    assert_eq!(database.text(sql, []), "expiry Expired intended,expiry Expired acknowledged");

    // A later end grants again.
    let (_, later) = ends_in(3600);
    fixture.write("mapping.yaml", &team(&later));
    fixture.members_become("checkout-api", EXPIRY, &BOTH).await;
}

#[tokio::test]
async fn what_ended_while_no_process_ran_goes_first_and_does_not_come_back_with_a_clock_set_back() {
    let (end, terms) = ends_in(6);
    let (mut fixture, _) = checkout(&terms).await;
    fixture.members_become("checkout-api", EXPIRY, &BOTH).await;
    fixture.kill();
    let left = Duration::try_from(end.duration_since(now())).unwrap_or_default();
    tokio::time::sleep(left).await;
    fixture.members_are("checkout-api", EXPIRY, &BOTH).await;
    fixture.run().await;
    fixture.members_become("checkout-api", EXPIRY, &[]).await;
    fixture.progress().settled().await;
    let writes = fixture.emulator_writes("checkout-api");

    // The clock now shows a time before the end, or so it seems: grants ended half an hour in the future.
    fixture.kill();
    let ahead = now() + SignedDuration::from_mins(30);
    let set = "UPDATE meta SET value = ?1 WHERE key = 'ended_at'";
    assert_eq!(Database::open(&fixture.database).change(set, [ahead.to_string()]), 1);
    let (_, terms) = ends_in(1200);
    fixture.write("mapping.yaml", &team(&terms));
    fixture.run().await;
    fixture.mapping_status("checkout/team", "ended", |s| s["grants"]["ended"] == 2).await;
    fixture.progress().settled_and_read().await;
    assert_eq!(fixture.emulator_writes("checkout-api"), writes, "nothing comes back");

    // A clock that went back by days was wrong before.
    fixture.kill();
    let far = now() + SignedDuration::from_hours(72);
    Database::open(&fixture.database).change(set, [far.to_string()]);
    fixture.run().await;
    fixture.members_become("checkout-api", EXPIRY, &BOTH).await;
}

#[tokio::test]
async fn an_edited_end_or_condition_moves_the_grants_in_one_write() {
    let (_, terms) = ends_in(3600);
    let (fixture, _) = checkout("").await;
    fixture.members_become("checkout-api", INVOKER, &BOTH).await;
    fixture.progress().settled().await;
    for (terms, role) in [
        (terms.as_str(), EXPIRY),
        ("      condition: {title: day, expression: \"request.time.getHours() < 18\"}\n", "roles/run.invoker if day"),
        ("", INVOKER),
    ] {
        let before = fixture.emulator_writes("checkout-api");
        fixture.write("mapping.yaml", &team(terms));
        fixture.members_become("checkout-api", role, &BOTH).await;
        fixture.progress().settled().await;
        assert_eq!(fixture.policy("checkout-api").await.len(), 1, "the former grants went in the same write");
        assert_eq!(fixture.emulator_writes("checkout-api"), before + 1);
    }
    let database = Database::open(&fixture.database);
    let sql = "SELECT group_concat(DISTINCT reason) FROM audit WHERE action = 'revoke' AND outcome = 'acknowledged'";
    assert_eq!(database.text(sql, []), "Moved");
}

#[tokio::test]
async fn a_condition_that_google_refuses_is_named_on_its_mapping_and_blocks_nobody() {
    let bad = "      condition: {title: broken, expression: \"request.time <\"}\n";
    let other = mapping("other", "team-checkout", &["services/checkout-api"], &[VIEWER], "");
    let manifests = with(with(base(), "mapping.yaml", team(bad)), "other.yaml", other);
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", VIEWER, &["user:alice@example.com"]).await;
    fixture
        .mapping_status("checkout/team", "the refused condition", |s| {
            says(s, "Ready", "False", "ConditionRefused", "the condition `broken`")
                && has(s, "Stalled", "True", "ConditionRefused")
        })
        .await;
    fixture.mapping_status("checkout/other", "Ready", |s| has(s, "Ready", "True", "")).await;
    let bob = scim.create_user("bob@example.com").await;
    scim.add_members(&group, &[&bob]).await;
    fixture.members_become("checkout-api", VIEWER, &BOTH).await;
    let writes = fixture.emulator_writes("checkout-api");
    fixture.progress().settled_and_read().await;
    assert_eq!(fixture.emulator_writes("checkout-api"), writes, "it is not sent again and again");

    fixture
        .write("mapping.yaml", &team("      condition: {title: day, expression: \"request.time.getHours() < 18\"}\n"));
    fixture.members_become("checkout-api", "roles/run.invoker if day", &BOTH).await;

    // A refused edit leaves what stands, and says so.
    fixture.write("mapping.yaml", &team(bad));
    fixture
        .mapping_status("checkout/team", "the former grants stay", |s| {
            has(s, "Ready", "False", "RevocationPending") && s["grants"]["revoking"] == 2 && s["grants"]["failed"] == 2
        })
        .await;
    fixture.members_are("checkout-api", "roles/run.invoker if day", &BOTH).await;
    scim.remove_member(&group, &bob).await;
    fixture.members_become("checkout-api", "roles/run.invoker if day", &["user:alice@example.com"]).await;
    fixture.write("mapping.yaml", &team(""));
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.members_become("checkout-api", "roles/run.invoker if day", &[]).await;
}

#[tokio::test]
async fn conditional_bindings_of_others_stay_and_a_changed_condition_is_drift() {
    let terms = "      condition: {title: day, expression: \"request.time.getHours() < 18\"}\n";
    let mut fixture = Fixture::prepare(&with(base(), "mapping.yaml", team(terms))).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    let theirs = json!({
        "role": INVOKER,
        "members": ["user:eve@elsewhere.example", "user:alice@example.com"],
        "condition": {"expression": "resource.name == \"x\"", "title": "theirs", "description": "by hand", "location": "a file"},
    });
    fixture.edit_policy("checkout-api", |bindings| bindings.push(theirs.clone())).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    let role = "roles/run.invoker if day";
    fixture.members_become("checkout-api", role, &["user:alice@example.com"]).await;
    let bindings = fixture.raw_policy("checkout-api").await["bindings"].clone();
    assert_eq!(bindings[0], theirs);

    fixture
        .edit_policy("checkout-api", |bindings| {
            bindings[1]["condition"]["expression"] = json!("request.time.getHours() < 24");
        })
        .await;
    fixture
        .mapping_status("checkout/team", "reverted", |s| {
            s["drift"]["reverted"] == 1 && has(s, "Drifted", "True", "Reverted")
        })
        .await;
    fixture.progress().settled().await;
    let bindings = fixture.raw_policy("checkout-api").await["bindings"].clone();
    let expressions: Vec<_> =
        bindings.as_array().expect("bindings").iter().map(|b| &b["condition"]["expression"]).collect();
    assert_eq!(expressions.len(), 3, "the changed binding is somebody else's: {bindings}");
    assert!(expressions.contains(&&json!("request.time.getHours() < 18")), "{bindings}");
}

#[tokio::test]
async fn jobs_take_no_conditions_so_rolecall_alone_ends_their_grants() {
    let target = target(&["services/*", "jobs/*"], &[INVOKER, VIEWER]);
    let (end, terms) = ends_in(6);
    let conditional = "      condition: {title: day, expression: \"request.time.getHours() < 18\"}\n";
    let on =
        |name: &str, terms: &str| mapping(name, "team-checkout", &["jobs/nightly", "services/api"], &[INVOKER], terms);
    let manifests = [
        ("provider.yaml", provider("okta", TOKEN)),
        ("target.yaml", target),
        ("ending.yaml", on("ending", &terms)),
        ("conditional.yaml", on("conditional", conditional)),
    ];
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["api"]).await;
    let jobs = format!("{}/v2/projects/shop-dev/locations/europe-west1/jobs", fixture.google.url);
    let body = json!({"template": {"template": {"containers": [{"image": "example/image"}]}}});
    let made = fixture.http.post(format!("{jobs}?jobId=nightly")).json(&body).send().await.expect("a job");
    assert!(made.status().is_success());
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    let policy = async || {
        let policy = fixture.http.get(format!("{jobs}/nightly:getIamPolicy")).send().await.expect("a policy");
        policy.json::<serde_json::Value>().await.expect("a policy")["bindings"].clone()
    };
    eventually("a grant without condition", async || {
        let bindings = policy().await;
        if bindings == json!([{"role": INVOKER, "members": ["user:alice@example.com"]}]) {
            Ok(())
        } else {
            Err(bindings.to_string())
        }
    })
    .await;
    fixture.members_become("api", "roles/run.invoker if day", &["user:alice@example.com"]).await;
    fixture
        .mapping_status("checkout/conditional", "refused on the job", |s| {
            says(s, "Accepted", "False", "ConditionNotSupported", "jobs/nightly")
                && s["refused"][0]["reason"] == "ConditionNotSupported"
                && has(s, "Ready", "True", "")
                && s["grants"]["acknowledged"] == 1
        })
        .await;
    let left = Duration::try_from(end.duration_since(now())).unwrap_or_default();
    tokio::time::sleep(left).await;
    eventually("the end", async || {
        let bindings = policy().await;
        if bindings.is_null() { Ok(()) } else { Err(bindings.to_string()) }
    })
    .await;
}
