//! Users and resources of types from a file: the requested change, the resulting resource, and the facts about a user
//! that access depends on.

use std::fmt::Display;

use serde_json::{Map, Value};

use super::apply;
use super::assign::{Assignment, Context, Message};
use super::bounds;
use super::edit::{Edit, Verb};
use super::error::ScimError;
use super::extension;
use super::finding::{FindingCode, Findings};
use super::json;
use super::patch;
use super::schema::{Home, ResourceType};
use super::work::Work;
use crate::model::{EmailFact, UserFacts, UserId};

/// The change of a resource without members in a PUT or PATCH, fully parsed and checked against the schema before any of it is applied.
#[derive(Debug, Clone)]
pub(crate) struct ResourceChange {
    of: ResourceType,
    /// True for a PUT: attributes that are not mentioned are removed, except those that must not be lost by omission.
    replace: bool,
    edits: Vec<(Option<usize>, Edit)>,
    /// The work of reading the request.
    work: Work,
}

/// The resource to store for a POST, without `id` and `meta`.
///
/// # Errors
/// `invalidValue`: a value of the wrong type, or one that is missing, such as `userName`. `tooMany`.
pub(crate) fn new_resource(
    of: ResourceType,
    body: Map<String, Value>,
    findings: &mut Findings,
) -> Result<Value, ScimError> {
    let mut work = Work::default();
    let edits = whole(of, None, body, findings, &mut work)?.edits;
    let mut resource = apply::created(of, &edits, &mut work)?;
    if let (Home::Users, Value::Object(resource)) = (of.home(), &mut resource) {
        // Stored explicitly, so that a later change that does not mention it does not change it.
        resource.entry("active").or_insert(Value::Bool(true));
    }
    Ok(resource)
}

/// The body of a POST or PUT.
pub(super) struct WholeBody {
    pub(super) edits: Vec<(Option<usize>, Edit)>,
    /// The changes of a group's members in the body.
    pub(super) members: Vec<Assignment>,
}

/// Reads the body of a POST or PUT.
pub(super) fn whole(
    of: ResourceType,
    id: Option<&str>,
    body: Map<String, Value>,
    findings: &mut Findings,
    work: &mut Work,
) -> Result<WholeBody, ScimError> {
    if json::member(&body, "schemas").is_none() {
        findings.note(FindingCode::SchemasMissing, "schemas");
    }
    let listed = extension::listed(&body, true);
    let (message, listed, extensions, refused) = (Message::Whole, listed.as_slice(), Vec::new(), Vec::new());
    let mut context = Context { of, id, message, listed, extensions, refused, findings, work };
    let assignments = context.object(Verb::Replace, body);
    let read = assignments.and_then(|assignments| {
        let has_members = of.home() == Home::Groups;
        let (members, rest) = assignments.into_iter().partition(|one| has_members && one.is_members());
        let edits = context.edits(rest)?.into_iter().map(|edit| (None, edit)).collect();
        context.findings.refuse_deviations()?;
        Ok(WholeBody { edits, members })
    });
    read.map_err(ScimError::of_body)
}

impl ResourceChange {
    /// Parses a PUT.
    ///
    /// # Errors
    /// `invalidValue`, `invalidSyntax`, `tooMany`.
    pub(crate) fn put(
        of: ResourceType,
        id: impl Display,
        body: Map<String, Value>,
        findings: &mut Findings,
    ) -> Result<Self, ScimError> {
        let mut work = Work::default();
        let edits = whole(of, Some(&id.to_string()), body, findings, &mut work)?.edits;
        Ok(Self { of, replace: true, edits, work })
    }

    /// Parses a PATCH.
    ///
    /// # Errors
    /// `invalidSyntax`, `invalidPath`, `invalidValue`, `noTarget`, `mutability`, `tooMany`, each with the operation's index.
    pub(crate) fn patch(
        of: ResourceType,
        id: impl Display,
        body: Map<String, Value>,
        findings: &mut Findings,
    ) -> Result<Self, ScimError> {
        let id = id.to_string();
        let mut work = Work::default();
        let mut edits = Vec::new();
        let listed = extension::listed(&body, false);
        for (index, operation) in patch::operations(of, body, findings)?.into_iter().enumerate() {
            let (message, extensions, refused) = (Message::Patch, Vec::new(), Vec::new());
            let (id, listed, work) = (Some(id.as_str()), listed.as_slice(), &mut work);
            let mut context = Context { of, id, message, listed, extensions, refused, findings, work };
            let new = context
                .operation(operation)
                .and_then(|assignments| context.edits(assignments))
                .and_then(|edits| context.findings.refuse_deviations().map(|()| edits))
                .map_err(|problem| problem.in_operation(index))?;
            edits.extend(new.into_iter().map(|edit| (Some(index), edit)));
        }
        Ok(Self { of, replace: false, edits, work })
    }

    /// The resulting resource. Contains the whole change, or an error is returned.
    ///
    /// # Errors
    /// `invalidValue`, `noTarget`, `tooMany`.
    #[cfg(test)]
    pub(crate) fn apply(&self, current: &Value) -> Result<Value, ScimError> {
        self.apply_counted(current, &mut Findings::new()).0
    }

    /// Like [`ResourceChange::apply`], but also returns the work of the whole request up to its end or its refusal, and notes
    /// what is left as it was so that nothing keeps a leaver in.
    pub(crate) fn apply_counted(&self, current: &Value, findings: &mut Findings) -> (Result<Value, ScimError>, Work) {
        let mut work = self.work;
        let deactivates = |before: &Map<String, Value>, after: &Map<String, Value>| {
            self.of.home() == Home::Users && bounds::is_active(before) && !bounds::is_active(after)
        };
        let whole = (current, self.replace);
        (apply::changed(self.of, &self.edits, whole, &mut work, findings, deactivates), work)
    }
}

/// The facts about a user that access depends on. If the resource does not say whether the user is active, `was_active`
/// stays: an omission neither restores the access of a leaver nor locks anybody out.
#[must_use]
pub(crate) fn user_facts(id: UserId, resource: &Value, was_active: bool) -> UserFacts {
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
