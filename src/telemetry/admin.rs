//! The admin port: health checks, metrics, and status without a cluster.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{Metrics, Readiness};

/// The content type of the `OpenMetrics` text format.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Returns the objects with their status, as `/status` lists them: each with `kind`, `metadata` and `status`. Called
/// for every request; it must not wait for anything but memory.
pub(crate) type StatusProvider = Arc<dyn Fn() -> Vec<Value> + Send + Sync>;

/// Returns how far the process has come, as `/progress` answers it; null when that cannot be read.
pub(crate) type ProgressProvider = Arc<dyn Fn() -> BoxFuture<'static, Value> + Send + Sync>;

/// Returns what was captured of the requests of an identity provider, as JSON that `/captures/NAME` answers; none: nothing
/// was to be.
pub(crate) type CaptureProvider = Arc<dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync>;

/// Returns the last tests of permissions, as `/preflight` answers them. It must not wait for anything but memory.
pub(crate) type PreflightProvider = Arc<dyn Fn() -> Value + Send + Sync>;

/// Returns all differences between policies and what is wanted, as `/drift` answers them. It must not wait for anything
/// but memory.
pub(crate) type DriftProvider = Arc<dyn Fn() -> Value + Send + Sync>;

/// What the admin port serves.
#[derive(Clone)]
pub(crate) struct Admin {
    /// The metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// The parts that have to be ready.
    pub(crate) readiness: Readiness,
    /// The statuses.
    pub(crate) status: StatusProvider,
    /// The progress.
    pub(crate) progress: ProgressProvider,
    /// Captured requests.
    pub(crate) captures: CaptureProvider,
    /// Tests of permissions.
    pub(crate) preflights: PreflightProvider,
    /// Differences between policies and what is wanted.
    pub(crate) drift: DriftProvider,
}

/// The routes of the admin port. All are GET, and none changes anything.
///
/// | path | answer |
/// |---|---|
/// | `/livez` | 200 `ok` as long as the process answers at all |
/// | `/readyz` | 200, or 503 with the parts that are not ready |
/// | `/metrics` | `OpenMetrics` text |
/// | `/status` | a Kubernetes-style list of the resources with their status |
/// | `/progress` | how far the process has come: positions, documents that run, are due or wait, and whether it is settled |
/// | `/preflight` | the permissions that each target needs at Google, and which of them are missing |
/// | `/drift` | all differences between policies and what is wanted, without names of people |
/// | `/captures/NAME` | the last requests of an identity provider, redacted, or 404 when its `captureUntil` is not set |
pub(crate) fn admin_router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(exposition))
        .route("/status", get(list))
        .route("/progress", get(progress))
        .route("/preflight", get(preflight))
        .route("/drift", get(drift))
        .route("/captures/{identityProvider}", get(captured))
        .with_state(admin)
}

/// The routes of the probe port, for callers that cannot reach the admin port: `/livez` and `/readyz`, as on the admin
/// port.
pub(crate) fn probe_router(readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(async |State(readiness): State<Readiness>| ready(&readiness)))
        .with_state(readiness)
}

async fn livez() -> &'static str {
    "ok\n"
}

/// Headers of every answer: it is valid for a moment only, and it is text, whatever a browser might guess.
const HEADERS: [(HeaderName, &str); 2] =
    [(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];

async fn readyz(State(admin): State<Admin>) -> Response {
    ready(&admin.readiness)
}

fn ready(readiness: &Readiness) -> Response {
    let waiting = readiness.waiting_for();
    let code = if waiting.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, HEADERS, Json(json!({"ready": waiting.is_empty(), "waitingFor": waiting}))).into_response()
}

