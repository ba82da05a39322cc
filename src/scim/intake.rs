//! Values as identity providers send them, turned into the form that is stored.

use serde_json::{Map, Value};

use super::error::ScimError;
use super::finding::{FindingCode, Findings};
use super::schema::{Attribute, Kind};

/// The most elements of one multi-valued attribute of a user.
pub(super) const MAX_ELEMENTS: usize = 500;

/// The value of a whole attribute. None means "no value": null, an empty string, an empty list, an empty object.
/// In the object of a single-valued complex attribute, null stands for a sub-attribute that is to be unset.
///
/// # Errors
/// `invalidValue` for the wrong type, with the attribute path.
pub(super) fn attribute(
    attribute: &Attribute,
    value: Value,
    pointer: &str,
    findings: &mut Findings,
) -> Result<Option<Value>, ScimError> {
    match (attribute.multi, attribute.kind) {
        (true, _) => list(attribute, value, pointer, findings),
        (false, Kind::Complex) => match value {
            Value::Array(mut elements) if elements.len() <= 1 => {
                findings.note(FindingCode::ListNotExpected, pointer);
                let only = elements.pop().unwrap_or(Value::Null);
                object(attribute, only, true, pointer, findings)
            }
            other => object(attribute, other, true, pointer, findings),
        },
        (false, _) => simple(attribute, value, pointer, findings),
    }
}

/// One element of a multi-valued attribute, or what is to be merged into one.
pub(super) fn element(
    attribute: &Attribute,
    value: Value,
    pointer: &str,
    findings: &mut Findings,
) -> Result<Option<Value>, ScimError> {
    match value {
        Value::Array(mut elements) if elements.len() == 1 => {
            findings.note(FindingCode::ListNotExpected, pointer);
            object(attribute, elements.remove(0), false, pointer, findings)
        }
        other => object(attribute, other, false, pointer, findings),
    }
}

fn list(
    attribute: &Attribute,
    value: Value,
    pointer: &str,
    findings: &mut Findings,
) -> Result<Option<Value>, ScimError> {
    let given = match value {
        Value::Null => return Ok(None),
        Value::String(text) if text.is_empty() => return Ok(None),
        Value::Array(elements) => elements,
        one @ (Value::Object(_) | Value::String(_)) => {
            findings.note(FindingCode::ListExpected, pointer);
            vec![one]
        }
        _ => return Err(ScimError::InvalidValue(format!("`{pointer}` must be a list"))),
    };
    if given.len() > MAX_ELEMENTS {
        return Err(ScimError::InvalidValue(format!("`{pointer}` has more than {MAX_ELEMENTS} entries")));
    }
    let mut elements: Vec<Value> = Vec::with_capacity(given.len());
    for value in given {
        if let Some(element) = object(attribute, value, false, pointer, findings)? {
            merge_or_push(&mut elements, element);
        }
    }
    if keep_first_primary(&mut elements) {
        findings.note(FindingCode::SeveralPrimaries, pointer);
    }
    Ok(if elements.is_empty() { None } else { Some(Value::Array(elements)) })
}

fn object(
    attribute: &Attribute,
    value: Value,
    keep_nulls: bool,
    pointer: &str,
    findings: &mut Findings,
) -> Result<Option<Value>, ScimError> {
    let given = match value {
        Value::Null => return Ok(None),
        Value::String(text) if text.is_empty() => return Ok(None),
        Value::Object(given) => given,
        Value::String(text) if attribute.default_sub().is_some() => {
            findings.note(FindingCode::ObjectExpected, pointer);
            Map::from_iter([("value".to_owned(), Value::String(text))])
        }
        _ => return Err(ScimError::InvalidValue(format!("`{pointer}` must be an object"))),
    };
    let mut map = Map::new();
    for (key, value) in given {
        let Some(sub) = attribute.sub(&key) else {
            // References to this or another server are derived from `value`, so nothing is lost with them.
            if !key.eq_ignore_ascii_case("$ref") && !value.is_null() {
                findings.note(FindingCode::AttributeNotStored, &format!("{pointer}.{key}"));
            }
            continue;
        };
        match simple(sub, value, &format!("{pointer}.{}", sub.name), findings)? {
            Some(value) => drop(map.insert(sub.name.to_owned(), value)),
            None if keep_nulls => drop(map.insert(sub.name.to_owned(), Value::Null)),
            None => {}
        }
    }
    Ok(if map.is_empty() { None } else { Some(Value::Object(map)) })
}

