//! Which identity provider the requests of a tenant look like. The signs are those of the recorded dialogues.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A family of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Dialect {
    /// Okta.
    Okta,
    /// Microsoft Entra ID.
    Entra,
    /// `OneLogin`.
    OneLogin,
    /// `JumpCloud`.
    JumpCloud,
    /// authentik.
    Authentik,
    /// Extensions of Keycloak.
    Keycloak,
    /// `PingOne` and `PingFederate`.
    Ping,
    /// Google Workspace.
    Google,
    /// Requests without a sign of one of the others.
    Generic,
}

impl Dialect {
    /// All but [`Dialect::Generic`], in the order of the enum.
    const NAMED: [Self; Self::Generic as usize] = [
        Self::Okta,
        Self::Entra,
        Self::OneLogin,
        Self::JumpCloud,
        Self::Authentik,
        Self::Keycloak,
        Self::Ping,
        Self::Google,
    ];

    /// The word in `spec.scim.dialect` and `status.dialect`.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Okta => "Okta",
            Self::Entra => "Entra",
            Self::OneLogin => "OneLogin",
            Self::JumpCloud => "JumpCloud",
            Self::Authentik => "Authentik",
            Self::Keycloak => "Keycloak",
            Self::Ping => "Ping",
            Self::Google => "Google",
            Self::Generic => "Generic",
        }
    }
}

/// Score from which on a dialect is taken as found.
const FOUND: u16 = 15;
/// Score of a name that the client gives itself, which no other sign outweighs.
const NAMED: u16 = 1000;
/// Number of operations, members and addresses of one request that are looked at.
const LOOKED_AT: usize = 8;

/// The sum of the signs seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Signs([u16; Dialect::Generic as usize]);

impl Signs {
    fn add(&mut self, dialect: Dialect, score: u16) {
        if let Some(sum) = self.0.get_mut(dialect as usize) {
            *sum = sum.saturating_add(score);
        }
    }

