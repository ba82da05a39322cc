//! Fixtures shared by several tests.

use std::time::Duration;

use super::fixture::Fixture;
use super::kubernetes::named;
use crate::common::{INVOKER, PATIENCE, Scim, TOKEN, eventually, eventually_within, mapping};

pub(crate) const ALICE: &str = "user:alice@example.com";
pub(crate) const BOB: &str = "user:bob@example.com";

/// The mapping `checkout/team` of the group `team-checkout` onto `checkout-api`.
pub(crate) fn team() -> String {
    mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")
}

/// Waits until a token is answered with this status.
pub(crate) async fn accepted(scim: &Scim, wanted: u16) {
    accepted_within(PATIENCE, scim, wanted).await;
}

/// Like [`accepted`], with a given timeout.
pub(crate) async fn accepted_within(patience: Duration, scim: &Scim, wanted: u16) {
    eventually_within(patience, &format!("{wanted} for a token"), async || {
        let (status, answer) = scim.send(reqwest::Method::GET, "/Users?count=1", None).await;
        if status == wanted { Ok(()) } else { Err(format!("{status} {answer}")) }
    })
    .await;
}

/// Creates the services `checkout-api` and `checkout-web`, and Alice and Bob in the group `team-checkout`. Returns the
/// IdP, and the ids of the group, of Alice and of Bob.
pub(crate) async fn two_people(fixture: &Fixture) -> (Scim, [String; 3]) {
    fixture.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
    let scim = fixture.scim("okta", TOKEN);
    accepted(&scim, 200).await;
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice, &bob]).await;
    (scim, [group, alice, bob])
}

/// The same with [`team`] applied, granted and `Ready`.
pub(crate) async fn granted() -> (Fixture, Scim, [String; 3]) {
    let fixture = Fixture::start().await;
    let (scim, ids) = two_people(&fixture).await;
    fixture.admin().apply(&team()).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    let verified = |status: &serde_json::Value| {
        status["grants"]["verified"] == 2 && crate::common::has(status, "Ready", "True", "Converged")
    };
    fixture.mapping_status("checkout/team", "ready and verified", verified).await;
    (fixture, scim, ids)
}

/// The patches of rolecall on its own resources since then, as `resource name`.
pub(crate) fn patches(fixture: &Fixture, then: usize) -> Vec<String> {
    let calls = fixture.cluster.calls_since(then);
    let ours = calls.iter().filter(|call| call.user == fixture.pod.user && call.group == "rolecall.dev");
    let writes = ours.filter(|call| !matches!(call.verb.as_str(), "get" | "list" | "watch"));
    writes.map(|call| format!("{} {} {}/{}", call.verb, call.resource, call.namespace, call.name)).collect()
}

/// Waits until rolecall has written nothing for two seconds.
pub(crate) async fn quiet(fixture: &Fixture) {
    eventually("two seconds without a write of rolecall", async || {
        let then = fixture.cluster.now();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let written = patches(fixture, then);
        if written.is_empty() { Ok(()) } else { Err(format!("{written:?}")) }
    })
    .await;
}

/// Kind and name of the only document of a YAML text.
pub(crate) fn name_of(yaml: &str) -> (String, String) {
    let documents = super::documents(yaml);
    assert_eq!(documents.len(), 1, "{yaml}");
    named(&documents[0])
}
