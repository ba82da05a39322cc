//! The team used by most tests.

use super::fixture::Fixture;
use super::scenes::{ALICE, accepted, team};
use crate::common::{INVOKER, Scim, TOKEN, agree, base, has};

/// The group `team-checkout`, with Alice as a member.
pub(crate) struct Team {
    pub(crate) scim: Scim,
    pub(crate) alice: String,
    pub(crate) group: String,
}

impl Team {
    /// Adds Bob to the team and returns his id.
    pub(crate) async fn add_bob(&self) -> String {
        let bob = self.scim.create_user("bob@example.com").await;
        self.scim.add_members(&self.group, &[&bob]).await;
        bob
    }
}

impl Fixture {
    /// A fixture with the services `checkout-api` and `checkout-web`, in which the mapping `checkout/team` has granted
    /// Alice the invoker role on the first. `more` are additional `--set`s.
    pub(crate) async fn with_team(more: &[&str]) -> (Self, Team) {
        let mut fixture = Self::prepare(more).await;
        fixture.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
        for (_, text) in base() {
            fixture.admin().apply(&text).await;
        }
        fixture.admin().apply(&team()).await;
        fixture.pod.start().await;
        let scim = fixture.scim("okta", TOKEN);
        accepted(&scim, 200).await;
        let alice = scim.create_user("alice@example.com").await;
        let group = scim.create_group("team-checkout", &[&alice]).await;
        fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
        fixture.mapping_status("checkout/team", "ready", |s| has(s, "Ready", "True", "Converged")).await;
        (fixture, Team { scim, alice, group })
    }

    /// Stops rolecall and checks that ledger, policies and audit agree.
    pub(crate) async fn agree(&mut self) {
        self.pod.shutdown().await;
        agree(&self.google, &self.release.database()).await;
    }
}