/// A value that is neither a list nor an object.
pub(super) fn simple(
    attribute: &Attribute,
    value: Value,
    pointer: &str,
    findings: &mut Findings,
) -> Result<Option<Value>, ScimError> {
    let value = match value {
        Value::Array(mut elements) if elements.len() == 1 => {
            findings.note(FindingCode::ListNotExpected, pointer);
            elements.remove(0)
        }
        other => other,
    };
    match (attribute.kind, value) {
        (_, Value::Null) => Ok(None),
        (_, Value::String(text)) if text.is_empty() => Ok(None),
        (Kind::Boolean, Value::Bool(value)) => Ok(Some(Value::Bool(value))),
        (Kind::Boolean, Value::String(text)) => {
            let value = if text.eq_ignore_ascii_case("true") {
                true
            } else if text.eq_ignore_ascii_case("false") {
                false
            } else {
                return Err(ScimError::InvalidValue(format!("`{pointer}` must be true or false")));
            };
            findings.note(FindingCode::BooleanAsString, pointer);
            Ok(Some(Value::Bool(value)))
        }
        (Kind::Boolean, _) => Err(ScimError::InvalidValue(format!("`{pointer}` must be true or false"))),
        (Kind::Complex, _) => Err(ScimError::InvalidValue(format!("`{pointer}` must be an object"))),
        (_, Value::String(text)) => {
            if attribute.required && text.trim().is_empty() {
                return Err(ScimError::InvalidValue(format!("`{pointer}` must not be blank")));
            }
            Ok(Some(Value::String(text)))
        }
        _ => Err(ScimError::InvalidValue(format!("`{pointer}` must be a string"))),
    }
}

/// Whether two elements are the same value: the same `type` and, where they have one, the same `value`.
fn same_element(one: &Value, other: &Value) -> bool {
    match (one.get("value"), other.get("value")) {
        (None, None) => one == other,
        (value, wanted) => value == wanted && one.get("type") == other.get("type"),
    }
}

/// Adds an element, or completes the one that is there already. Answers where it is.
pub(super) fn merge_or_push(elements: &mut Vec<Value>, element: Value) -> usize {
    if let Some(at) = elements.iter().position(|there| same_element(there, &element)) {
        if let (Some(Value::Object(there)), Value::Object(new)) = (elements.get_mut(at), element) {
            there.extend(new);
        }
        at
    } else {
        elements.push(element);
        elements.len() - 1
    }
}

fn is_primary(element: &Value) -> bool {
    element.get("primary").and_then(Value::as_bool).unwrap_or(false)
}

/// Leaves `primary: true` with the first element that has it. Answers whether another had it too.
pub(super) fn keep_first_primary(elements: &mut [Value]) -> bool {
    let first = elements.iter().position(is_primary);
    first.is_some_and(|first| clear_other_primaries(elements, first))
}

/// Sets `primary` to false everywhere but at `keep`. Answers whether another had it.
pub(super) fn clear_other_primaries(elements: &mut [Value], keep: usize) -> bool {
    let mut cleared = false;
    for (index, element) in elements.iter_mut().enumerate() {
        if index != keep
            && is_primary(element)
            && let Value::Object(map) = element
        {
            map.insert("primary".to_owned(), Value::Bool(false));
            cleared = true;
        }
    }
    cleared
}

/// Whether `elements[index]` is marked primary.
pub(super) fn primary_at(elements: &[Value], index: usize) -> bool {
    elements.get(index).is_some_and(is_primary)
}
