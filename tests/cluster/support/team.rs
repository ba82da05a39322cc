//! The team that most tests are about.

use super::scenes::{ALICE, accepted, team};
use super::world::World;
use crate::common::{INVOKER, Scim, TOKEN, agree, base, has};

/// The group `team-checkout`, of which Alice is.
pub struct Team {
    pub scim: Scim,
    pub alice: String,
    pub group: String,
}

impl Team {
    /// Bob comes to be of the team too.
    pub async fn add_bob(&self) -> String {
        let bob = self.scim.create_user("bob@example.com").await;
        self.scim.add_members(&self.group, &[&bob]).await;
        bob
    }
}

impl World {
    /// A world with the services `checkout-api` and `checkout-web`, in which the mapping `checkout/team` has given Alice
    /// the invoker role on the first. `more` are further `--set`s.
    pub async fn with_team(more: &[&str]) -> (Self, Team) {
        let mut world = Self::prepare(more).await;
        world.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
        for (_, text) in base() {
            world.admin().apply(&text).await;
        }
        world.admin().apply(&team()).await;
        world.pod.start().await;
        let scim = world.scim("okta", TOKEN);
        accepted(&scim, 200).await;
        let alice = scim.create_user("alice@example.com").await;
        let group = scim.create_group("team-checkout", &[&alice]).await;
        world.members_become("checkout-api", INVOKER, &[ALICE]).await;
        world.mapping_status("checkout/team", "ready", |s| has(s, "Ready", "True", "Converged")).await;
        (world, Team { scim, alice, group })
    }

    /// Stops rolecall and checks that ledger, policies and audit tell the same story.
    pub async fn agree(&mut self) {
        self.pod.shutdown().await;
        agree(&self.google, &self.release.database()).await;
    }
}
