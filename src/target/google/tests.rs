//! Tests of the client over HTTP, against a small scripted server that records requests.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use reqwest::{Request, Url};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::client::BODY_MAX;
use super::*;
use crate::model::{DocumentKey, ResourceKind};
use crate::target::{ErrorClass, RefusalCause, Resource};
use crate::telemetry::Metrics;

/// Timeout of the test that waits for it. The others have longer ones, since a busy machine is slow.
const SOON: Duration = Duration::from_millis(500);
const AMPLE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Clone, Default)]
struct StandIn {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

enum Answer {
    Json(u16, Value),
    Raw(u16, Vec<(&'static str, &'static str)>, Vec<u8>),
    Never,
}

async fn answer(State(server): State<StandIn>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    server.asked.lock().unwrap().push(Asked { method, uri, headers, body });
    let answer = server.answers.lock().unwrap().pop_front();
    match answer {
        Some(Answer::Json(code, value)) => (StatusCode::from_u16(code).unwrap(), axum::Json(value)).into_response(),
        Some(Answer::Raw(code, headers, body)) => {
            let mut response = (StatusCode::from_u16(code).unwrap(), body).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }
        Some(Answer::Never) => std::future::pending().await,
        None => (StatusCode::IM_A_TEAPOT, "nothing left to answer").into_response(),
    }
}

impl StandIn {
    async fn start(answers: impl IntoIterator<Item = Answer>) -> (Self, CloudRun) {
        let (server, port) = Self::listen(answers).await;
        (server, client(port))
    }

