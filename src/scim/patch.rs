//! The PATCH message (RFC 7644 §3.5.2) down to its operations.

use serde_json::{Map, Value};

use super::edit::Verb;
use super::error::{ScimError, shown};
use super::extension;
use super::finding::{FindingCode, Findings};
use super::json;
use super::parse::{self, PatchPath};
use super::schema::{Mutability, PATCH_URN, ResourceType};

/// Largest number of operations in one request.
pub(crate) const MAX_OPERATIONS: usize = 10_000;

/// One operation with its parsed verb and path.
pub(super) struct Operation {
    pub(super) verb: Verb,
    pub(super) what: What,
}

pub(super) enum What {
    /// With a path; the value is none when the key is absent.
    Path(Box<PatchPath>, Option<Value>),
    /// Without a path: the members of an object.
    Object(Map<String, Value>),
}

/// The operations of a PATCH request, in order.
///
/// # Errors
/// `invalidSyntax`; each error of an operation has its index.
pub(super) fn operations(
    of: ResourceType,
    body: Map<String, Value>,
    findings: &mut Findings,
) -> Result<Vec<Operation>, ScimError> {
    if let Some(key) = body.keys().find(|key| is_writable(of, key)) {
        return Err(ScimError::InvalidSyntax(format!(
            "`{}` stands beside `Operations`; a change must be one of the operations",
            shown(key)
        )));
    }
    match json::member(&body, "schemas") {
        None => findings.note(FindingCode::SchemasMissing, "schemas"),
        Some(Value::Array(urns)) => {
            let expected = |urn: &&str| urn.eq_ignore_ascii_case(PATCH_URN) || extension::is_extension(urn);
            for urn in urns.iter().filter_map(Value::as_str).filter(|urn| !expected(urn)) {
                findings.note(FindingCode::SchemaUnknown, urn);
            }
        }
        Some(_) => findings.note(FindingCode::SchemaUnknown, "schemas"),
    }
    let operations = body.into_iter().find(|(key, _)| key.eq_ignore_ascii_case("Operations")).map(|(_, value)| value);
    let operations = match operations {
        Some(Value::Array(operations)) => operations,
        Some(one @ Value::Object(_)) => {
            findings.note(FindingCode::ListExpected, "Operations");
            vec![one]
        }
        Some(_) => return Err(ScimError::InvalidSyntax("`Operations` must be a list".into())),
        None => return Err(ScimError::InvalidSyntax("the body has no `Operations`".into())),
    };
    findings.refuse_deviations()?;
    if operations.is_empty() {
        return Err(ScimError::InvalidSyntax("`Operations` is empty".into()));
    }
    if operations.len() > MAX_OPERATIONS {
        return Err(ScimError::InvalidSyntax(format!(
            "{} operations in one request; at most {MAX_OPERATIONS} are accepted",
            operations.len()
        )));
    }
    operations
        .into_iter()
        .enumerate()
        .map(|(index, value)| {
            let operation = operation(value, findings);
            let operation = operation.and_then(|operation| findings.refuse_deviations().map(|()| operation));
            let problem = |problem: ScimError| match problem {
                // The filter of a path.
                ScimError::InvalidFilter(text) => ScimError::InvalidPath(text),
                other => other,
            };
            operation.map_err(|refused| problem(refused).in_operation(index))
        })
        .collect()
}

/// True when a member of the body would be a valid change inside an operation.
fn is_writable(of: ResourceType, key: &str) -> bool {
    let attribute = of.core_attribute(key);
    attribute.is_some_and(|attribute| attribute.mutability != Mutability::ReadOnly && attribute.name != "schemas")
        || key.eq_ignore_ascii_case(of.urn())
        || of.extension(key).is_some()
        || extension::is_extension(key)
}

fn operation(value: Value, findings: &mut Findings) -> Result<Operation, ScimError> {
    let Value::Object(object) = value else {
        return Err(ScimError::InvalidSyntax("an operation must be an object".into()));
    };
    let (mut op, mut path, mut value) = (None, None, None);
    for (key, given) in object {
        if key.eq_ignore_ascii_case("op") {
            op = Some(given);
        } else if key.eq_ignore_ascii_case("path") {
            path = Some(given);
        } else if key.eq_ignore_ascii_case("value") {
            value = Some(given);
        }
    }
    let verb = match op {
        Some(Value::String(word)) => Verb::from_word(&word).ok_or_else(|| {
            ScimError::InvalidSyntax(format!("`{}` is not an operation; use add, replace or remove", shown(&word)))
        })?,
        _ => return Err(ScimError::InvalidSyntax("`op` is missing; use add, replace or remove".into())),
    };
    let path = match path {
        None => None,
        Some(Value::Null) => {
            findings.note(FindingCode::PathEmpty, "path");
            None
        }
        Some(Value::String(text)) if text.trim().is_empty() => {
            findings.note(FindingCode::PathEmpty, "path");
            None
        }
        Some(Value::String(text)) => Some(parse::patch_path(&text, findings)?),
        Some(_) => return Err(ScimError::InvalidPath("`path` must be a string".into())),
    };
    let what = match path {
        Some(path) => What::Path(Box::new(path), value),
        None if verb == Verb::Remove => {
            return Err(ScimError::NoTarget("`remove` needs a path to what it removes".into()));
        }
        None => What::Object(whole(value, findings)?),
    };
    Ok(Operation { verb, what })
}

/// The value of an operation without a path: an object, or an object in a string.
fn whole(value: Option<Value>, findings: &mut Findings) -> Result<Map<String, Value>, ScimError> {
    let refused = || ScimError::InvalidValue("without a path, `value` must be an object of attributes".into());
    match value {
        Some(Value::Object(object)) => Ok(object),
        Some(Value::String(text)) if text.trim_start().starts_with('{') => {
            let object = json::object(text.as_bytes(), findings).map_err(|_| refused())?;
            findings.note(FindingCode::JsonInString, "value");
            Ok(object)
        }
        _ => Err(refused()),
    }
}
