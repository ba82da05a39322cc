//! Tests of the emulator over real HTTP.

#![expect(clippy::unwrap_used, reason = "what surprises a test ends it")]
#![expect(clippy::needless_pass_by_value, reason = "bodies are written as `json!` in place")]

mod accounts;
mod control;
mod faults;
mod policies;
mod resources;
mod tokens;

use std::time::Duration;

use reqwest::{Method, StatusCode};
use rolecall_emulator::Emulator;
use serde_json::{Value, json};

/// The collection that all tests use.
pub(crate) const PARENT: &str = "projects/demo-project/locations/us-central1";

/// An emulator for one test, and a client.
pub(crate) struct Google {
    pub(crate) emulator: Emulator,
    pub(crate) client: reqwest::Client,
}

impl Google {
    pub(crate) async fn start() -> Self {
        // An error means that another test of this process was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let emulator = rolecall_emulator::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
        Self { emulator, client }
    }

    pub(crate) async fn raw(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> reqwest::Result<reqwest::Response> {
        let mut request = self.client.request(method, format!("{}{path}", self.emulator.url()));
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let response = self.raw(method, path, body).await.unwrap();
        let status = response.status();
        (status, response.json().await.unwrap())
    }

    /// A call that must succeed.
    pub(crate) async fn ok(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// A call that must be refused: status, status word, message.
    pub(crate) async fn refused(&self, method: Method, path: &str, body: Option<Value>) -> (u16, String, String) {
        let (status, answer) = self.call(method, path, body).await;
        assert!(!status.is_success(), "{answer}");
        assert_eq!(answer["error"]["code"], status.as_u16());
        (
            status.as_u16(),
            answer["error"]["status"].as_str().unwrap().to_owned(),
            answer["error"]["message"].as_str().unwrap().to_owned(),
        )
    }

    /// Creates a service and returns its name.
    pub(crate) async fn service(&self, name: &str) -> String {
        self.ok(Method::POST, &format!("/v2/{PARENT}/services?serviceId={name}"), Some(json!({}))).await;
        format!("{PARENT}/services/{name}")
    }

    pub(crate) async fn get(&self, resource: &str) -> Value {
        self.ok(Method::GET, &format!("/v2/{resource}:getIamPolicy?options.requestedPolicyVersion=3"), None).await
    }

    pub(crate) async fn set(&self, resource: &str, policy: Value) -> Value {
        self.ok(Method::POST, &format!("/v2/{resource}:setIamPolicy"), Some(json!({ "policy": policy }))).await
    }

    pub(crate) async fn set_refused(&self, resource: &str, policy: Value) -> (u16, String, String) {
        self.refused(Method::POST, &format!("/v2/{resource}:setIamPolicy"), Some(json!({ "policy": policy }))).await
    }

    pub(crate) fn control(&self, method: &str, path: &str, body: Value) -> Value {
        self.emulator.control(method, path, &body).unwrap()
    }
}

/// One binding of `roles/run.invoker`.
pub(crate) fn invokers(members: &[&str]) -> Value {
    json!([{ "role": "roles/run.invoker", "members": members }])
}

/// The bytes of an etag as a number: base64 text does not sort like its bytes.
pub(crate) fn etag_number(policy: &Value) -> u64 {
    use base64::Engine;
    let bytes = base64::prelude::BASE64_STANDARD.decode(policy["etag"].as_str().unwrap()).unwrap();
    u64::from_be_bytes(bytes.try_into().unwrap())
}
