//! Groups: attributes as JSON, and membership as changes that never need the full list of members.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};
use uuid::Uuid;

use super::apply;
use super::assign::{Assignment, Context, Message};
use super::edit::{Edit, Verb};
use super::error::{ScimError, shown};
use super::extension;
use super::filter::{CompareOp, Filter, FilterValue, Test};
use super::finding::{FindingCode, Findings};
use super::json;
use super::member_id::{issued_id, member_id};
use super::parse::PatchPath;
use super::patch::{self, Operation};
use super::resource::whole;
use super::schema::ResourceType;
use super::work::Work;
use crate::model::{GroupFacts, GroupId, MemberChange, MemberChanges};

/// The change of a group in a PUT or PATCH, fully parsed before any of it is applied.
#[derive(Debug, Clone)]
pub(crate) struct GroupChange {
    of: ResourceType,
    replace: bool,
    attributes: Vec<(Option<usize>, Edit)>,
    /// The work of reading the request.
    work: Work,
    /// Membership changes, in the order of the request.
    pub(crate) members: MemberChanges,
}

/// A group to create.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewGroupRequest {
    /// The resource to store, without `id`, `meta` and `members`.
    pub(crate) resource: Value,
    /// The members, as additions.
    pub(crate) members: MemberChanges,
}

/// Parses a POST.
///
/// # Errors
/// `invalidValue`: a value of the wrong type, no `displayName`, a member without an id.
pub(crate) fn new_group(
    of: ResourceType,
    body: Map<String, Value>,
    findings: &mut Findings,
) -> Result<NewGroupRequest, ScimError> {
    let mut work = Work::default();
    let read = whole(of, None, body, findings, &mut work)?;
    let mut members = MemberChanges::default();
    let read_members = Intake { findings, texts: &mut members.texts }.change(read.members)?;
    findings.refuse_deviations()?;
    if let Some(MemberChange::Replace(ids) | MemberChange::Add(ids)) = read_members {
        members.list.push(MemberChange::Add(ids));
    }
    Ok(NewGroupRequest { resource: apply::created(of, &read.edits, &mut work)?, members })
}

impl GroupChange {
    /// Parses a PUT. A body that does not mention `members` leaves them unchanged.
    ///
    /// # Errors
    /// `invalidValue`, `invalidSyntax`.
    pub(crate) fn put(
        of: ResourceType,
        id: GroupId,
        body: Map<String, Value>,
        findings: &mut Findings,
    ) -> Result<Self, ScimError> {
        let mut work = Work::default();
        let read = whole(of, Some(&id.to_string()), body, findings, &mut work)?;
        if read.members.is_empty() {
            findings.note(FindingCode::MembersNotAsserted, "members");
        }
        let mut members = MemberChanges::default();
        members.list.extend(Intake { findings, texts: &mut members.texts }.change(read.members)?);
        findings.refuse_deviations()?;
        Ok(Self { of, replace: true, attributes: read.edits, work, members })
    }

    /// Parses a PATCH.
    ///
    /// # Errors
    /// `invalidSyntax`, `invalidPath`, `invalidValue`, `noTarget`, `mutability`, `tooMany`, each with the operation's index.
    pub(crate) fn patch(
        of: ResourceType,
        id: GroupId,
        body: Map<String, Value>,
        findings: &mut Findings,
    ) -> Result<Self, ScimError> {
        let id = id.to_string();
        let mut change = Self {
            of,
            replace: false,
            attributes: Vec::new(),
            work: Work::default(),
            members: MemberChanges::default(),
        };
        let listed = extension::listed(&body, false);
        for (index, operation) in patch::operations(of, body, findings)?.into_iter().enumerate() {
            let edits = change.operation(&id, &listed, operation, findings);
            let edits = edits.and_then(|edits| findings.refuse_deviations().map(|()| edits));
            let edits = edits.map_err(|problem| problem.in_operation(index))?;
            change.attributes.extend(edits.into_iter().map(|edit| (Some(index), edit)));
        }
        Ok(change)
    }

