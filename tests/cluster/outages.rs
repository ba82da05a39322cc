//! Outages of the API server: not reachable, or not answering.

use std::time::Duration;

use crate::support::*;

const ALICE: &str = "user:alice@example.com";

/// A fixture in which Alice of `team-checkout` may invoke `checkout-api`; `checkout-web` exists too.
async fn checkout() -> Fixture {
    let fixture = Fixture::start().await;
    fixture.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
    let scim = fixture.scim("okta", TOKEN);
    eventually("the token is known", async || match scim.send(reqwest::Method::GET, "/Users?count=1", None).await {
        (200, _) => Ok(()),
        (status, answer) => Err(format!("{status} {answer}")),
    })
    .await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    apply(&fixture, "api").await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture
}

/// Applies a mapping of the team onto one service.
async fn apply(fixture: &Fixture, service: &str) {
    let resource = format!("services/checkout-{service}");
    fixture.admin().apply(&mapping(service, "team-checkout", &[&resource], &[INVOKER], "")).await;
}

/// Checks that newly applied objects take effect, in the policy and in the status.
async fn follows(fixture: &Fixture) {
    apply(fixture, "web").await;
    fixture.members_become("checkout-web", INVOKER, &[ALICE]).await;
    fixture.mapping_status("checkout/web", "ready", |status| has(status, "Ready", "True", "")).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
}

#[tokio::test]
async fn api_server_that_is_killed_and_started_again_is_followed_again() {
    let mut fixture = checkout().await;
    fixture.cluster.kill_apiserver();
    fixture.cluster.start_apiserver().await;
    follows(&fixture).await;
}

#[tokio::test]
async fn connections_that_are_cut_or_go_silent_are_made_anew() {
    let fixture = checkout().await;
    fixture.proxy.cut();
    fixture.proxy.blackhole();
    tokio::time::sleep(Duration::from_secs(3)).await;
    fixture.proxy.heal();
    follows(&fixture).await;
}

/// Waits until this many mappings of `checkout` are ready.
async fn all_ready(fixture: &Fixture, wanted: usize) {
    eventually_within(Duration::from_mins(4), &format!("{wanted} mappings are ready"), async || {
        let mappings =
            fixture.admin().list("RoleMapping", Some("checkout")).await.map_err(|refused| refused.to_string())?;
        let (ready, rest): (Vec<_>, Vec<_>) =
            mappings.iter().partition(|mapping| has(&mapping["status"], "Ready", "True", "Converged"));
        if ready.len() == wanted && rest.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let one = rest.first().map(|mapping| mapping["status"]["conditions"].to_string());
        Err(format!("{} of {wanted}; such as {one:?}\n{}", ready.len(), tail(&fixture.pod.said())))
    })
    .await;
}

