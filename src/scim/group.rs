//! Groups: attributes as JSON, and membership as changes that never need the full list of members.

use std::collections::HashSet;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::assign::{Assignment, Context, Message};
use super::edit::{self, Edit, Verb};
use super::error::{ScimError, shown};
use super::filter::{CompareOp, Filter, FilterValue, Test};
use super::finding::{FindingCode, Findings};
use super::json;
use super::parse::PatchPath;
use super::patch::{self, Operation};
use super::schema::ResourceType;
use super::user::whole;
use super::work::Work;
use crate::model::{GroupFacts, GroupId, MemberChange};

/// The change of a group in a PUT or PATCH, fully parsed before any of it is applied.
#[derive(Debug, Clone)]
pub(crate) struct GroupChange {
    replace: bool,
    attributes: Vec<(Option<usize>, Edit)>,
    /// The work of reading the request.
    work: Work,
    /// Membership changes, in the order of the request.
    pub(crate) members: Vec<MemberChange>,
}

/// A group to create.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewGroupRequest {
    /// The resource to store, without `id`, `meta` and `members`.
    pub(crate) resource: Value,
    /// The members.
    pub(crate) members: Vec<Uuid>,
}

/// Parses a POST.
///
/// # Errors
/// `invalidValue`: a value of the wrong type, no `displayName`, a member without an id.
pub(crate) fn new_group(body: Map<String, Value>, findings: &mut Findings) -> Result<NewGroupRequest, ScimError> {
    let mut work = Work::default();
    let read = whole(ResourceType::Group, None, body, findings, &mut work)?;
    let members = match member_change(read.members, findings)? {
        Some(MemberChange::Replace(ids) | MemberChange::Add(ids)) => ids,
        Some(MemberChange::Clear | MemberChange::Remove(_)) | None => Vec::new(),
    };
    Ok(NewGroupRequest { resource: edit::apply(ResourceType::Group, &read.edits, Map::new(), &mut work)?, members })
}

impl GroupChange {
    /// Parses a PUT. A body that does not mention `members` leaves them unchanged.
    ///
    /// # Errors
    /// `invalidValue`, `invalidSyntax`.
    pub(crate) fn put(id: GroupId, body: Map<String, Value>, findings: &mut Findings) -> Result<Self, ScimError> {
        let mut work = Work::default();
        let read = whole(ResourceType::Group, Some(&id.to_string()), body, findings, &mut work)?;
        if read.members.is_empty() {
            findings.note(FindingCode::MembersNotAsserted, "members");
        }
        let members = member_change(read.members, findings)?.into_iter().collect();
        Ok(Self { replace: true, attributes: read.edits, work, members })
    }

    /// Parses a PATCH.
    ///
    /// # Errors
    /// `invalidSyntax`, `invalidPath`, `invalidValue`, `noTarget`, `mutability`, `tooMany`, each with the operation's index.
    pub(crate) fn patch(id: GroupId, body: Map<String, Value>, findings: &mut Findings) -> Result<Self, ScimError> {
        let id = id.to_string();
        let mut change = Self { replace: false, attributes: Vec::new(), work: Work::default(), members: Vec::new() };
        for (index, operation) in patch::operations(ResourceType::Group, body, findings)?.into_iter().enumerate() {
            let edits = change.operation(&id, operation, findings).map_err(|problem| problem.in_operation(index))?;
            change.attributes.extend(edits.into_iter().map(|edit| (Some(index), edit)));
        }
        Ok(change)
    }

    fn operation(&mut self, id: &str, operation: Operation, findings: &mut Findings) -> Result<Vec<Edit>, ScimError> {
        let work = &mut self.work;
        let mut context = Context { of: ResourceType::Group, id: Some(id), message: Message::Patch, findings, work };
        let (members, rest) = context.operation(operation)?.into_iter().partition(Assignment::is_members);
        let edits = context.edits(rest)?;
        self.members.extend(member_change(members, findings)?);
        Ok(edits)
    }

    /// True when anything but the members changes, so that the stored group has to be read.
    #[must_use]
    pub(crate) fn has_attributes(&self) -> bool {
        self.replace || !self.attributes.is_empty()
    }

    /// The resulting attributes, without the members; none when no attribute is mentioned.
    ///
    /// # Errors
    /// `invalidValue`, `tooMany`.
    pub(crate) fn apply(&self, current: &Value) -> Result<Option<Value>, ScimError> {
        if !self.has_attributes() {
            return Ok(None);
        }
        let start = match current {
            Value::Object(current) if self.replace => {
                current.get("externalId").map(|kept| ("externalId".to_owned(), kept.clone())).into_iter().collect()
            }
            Value::Object(current) => current.clone(),
            _ => return Err(ScimError::Internal),
        };
        edit::apply(ResourceType::Group, &self.attributes, start, &mut self.work.clone()).map(Some)
    }
}

