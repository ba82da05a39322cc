//! `rolecall store prune` and `rolecall store erase` while a rolecall is running.

use serde_json::Value;

use crate::support::*;

const ALICE: &str = "user:alice@example.com";
const BOB: &str = "user:bob@example.com";

/// Runs a command of `rolecall store` on the fixture's database; returns its exit status and its answer as JSON.
async fn store(fixture: &Fixture, arguments: &[&str]) -> (i32, Value) {
    let database = format!("sqlite:{}", fixture.database.display());
    let line: Vec<String> = ["store"]
        .iter()
        .chain(arguments)
        .chain(&["-o", "json", "--database", database.as_str()])
        .map(|text| (*text).to_owned())
        .collect();
    let run = move || Fixture::rolecall(&line.iter().map(String::as_str).collect::<Vec<_>>());
    let (exit, out, err) = tokio::task::spawn_blocking(run).await.expect("a verb");
    let answer = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    (exit, answer)
}

/// The files of the database that contain a text, in any case.
fn files_with(fixture: &Fixture, text: &str) -> Vec<String> {
    let holds = |path: &str| {
        let bytes = std::fs::read(path).unwrap_or_default().to_ascii_lowercase();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    let database = fixture.database.display().to_string();
    ["", "-wal", "-shm"].map(|suffix| format!("{database}{suffix}")).into_iter().filter(|path| holds(path)).collect()
}

#[tokio::test]
async fn erased_and_pruned_store_of_a_running_rolecall_keeps_serving_and_granting_also_over_a_restart() {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice, &bob]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;

    let (exit, answer) = store(&fixture, &["erase", "alice@example.com"]).await;
    assert_eq!((exit, &answer["reason"]), (1, &"PersonNotDeleted".into()), "{answer:#}");
    scim.delete(&format!("/Users/{alice}")).await;
    eventually("erased", async || {
        // Refused until the removal is settled.
        let (exit, answer) = store(&fixture, &["erase", &alice]).await;
        let refused = exit == 1 && answer["reason"] == "PersonHoldsGrants";
        assert!(exit == 0 || refused, "{answer:#}");
        if exit == 0 { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
    fixture.members_become("checkout-api", INVOKER, &[BOB]).await;
    assert_eq!(files_with(&fixture, "alice"), Vec::<String>::new());
    assert!(!files_with(&fixture, "bob@example.com").is_empty());

    // Requests are served meanwhile.
    let requests = async {
        for n in 0..30 {
            let user = scim.create_user(&format!("user{n}@example.com")).await;
            scim.add_members(&group, &[&user]).await;
            scim.remove_member(&group, &user).await;
        }
    };
    let verbs = async {
        for _ in 0..3 {
            let (exit, answer) = store(&fixture, &["prune", "--older-than", "1h", "--vacuum"]).await;
            assert_eq!((exit, &answer["removed"]["events"]), (0, &0.into()), "{answer:#}");
        }
    };
    tokio::join!(requests, verbs);
    fixture.restart().await;
    let carol = scim.create_user("carol@example.com").await;
    scim.add_members(&group, &[&carol]).await;
    fixture.members_become("checkout-api", INVOKER, &[BOB, "user:carol@example.com"]).await;
    fixture.agree().await;
}