async fn exposition(State(admin): State<Admin>) -> Response {
    match admin.metrics.exposition() {
        Ok(text) => (HEADERS, [(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written as text\n").into_response(),
    }
}

async fn list(State(admin): State<Admin>) -> Response {
    let items = (admin.status)();
    (HEADERS, Json(json!({"apiVersion": "v1", "kind": "List", "items": items}))).into_response()
}

async fn progress(State(admin): State<Admin>) -> Response {
    match (admin.progress)().await {
        Value::Null => (StatusCode::SERVICE_UNAVAILABLE, HEADERS, "the store cannot be read\n").into_response(),
        progress => (HEADERS, Json(progress)).into_response(),
    }
}

async fn drift(State(admin): State<Admin>) -> Response {
    (HEADERS, Json((admin.drift)())).into_response()
}

async fn preflight(State(admin): State<Admin>) -> Response {
    (HEADERS, Json((admin.preflights)())).into_response()
}

async fn captured(State(admin): State<Admin>, Path(provider): Path<String>) -> Response {
    match (admin.captures)(&provider) {
        Some(json) => (HEADERS, [(header::CONTENT_TYPE, "application/json")], json).into_response(),
        None => {
            (StatusCode::NOT_FOUND, HEADERS, "no requests of such an IdentityProvider are captured\n").into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Method, Request};
    use tower::ServiceExt;

    use super::*;

    async fn ask(router: &Router, method: Method, path: &str) -> (StatusCode, String, String) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, kind.unwrap_or_default(), String::from_utf8(body.to_vec()).unwrap())
    }

    fn router(readiness: &Readiness) -> Router {
        let status: StatusProvider =
            Arc::new(|| vec![json!({"kind": "RoleMapping", "metadata": {"name": "a"}, "status": {}})]);
        let progress: ProgressProvider = Arc::new(|| Box::pin(async { json!({"settled": true}) }));
        let captures: CaptureProvider =
            Arc::new(|name| (name == "okta").then(|| json!({"requests": []}).to_string().into_bytes()));
        admin_router(Admin {
            metrics: Arc::new(Metrics::new()),
            readiness: readiness.clone(),
            status,
            progress,
            captures,
            preflights: Arc::new(|| json!([{"target": "shop-dev", "projects": []}])),
            drift: Arc::new(|| json!([{"target": "shop-dev", "type": "PublicPrincipal"}])),
        })
    }

    #[tokio::test]
    async fn readyz_names_what_is_missing_until_every_part_is_open() {
        let readiness = Readiness::default();
        let (store, directory) = (readiness.part("store"), readiness.part("directory"));
        let router = router(&readiness);
        let (code, _, body) = ask(&router, Method::GET, "/readyz").await;
        assert_eq!((code.as_u16(), body.as_str()), (503, r#"{"ready":false,"waitingFor":["store","directory"]}"#));
        store.open();
        directory.open();
        let (code, _, body) = ask(&router, Method::GET, "/readyz").await;
        assert_eq!((code.as_u16(), body.as_str()), (200, r#"{"ready":true,"waitingFor":[]}"#));
        store.close();
        assert_eq!(ask(&router, Method::GET, "/readyz").await.0, 503);
    }

    #[tokio::test]
    async fn livez_answers_while_nothing_is_ready() {
        let readiness = Readiness::default();
        let _never = readiness.part("store");
        let (code, _, body) = ask(&router(&readiness), Method::GET, "/livez").await;
        assert_eq!((code.as_u16(), body.as_str()), (200, "ok\n"));
    }

    #[tokio::test]
    async fn status_is_a_list_of_what_the_provider_gives() {
        let (code, kind, body) = ask(&router(&Readiness::default()), Method::GET, "/status").await;
        assert_eq!((code.as_u16(), kind.as_str()), (200, "application/json"));
        let expected =
            r#"{"apiVersion":"v1","kind":"List","items":[{"kind":"RoleMapping","metadata":{"name":"a"},"status":{}}]}"#;
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn captured_requests_are_those_of_a_provider_with_a_capture() {
        let router = router(&Readiness::default());
        let (code, kind, body) = ask(&router, Method::GET, "/captures/okta").await;
        assert_eq!((code.as_u16(), kind.as_str(), body.as_str()), (200, "application/json", r#"{"requests":[]}"#));
        assert_eq!(ask(&router, Method::GET, "/captures/entra").await.0, 404);
    }

    #[tokio::test]
    async fn drift_is_what_the_provider_gives() {
        let (code, _, body) = ask(&router(&Readiness::default()), Method::GET, "/drift").await;
        assert_eq!(code, 200);
        assert!(body.contains("PublicPrincipal"), "{body}");
    }

    #[tokio::test]
    async fn preflight_is_what_the_provider_gives() {
        let (code, kind, body) = ask(&router(&Readiness::default()), Method::GET, "/preflight").await;
        let expected = r#"[{"target":"shop-dev","projects":[]}]"#;
        assert_eq!((code.as_u16(), kind.as_str(), body.as_str()), (200, "application/json", expected));
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_text_with_an_end() {
        let (code, kind, body) = ask(&router(&Readiness::default()), Method::GET, "/metrics").await;
        assert_eq!((code.as_u16(), kind.as_str()), (200, OPENMETRICS));
        assert!(body.ends_with("# EOF\n"), "{body}");
    }

    #[tokio::test]
    async fn head_is_answered_as_get_without_its_body() {
        let readiness = Readiness::default();
        let admin = router(&readiness);
        let probes = probe_router(readiness);
        for (router, path) in [
            (&admin, "/livez"),
            (&admin, "/readyz"),
            (&admin, "/metrics"),
            (&admin, "/status"),
            (&probes, "/livez"),
            (&probes, "/readyz"),
        ] {
            let (code, kind, body) = ask(router, Method::GET, path).await;
            assert_eq!((code.as_u16(), body.is_empty()), (200, false), "{path}");
            assert_eq!(ask(router, Method::HEAD, path).await, (code, kind, String::new()), "{path}");
        }
        assert_eq!(ask(&probes, Method::GET, "/status").await.0, 404, "probes learn nothing else");
    }

    #[tokio::test]
    async fn nothing_but_get_is_answered_and_nothing_but_the_four_paths() {
        let router = router(&Readiness::default());
        assert_eq!(ask(&router, Method::POST, "/status").await.0, 405);
        assert_eq!(ask(&router, Method::GET, "/").await.0, 404);
    }
}
