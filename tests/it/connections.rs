//! What clients can use at a time: connections, bodies that do not arrive, requests. No client delays another.

use std::net::SocketAddr;

use futures::StreamExt as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Fixture, PATIENCE, TOKEN, base, eventually, free_port, provider};

const OTHER_TOKEN: &str = "scim-token-of-entra-0123456789abcdef";

fn two_tenants() -> Vec<(&'static str, String)> {
    let mut manifests = base();
    manifests.push(("entra.yaml", provider("entra", OTHER_TOKEN)));
    manifests
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("an address")
}

/// The sum of the samples of a metric whose line has all of these words.
async fn metric(fixture: &Fixture, words: &[&str]) -> u64 {
    let text = fixture.http.get(format!("{}/metrics", fixture.admin_url)).send().await.expect("metrics").text().await;
    let text = text.expect("metrics");
    let lines = text.lines().filter(|line| !line.starts_with('#') && words.iter().all(|word| line.contains(word)));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// A request with only the head and one byte of the body sent.
async fn open_body(address: SocketAddr, provider: &str, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "POST /idp/{provider}/scim/v2/Users HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\
         content-type: application/scim+json\r\ncontent-length: 1000\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.expect("a head");
    stream
}

/// Reads the first bytes of an answer.
async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.expect("in time").unwrap_or(0);
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

#[tokio::test]
async fn three_hundred_open_bodies_of_one_tenant_keep_no_other_tenant_out() {
    let fixture = Fixture::start(&two_tenants()).await;
    let mut open = Vec::new();
    for _ in 0..300 {
        open.push(open_body(address(&fixture.scim_url), "okta", TOKEN).await);
    }
    fixture.scim("entra", OTHER_TOKEN).create_user("alice@example.com").await;
    eventually("some are refused", async || match metric(&fixture, &["scim_requests_total", "429"]).await {
        0 => Err("none yet".to_owned()),
        _ => Ok(()),
    })
    .await;
    assert_eq!(metric(&fixture, &["connections_closed_total", "scim"]).await, 0, "nobody lost a connection");
}

#[tokio::test]
async fn idle_connections_on_every_port_block_nobody() {
    let mut fixture = Fixture::prepare(&two_tenants()).await;
    let probes = free_port();
    fixture.more = vec![
        ("--probe-listen", probes.to_string()),
        ("--max-connections", "64".to_owned()),
        ("--max-connections-per-peer", "48".to_owned()),
    ];
    fixture.run().await;
    // Without keep-alive: each request is a new connection.
    let fresh = || reqwest::Client::builder().pool_max_idle_per_host(0).timeout(PATIENCE).build().expect("a client");
    let mut idle = Vec::new();
    for (port, count) in [(address(&fixture.scim_url), 200), (address(&fixture.admin_url), 300), (probes, 100)] {
        for _ in 0..count {
            idle.push(TcpStream::connect(port).await.expect("a connection"));
        }
    }
    for url in [
        format!("{}/livez", fixture.admin_url),
        format!("{}/readyz", fixture.admin_url),
        format!("http://{probes}/livez"),
        format!("http://{probes}/readyz"),
    ] {
        assert_eq!(fresh().get(&url).send().await.expect(&url).status(), 200, "{url}");
    }
    let mut okta = fixture.scim("okta", TOKEN);
    okta.http = fresh();
    okta.create_user("alice@example.com").await;
    for (listener, least) in [("scim", 200 - 48), ("admin", 300 - 64), ("probe", 100 - 32)] {
        let dropped = metric(&fixture, &["connections_closed_total", listener, "Displaced"]).await;
        assert!(dropped >= least, "{listener}: {dropped}, at least {least}");
    }
    assert_eq!(metric(&fixture, &["connections_closed_total", "Limit"]).await, 0, "nobody was refused");
    let not_found = fresh().get(format!("http://{probes}/status")).send().await.expect("an answer").status();
    assert_eq!(not_found, 404, "the port for probes shows nothing else");
}

#[tokio::test]
async fn clients_without_a_token_do_not_displace_the_connection_of_an_idp_with_one() {
    let mut fixture = Fixture::prepare(&two_tenants()).await;
    fixture.more = vec![("--max-connections", "32".to_owned()), ("--max-connections-per-peer", "32".to_owned())];
    fixture.run().await;
    let scim = address(&fixture.scim_url);
    let mut idp = TcpStream::connect(scim).await.expect("a connection");
    let request =
        format!("GET /idp/okta/scim/v2/Users?count=0 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    idp.write_all(request.as_bytes()).await.expect("a request");
    assert!(answer(&mut idp).await.starts_with("HTTP/1.1 200"));
    let mut strangers = Vec::new();
    for _ in 0..120 {
        strangers.push(open_body(scim, "okta", "a-token-that-is-not-the-one-of-okta").await);
    }
    idp.write_all(request.as_bytes()).await.expect("a second request");
    assert!(answer(&mut idp).await.starts_with("HTTP/1.1 200"), "the same connection is still served");
}

#[tokio::test]
async fn a_provider_with_a_rate_of_its_own_is_held_to_it_and_others_to_the_flag() {
    let mut manifests = two_tenants();
    let limited = provider("okta", TOKEN).replace("  scim:\n", "  scim:\n    requestsPerSecond: 1\n");
    manifests[0] = ("provider.yaml", limited);
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.more = vec![("--requests-per-second", "100000".to_owned())];
    fixture.run().await;
    let refused = async |provider: &str, token: &str| {
        let scim = fixture.scim(provider, token);
        let requests = (0..400).map(|_| scim.send(reqwest::Method::GET, "/Users?count=0", None));
        let answers: Vec<_> = futures::stream::iter(requests).buffered(16).collect().await;
        answers.into_iter().filter(|(status, _)| *status == 429).count()
    };
    let held = refused("okta", TOKEN).await;
    assert!(held > 0 && held <= 400 - 25, "25 a second whatever the manifest says: {held} of 400 were refused");
    assert_eq!(refused("entra", OTHER_TOKEN).await, 0);
}

/// The head and the body of the answer on a connection that is closed afterwards.
async fn raw(address: SocketAddr, method: &str, path: &str, token: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("in time").expect("an answer");
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.to_ascii_lowercase(), body.to_owned())
}

/// The lines of a head without those that differ from request to request.
fn comparable(head: &str) -> Vec<&str> {
    let differs = |line: &&str| !line.starts_with("date:") && !line.starts_with("x-request-id:");
    head.lines().filter(differs).collect()
}

#[tokio::test]
async fn head_is_answered_as_get_without_a_body_on_scim_probes_and_admin() {
    let mut fixture = Fixture::prepare(&two_tenants()).await;
    let probes = free_port();
    fixture.more = vec![("--probe-listen", probes.to_string())];
    fixture.run().await;
    let id = fixture.scim("okta", TOKEN).create_user("alice@example.com").await;
    let (scim, admin) = (address(&fixture.scim_url), address(&fixture.admin_url));
    for (port, path, token, status) in [
        (scim, format!("/idp/okta/scim/v2/Users/{id}"), TOKEN, "200"),
        (scim, "/idp/okta/scim/v2/Users?count=1".to_owned(), TOKEN, "200"),
        (scim, "/idp/okta/scim/v2/Groups".to_owned(), TOKEN, "200"),
        (scim, "/idp/okta/scim/v2/Schemas".to_owned(), TOKEN, "200"),
        (scim, "/idp/okta/scim/v2/Users/nobody".to_owned(), TOKEN, "404"),
        (scim, "/idp/okta/scim/v2/Me".to_owned(), TOKEN, "501"),
        (scim, "/idp/okta/scim/v2/Users".to_owned(), "wrong", "401"),
        (scim, "/elsewhere".to_owned(), TOKEN, "404"),
        (admin, "/livez".to_owned(), TOKEN, "200"),
        (admin, "/readyz".to_owned(), TOKEN, "200"),
        (probes, "/livez".to_owned(), TOKEN, "200"),
        (probes, "/readyz".to_owned(), TOKEN, "200"),
    ] {
        let (get, full) = raw(port, "GET", &path, token).await;
        let (head, body) = raw(port, "HEAD", &path, token).await;
        assert!(get.starts_with(&format!("http/1.1 {status}")) && !full.is_empty(), "{path}: {get}");
        assert_eq!((comparable(&head), body.as_str()), (comparable(&get), ""), "{path}");
    }
    let (refused, body) = raw(scim, "HEAD", "/idp/okta/scim/v2/Users/.search", TOKEN).await;
    assert!(refused.starts_with("http/1.1 405") && refused.contains("allow: post") && body.is_empty(), "{refused}");
}

#[tokio::test]
async fn failed_authentication_is_counted_by_provider_and_logged_without_the_token() {
    let fixture = Fixture::start(&two_tenants()).await;
    let secret = "a-token-that-somebody-guessed-0123456789";
    for provider in ["okta", "okta", "okta", "nobody-in-particular"] {
        let (status, _): (u16, Value) = fixture.scim(provider, secret).send(reqwest::Method::GET, "/Users", None).await;
        assert_eq!(status, 401);
    }
    assert_eq!(metric(&fixture, &["failed_authentications_total", "\"okta\""]).await, 3);
    assert_eq!(metric(&fixture, &["failed_authentications_total", "\"entra\""]).await, 0);
    assert_eq!(metric(&fixture, &["failed_authentications_total", "(unknown)"]).await, 1);
    let log = fixture.log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("without an accepted token")).collect();
    assert_eq!(said.len(), 2, "once for okta, once for the unknown one: {said:?}");
    assert!(said.iter().all(|line| line.contains("WARN")) && said[0].contains("okta"), "{said:?}");
    let metrics =
        fixture.http.get(format!("{}/metrics", fixture.admin_url)).send().await.expect("metrics").text().await;
    for text in [&log, &metrics.expect("metrics")] {
        assert!(!text.contains(secret) && !text.contains("nobody-in-particular"));
    }
}