    /// Adds the signs of another request.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (sum, score) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(score);
        }
    }

    /// The dialect with the most signs.
    #[must_use]
    pub(crate) fn dialect(&self) -> Dialect {
        let found = self.0.into_iter().zip(Dialect::NAMED).filter(|(score, _)| *score >= FOUND);
        found.max_by_key(|(score, _)| *score).map_or(Dialect::Generic, |(_, dialect)| dialect)
    }

    /// Adds the signs of the head of a request. `target`: path and query as received.
    pub(crate) fn head(&mut self, target: &str, agent: Option<&str>) {
        let agent = agent.unwrap_or_default().to_ascii_lowercase();
        for (word, dialect) in [
            ("okta", Dialect::Okta),
            ("google-auto-provisioning", Dialect::Google),
            ("authentik", Dialect::Authentik),
            ("onelogin", Dialect::OneLogin),
            ("jumpcloud", Dialect::JumpCloud),
            ("keycloak", Dialect::Keycloak),
            ("pingone", Dialect::Ping),
            ("pingfederate", Dialect::Ping),
            ("azure", Dialect::Entra),
            ("microsoft", Dialect::Entra),
        ] {
            if agent.contains(word) {
                self.add(dialect, NAMED);
                break;
            }
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if target.ends_with(['?', '&']) {
            self.add(Dialect::OneLogin, 30);
        }
        let users = path.ends_with("/Users");
        for (sign, dialect, score) in [
            ("aadOptscim", Dialect::Entra, 100),
            ("AzureAdScimPatch", Dialect::Entra, 100),
            ("filter=externalId%20eq", Dialect::Entra, 10),
            ("onelogin-", Dialect::OneLogin, 30),
            ("%20Eq%20", Dialect::Ping, 30),
            ("%20Co%20", Dialect::Ping, 30),
            ("filter=emails%20eq", Dialect::Ping, 10),
        ] {
            if query.contains(sign) {
                self.add(dialect, score);
            }
        }
        if query.starts_with("filter=id%20eq") && query.contains("%20and%20") {
            self.add(Dialect::Entra, 15);
        }
        match query {
            "startIndex=1&count=2" if users => self.add(Dialect::Okta, 15),
            "count=1" if users => self.add(Dialect::Google, 10),
            _ => {}
        }
    }

    /// Adds the signs of a body.
    pub(crate) fn body(&mut self, body: &Map<String, Value>) {
        let urns = list(body, "schemas").filter_map(Value::as_str);
        if urns.take(LOOKED_AT).any(|urn| urn.starts_with("urn:scim:schemas:")) {
            self.add(Dialect::OneLogin, 50);
        }
        for operation in list(body, "Operations").take(LOOKED_AT).filter_map(Value::as_object) {
            self.operation(operation);
        }
        self.resource(body);
    }

    fn operation(&mut self, operation: &Map<String, Value>) {
        let text = |name: &str| operation.get(name).and_then(Value::as_str);
        let (verb, path, value) = (text("op").unwrap_or_default(), text("path"), operation.get("value"));
        if matches!(verb, "Add" | "Replace" | "Remove") {
            self.add(Dialect::Entra, 20);
        }
        let is_text_of_boolean = value.and_then(Value::as_str).is_some_and(|value| matches!(value, "True" | "False"));
        if is_text_of_boolean || path.is_some_and(|path| path.contains("primary eq \"True\"")) {
            self.add(Dialect::Entra, 20);
        }
        match (path, value) {
            (Some("members"), None) if verb == "remove" => self.add(Dialect::Keycloak, 15),
            (Some("members"), Some(Value::Array(members)))
                if members.iter().take(LOOKED_AT).any(|member| member.get("type").is_some()) =>
            {
                self.add(Dialect::Keycloak, 15);
            }
            (None, Some(Value::String(value))) if value.starts_with('{') => self.add(Dialect::Keycloak, 30),
            (None, Some(Value::Object(value))) => {
                if value.contains_key("schemas") {
                    self.add(Dialect::Authentik, 30);
                } else if value.keys().any(|key| key.contains('.')) {
                    self.add(Dialect::Entra, 20);
                } else if value.contains_key("active") || value.contains_key("id") {
                    self.add(Dialect::Okta, 10);
                }
            }
            _ => {}
        }
    }

    fn resource(&mut self, body: &Map<String, Value>) {
        let text = |object: &Value, name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
        let emails: Vec<&Value> = list(body, "emails").take(LOOKED_AT).collect();
        if emails.iter().filter(|email| email.get("primary") == Some(&Value::Bool(true))).count() > 1 {
            self.add(Dialect::Ping, 40);
        }
        if emails.iter().any(|email| text(email, "type").as_deref() == Some("other")) {
            self.add(Dialect::Authentik, 20);
        }
        if body.contains_key("emails") && body.get("emails").is_some_and(Value::is_null) {
            self.add(Dialect::JumpCloud, 15);
        }
        // The form of an id of the database that JumpCloud uses.
        let external_id = body.get("externalId").and_then(Value::as_str).unwrap_or_default();
        if external_id.len() == 24 && external_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            self.add(Dialect::JumpCloud, 20);
        }
        if body.contains_key("password") && list(body, "groups").next().is_none() && body.contains_key("groups") {
            self.add(Dialect::Okta, 15);
        }
        if list(body, "roles").take(LOOKED_AT).any(|role| text(role, "primary").as_deref() == Some("True")) {
            self.add(Dialect::Entra, 20);
        }
        if body.contains_key("roles") && !body.contains_key("name") {
            self.add(Dialect::Keycloak, 10);
        }
        let is_relative = |reference: Option<String>| {
            reference.is_some_and(|reference| reference.starts_with("Users/") || reference.starts_with("Groups/"))
        };
        let mut members = list(body, "members").take(LOOKED_AT);
        if members.any(|member| is_relative(text(member, "$ref"))) {
            self.add(Dialect::Keycloak, 40);
        }
        if body.get("meta").is_some_and(|meta| is_relative(text(meta, "location"))) {
            self.add(Dialect::Keycloak, 30);
        }
        let urns: Vec<&str> = list(body, "schemas").take(LOOKED_AT).filter_map(Value::as_str).collect();
        if body.contains_key("meta") && urns.len() > 1 && !body.contains_key("id") {
            self.add(Dialect::Entra, 15);
        }
    }
}

fn list<'a>(body: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Value> {
    body.get(name).and_then(Value::as_array).into_iter().flatten()
}
