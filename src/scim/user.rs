//! Users: what a request asks for, what becomes of the stored resource, and what access depends on in it.

use serde_json::{Map, Value};

use super::edit::{self, Context, Edit, Verb};
use super::error::ScimError;
use super::finding::{FindingCode, Findings};
use super::json;
use super::patch::{self, What};
use super::schema::ResourceType;
use crate::model::{EmailFact, UserFacts, UserId};

/// What a PUT or PATCH asks of a user: parsed whole, and checked against the schema, before anything is applied.
#[derive(Debug, Clone)]
pub struct UserChange {
    /// PUT: what is not mentioned goes, but for what must not be lost by silence.
    replace: bool,
    edits: Vec<(Option<usize>, Edit)>,
}

/// The resource to store for a POST, without `id` and `meta`.
///
/// # Errors
/// `invalidValue`: a value of the wrong type, or no `userName`.
pub fn new_user(body: Map<String, Value>, findings: &mut Findings) -> Result<Value, ScimError> {
    let edits = whole(ResourceType::User, None, body, findings)?;
    let mut start = Map::new();
    // Said explicitly, so that a later change that does not mention it finds it.
    start.insert("active".to_owned(), Value::Bool(true));
    edit::apply(ResourceType::User, &edits, start)
}

/// Edits of a POST or PUT body.
pub(super) fn whole(
    of: ResourceType,
    id: Option<&str>,
    body: Map<String, Value>,
    findings: &mut Findings,
) -> Result<Vec<(Option<usize>, Edit)>, ScimError> {
    if json::member(&body, "schemas").is_none() {
        findings.note(FindingCode::SchemasMissing, "schemas");
    }
    let mut edits = Vec::new();
    Context { of, id, findings }.object(Verb::Replace, body, &mut edits).map_err(|problem| match problem {
        // In a PUT the id of the URL counts; another one in the body is a wrong value (RFC 7644 §3.5.1).
        ScimError::Mutability(text) => ScimError::InvalidValue(text),
        other => other,
    })?;
    Ok(edits.into_iter().map(|edit| (None, edit)).collect())
}

impl UserChange {
    /// What a PUT asks for.
    ///
    /// # Errors
    /// `invalidValue`.
    pub fn put(id: UserId, body: Map<String, Value>, findings: &mut Findings) -> Result<Self, ScimError> {
        let edits = whole(ResourceType::User, Some(&id.to_string()), body, findings)?;
        Ok(Self { replace: true, edits })
    }

    /// What a PATCH asks for.
    ///
    /// # Errors
    /// `invalidSyntax`, `invalidPath`, `invalidValue`, `noTarget`, `mutability`, each with the operation's index.
    pub fn patch(id: UserId, body: Map<String, Value>, findings: &mut Findings) -> Result<Self, ScimError> {
        let id = id.to_string();
        let mut edits = Vec::new();
        for (index, operation) in patch::operations(body, findings)?.into_iter().enumerate() {
            let mut context = Context { of: ResourceType::User, id: Some(&id), findings };
            let mut new = Vec::new();
            match operation.what {
                What::Path(path, value) => context.path(operation.verb, &path, value).map(|more| new = more),
                What::Object(object) => context.object(operation.verb, object, &mut new),
            }
            .map_err(|problem| problem.in_operation(index))?;
            edits.extend(new.into_iter().map(|edit| (Some(index), edit)));
        }
        Ok(Self { replace: false, edits })
    }

    /// The resource as it will be. All of the change is in it, or an error is answered.
    ///
    /// # Errors
    /// `invalidValue`, `noTarget`.
    pub fn apply(&self, current: &Value) -> Result<Value, ScimError> {
        let start = match current {
            Value::Object(current) if self.replace => ["active", "externalId"]
                .into_iter()
                .filter_map(|kept| Some((kept.to_owned(), current.get(kept)?.clone())))
                .collect(),
            Value::Object(current) => current.clone(),
            _ => return Err(ScimError::Internal),
        };
        edit::apply(ResourceType::User, &self.edits, start)
    }
}

/// What access depends on in a user. Where the resource does not say whether it is active, nothing has changed about
/// that: silence neither lets a leaver back in nor locks anybody out.
#[must_use]
pub fn user_facts(id: UserId, resource: &Value, was_active: bool) -> UserFacts {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let emails = resource.get("emails").and_then(Value::as_array).into_iter().flatten();
    UserFacts {
        id,
        active: resource.get("active").and_then(Value::as_bool).unwrap_or(was_active),
        user_name: text(resource.get("userName")).unwrap_or_default(),
        external_id: text(resource.get("externalId")),
        emails: emails
            .filter_map(|email| {
                Some(EmailFact {
                    value: text(email.get("value"))?,
                    kind: text(email.get("type")),
                    primary: email.get("primary").and_then(Value::as_bool).unwrap_or(false),
                })
            })
            .collect(),
    }
}
