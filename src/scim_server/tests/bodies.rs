//! Bodies that do not arrive: they are bounded by the token, and delay no other tenant.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{ENTRA_TOKEN, OKTA_TOKEN, Server};
use crate::model::ProviderName;
use crate::scim_server::Limits;

/// Timeout of one step on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `probe` returns true.
async fn until(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !probe().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect(what);
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

#[tokio::test]
async fn open_bodies_of_one_tenant_are_bounded_by_its_token_and_delay_no_other_tenant() {
    let limits = Limits { requests_per_token: 16, body_grace: PATIENCE * 30, slots: 4, ..Limits::default() };
    let server = Server::with(limits).await;
    let mut open = Vec::new();
    for _ in 0..40 {
        open.push(open_body(server.address, "okta", OKTA_TOKEN).await);
    }
    // Requests above the limit of the token are refused at once, while the others are still open.
    let okta = ProviderName::new("okta").expect("a name");
    until("40 − 16 refusals", async || server.traffic.of(&okta).refused == 24).await;
    server.okta("GET", "/Users?count=0", None).await.refused(429, None);
    assert_eq!(server.of("entra", ENTRA_TOKEN, "GET", "/Users?count=0", None).await.status, 200);
    drop(open);
    until("the tenant itself comes in again", async || server.okta("GET", "/Users?count=0", None).await.status == 200)
        .await;
}

#[tokio::test]
async fn a_body_that_does_not_keep_up_with_the_minimum_rate_is_answered_with_408() {
    let limits = Limits { body_grace: Duration::from_millis(300), body_rate: 1024 * 1024, ..Limits::default() };
    let server = Server::with(limits).await;
    let mut stream = open_body(server.address, "okta", OKTA_TOKEN).await;
    let dripping = async {
        let (mut read, mut write) = stream.split();
        let mut bytes = vec![0; 4096];
        loop {
            tokio::select! {
                got = read.read(&mut bytes) => break String::from_utf8_lossy(&bytes[..got.unwrap_or(0)]).into_owned(),
                () = tokio::time::sleep(Duration::from_millis(20)) => drop(write.write_all(b" ").await),
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, dripping).await.expect("in time");
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn bodies_that_are_still_coming_hold_no_slot() {
    let limits = Limits { slots: 1, slots_per_provider: 1, wait: Duration::from_secs(5), ..Limits::default() };
    let server = Server::with(limits).await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(open_body(server.address, "okta", OKTA_TOKEN).await);
    }
    assert_eq!(server.okta("GET", "/Users?count=0", None).await.status, 200);
    assert_eq!(server.of("entra", ENTRA_TOKEN, "GET", "/Users?count=0", None).await.status, 200);
}
