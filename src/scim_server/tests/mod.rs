//! Tests of the endpoint over HTTP: the router on a socket with a SQLite store, and a client of it.

mod bad_input;
mod bodies;
mod bulk;
mod capture;
mod concurrent;
mod dialogues;
mod doctor;
mod draws;
mod extensions;
mod filters;
mod intake;
mod meaning;
mod members;
mod model;
mod oauth;
mod registered;
mod routes;
mod schema;
mod size;
mod strict;
mod tenants;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{ManualClock, ProviderName};
use crate::scim::{FindingCode, ResourceTypes};
use crate::scim_server::{AcceptedToken, Captures, Limits, Scim, TokenTable, Traffic, router};
use crate::store::Store;
use crate::telemetry::Metrics;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) const OKTA_TOKEN: &str = "okta-token-0123456789abcdef";
pub(crate) const ENTRA_TOKEN: &str = "entra-token-0123456789abcdef";

pub(crate) struct Server {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) traffic: Traffic,
    pub(crate) captures: Captures,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) tokens: TokenTable,
    pub(crate) client: reqwest::Client,
    folder: tempfile::TempDir,
    pub(crate) clock: Arc<ManualClock>,
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// Checks that this is an error in the form of RFC 7644 §3.12.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, scim_type: Option<&str>) -> &Self {
        assert_eq!(self.status, status, "{}", self.text);
        let body = self.json();
        assert_eq!(body["schemas"], json!(["urn:ietf:params:scim:api:messages:2.0:Error"]));
        assert_eq!(body["status"], json!(status.to_string()));
        assert_eq!(body.get("scimType").and_then(Value::as_str), scim_type, "{}", self.text);
        assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        assert_eq!(self.header("content-type"), "application/scim+json");
        self
    }
}

fn token(name: &str, secret: &str) -> AcceptedToken {
    AcceptedToken { name: name.into(), sha256: Sha256::digest(secret).into(), not_after: None }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::on(tempfile::tempdir().unwrap(), limits, ResourceTypes::default()).await
    }

    /// Serves these types from the database in a folder.
    pub(crate) async fn on(folder: tempfile::TempDir, limits: Limits, types: ResourceTypes) -> Self {
        let tokens = BTreeMap::from([
            (ProviderName::new("okta").unwrap(), vec![token("a", OKTA_TOKEN)]),
            (ProviderName::new("entra").unwrap(), vec![token("a", ENTRA_TOKEN)]),
            (ProviderName::new("one").unwrap(), vec![token("a", "token-of-two-providers")]),
            (ProviderName::new("two").unwrap(), vec![token("a", "token-of-two-providers")]),
        ]);
        let table = TokenTable::new();
        table.replace(tokens);
        let clock = Arc::new(ManualClock::new("2026-06-01T00:00:00Z".parse().unwrap()));
        let url = format!("sqlite:{}", folder.path().join("rolecall.db").display());
        let store = Store::open(&url, clock.clone()).await.unwrap();
        store.hold_unique(&types).await.unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (traffic, metrics) = (Traffic::new(), Metrics::new());
        let captures = Captures::new(jiff::SignedDuration::from_hours(24), "https://rolecall.example.com");
        let app = router(Scim {
            metrics: metrics.scim.clone(),
            store: store.clone(),
            tokens: table.clone(),
            issuers: crate::scim_server::Issuers::new(false, Vec::new()).unwrap(),
            traffic: traffic.clone(),
            captures: captures.clone(),
            external_url: "https://rolecall.example.com/".into(),
            clock: clock.clone(),
            types: Arc::new(types),
            limits,
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
        Self { address, traffic, captures, store, metrics, tokens: table, client, folder, clock }
    }

    /// Sends a request as given; a header without a value is omitted.
    pub(crate) async fn send(
        &self,
        provider: &str,
        method: &str,
        path: &str,
        headers: &[(&str, Option<&str>)],
        body: Option<Vec<u8>>,
    ) -> Reply {
        let url = format!("http://{}/idp/{provider}/scim/v2{path}", self.address);
        let mut request = self.client.request(method.parse().unwrap(), url);
        for (name, value) in headers {
            if let Some(value) = value {
                request = request.header(*name, *value);
            }
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await.unwrap();
        Reply {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await.unwrap(),
        }
    }

    /// A request of the provider `okta` with its token.
    pub(crate) async fn okta(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        self.of("okta", OKTA_TOKEN, method, path, body).await
    }

    pub(crate) async fn of(&self, provider: &str, token: &str, method: &str, path: &str, body: Option<Value>) -> Reply {
        let authorization = format!("Bearer {token}");
        let mut headers = vec![("authorization", Some(authorization.as_str()))];
        if body.is_some() {
            headers.push(("content-type", Some("application/scim+json")));
        }
        self.send(provider, method, path, &headers, body.map(|body| body.to_string().into_bytes())).await
    }

    /// Creates a user and returns its id.
    pub(crate) async fn user(&self, name: &str) -> String {
        let reply = self
            .okta(
                "POST",
                "/Users",
                Some(json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": name})),
            )
            .await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    /// Creates a group with these members and returns its id.
    pub(crate) async fn group(&self, name: &str, members: &[&str]) -> String {
        let members: Vec<Value> = members.iter().map(|id| json!({"value": id})).collect();
        let body = json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": name, "members": members});
        let reply = self.okta("POST", "/Groups", Some(body)).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    /// PATCH with these operations.
    pub(crate) async fn patch(&self, path: &str, operations: Value) -> Reply {
        let body = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": operations});
        self.okta("PATCH", path, Some(body)).await
    }

    /// The members of a group in the answer to a GET.
    pub(crate) async fn members(&self, group: &str) -> BTreeSet<String> {
        let reply = self.okta("GET", &format!("/Groups/{group}"), None).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json()["members"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|member| member["value"].as_str().unwrap().to_owned())
            .collect()
    }

    /// True when a finding of this code was recorded for the provider `okta`.
    pub(crate) fn found(&self, code: FindingCode) -> bool {
        let seen = self.traffic.of(&ProviderName::new("okta").unwrap());
        seen.findings.keys().any(|finding| finding.code == code)
    }
}
