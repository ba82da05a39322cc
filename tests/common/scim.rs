//! A minimal IdP.

use serde_json::{Value, json};

/// A minimal IdP.
#[derive(Clone)]
pub(crate) struct Scim {
    pub(crate) base: String,
    pub(crate) token: String,
    pub(crate) http: reqwest::Client,
}

impl Scim {
    pub(crate) async fn send(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("content-type", "application/scim+json").body(body.to_string());
        }
        let answer = request.send().await.expect("a SCIM answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub(crate) async fn create_user(&self, user_name: &str) -> String {
        let body = json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "userName": user_name,
            "externalId": format!("ext-{user_name}"),
            "active": true,
            "emails": [{"value": user_name, "type": "work", "primary": true}],
        });
        let (status, answer) = self.send(reqwest::Method::POST, "/Users", Some(body)).await;
        assert_eq!(status, 201, "create {user_name}: {answer}");
        answer["id"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn create_group(&self, name: &str, members: &[&str]) -> String {
        let members: Vec<Value> = members.iter().map(|id| json!({"value": id})).collect();
        let body = json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"],
            "displayName": name,
            "members": members,
        });
        let (status, answer) = self.send(reqwest::Method::POST, "/Groups", Some(body)).await;
        assert_eq!(status, 201, "create {name}: {answer}");
        answer["id"].as_str().expect("an id").to_owned()
    }

    async fn patch(&self, path: &str, operations: Value) {
        let body = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": operations});
        let (status, answer) = self.send(reqwest::Method::PATCH, path, Some(body)).await;
        assert!(status == 200 || status == 204, "PATCH {path}: {status} {answer}");
    }

    pub(crate) async fn add_members(&self, group: &str, users: &[&str]) {
        let value: Vec<Value> = users.iter().map(|id| json!({"value": id})).collect();
        self.patch(&format!("/Groups/{group}"), json!([{"op": "add", "path": "members", "value": value}])).await;
    }

    pub(crate) async fn remove_member(&self, group: &str, user: &str) {
        let path = format!("members[value eq \"{user}\"]");
        self.patch(&format!("/Groups/{group}"), json!([{"op": "remove", "path": path}])).await;
    }

    pub(crate) async fn replace_members(&self, group: &str, users: &[&str]) {
        let value: Vec<Value> = users.iter().map(|id| json!({"value": id})).collect();
        self.patch(&format!("/Groups/{group}"), json!([{"op": "replace", "path": "members", "value": value}])).await;
    }

    pub(crate) async fn set_active(&self, user: &str, active: bool) {
        self.patch(&format!("/Users/{user}"), json!([{"op": "replace", "value": {"active": active}}])).await;
    }

    pub(crate) async fn delete(&self, path: &str) {
        let (status, answer) = self.send(reqwest::Method::DELETE, path, None).await;
        assert_eq!(status, 204, "DELETE {path}: {answer}");
    }
}
