//! HTTP over a listener, with bounds on what somebody without a token can hold: connections, and time to say something.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::limit::GlobalConcurrencyLimitLayer;

/// What all clients of one listener may use together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections; further ones wait until one of these ends.
    pub connections: usize,
    /// Requests that are answered at the same time; further ones wait.
    pub requests: usize,
    /// How long the head of a request may take to arrive. A connection that is kept alive may be idle as long.
    pub head: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: 1024, requests: 256, head: Duration::from_secs(10) }
    }
}

/// Serves HTTP/1.1 until `stop` is cancelled, and then until what is under way is answered.
pub(super) async fn serve(listener: TcpListener, router: Router, bounds: Bounds, stop: CancellationToken) {
    let router = router.layer(GlobalConcurrencyLimitLayer::new(bounds.requests));
    let places = Arc::new(Semaphore::new(bounds.connections));
    let connections = TaskTracker::new();
    loop {
        let next = async {
            // A place first: who cannot be served yet waits in the queue of the system, not in our memory.
            let place = places.clone().acquire_owned().await.ok()?;
            Some((place, accept(&listener).await))
        };
        let (place, stream) = tokio::select! {
            next = next => match next {
                Some(next) => next,
                None => break,
            },
            () = stop.cancelled() => break,
        };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            converse(stream, router, bounds.head, stop).await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                // Such as too many open files: it takes a moment until some are closed.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, router: Router, head: Duration, stop: CancellationToken) {
    // Answers are small; without this they would wait for more to send.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn started(bounds: Bounds) -> (std::net::SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "here" }));
        let stop = CancellationToken::new();
        (address, stop.clone(), tokio::spawn(serve(listener, router, bounds, stop)))
    }

    const SOON: Duration = Duration::from_secs(10);

    /// Sends a request and reads until the answer has come.
    async fn ask(stream: &mut TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = tokio::time::timeout(SOON, stream.read(&mut answer)).await.expect("an answer").unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    #[tokio::test]
    async fn a_client_that_drips_its_head_is_closed_while_others_are_served() {
        let bounds = Bounds { head: Duration::from_millis(300), ..Bounds::default() };
        let (address, ..) = started(bounds).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        let begun = Instant::now();
        let dripping = async {
            // Each byte is in time; the head as a whole is not.
            while slow.write_all(b"G").await.is_ok() && begun.elapsed() < SOON {
                let mut byte = [0];
                let read = tokio::time::timeout(Duration::from_millis(20), slow.read(&mut byte)).await;
                if let Ok(Ok(0) | Err(_)) = read {
                    return;
                }
            }
        };
        let others = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            for _ in 0..2 {
                let answer = ask(&mut stream, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
                assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"), "{answer}");
            }
        };
        tokio::join!(dripping, others);
        assert!(begun.elapsed() < SOON, "closed long before it gave up itself");
    }

    #[tokio::test]
    async fn a_url_of_100_kilobytes_gets_an_answer() {
        let (address, ..) = started(Bounds::default()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(100_000));
        let answer = ask(&mut stream, &request).await;
        assert!(answer.starts_with("HTTP/1.1 414"), "{answer}");
    }

    #[tokio::test]
    async fn a_connection_too_many_waits_until_another_ends() {
        let (address, ..) = started(Bounds { connections: 1, ..Bounds::default() }).await;
        let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let mut first = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut first, request).await.ends_with("here"));
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(request.as_bytes()).await.unwrap();
        let mut byte = [0];
        let early = tokio::time::timeout(Duration::from_millis(200), second.read(&mut byte)).await;
        assert!(early.is_err(), "it has no place yet");
        drop(first);
        tokio::time::timeout(SOON, second.read(&mut byte)).await.expect("its turn").unwrap();
        assert_eq!(byte, *b"H");
    }

    #[tokio::test]
    async fn idle_connections_end_with_the_server() {
        let (address, stop, server) = started(Bounds::default()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut stream, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.ends_with("here"));
        stop.cancel();
        tokio::time::timeout(SOON, server).await.expect("an end").unwrap();
    }
}
