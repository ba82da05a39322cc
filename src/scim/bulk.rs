//! Bulk requests (RFC 7644 §3.7): their form, the order of their operations, and the ids they stand for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};
use uuid::Uuid;

use super::error::{ScimError, shown};
use super::finding::{FindingCode, Findings};
use super::json;
use super::member_id::issued_id;
use super::schema::{BULK_REQUEST_URN, ResourceType};

/// Largest number of operations of one bulk request.
pub(crate) const MAX_BULK_OPERATIONS: usize = 1_000;

/// The prefix of a reference to a resource that the same request creates.
const REFERENCE: &str = "bulkId:";

/// A bulk request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BulkRequest {
    /// Number of failures after which the rest is not tried; none: all are tried.
    pub(crate) fail_on_errors: Option<usize>,
    /// The operations.
    pub(crate) operations: Vec<BulkOperation>,
    /// The operation that creates the resource of each `bulkId`.
    by_bulk_id: HashMap<String, usize>,
}

/// One operation. What is wrong with it alone is found when it is its turn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BulkOperation {
    /// The method as sent, for the answer.
    pub(crate) method: String,
    /// The `bulkId` as sent.
    pub(crate) bulk_id: Option<String>,
    /// The entity tag that the resource must have.
    pub(crate) version: Option<String>,
    /// What to do.
    pub(crate) action: Result<(BulkAction, ResourceType), ScimError>,
    /// The id that a created resource gets.
    pub(crate) id: Uuid,
    data: Option<Value>,
    /// The `bulkId`s that are referred to.
    references: BTreeSet<String>,
}

/// What an operation does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BulkAction {
    /// POST.
    Create,
    /// PUT.
    Replace(Target),
    /// PATCH.
    Modify(Target),
    /// DELETE.
    Delete(Target),
}

/// The resource at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// By its id.
    Id(Uuid),
    /// By the `bulkId` of the operation that creates it.
    BulkId(String),
}

fn syntax(text: impl Into<String>) -> ScimError {
    ScimError::InvalidSyntax(text.into())
}

