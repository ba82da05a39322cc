//! Code shared by the integration tests and the cluster tests: waiting, the emulator as Google, a simulated IdP, small
//! manifests.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

mod agreement;
pub(crate) mod alerts;
pub(crate) mod database;
mod google;
mod manifests;
mod progress;
mod scim;

use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use agreement::agree;
pub(crate) use google::Google;
pub(crate) use manifests::{INVOKER, TOKEN, VIEWER, base, mapping, provider, target};
pub(crate) use progress::Progress;
pub(crate) use scim::Scim;

/// Timeout of one step of a test on a busy machine. A test that checks a duration has a bound of its own.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Runs `probe` until it returns `Ok`, and panics with its last error after [`PATIENCE`].
pub(crate) async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    eventually_within(PATIENCE, what, probe).await
}

/// Like [`eventually`], with a given timeout.
pub(crate) async fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(complaint) if Instant::now() > deadline => panic!("never seen: {what}; last: {complaint}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Checks that `probe` holds now and keeps holding for `span`.
pub(crate) async fn always(what: &str, span: Duration, mut probe: impl AsyncFnMut() -> Result<(), String>) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if let Err(complaint) = probe().await {
            panic!("did not hold: {what}; {complaint}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An unused address on loopback. The system assigns ports for outgoing connections from a range of its own, and could
/// assign one of these before the caller listens on it. The returned ports are below that range, and none is returned
/// twice.
pub(crate) fn free_port() -> SocketAddr {
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        let random = RandomState::new().hash_one(std::process::id()) % u64::from(PORTS);
        AtomicU32::new(u32::try_from(random).expect("less than the number of ports"))
    });
    for _ in 0..PORTS {
        let port = FIRST_PORT + next.fetch_add(1, Ordering::Relaxed) % PORTS;
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).expect("a port")));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port on loopback");
}

/// The first port that [`free_port`] returns, below the range that systems assign from (32768 and up).
const FIRST_PORT: u32 = 12_000;
const PORTS: u32 = 20_000;

/// The time of the system clock.
#[expect(clippy::disallowed_methods, reason = "a test beside the process has the clock of the machine only")]
pub(crate) fn now() -> jiff::Timestamp {
    std::time::SystemTime::now().try_into().expect("a time of these years")
}

/// The last lines of a log.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// The condition of that type, or null.
pub(crate) fn condition(status: &Value, kind: &str) -> Value {
    status["conditions"]
        .as_array()
        .and_then(|list| list.iter().find(|condition| condition["type"] == kind).cloned())
        .unwrap_or(Value::Null)
}

/// True when the condition of that type has this status and reason, and a message with these words.
pub(crate) fn says(status: &Value, kind: &str, value: &str, reason: &str, words: &str) -> bool {
    has(status, kind, value, reason)
        && condition(status, kind)["message"].as_str().is_some_and(|message| message.contains(words))
}

/// True when the condition of that type has this status and reason.
pub(crate) fn has(status: &Value, kind: &str, value: &str, reason: &str) -> bool {
    let found = condition(status, kind);
    found["status"] == value && (reason.is_empty() || found["reason"] == reason)
}