#[tokio::test]
async fn api_server_that_dies_under_load_delays_what_is_applied_and_no_push() {
    const MAPPINGS: usize = 200;
    const SERVICES: usize = 20;
    let mut fixture = Fixture::start().await;
    let names: Vec<String> = (0..SERVICES).map(|n| format!("s{n}")).collect();
    fixture.create_services("shop-dev", &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let scim = fixture.scim("okta", TOKEN);
    accepted(&scim, 200).await;
    let first = scim.create_user("user0@example.com").await;
    let group = scim.create_group("team-load", &[&first]).await;

    // These fail unless every call of the IdP is answered with success.
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let pushing = tokio::spawn(async move {
        let mut pushed = 1;
        while !*stopped.borrow_and_update() {
            let user = scim.create_user(&format!("user{pushed}@example.com")).await;
            scim.add_members(&group, &[&user]).await;
            pushed += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        pushed
    });
    let admin = fixture.admin().clone();
    let (count, counted) = tokio::sync::watch::channel(0);
    let applying = tokio::spawn(async move {
        let mut refused = 0;
        for n in 0..MAPPINGS {
            let text =
                mapping(&format!("m{n}"), "team-load", &[&format!("services/s{}", n % SERVICES)], &[INVOKER], "");
            let object = documents(&text).remove(0);
            while admin.apply_as("kubectl", "", &object).await.is_err() {
                refused += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            count.send_replace(n + 1);
        }
        refused
    });
    eventually("a quarter is applied", async || {
        let applied = *counted.borrow();
        if applied >= MAPPINGS / 4 { Ok(()) } else { Err(applied.to_string()) }
    })
    .await;
    fixture.cluster.kill_apiserver();
    let killed = std::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    fixture.cluster.start_apiserver().await;
    let away = killed.elapsed();
    let refused = applying.await.expect("all are applied");
    assert!(refused > 0, "the API server was away while mappings were applied");
    stop.send_replace(true);
    let pushed = pushing.await.expect("each push was taken");
    all_ready(&fixture, MAPPINGS).await;
    let members: Vec<String> = (0..pushed).map(|n| format!("user:user{n}@example.com")).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    for name in &names {
        fixture.members_become(name, INVOKER, &members).await;
    }
    assert!(fixture.pod.ended().is_none(), "the same process");
    println!(
        "measured: {MAPPINGS} mappings applied and {} SCIM pushes answered while the API server was away for {:.1} s; all ready {:.1} s after it died",
        2 * pushed,
        away.as_secs_f64(),
        killed.elapsed().as_secs_f64()
    );
}

#[tokio::test]
async fn watch_that_leads_nowhere_is_given_up_and_what_it_missed_is_noticed() {
    let mut fixture = checkout().await;
    fixture.proxy.strand();
    let since = std::time::Instant::now();
    apply(&fixture, "web").await;
    fixture.admin().delete("RoleMapping", "checkout/api").await;
    // A watch lasts 30 s and is abandoned 5 s later; a silent connection after 45 s.
    eventually_within(Duration::from_secs(90), "what was applied takes effect", async || {
        let (api, web) = (fixture.policy("checkout-api").await, fixture.policy("checkout-web").await);
        if web.contains_key(INVOKER) && !api.contains_key(INVOKER) {
            return Ok(());
        }
        Err(format!("{api:?} {web:?}; log:\n{}", tail(&fixture.pod.said())))
    })
    .await;
    println!("measured: a change was noticed {:.1} s after all connections went dead", since.elapsed().as_secs_f64());
    fixture.gone("RoleMapping", "checkout/api").await;
    fixture.mapping_status("checkout/web", "ready", |status| has(status, "Ready", "True", "")).await;
    assert!(fixture.pod.ended().is_none(), "the same process");
}

#[tokio::test]
async fn what_happened_before_a_compaction_is_found_by_a_new_list() {
    let mut fixture = checkout().await;
    apply(&fixture, "web").await;
    fixture.members_become("checkout-web", INVOKER, &[ALICE]).await;
    fixture.mapping_status("checkout/web", "ready", |status| has(status, "Ready", "True", "")).await;
    fixture.proxy.refuse();
    fixture.admin().delete("RoleMapping", "checkout/api").await;
    for n in 0..20 {
        let patch = serde_json::json!({"metadata": {"annotations": {"example.com/n": n.to_string()}}});
        fixture.admin().patch("RoleMapping", "checkout/web", &patch).await.expect("an annotation");
    }
    fixture.cluster.kill_apiserver();
    fixture.cluster.compact().await;
    fixture.cluster.start_apiserver().await;
    let then = fixture.cluster.now();
    fixture.proxy.heal();
    fixture.gone("RoleMapping", "checkout/api").await;
    assert!(!fixture.policy("checkout-api").await.contains_key(INVOKER), "revoked before the object went");
    fixture.members_stay("checkout-web", INVOKER, &[ALICE]).await;
    eventually("it tried to go on and then listed", async || {
        let calls = fixture.cluster.calls_since(then);
        let ours = |verb: &str| {
            calls
                .iter()
                .any(|call| call.user == fixture.pod.user && call.verb == verb && call.resource == "rolemappings")
        };
        if ours("watch") && ours("list") { Ok(()) } else { Err(format!("{calls:#?}")) }
    })
    .await;
    assert!(fixture.pod.ended().is_none(), "the same process");
}

#[tokio::test]
async fn control_plane_whose_port_was_taken_meanwhile_starts_on_another() {
    for place in 0..3 {
        let taken = std::net::TcpListener::bind(free_port()).expect("a port that is taken");
        let address = taken.local_addr().expect("its address");
        let mut asked = 0;
        let cluster = ControlPlane::start_on(true, || {
            asked += 1;
            let mut ports = [free_port(), free_port(), free_port()];
            if asked == 1 {
                ports[place] = address;
            }
            ports
        })
        .await;
        assert_eq!(asked, 2, "port {place} of etcd's two and the API server's one");
        assert_ne!(cluster.address, address);
        drop(taken);
    }
}