impl BulkRequest {
    /// Parses the body. `issue` makes the ids of the resources to create.
    ///
    /// # Errors
    /// `invalidSyntax`; [`ScimError::TooManyOperations`]; `invalidValue`: a `bulkId` of two operations.
    pub(crate) fn parse(
        types: &[ResourceType],
        body: Map<String, Value>,
        findings: &mut Findings,
        mut issue: impl FnMut() -> Uuid,
    ) -> Result<Self, ScimError> {
        let urns = json::member(&body, "schemas").and_then(Value::as_array);
        let known = |urn: &Value| urn.as_str().is_some_and(|urn| urn.eq_ignore_ascii_case(BULK_REQUEST_URN));
        match urns {
            None => findings.note(FindingCode::SchemasMissing, "schemas"),
            Some(urns) if !urns.iter().any(known) => findings.note(FindingCode::SchemaUnknown, "schemas"),
            Some(_) => {}
        }
        let fail_on_errors = match json::member(&body, "failOnErrors") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let limit = value.as_u64().ok_or_else(|| syntax("`failOnErrors` must be a whole number"))?;
                // Zero would permit nothing at all.
                Some(usize::try_from(limit).unwrap_or(usize::MAX)).filter(|limit| *limit > 0)
            }
        };
        let operations = body.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("Operations"));
        let list = match operations {
            Some((_, Value::Array(list))) => list,
            Some(_) => return Err(syntax("`Operations` must be a list")),
            None => return Err(syntax("the body has no `Operations`")),
        };
        if list.len() > MAX_BULK_OPERATIONS {
            return Err(ScimError::TooManyOperations { limit: MAX_BULK_OPERATIONS });
        }
        findings.refuse_deviations()?;
        let mut request =
            Self { fail_on_errors, operations: Vec::with_capacity(list.len()), by_bulk_id: HashMap::new() };
        for (index, value) in list.into_iter().enumerate() {
            let operation =
                BulkOperation::parse(types, value, issue()).map_err(|problem| problem.in_operation(index))?;
            if let (Ok((BulkAction::Create, _)), Some(bulk_id)) = (&operation.action, &operation.bulk_id)
                && request.by_bulk_id.insert(bulk_id.clone(), index).is_some()
            {
                let text = format!("operation {index}: another operation has the bulkId `{}`", shown(bulk_id));
                return Err(ScimError::InvalidValue(text));
            }
            request.operations.push(operation);
        }
        Ok(request)
    }

    /// The operations in an order in which each comes after those that it refers to. Those that refer to each other in a
    /// circle are in one group.
    #[must_use]
    pub(crate) fn order(&self) -> Vec<Vec<usize>> {
        let mut search = Components { request: self, seen: BTreeMap::new(), open: Vec::new(), found: Vec::new() };
        for index in 0..self.operations.len() {
            search.visit(index);
        }
        search.found
    }

    fn dependencies(&self, index: usize) -> impl Iterator<Item = usize> {
        let references = self.operations.get(index).map(|operation| &operation.references);
        references.into_iter().flatten().filter_map(|bulk_id| self.by_bulk_id.get(bulk_id).copied())
    }

    /// The operations that create what an operation refers to.
    ///
    /// # Errors
    /// `invalidValue`: no operation of the request has a `bulkId` that is referred to.
    pub(crate) fn needs(&self, index: usize) -> Result<Vec<usize>, ScimError> {
        let Some(operation) = self.operations.get(index) else { return Ok(vec![]) };
        let find = |bulk_id: &String| self.by_bulk_id.get(bulk_id).copied().ok_or_else(|| unresolved(bulk_id));
        operation.references.iter().map(find).collect()
    }

    /// The id of the resource that an operation changes.
    ///
    /// # Errors
    /// `invalidValue`: no operation has this `bulkId`.
    pub(crate) fn target(&self, target: &Target) -> Result<Uuid, ScimError> {
        match target {
            Target::Id(id) => Ok(*id),
            Target::BulkId(bulk_id) => {
                let index = self.by_bulk_id.get(bulk_id).ok_or_else(|| unresolved(bulk_id))?;
                self.operations.get(*index).map(|operation| operation.id).ok_or(ScimError::Internal)
            }
        }
    }

    /// The data of an operation, with ids in the place of references.
    ///
    /// # Errors
    /// `invalidSyntax`: there is no object.
    pub(crate) fn data(&self, index: usize) -> Result<Map<String, Value>, ScimError> {
        let data = self.operations.get(index).and_then(|operation| operation.data.clone());
        match data {
            Some(Value::Object(data)) => Ok(data.into_iter().map(|(name, value)| (name, self.filled(value))).collect()),
            _ => Err(syntax("`data` must be an object")),
        }
    }

    fn filled(&self, value: Value) -> Value {
        match value {
            Value::String(text) if text.contains(REFERENCE) => Value::String(self.filled_text(&text)),
            Value::Array(list) => list.into_iter().map(|value| self.filled(value)).collect(),
            Value::Object(object) => object.into_iter().map(|(name, value)| (name, self.filled(value))).collect(),
            other => other,
        }
    }

    fn filled_text(&self, text: &str) -> String {
        let id = |bulk_id: &str| {
            let index = self.by_bulk_id.get(bulk_id)?;
            self.operations.get(*index).map(|operation| operation.id.to_string())
        };
        // In one pass, since a text may have as many references as a body has room for.
        let mut filled = String::with_capacity(text.len());
        let mut from = 0;
        for (place, bulk_id) in references(text) {
            if let Some(id) = id(&bulk_id) {
                filled.push_str(text.get(from..place.start).unwrap_or_default());
                filled.push_str(&id);
                from = place.end;
            }
        }
        filled.push_str(text.get(from..).unwrap_or_default());
        filled
    }
}

fn unresolved(bulk_id: &str) -> ScimError {
    ScimError::InvalidValue(format!(
        "no operation of this request creates a resource with the bulkId `{}`",
        shown(bulk_id)
    ))
}

/// The references in a text: the whole text, or what stands in quotation marks.
fn references(text: &str) -> Vec<(std::ops::Range<usize>, String)> {
    if let Some(bulk_id) = text.strip_prefix(REFERENCE) {
        return vec![(0..text.len(), bulk_id.to_owned())];
    }
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = text.get(from..).and_then(|rest| rest.find(&format!("\"{REFERENCE}"))) {
        let start = from + start + 1;
        let Some(length) = text.get(start..).and_then(|rest| rest.find('"')) else { break };
        let bulk_id = text.get(start + REFERENCE.len()..start + length).unwrap_or_default();
        found.push((start..start + length, bulk_id.to_owned()));
        from = start + length + 1;
    }
    found
}

fn collect(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if text.contains(REFERENCE) => {
            into.extend(references(text).into_iter().map(|(_, bulk_id)| bulk_id));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, into)),
        Value::Object(object) => object.values().for_each(|value| collect(value, into)),
        _ => {}
    }
}