    fn operation(
        &mut self,
        id: &str,
        listed: &[String],
        operation: Operation,
        findings: &mut Findings,
    ) -> Result<Vec<Edit>, ScimError> {
        let (of, message, extensions, refused) = (self.of, Message::Patch, Vec::new(), Vec::new());
        let (id, work) = (Some(id), &mut self.work);
        let mut context = Context { of, id, message, listed, extensions, refused, findings, work };
        let (members, rest) = context.operation(operation)?.into_iter().partition(Assignment::is_members);
        let edits = context.edits(rest)?;
        self.members.list.extend(Intake { findings, texts: &mut self.members.texts }.change(members)?);
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
    #[cfg(test)]
    pub(crate) fn apply(&self, current: &Value) -> Result<Option<Value>, ScimError> {
        self.apply_to(current, &self.members, &mut Findings::new())
    }

    /// Like [`GroupChange::apply`], with the membership changes of the request. Notes what is left as it was so that nothing
    /// keeps a leaver in.
    ///
    /// # Errors
    /// `invalidValue`, `tooMany`.
    pub(crate) fn apply_to(
        &self,
        current: &Value,
        members: &MemberChanges,
        findings: &mut Findings,
    ) -> Result<Option<Value>, ScimError> {
        if !self.has_attributes() {
            return Ok(None);
        }
        let removes = members.list.iter().any(|change| match change {
            MemberChange::Add(_) => false,
            MemberChange::Remove(_) | MemberChange::Replace(_) | MemberChange::Clear => true,
        });
        let whole = (current, self.replace);
        let work = &mut self.work.clone();
        apply::changed(self.of, &self.attributes, whole, work, findings, |_, _| removes).map(Some)
    }
}

/// The facts about a group that access depends on, except its members.
#[must_use]
pub(crate) fn group_facts(id: GroupId, resource: &Value) -> GroupFacts {
    let text = |name: &str| resource.get(name).and_then(Value::as_str).map(str::to_owned);
    GroupFacts { id, display_name: text("displayName").unwrap_or_default(), external_id: text("externalId") }
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

fn not_understood(path: &PatchPath) -> ScimError {
    ScimError::InvalidPath(format!(
        "`{}` is not understood; use `members`, or `members[value eq \"ID\"]` to remove",
        shown(&path.to_string())
    ))
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

/// The list or object that a text holds; other values as they are.
fn unpacked(value: Value, pointer: &str, findings: &mut Findings) -> Result<Value, ScimError> {
    let Some(inner) = value.as_str().and_then(|text| json::embedded(text, findings)) else { return Ok(value) };
    let inner = inner.map_err(|_| ScimError::InvalidValue(format!("`{pointer}` is a text with malformed JSON")))?;
    findings.note(FindingCode::JsonInString, "members");
    Ok(inner)
}

/// Reads the members of one request.
struct Intake<'a> {
    findings: &'a mut Findings,
    /// The texts of the ids that are not in the form of this server.
    texts: &'a mut BTreeMap<Uuid, String>,
}

impl Intake<'_> {
    /// The membership change of one object or operation, even if it mentions the members several times.
    fn change(&mut self, members: Vec<Assignment>) -> Result<Option<MemberChange>, ScimError> {
        let mut asked: Option<Option<MemberChange>> = None;
        for assignment in members {
            let change = self.at(assignment.verb, &assignment.path, assignment.value)?;
            if let Some(asked) = &asked {
                if *asked != change {
                    return Err(ScimError::InvalidSyntax(
                        "`members` is given more than once, with different values".into(),
                    ));
                }
                self.findings.note(FindingCode::AttributeRepeated, "members");
            }
            asked = Some(change);
        }
        Ok(asked.flatten())
    }

    fn at(&mut self, verb: Verb, path: &PatchPath, value: Option<Value>) -> Result<Option<MemberChange>, ScimError> {
        if let Some(sub) = path.sub.as_ref().or(path.attribute.sub.as_ref()) {
            return Err(if verb == Verb::Replace && sub.eq_ignore_ascii_case("value") {
                ScimError::Mutability(
                    "the `value` of a member cannot be changed; remove the member and add another".into(),
                )
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
                Ok(Some(MemberChange::Remove(ids.into_iter().map(|id| self.id(id)).collect())))
            }
            (_, Some(_)) => Err(not_understood(path)),
            (Verb::Add, None) => match value {
                Some(value) => self.add(value),
                None => Err(ScimError::InvalidValue("`add` to `members` comes without a value".into())),
            },
            (Verb::Replace, None) => match value {
                Some(value) => self.replace(value).map(Some),
                None => Err(ScimError::InvalidValue("`replace` of `members` comes without a value".into())),
            },
            (Verb::Remove, None) => match value {
                // No value at all removes the attribute (RFC 7644 §3.5.2.2). Any value, even an empty one, is a list of the
                // members that are meant.
                None => Ok(Some(MemberChange::Clear)),
                Some(Value::Null) => {
                    self.findings.note(FindingCode::RemoveOfNothing, "members");
                    Ok(None)
                }
                Some(Value::Array(list)) if list.is_empty() => {
                    self.findings.note(FindingCode::RemoveOfNothing, "members");
                    Ok(None)
                }
                Some(value) => {
                    let ids = self.ids(value)?;
                    self.findings.note(FindingCode::RemoveWithValue, "members");
                    Ok(if ids.is_empty() { None } else { Some(MemberChange::Remove(ids)) })
                }
            },
        }
    }

    fn add(&mut self, value: Value) -> Result<Option<MemberChange>, ScimError> {
        let ids = self.ids(value)?;
        Ok(if ids.is_empty() { None } else { Some(MemberChange::Add(ids)) })
    }

    fn replace(&mut self, value: Value) -> Result<MemberChange, ScimError> {
        if value.is_null() {
            return Ok(MemberChange::Clear);
        }
        let ids = self.ids(value)?;
        Ok(if ids.is_empty() { MemberChange::Clear } else { MemberChange::Replace(ids) })
    }

    /// The ids in a list of members, without duplicates. Empty only for an empty list.
    fn ids(&mut self, value: Value) -> Result<Vec<Uuid>, ScimError> {
        let list = match unpacked(value, "members", self.findings)? {
            Value::Array(list) => list,
            Value::Object(mut object) => match listed(&mut object)? {
                Some(Value::Array(list)) => list,
                Some(_) => return Err(ScimError::InvalidValue("`members` must be a list".into())),
                None => {
                    self.findings.note(FindingCode::ListExpected, "members");
                    vec![Value::Object(object)]
                }
            },
            Value::String(id) => {
                self.findings.note(FindingCode::ListExpected, "members");
                vec![Value::String(id)]
            }
            _ => return Err(ScimError::InvalidValue("`members` must be a list".into())),
        };
        let total = list.len();
        let mut seen = HashSet::with_capacity(total);
        let mut ids = Vec::with_capacity(total);
        for (index, member) in list.into_iter().enumerate() {
            let id = match unpacked(member, &format!("members[{index}]"), self.findings)? {
                Value::String(id) => {
                    self.findings.note(FindingCode::ObjectExpected, "members");
                    id
                }
                Value::Object(object) => match object.into_iter().find(|(key, _)| key.eq_ignore_ascii_case("value")) {
                    Some((_, Value::String(id))) => id,
                    Some(_) => {
                        return Err(ScimError::InvalidValue(format!("`members[{index}].value` must be a string")));
                    }
                    None => return Err(ScimError::InvalidValue(format!("`members[{index}]` has no `value`"))),
                },
                _ => {
                    return Err(ScimError::InvalidValue(format!(
                        "`members[{index}]` must be an object with a `value`"
                    )));
                }
            };
            if id.trim().is_empty() {
                return Err(ScimError::InvalidValue(format!("`members[{index}].value` is blank")));
            }
            if id.trim_start().starts_with(['{', '[']) {
                return Err(ScimError::InvalidValue(format!("`members[{index}].value` is JSON and not an id")));
            }
            let id = self.id(id);
            if seen.insert(id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// The id of a member.
    fn id(&mut self, text: String) -> Uuid {
        let id = member_id(&text);
        if issued_id(&text).is_none() {
            self.findings.note(FindingCode::MemberIdForeign, "members");
        }
        if id.to_string() != text {
            self.texts.insert(id, text);
        }
        id
    }
}