    async fn listen(answers: impl IntoIterator<Item = Answer>) -> (Self, u16) {
        let server = Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Self::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        (server, port)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn client(port: u16) -> CloudRun {
    impatient(port, AMPLE)
}

fn impatient(port: u16, total: Duration) -> CloudRun {
    let endpoint: Endpoint = format!("http://127.0.0.1:{port}").parse().unwrap();
    CloudRun::with_timeout(endpoint, Credentials::None.source(), total).unwrap()
}

fn document() -> DocumentKey {
    DocumentKey::cloud_run("shop", "europe-west1", ResourceKind::Service, "api").unwrap()
}

fn policy(value: Value) -> Policy {
    serde_json::from_value(value).unwrap()
}

fn some_policy() -> Policy {
    policy(json!({"version": 1, "etag": "BwWWja0YfJA=",
        "bindings": [{"role": "roles/run.invoker", "members": ["user:Bob@Example.com", "serviceAccount:x@p.iam.gserviceaccount.com"]}]}))
}

fn error_body(code: u16, status: &str, message: &str) -> Value {
    json!({"error": {"code": code, "status": status, "message": message}})
}

#[tokio::test]
async fn a_policy_is_read_in_version_3_without_credentials_when_there_are_none() {
    let body = json!({"version": 3, "etag": "BwWWja0YfJA=", "bindings": [
        {"role": "roles/run.viewer", "members": ["user:a@x.example"], "condition": {"title": "t", "expression": "true"}}]});
    let (server, client) = StandIn::start([Answer::Json(200, body.clone())]).await;
    let read = client.policy(&document()).await.unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), body);
    let [asked] = server.asked().try_into().unwrap();
    assert_eq!(asked.method, Method::GET);
    let expected =
        "/v2/projects/shop/locations/europe-west1/services/api:getIamPolicy?options.requestedPolicyVersion=3";
    assert_eq!(asked.uri.to_string(), expected);
    assert!(asked.headers.get("authorization").is_none());
}

#[tokio::test]
async fn a_policy_that_was_never_set_is_an_empty_policy_with_its_etag() {
    let (_, client) = StandIn::start([Answer::Json(200, json!({"etag": "ACAB"}))]).await;
    let read = client.policy(&document()).await.unwrap();
    assert_eq!((read.etag.as_str(), read.version, read.bindings.len()), ("ACAB", 0, 0));
}

#[tokio::test]
async fn a_policy_is_written_in_version_3_with_its_etag_and_with_what_we_do_not_know() {
    let written = json!({"version": 1, "etag": "BwWWja0YfJE="});
    let (server, client) = StandIn::start([Answer::Json(200, written.clone())]).await;
    let value = json!({"version": 1, "etag": "BwWWja0YfJA=",
        "bindings": [{"role": "roles/run.invoker", "members": ["user:Bob@Example.com"], "bindingId": "b-1"}],
        "auditConfigs": [{"service": "allServices"}]});
    let result = client.set_policy(&document(), &policy(value.clone())).await.unwrap();
    assert_eq!(result, policy(written));
    let [asked] = server.asked().try_into().unwrap();
    assert_eq!(asked.method, Method::POST);
    assert_eq!(asked.uri.to_string(), "/v2/projects/shop/locations/europe-west1/services/api:setIamPolicy");
    assert_eq!(asked.headers["content-type"], "application/json");
    let mut sent = value;
    sent["version"] = json!(3);
    assert_eq!(serde_json::from_slice::<Value>(&asked.body).unwrap(), json!({ "policy": sent }));
}

#[tokio::test]
async fn unknown_parts_of_a_policy_are_sent_as_the_text_that_was_read() {
    let foreign = concat!(
        r#"{"role":"roles/x","members":["user:a@x.example"],"condition":{"title":"t","description":"","#,
        r#""expression":"e","priority":36893488147419103233}}, {"role":"roles/y", "weight":1.50E+400}"#
    );
    let text = format!(r#"{{"version":3,"etag":"BwWWja0YfJA=","bindings":[{foreign}],"auditConfigs":[{{"n":1.0}}]}}"#);
    let read = Answer::Raw(200, vec![("content-type", "application/json")], text.into_bytes());
    let (server, client) = StandIn::start([read, Answer::Json(200, json!({"etag": "BwWWja0YfJE="}))]).await;
    let policy = client.policy(&document()).await.unwrap();
    client.set_policy(&document(), &policy).await.unwrap();
    let body = String::from_utf8(server.asked()[1].body.to_vec()).unwrap();
    for binding in foreign.split(", {") {
        assert!(body.contains(binding), "{binding} is not in {body}");
    }
    assert!(body.contains(r#""auditConfigs":[{"n":1.0}]"#), "{body}");
}

#[tokio::test]
async fn a_policy_without_etag_is_not_sent() {
    let (server, client) = StandIn::start([]).await;
    let mut policy = some_policy();
    policy.etag.clear();
    assert_eq!(client.set_policy(&document(), &policy).await, Err(GoogleError::EtagMissing));
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_policy_that_cannot_be_written_back_is_an_error_when_it_is_read() {
    let hidden = "roles/iam.securityReviewer_withcond_58e135cabb940ad9346c";
    for (body, reason) in [
        (json!({"version": 1}), "EtagMissing"),
        (json!({}), "EtagMissing"),
        (json!({"version": 2, "etag": "ACAB"}), "PolicyUnknownVersion"),
        (json!({"etag": "ACAB", "bindings": [{"role": hidden, "members": ["user:a@x.example"]}]}), "ConditionsHidden"),
        (json!({"etag": "ACAB", "bindings": {"role": "x"}}), "GoogleMalformed"),
        (json!({"etag": "ACAB", "error": {"code": 403}}), "GoogleMalformed"),
        (json!(["etag", "ACAB"]), "GoogleMalformed"),
    ] {
        let (_, client) = StandIn::start([Answer::Json(200, body.clone())]).await;
        assert_eq!(client.policy(&document()).await.unwrap_err().reason().word(), reason, "{body}");
    }
}

#[tokio::test]
async fn a_name_that_would_change_the_path_is_not_sent() {
    let (server, client) = StandIn::start([]).await;
    let key = DocumentKey::cloud_run("..", "..", ResourceKind::Service, "api").unwrap();
    assert_eq!(client.policy(&key).await.unwrap_err().reason().word(), "GoogleMalformed");
    assert_eq!(client.services("p/../q", "l").await.unwrap_err().reason().word(), "GoogleMalformed");
    assert!(server.asked().is_empty());
}

fn item(kind: &str, name: &str) -> Value {
    json!({"name": format!("projects/123456/locations/europe-west1/{kind}/{name}"), "uid": format!("uid-{name}")})
}

#[tokio::test]
async fn a_list_is_read_to_its_last_page() {
    let mut labelled = item("services", "b");
    labelled["labels"] = json!({"team": "checkout"});
    labelled["invokerIamDisabled"] = json!(true);
    let (server, client) = StandIn::start([
        Answer::Json(200, json!({"services": [item("services", "a")], "nextPageToken": "p 2&"})),
        Answer::Json(200, json!({"nextPageToken": "p3", "unreachable": ["europe-west1"]})),
        Answer::Json(200, json!({"services": [labelled]})),
    ])
    .await;
    let found = client.services("shop", "europe-west1").await.unwrap();
    let key = |name| DocumentKey::cloud_run("shop", "europe-west1", ResourceKind::Service, name).unwrap();
    let plain =
        Resource { document: key("a"), uid: "uid-a".into(), labels: BTreeMap::new(), invoker_iam_disabled: false };
    let open = Resource {
        document: key("b"),
        uid: "uid-b".into(),
        labels: [("team".to_owned(), "checkout".to_owned())].into(),
        invoker_iam_disabled: true,
    };
    assert_eq!(found, Services { items: vec![plain, open], unreachable: vec!["europe-west1".into()] });
    let asked: Vec<String> = server.asked().iter().map(|asked| asked.uri.to_string()).collect();
    let base = "/v2/projects/shop/locations/europe-west1/services?pageSize=100";
    assert_eq!(asked, [base.to_owned(), format!("{base}&pageToken=p+2%26"), format!("{base}&pageToken=p3")]);
}

#[tokio::test]
async fn an_empty_object_is_an_empty_list() {
    let (_, client) = StandIn::start([Answer::Json(200, json!({}))]).await;
    assert_eq!(client.services("shop", "europe-west1").await, Ok(Services::default()));
}

#[tokio::test]
async fn a_list_that_is_not_what_it_should_be_is_an_error_and_never_a_short_list() {
    let other_region = json!({"name": "projects/shop/locations/us-east1/services/a", "uid": "u"});
    for body in [
        json!({"status": "ok"}),
        json!({"jobs": [item("jobs", "a")]}),
        json!({"services": [item("jobs", "a")]}),
        json!({"services": [other_region]}),
        json!({"services": [{"name": "projects/shop/locations/europe-west1/services/a"}]}),
        json!({"services": [{"name": "projects/shop/locations/europe-west1/services/a", "uid": ""}]}),
        json!({"services": [{"name": "projects/shop/locations/europe-west1/services/a b", "uid": "u"}]}),
        json!({"services": "none"}),
    ] {
        let (_, client) = StandIn::start([Answer::Json(200, body.clone())]).await;
        let error = client.services("shop", "europe-west1").await.unwrap_err();
        assert_eq!(error.reason().word(), "GoogleMalformed", "{body}");
    }
}

#[tokio::test]
async fn a_list_whose_second_page_fails_is_an_error() {
    let (_, client) = StandIn::start([
        Answer::Json(200, json!({"services": [item("services", "a")], "nextPageToken": "2"})),
        Answer::Json(503, error_body(503, "UNAVAILABLE", "The service is currently unavailable.")),
    ])
    .await;
    assert_eq!(client.services("shop", "europe-west1").await.unwrap_err().class(), ErrorClass::Retry);
}

#[tokio::test]
async fn a_list_that_repeats_its_page_token_ends() {
    let page = || Answer::Json(200, json!({"nextPageToken": "again"}));
    let (server, client) = StandIn::start((0..10).map(|_| page())).await;
    assert_eq!(client.services("shop", "europe-west1").await.unwrap_err().reason().word(), "GoogleMalformed");
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn all_kinds_are_listed_and_a_kind_that_fails_is_reported_beside_the_others() {
    async fn by_path(uri: Uri) -> Response {
        match uri.path().rsplit('/').next().unwrap() {
            "services" => {
                axum::Json(json!({"services": [item("services", "s")], "unreachable": ["x"]})).into_response()
            }
            "workerPools" => axum::Json(json!({"workerPools": [item("workerPools", "w")]})).into_response(),
            _ => {
                let text = "Permission 'run.jobs.list' denied on resource 'projects/shop' (or resource may not exist).";
                (StatusCode::FORBIDDEN, axum::Json(error_body(403, "PERMISSION_DENIED", text))).into_response()
            }
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(listener.local_addr().unwrap().port());
    tokio::spawn(axum::serve(listener, Router::new().fallback(by_path)).into_future());
    let found = client.resources("shop", "europe-west1").await;
    let names: Vec<String> = found.items.iter().map(|item| item.document.short()).collect();
    assert_eq!(names, ["services/s", "workerPools/w"]);
    assert_eq!(found.unreachable, ["x"]);
    assert!(!found.is_complete());
    let [(kind, GoogleError::Denied { permission, .. })] = found.failed.as_slice() else {
        panic!("{:?}", found.failed)
    };
    assert_eq!((*kind, permission.as_deref()), (ResourceKind::Job, Some("run.jobs.list")));
}

#[tokio::test]
async fn a_conflict_and_an_exceeded_quota_are_distinguished_over_http() {
    let (_, client) = StandIn::start([
        Answer::Json(409, error_body(409, "ABORTED", "There were concurrent policy changes.")),
        Answer::Raw(429, vec![("retry-after", "7")], b"{}".to_vec()),
    ])
    .await;
    assert_eq!(client.set_policy(&document(), &some_policy()).await, Err(GoogleError::Conflict));
    let throttled = client.set_policy(&document(), &some_policy()).await.unwrap_err();
    assert_eq!((throttled.class(), throttled.retry_after()), (ErrorClass::Throttle, Some(Duration::from_secs(7))));
}

#[tokio::test]
async fn a_refused_member_is_spelled_as_the_written_policy_spells_it() {
    for (text, expected) in [
        ("User bob@example.com does not exist.", Some("user:Bob@Example.com")),
        // The type that Google names may be wrong.
        ("User x@p.iam.gserviceaccount.com does not exist.", Some("serviceAccount:x@p.iam.gserviceaccount.com")),
        ("User somebody@else.example does not exist.", None),
    ] {
        let (_, client) = StandIn::start([Answer::Json(400, error_body(400, "INVALID_ARGUMENT", text))]).await;
        let error = client.set_policy(&document(), &some_policy()).await.unwrap_err();
        let GoogleError::Refused { cause: RefusalCause::PrincipalUnknown, member, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(member.as_deref(), expected, "{text}");
    }
}

#[tokio::test]
async fn a_write_that_is_not_answered_in_time_is_unknown_and_a_read_is_not() {
    let (server, port) = StandIn::listen([Answer::Never, Answer::Never]).await;
    let client = impatient(port, SOON);
    let write = client.set_policy(&document(), &some_policy()).await.unwrap_err();
    assert_eq!((write.reason().word(), write.class()), ("OutcomeUnknown", ErrorClass::Unknown));
    assert_eq!(client.policy(&document()).await.unwrap_err().class(), ErrorClass::Retry);
    assert_eq!(server.asked().len(), 2, "neither was sent twice");
}

#[tokio::test]
async fn a_write_whose_connection_breaks_after_it_was_sent_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let mut taken = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            taken += usize::from(stream.read(&mut buffer).await.unwrap() > 0);
            if taken == 2 {
                return;
            }
        }
    });
    let write = client.set_policy(&document(), &some_policy()).await.unwrap_err();
    assert_eq!(write.class(), ErrorClass::Unknown, "{write:?}");
    assert_eq!(client.policy(&document()).await.unwrap_err().class(), ErrorClass::Retry);
    server.await.unwrap();
}

#[tokio::test]
async fn a_write_that_finds_nobody_was_surely_not_committed() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let write = client(port).set_policy(&document(), &some_policy()).await.unwrap_err();
    assert_eq!((write.reason().word(), write.class()), ("GoogleUnavailable", ErrorClass::Retry), "{write}");
    assert!(!write.to_string().contains("/v2/"), "{write}");
}

#[tokio::test]
async fn a_success_that_cannot_be_read_is_unknown_for_a_write_and_malformed_for_a_read() {
    let bodies = [b"<html>".to_vec(), b"".to_vec(), b"{}".to_vec(), vec![b' '; BODY_MAX + 1]];
    for body in bodies {
        let answer = || Answer::Raw(200, vec![], body.clone());
        let (_, client) = StandIn::start([answer(), answer()]).await;
        let write = client.set_policy(&document(), &some_policy()).await.unwrap_err();
        assert_eq!(write.class(), ErrorClass::Unknown, "{write:?}");
        let read = client.policy(&document()).await.unwrap_err();
        assert!(matches!(read.reason().word(), "GoogleMalformed" | "EtagMissing"), "{read:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (server, client) = StandIn::start([
        Answer::Raw(307, vec![("location", "/elsewhere")], vec![]),
        Answer::Json(200, json!({"etag": "ACAB"})),
    ])
    .await;
    assert_eq!(client.policy(&document()).await.unwrap_err().class(), ErrorClass::Retry);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn calls_are_counted_by_operation_and_outcome() {
    let (_, client) = StandIn::start([
        Answer::Json(200, json!({"etag": "ACAB"})),
        Answer::Json(409, error_body(409, "ABORTED", "x")),
    ])
    .await;
    let metrics = Metrics::new();
    let client = client.with_metrics(metrics.google.clone());
    client.policy(&document()).await.unwrap();
    client.set_policy(&document(), &some_policy()).await.unwrap_err();
    let text = metrics.exposition().unwrap();
    for line in [
        r#"rolecall_google_requests_total{operation="getIamPolicy",outcome="ok"} 1"#,
        r#"rolecall_google_requests_total{operation="setIamPolicy",outcome="EtagConflict"} 1"#,
        r#"rolecall_google_request_seconds_count{operation="getIamPolicy"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

/// A provider of one token, like those of `gcp_auth`.
struct OneToken;

impl gcp_auth::TokenProvider for OneToken {
    fn token<'a: 'c, 'b: 'c, 's: 'c, 'c>(
        &'a self,
        scopes: &'b [&'s str],
    ) -> Pin<Box<dyn Future<Output = Result<Arc<gcp_auth::Token>, gcp_auth::Error>> + Send + 'c>> {
        assert_eq!(scopes, ["https://www.googleapis.com/auth/cloud-platform"]);
        let token = serde_json::from_value(json!({"access_token": "ya29.secret", "expires_in": 3600})).unwrap();
        Box::pin(async { Ok(Arc::new(token)) })
    }

    fn project_id<'a: 'c, 'c>(
        &'a self,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<str>, gcp_auth::Error>> + Send + 'c>> {
        Box::pin(async { Ok(Arc::from("p")) })
    }
}

fn one_token() -> Arc<dyn TokenSource> {
    Arc::new(ApplicationDefault::with_provider(Arc::new(OneToken)))
}

#[tokio::test]
async fn a_token_is_put_on_requests_to_google_and_on_no_other() {
    let client = CloudRun::with_source(Endpoint::Google, one_token()).unwrap();
    let request = |url: &str| Request::new(reqwest::Method::GET, Url::parse(url).unwrap());
    let mut to_google = request("https://run.googleapis.com/v2/x");
    client.authorize(&mut to_google).await.unwrap();
    let header = &to_google.headers()["authorization"];
    assert_eq!(header, "Bearer ya29.secret");
    assert!(header.is_sensitive());
    assert!(!format!("{to_google:?} {client:?}").contains("secret"));
    for url in ["https://run.googleapis.com.evil.example/", "http://run.googleapis.com/", "http://127.0.0.1:1/"] {
        let mut elsewhere = request(url);
        assert_eq!(client.authorize(&mut elsewhere).await.unwrap_err().reason().word(), "Unauthenticated", "{url}");
        assert!(elsewhere.headers().is_empty());
    }
}

#[test]
fn credentials_and_an_endpoint_that_must_not_see_them_make_no_client() {
    for base in ["http://127.0.0.1:8080", "https://run.googleapis.com.evil.example/", "https://proxy.example/"] {
        let error = CloudRun::with_source(base.parse().unwrap(), one_token()).unwrap_err();
        assert_eq!(error.reason().word(), "Unauthenticated", "{base}");
    }
    let private: Endpoint = "https://run-acme.p.googleapis.com/".parse().unwrap();
    assert!(CloudRun::with_source(private, one_token()).is_ok());
}

/// A source of tokens that fails.
struct Failing;

impl TokenSource for Failing {
    fn token(&self) -> BoxFuture<'_, Result<Option<Bearer>, GoogleError>> {
        Box::pin(async { Err(GoogleError::Unauthenticated { message: "no key".into() }) })
    }
}

#[tokio::test]
async fn a_write_without_a_token_is_not_sent_and_surely_not_committed() {
    let client = CloudRun::with_source(Endpoint::Google, Arc::new(Failing)).unwrap();
    let error = client.set_policy(&document(), &some_policy()).await.unwrap_err();
    assert_eq!((error.reason().word(), error.class()), ("Unauthenticated", ErrorClass::Retry));
}
