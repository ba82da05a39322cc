//! Limits on what a tenant can make the server store, answer and load.

use serde_json::json;

use crate::common::database::Database;
use crate::support::{Fixture, INVOKER, TOKEN, base, condition, eventually, has, mapping};

/// Largest number of bytes of a page, plus a margin: one resource, and what the server adds to each.
const PAGE: usize = 8 * 1024 * 1024 + 1024 * 1024;

/// Peak memory of the process so far, in bytes.
fn peak(fixture: &Fixture) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", fixture.process())).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[tokio::test]
async fn a_restart_and_lists_take_memory_for_pages_and_not_for_what_is_stored() {
    /// SQLite's page caches: 64 MiB for the writer, and 8 MiB for each of four readers.
    const CACHES: u64 = 96 * 1024 * 1024;
    const USERS: usize = 60;
    const NAME: usize = 700_000;
    let mut fixture = Fixture::start(&base()).await;
    let empty = peak(&fixture);
    let idp = fixture.scim("okta", TOKEN);
    for index in 0..USERS {
        let name = format!("{index}-long");
        let body = json!({"userName": name, "emails": [{"value": name, "type": "work", "primary": true}]});
        let (status, answer) = idp.send(reqwest::Method::POST, "/Users", Some(body)).await;
        assert_eq!(status, 201, "{answer}");
    }
    fixture.shutdown().await;
    // As a version without limits stored them.
    let database = Database::open(&fixture.database);
    let (short, long) = ("-long", "x".repeat(NAME));
    for (table, columns) in [
        ("users", &["user_name", "user_name_fold", "emails", "resource"][..]),
        ("user_emails", &["value_fold"]),
        ("events", &["change"]),
    ] {
        for column in columns {
            let sql = format!("UPDATE {table} SET {column} = replace({column}, ?1, ?2)");
            assert_eq!(database.change(&sql, [short, &long]), USERS, "{table}");
        }
    }
    drop(database);
    fixture.run().await;
    let started = peak(&fixture);
    assert!(started < empty + CACHES, "empty {empty}, with {USERS} users of {NAME} bytes {started}");
    let client = reqwest::Client::new();
    let lists = (0..8).map(|_| async {
        let url = format!("{}/idp/okta/scim/v2/Users?count=60", fixture.scim_url);
        let answer = client.get(url).bearer_auth(TOKEN).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        answer.bytes().await.expect("a body").len()
    });
    let lengths = futures::future::join_all(lists).await;
    assert!(lengths.iter().all(|length| (1_000_000..PAGE).contains(length)), "{lengths:?}");
    let listed = peak(&fixture);
    assert!(
        listed < empty + CACHES + 8 * 3 * PAGE as u64,
        "empty {empty}, started {started}, after eight lists at once {listed}"
    );
    println!(
        "measured: {USERS} users of {} kB: {} MB more at the start, {} MB more with eight lists",
        NAME / 1000,
        (started - empty) >> 20,
        (listed - started) >> 20
    );
}

#[tokio::test]
async fn a_used_up_quota_is_a_condition_of_the_provider_and_leavers_still_lose_access() {
    let mut manifests = base();
    manifests.push(("team.yaml", mapping("team", "team", &["services/web"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["web"]).await;
    fixture.more = vec![("--max-rows-per-provider", "5".to_owned())];
    fixture.run().await;
    let idp = fixture.scim("okta", TOKEN);
    let (alice, bob) = (idp.create_user("alice@example.com").await, idp.create_user("bob@example.com").await);
    idp.create_group("team", &[&alice, &bob]).await;
    fixture.members_become("web", INVOKER, &["user:alice@example.com", "user:bob@example.com"]).await;
    let (status, refusal) =
        idp.send(reqwest::Method::POST, "/Users", Some(json!({"userName": "carol@example.com"}))).await;
    assert_eq!((status, &refusal["status"]), (507, &json!("507")), "{refusal}");
    eventually("the condition", async || {
        let status = fixture.status("IdentityProvider", "okta").await;
        let exceeded = has(&status, "QuotaExceeded", "True", "QuotaExceeded");
        if exceeded && has(&status, "Ready", "False", "QuotaExceeded") { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
    idp.set_active(&bob, false).await;
    fixture.members_become("web", INVOKER, &["user:alice@example.com"]).await;
    idp.delete(&format!("/Users/{bob}")).await;
    eventually("room again", async || {
        let (status, answer) =
            idp.send(reqwest::Method::POST, "/Users", Some(json!({"userName": "carol@example.com"}))).await;
        if status == 201 { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
    idp.delete(&format!("/Users/{alice}")).await;
    eventually("no condition any more", async || {
        let status = fixture.status("IdentityProvider", "okta").await;
        if condition(&status, "QuotaExceeded").is_null() { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
}