/// The facts about a group that access depends on, except its members.
#[must_use]
pub(crate) fn group_facts(id: GroupId, resource: &Value) -> GroupFacts {
    let text = |name: &str| resource.get(name).and_then(Value::as_str).map(str::to_owned);
    GroupFacts { id, display_name: text("displayName").unwrap_or_default(), external_id: text("externalId") }
}

/// Parses an id in the form that this server issues: a hyphenated UUID.
#[must_use]
pub(crate) fn issued_id(text: &str) -> Option<Uuid> {
    if text.len() == 36 { Uuid::try_parse(text).ok() } else { None }
}

/// The id under which a text that is not an id of this server is stored. The same text gives the same id, so that a
/// member that was parked can be removed again. Version 8 (RFC 9562 §5.8) is never issued, so no resource can ever have
/// this id.
fn foreign_id(text: &str) -> Uuid {
    let mut bytes = [0; 16];
    for (byte, digest) in bytes.iter_mut().zip(Sha256::digest(text)) {
        *byte = digest;
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The list in `{"members": […]}`, which some providers send where the list itself is expected.
fn listed(object: &mut Map<String, Value>) -> Result<Option<Value>, ScimError> {
    let urn = format!("{}:members", ResourceType::Group.urn());
    let is_members = |key: &str| key.eq_ignore_ascii_case("members") || key.eq_ignore_ascii_case(&urn);
    if !object.keys().any(|key| is_members(key)) {
        return Ok(None);
    }
    if object.len() > 1 {
        return Err(ScimError::InvalidValue(
            "`members` is given together with other values; send the list alone".into(),
        ));
    }
    Ok(object.values_mut().next().map(Value::take))
}

/// The membership change of one object or operation, even if it mentions the members several times.
fn member_change(members: Vec<Assignment>, findings: &mut Findings) -> Result<Option<MemberChange>, ScimError> {
    let mut asked: Option<Option<MemberChange>> = None;
    for assignment in members {
        let change = at_members(assignment.verb, &assignment.path, assignment.value, findings)?;
        if asked.as_ref().is_some_and(|asked| *asked != change) {
            return Err(ScimError::InvalidSyntax("`members` is given more than once, with different values".into()));
        }
        asked = Some(change);
    }
    Ok(asked.flatten())
}

fn not_understood(path: &PatchPath) -> ScimError {
    ScimError::InvalidPath(format!(
        "`{}` is not understood; use `members`, or `members[value eq \"ID\"]` to remove",
        shown(&path.to_string())
    ))
}

fn at_members(
    verb: Verb,
    path: &PatchPath,
    value: Option<Value>,
    findings: &mut Findings,
) -> Result<Option<MemberChange>, ScimError> {
    if let Some(sub) = path.sub.as_ref().or(path.attribute.sub.as_ref()) {
        return Err(if verb == Verb::Replace && sub.eq_ignore_ascii_case("value") {
            ScimError::Mutability("the `value` of a member cannot be changed; remove the member and add another".into())
        } else {
            not_understood(path)
        });
    }
    match (verb, &path.filter) {
        (Verb::Remove, Some(filter)) => {
            let mut ids = Vec::new();
            if !collect_ids(filter, &mut ids) {
                return Err(not_understood(path));
            }
            if ids.iter().any(|id| id.trim().is_empty()) {
                return Err(ScimError::InvalidValue("the id in the filter on `members` is blank".into()));
            }
            Ok(Some(MemberChange::Remove(
                ids.iter().map(|id| issued_id(id).unwrap_or_else(|| foreign_id(id))).collect(),
            )))
        }
        (_, Some(_)) => Err(not_understood(path)),
        (Verb::Add, None) => match value {
            Some(value) => add_members(value, findings),
            None => Err(ScimError::InvalidValue("`add` to `members` comes without a value".into())),
        },
        (Verb::Replace, None) => match value {
            Some(value) => replace_members(value, findings).map(Some),
            None => Err(ScimError::InvalidValue("`replace` of `members` comes without a value".into())),
        },
        (Verb::Remove, None) => match value {
            // No value at all removes the attribute (RFC 7644 §3.5.2.2). Any value, even an empty one, is a list of the
            // members that are meant.
            None => Ok(Some(MemberChange::Clear)),
            Some(Value::Null) => {
                findings.note(FindingCode::RemoveOfNothing, "members");
                Ok(None)
            }
            Some(Value::Array(list)) if list.is_empty() => {
                findings.note(FindingCode::RemoveOfNothing, "members");
                Ok(None)
            }
            Some(value) => {
                let ids = member_ids(value, Given::Unwanted, findings)?;
                findings.note(FindingCode::RemoveWithValue, "members");
                Ok(if ids.is_empty() { None } else { Some(MemberChange::Remove(ids)) })
            }
        },
    }
}

/// True for `type eq "User"` and `type eq "Group"`.
fn is_type(filter: &Filter) -> bool {
    let Filter::Attribute(path, Test::Compare(CompareOp::Equal, FilterValue::String(name))) = filter else {
        return false;
    };
    let known = ResourceType::ALL.into_iter().any(|of| of.name().eq_ignore_ascii_case(name));
    known && path.schema.is_none() && path.sub.is_none() && path.name.eq_ignore_ascii_case("type")
}

/// The ids of `value eq "a"` and of `value eq "a" or value eq "b"`; false for any other filter.
fn collect_ids(filter: &Filter, ids: &mut Vec<String>) -> bool {
    match filter {
        Filter::Or(terms) => terms.iter().all(|term| collect_ids(term, ids)),
        // An id belongs to one resource, so its type adds nothing.
        Filter::And(terms) => {
            let (types, rest): (Vec<_>, Vec<_>) = terms.iter().partition(|term| is_type(term));
            !types.is_empty() && rest.len() == 1 && rest.into_iter().all(|term| collect_ids(term, ids))
        }
        Filter::Attribute(path, Test::Compare(CompareOp::Equal, FilterValue::String(id)))
            if path.schema.is_none() && path.sub.is_none() && path.name.eq_ignore_ascii_case("value") =>
        {
            ids.push(id.clone());
            true
        }
        _ => false,
    }
}

fn add_members(value: Value, findings: &mut Findings) -> Result<Option<MemberChange>, ScimError> {
    let ids = member_ids(value, Given::Wanted, findings)?;
    Ok(if ids.is_empty() { None } else { Some(MemberChange::Add(ids)) })
}

fn replace_members(value: Value, findings: &mut Findings) -> Result<MemberChange, ScimError> {
    if value.is_null() {
        return Ok(MemberChange::Clear);
    }
    let ids = member_ids(value, Given::Wanted, findings)?;
    Ok(if ids.is_empty() { MemberChange::Clear } else { MemberChange::Replace(ids) })
}

/// Whether the listed members are to be added or removed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Given {
    Wanted,
    Unwanted,
}

/// The list or object that a text holds; other values as they are.
fn unpacked(value: Value, pointer: &str, findings: &mut Findings) -> Result<Value, ScimError> {
    let Some(inner) = value.as_str().and_then(json::embedded) else { return Ok(value) };
    let inner = inner.map_err(|_| ScimError::InvalidValue(format!("`{pointer}` is a text with malformed JSON")))?;
    findings.note(FindingCode::JsonInString, "members");
    Ok(inner)
}

/// The ids in a list of members, without duplicates. Empty only for an empty list.
fn member_ids(value: Value, given: Given, findings: &mut Findings) -> Result<Vec<Uuid>, ScimError> {
    let list = match unpacked(value, "members", findings)? {
        Value::Array(list) => list,
        Value::Object(mut object) => match listed(&mut object)? {
            Some(Value::Array(list)) => list,
            Some(_) => return Err(ScimError::InvalidValue("`members` must be a list".into())),
            None => {
                findings.note(FindingCode::ListExpected, "members");
                vec![Value::Object(object)]
            }
        },
        Value::String(id) => {
            findings.note(FindingCode::ListExpected, "members");
            vec![Value::String(id)]
        }
        _ => return Err(ScimError::InvalidValue("`members` must be a list".into())),
    };
    let total = list.len();
    let mut seen = HashSet::with_capacity(total);
    let mut ids = Vec::with_capacity(total);
    let mut foreign = 0_usize;
    for (index, member) in list.into_iter().enumerate() {
        let id = match unpacked(member, &format!("members[{index}]"), findings)? {
            Value::String(id) => {
                findings.note(FindingCode::ObjectExpected, "members");
                id
            }
            Value::Object(object) => match object.into_iter().find(|(key, _)| key.eq_ignore_ascii_case("value")) {
                Some((_, Value::String(id))) => id,
                Some(_) => {
                    return Err(ScimError::InvalidValue(format!("`members[{index}].value` must be a string")));
                }
                None => return Err(ScimError::InvalidValue(format!("`members[{index}]` has no `value`"))),
            },
            _ => return Err(ScimError::InvalidValue(format!("`members[{index}]` must be an object with a `value`"))),
        };
        if id.trim().is_empty() {
            return Err(ScimError::InvalidValue(format!("`members[{index}].value` is blank")));
        }
        if id.trim_start().starts_with(['{', '[']) {
            return Err(ScimError::InvalidValue(format!("`members[{index}].value` is JSON and not an id")));
        }
        let id = issued_id(&id).unwrap_or_else(|| {
            foreign += 1;
            foreign_id(&id)
        });
        if seen.insert(id) {
            ids.push(id);
        }
    }
    if foreign > 0 && given == Given::Wanted {
        if foreign == total {
            return Err(ScimError::InvalidValue(format!(
                "none of the {total} members is an id that this server issues; send the `id` of users created here"
            )));
        }
        findings.note(FindingCode::MemberIdForeign, "members");
    }
    Ok(ids)
}
