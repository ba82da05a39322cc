use std::net::SocketAddr;
use std::sync::Arc;

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use super::*;
use crate::telemetry::Metrics;

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A generous timeout, because the machine may be busy.
const SOON: Duration = Duration::from_secs(20);

/// Size of the answer of `/large`: more than the system buffers for a client that does not read.
const LARGE: usize = 32 * 1024 * 1024;

struct Started {
    address: SocketAddr,
    metrics: Metrics,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    /// A permit for each request of `/busy` that has arrived.
    busy: Arc<Semaphore>,
}

async fn started(bounds: Bounds) -> Started {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let busy = Arc::new(Semaphore::new(0));
    let arrived = busy.clone();
    let stay = move || {
        arrived.add_permits(1);
        std::future::pending::<()>()
    };
    let router = Router::new()
        .route("/", get(|| async { "here" }))
        .route("/busy", get(stay))
        .route("/large", get(|| async { vec![b'x'; LARGE] }));
    let (stop, metrics) = (CancellationToken::new(), Metrics::new());
    let server = Server { listener, name: "test", bounds, metrics: metrics.http.clone() };
    let task = tokio::spawn(server.serve(router, stop.clone()));
    Started { address, metrics, stop, task, busy }
}

fn bounds() -> Bounds {
    Bounds::open(64, 64)
}

fn patient(head: u64) -> Timeouts {
    Timeouts { head: Duration::from_millis(head), ..Timeouts::default() }
}

impl Started {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Number of connections closed for this reason.
    fn closed(&self, reason: Closed) -> u64 {
        let sample =
            format!("rolecall_http_connections_closed_total{{listener=\"test\",reason=\"{}\"}} ", reason.word());
        let text = self.metrics.exposition().unwrap();
        text.lines().find_map(|line| line.strip_prefix(&sample)).map_or(0, |count| count.parse().unwrap())
    }

    async fn closed_becomes(&self, reason: Closed, count: u64) {
        let deadline = Instant::now() + SOON;
        while self.closed(reason) != count {
            assert!(Instant::now() < deadline, "{} is {} and not {count}", reason.word(), self.closed(reason));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Sends a request and reads until the answer has arrived.
async fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = tokio::time::timeout(SOON, stream.read(&mut answer)).await.expect("an answer").unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// True when the server closed the connection in time.
async fn ends(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn a_client_that_drips_its_head_is_closed_while_others_are_served() {
    let server = started(Bounds { timeouts: patient(300), ..bounds() }).await;
    let mut slow = server.connect().await;
    let begun = Instant::now();
    let dripping = async {
        // Each byte is in time, but the head as a whole is not.
        while slow.write_all(b"G").await.is_ok() && begun.elapsed() < SOON {
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_millis(20), slow.read(&mut byte)).await;
            if let Ok(Ok(0) | Err(_)) = read {
                return;
            }
        }
    };
    let others = async {
        let mut stream = server.connect().await;
        for _ in 0..2 {
            let answer = ask(&mut stream, REQUEST).await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"), "{answer}");
        }
    };
    tokio::join!(dripping, others);
    assert!(begun.elapsed() < SOON, "closed long before it gave up itself");
    server.closed_becomes(Closed::HeadTimeout, 1).await;
}

#[tokio::test]
async fn a_client_that_sends_nothing_is_closed() {
    let server = started(Bounds { timeouts: patient(200), ..bounds() }).await;
    assert!(ends(&mut server.connect().await).await);
    server.closed_becomes(Closed::IdleTimeout, 1).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_closed() {
    let timeouts = Timeouts { write: Duration::from_millis(300), ..patient(200) };
    let server = started(Bounds { timeouts, ..bounds() }).await;
    let mut deaf = server.connect().await;
    deaf.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    server.closed_becomes(Closed::WriteTimeout, 1).await;
    drop(deaf);
}

#[tokio::test]
async fn a_client_that_reads_its_answer_gets_all_of_it_however_long_it_is() {
    let timeouts = Timeouts { write: Duration::from_secs(10), ..patient(200) };
    let server = started(Bounds { timeouts, ..bounds() }).await;
    let mut reader = server.connect().await;
    reader.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(SOON * 3, reader.read_to_end(&mut answer)).await.expect("in time").unwrap();
    assert!(answer.len() > LARGE, "{}", answer.len());
}

#[tokio::test]
async fn a_url_of_100_kilobytes_gets_an_answer() {
    let server = started(bounds()).await;
    let request = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(100_000));
    let answer = ask(&mut server.connect().await, &request).await;
    assert!(answer.starts_with("HTTP/1.1 414"), "{answer}");
}

#[tokio::test]
async fn a_connection_too_many_takes_the_place_of_the_one_that_waited_longest() {
    let server = started(Bounds::open(4, 4)).await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(server.connect().await);
    }
    // Each of the first sixteen had to be closed, and the listener accepted each at once.
    server.closed_becomes(Closed::Displaced, 16).await;
    assert!(ends(&mut idle[0]).await);
    assert!(ask(&mut idle[19], REQUEST).await.ends_with("here"));
    assert!(ask(&mut server.connect().await, REQUEST).await.ends_with("here"));
    assert_eq!(server.closed(Closed::Displaced), 17);
}

#[tokio::test]
async fn a_new_connection_is_closed_at_once_when_all_others_are_busy() {
    let server = started(Bounds::open(2, 2)).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /busy HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        busy.push(stream);
    }
    let arrived = tokio::time::timeout(SOON, server.busy.acquire_many(2)).await.expect("both in time");
    drop(arrived.unwrap());
    for _ in 0..3 {
        assert!(ends(&mut server.connect().await).await);
    }
    assert_eq!((server.closed(Closed::PeerLimit), server.closed(Closed::Displaced)), (3, 0));
}

#[tokio::test]
async fn idle_connections_end_with_the_server() {
    let server = started(bounds()).await;
    let mut stream = server.connect().await;
    assert!(ask(&mut stream, REQUEST).await.ends_with("here"));
    server.stop.cancel();
    tokio::time::timeout(SOON, server.task).await.expect("an end").unwrap();
}

#[test]
fn frequent_events_are_logged_once_a_minute_with_their_number() {
    let mut reminder = Reminder::default();
    let start = Instant::now();
    assert_eq!(reminder.due(start), Some(1));
    assert_eq!(reminder.due(start + Duration::from_secs(1)), None);
    assert_eq!(reminder.due(start + SAY), Some(2));
}
