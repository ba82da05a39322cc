//! The API server is away, or silent.

use std::time::Duration;

use crate::support::*;

const ALICE: &str = "user:alice@example.com";

/// A world in which Alice, of `team-checkout`, may invoke `checkout-api`; `checkout-web` is there too.
async fn checkout() -> World {
    let world = World::start().await;
    world.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
    let scim = world.scim("okta", TOKEN);
    eventually("the token is known", async || match scim.send(reqwest::Method::GET, "/Users?count=1", None).await {
        (200, _) => Ok(()),
        (status, answer) => Err(format!("{status} {answer}")),
    })
    .await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    apply(&world, "api").await;
    world.members_become("checkout-api", INVOKER, &[ALICE]).await;
    world
}

/// A mapping of the team onto one service.
async fn apply(world: &World, service: &str) {
    let resource = format!("services/checkout-{service}");
    world.admin().apply(&mapping(service, "team-checkout", &[&resource], &[INVOKER], "")).await;
}

/// What is applied now takes effect, in the policy and in the status.
async fn follows(world: &World) {
    apply(world, "web").await;
    world.members_become("checkout-web", INVOKER, &[ALICE]).await;
    world.mapping_status("checkout/web", "ready", |status| has(status, "Ready", "True", "")).await;
    world.members_stay("checkout-api", INVOKER, &[ALICE]).await;
}

#[tokio::test]
async fn api_server_that_is_killed_and_started_again_is_followed_again() {
    let mut world = checkout().await;
    world.cluster.kill_apiserver();
    world.cluster.start_apiserver().await;
    follows(&world).await;
}

#[tokio::test]
async fn connections_that_are_cut_or_go_silent_are_made_anew() {
    let world = checkout().await;
    world.proxy.cut();
    world.proxy.blackhole();
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.proxy.heal();
    follows(&world).await;
}