impl BulkOperation {
    fn parse(types: &[ResourceType], value: Value, id: Uuid) -> Result<Self, ScimError> {
        let Value::Object(object) = value else { return Err(syntax("an operation must be an object")) };
        let text = |name: &str| match json::member(&object, name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(syntax(format!("`{name}` must be a string"))),
        };
        let (method, path) = (text("method")?.unwrap_or_default(), text("path")?.unwrap_or_default());
        let (bulk_id, version) = (text("bulkId")?, text("version")?);
        let data = json::member(&object, "data").cloned();
        let action = action(types, &method, &path, bulk_id.as_deref());
        let mut references = BTreeSet::new();
        if let Some(data) = &data {
            collect(data, &mut references);
        }
        if let Ok((BulkAction::Replace(target) | BulkAction::Modify(target) | BulkAction::Delete(target), _)) = &action
            && let Target::BulkId(bulk_id) = target
        {
            references.insert(bulk_id.clone());
        }
        Ok(Self { method, bulk_id, version, action, id, data, references })
    }
}

/// What a method does at a path.
fn action(
    types: &[ResourceType],
    method: &str,
    path: &str,
    bulk_id: Option<&str>,
) -> Result<(BulkAction, ResourceType), ScimError> {
    let mut segments = path.trim_matches('/').split('/');
    let endpoint = segments.next().unwrap_or_default();
    let matches = |of: &ResourceType| of.endpoint().trim_start_matches('/').eq_ignore_ascii_case(endpoint);
    let of = types.iter().copied().find(matches);
    let (Some(of), id, None) = (of, segments.next(), segments.next()) else {
        let text = format!("`{}` is no path of a bulk operation; use `/Users`, `/Groups` or `/Users/ID`", shown(path));
        return Err(ScimError::NotFound(text));
    };
    let target = || match id {
        None => Err(syntax(format!("{method} needs the id of a resource in its path"))),
        Some(id) => match id.strip_prefix(REFERENCE) {
            Some(bulk_id) => Ok(Target::BulkId(bulk_id.to_owned())),
            None => issued_id(id).map(Target::Id).ok_or_else(|| {
                ScimError::NotFound(format!(
                    "there is no {} with the id `{}`",
                    of.name().to_ascii_lowercase(),
                    shown(id)
                ))
            }),
        },
    };
    let action = match method.to_ascii_uppercase().as_str() {
        "POST" if id.is_some() => return Err(syntax("POST has no id in its path")),
        "POST" if bulk_id.is_none_or(str::is_empty) => return Err(syntax("POST needs a `bulkId` (RFC 7644 §3.7)")),
        "POST" => BulkAction::Create,
        "PUT" => BulkAction::Replace(target()?),
        "PATCH" => BulkAction::Modify(target()?),
        "DELETE" => BulkAction::Delete(target()?),
        _ => return Err(ScimError::MethodNotAllowed("POST, PUT, PATCH, DELETE")),
    };
    Ok((action, of))
}

/// The strongly connected components of the references, in the order of Tarjan's algorithm.
struct Components<'a> {
    request: &'a BulkRequest,
    /// The number of each operation that was visited, and the smallest that can be reached; none when its group is found.
    seen: BTreeMap<usize, (usize, Option<usize>)>,
    open: Vec<usize>,
    found: Vec<Vec<usize>>,
}

impl Components<'_> {
    /// Visits an operation and what it refers to; at most [`MAX_BULK_OPERATIONS`] deep.
    fn visit(&mut self, index: usize) -> Option<usize> {
        if let Some((_, reached)) = self.seen.get(&index) {
            return *reached;
        }
        let number = self.seen.len();
        self.seen.insert(index, (number, Some(number)));
        self.open.push(index);
        let request = self.request;
        let mut least = number;
        for dependency in request.dependencies(index) {
            if let Some(reached) = self.visit(dependency) {
                least = least.min(reached);
            }
        }
        if least < number {
            self.seen.insert(index, (number, Some(least)));
            return Some(least);
        }
        let start = self.open.iter().rposition(|open| *open == index).unwrap_or_default();
        let mut group = self.open.split_off(start);
        group.sort_unstable();
        for member in &group {
            self.seen.insert(*member, (number, None));
        }
        self.found.push(group);
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn as_many_references_as_a_text_has_room_for_are_replaced() {
        let many = 200_000;
        let text = format!("{{{}}}", "\"bulkId:a\" ".repeat(many));
        let body = json!({"Operations": [
            {"method": "POST", "path": "/Users", "bulkId": "a", "data": {"userName": "alice"}},
            {"method": "POST", "path": "/Groups", "bulkId": "b", "data": {"displayName": text}},
        ]});
        let Value::Object(body) = body else { panic!("an object") };
        let request =
            BulkRequest::parse(&ResourceType::ALL, body, &mut Findings::new(), || Uuid::from_u128(7)).unwrap();
        let filled = request.data(1).unwrap();
        let id = Uuid::from_u128(7).to_string();
        assert_eq!(filled["displayName"].as_str().unwrap().matches(&id).count(), many);
    }
}
